//! The key filter: says "certainly not here" for almost every absent key, and never for a present one.
//!
//! A binary fuse filter with 8-bit fingerprints over the XXH3-64 hashes of the keys: about 9 bits a key and one false
//! positive in 256 (Graf and Lemire, "Binary Fuse Filters: Fast and Smaller Than Xor Filters", 2022). The whole set
//! of hashes is known when a table is finished, which such a filter needs and a Bloom filter would not profit from.
//!
//! What is stored:
//!
//! | bytes | field |
//! | --- | --- |
//! | 1 | kind: 1 |
//! | 8 | seed |
//! | 4 | segment length, a power of two |
//! | 4 | length of all segments a first probe can fall into |
//! | n | fingerprints: two segments more than that |
//!
//! A filter that cannot be built, cannot be read or is of a kind this build does not know is no filter: the table then
//! "may contain" every key. It costs reads, never answers.

use xorf::{BinaryFuse8, Descriptor, Filter as _};
use xxhash_rust::xxh3::xxh3_64;

const KIND_FUSE8: u8 = 1;
const HEAD_LEN: usize = 17;

/// Above this many keys no filter is built: construction takes some 40 bytes of memory a key, and sizes are counted
/// in 32 bits. Tables are split long before.
const MAX_KEYS: usize = 1 << 27;

/// What a filter knows of a key.
#[inline]
pub(super) fn hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// A table's key filter.
#[derive(Debug)]
pub(super) struct Filter(BinaryFuse8);

impl Filter {
    /// Builds the filter over these hashes, in any order. `None` where the construction does not succeed.
    pub(super) fn build(mut hashes: Vec<u64>) -> Option<Self> {
        if hashes.len() > MAX_KEYS {
            return None;
        }
        // Two keys of one hash are one member, and the construction wants distinct ones.
        hashes.sort_unstable();
        hashes.dedup();
        BinaryFuse8::try_from(hashes).ok().map(Self)
    }

    #[inline]
    pub(super) fn may_contain(&self, key: &[u8]) -> bool {
        self.0.contains(&hash(key))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let d = &self.0.descriptor;
        let mut out = Vec::with_capacity(HEAD_LEN + self.0.fingerprints.len());
        out.push(KIND_FUSE8);
        out.extend_from_slice(&d.seed.to_le_bytes());
        out.extend_from_slice(&d.segment_length.to_le_bytes());
        out.extend_from_slice(&d.segment_count_length.to_le_bytes());
        out.extend_from_slice(&self.0.fingerprints);
        out
    }

    /// Reads a filter back, or `None` where these bytes are none: every probe of what is returned lies within the
    /// fingerprints.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, fingerprints) = bytes.split_first_chunk::<HEAD_LEN>()?;
        let [kind, s0, s1, s2, s3, s4, s5, s6, s7, l0, l1, l2, l3, c0, c1, c2, c3] = *head;
        let segment_length = u32::from_le_bytes([l0, l1, l2, l3]);
        let segment_count_length = u32::from_le_bytes([c0, c1, c2, c3]);
        let expected = segment_length.checked_mul(2)?.checked_add(segment_count_length)?;
        let sound = kind == KIND_FUSE8
            && segment_length.is_power_of_two()
            && segment_count_length > 0
            && segment_count_length.is_multiple_of(segment_length)
            && expected as usize == fingerprints.len();
        sound.then(|| {
            Self(BinaryFuse8 {
                descriptor: Descriptor {
                    seed: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
                    segment_length,
                    segment_length_mask: segment_length - 1,
                    segment_count_length,
                },
                fingerprints: fingerprints.into(),
            })
        })
    }

    pub(super) fn memory(&self) -> usize {
        self.0.fingerprints.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(i: u64) -> Vec<u8> {
        format!("deb/games/package-{i}").into_bytes()
    }

    fn filter_of(keys: u64) -> Filter {
        Filter::build((0..keys).map(|i| hash(&key(i))).collect()).unwrap()
    }

    /// A filter sized in bits instead of keys would answer "may contain" far too often: so the rate and the size are
    /// measured.
    #[test]
    fn false_positives_are_rare_at_ten_bits_a_key_and_false_negatives_never_happen() {
        const KEYS: u64 = 100_000;
        let filter = Filter::decode(&filter_of(KEYS).encode()).unwrap();
        assert!((0..KEYS).all(|i| filter.may_contain(&key(i))));
        let wrong = (KEYS..3 * KEYS).filter(|i| filter.may_contain(&key(*i))).count();
        let rate = wrong as f64 / (2 * KEYS) as f64;
        let bits = filter.encode().len() as f64 * 8.0 / KEYS as f64;
        assert!(rate <= 0.006, "{rate}");
        assert!(bits <= 10.0, "{bits}");
    }

    #[test]
    fn the_smallest_sets_have_working_filters() {
        for keys in 0..200 {
            let filter = Filter::decode(&filter_of(keys).encode()).unwrap();
            assert!((0..keys).all(|i| filter.may_contain(&key(i))), "{keys} keys");
        }
        assert!(!filter_of(0).encode().is_empty());
    }

    #[test]
    fn hashes_that_collide_count_once() {
        let mut hashes: Vec<u64> = (0..500).map(|i| hash(&key(i))).collect();
        hashes.extend_from_within(100..400);
        let filter = Filter::build(hashes).unwrap();
        assert!((0..500).all(|i| filter.may_contain(&key(i))));
    }

    /// Lengths that contradict each other would make a probe read past the fingerprints.
    #[test]
    fn descriptors_that_point_outside_are_no_filter() {
        let good = filter_of(1000).encode();
        assert!(Filter::decode(&good).is_some());
        for cut in 0..good.len() {
            assert!(Filter::decode(&good[..cut]).is_none());
        }
        for at in std::iter::once(0).chain(9..HEAD_LEN) {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(Filter::decode(&bad).is_none(), "bit {bit} of byte {at}");
            }
        }
        let mut zero = vec![KIND_FUSE8];
        zero.resize(HEAD_LEN, 0);
        assert!(Filter::decode(&zero).is_none());
    }
}
