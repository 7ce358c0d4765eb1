//! Keys and values for the workloads: cheap to make, so that the benchmark measures the engine and not itself.

use std::sync::Arc;

use bytes::Bytes;

/// Random bytes that values are cut from.
const POOL_BYTES: usize = 8 << 20;

/// A small, fast generator (xorshift64*): the benchmark needs speed and repeatability, not secrecy.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give neighbouring streams, and zero gives none at all.
        let mixed = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Self(mixed | 1)
    }

    /// The generator of one task of a workload.
    pub(super) fn of_task(task: usize) -> Self {
        Self::new(0x5eed + task as u64)
    }

    /// The generator whose numbers are the key of record `n`.
    pub(super) fn of_record(n: u64) -> Self {
        Self::new(n.wrapping_add(1))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n.max(1))) >> 64) as u64
    }
}

/// Incompressible values: slices of one pool at random offsets.
#[derive(Debug, Clone)]
pub(super) struct Values {
    pool: Arc<Vec<u8>>,
    len: usize,
}

impl Values {
    pub(super) fn new(len: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut pool = Vec::with_capacity(POOL_BYTES.max(2 * len));
        while pool.len() < POOL_BYTES.max(2 * len) {
            pool.extend_from_slice(&random.next().to_le_bytes());
        }
        Self { pool: Arc::new(pool), len }
    }

    pub(super) fn pick(&self, random: &mut Random) -> &[u8] {
        let at = random.below((self.pool.len() - self.len) as u64) as usize;
        &self.pool[at..at + self.len]
    }
}

/// Key number `n` of `len` bytes: spread over the key space, the same in every run.
pub(super) fn key(n: u64, len: usize) -> Bytes {
    let mut key = vec![0; len];
    spread(&mut Random::of_record(n), &mut key);
    key.into()
}

/// Fills a key with what comes next.
pub(super) fn spread(random: &mut Random, key: &mut [u8]) {
    for piece in key.chunks_mut(8) {
        let bytes = random.next().to_be_bytes();
        piece.copy_from_slice(&bytes[..piece.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_distinct_and_repeatable() {
        let keys: std::collections::BTreeSet<_> = (0..10_000).map(|n| key(n, 16)).collect();
        assert_eq!(keys.len(), 10_000);
        assert_eq!(key(7, 16), key(7, 16));
        assert_eq!(key(7, 3).len(), 3);
    }
}
