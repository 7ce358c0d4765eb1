//! CRC32C (Castagnoli) over the pieces of an object.
//!
//! A log object's bytes are many pieces: block payloads by reference, trailers, an index. Each block's checksum is
//! wanted by itself and the whole object's too; [`Crc::join`] makes the second from the first without reading a
//! large payload again.

/// From this many bytes on, joining two checksums is cheaper than reading the bytes a second time.
const JOIN_FROM: usize = 4 * 1024;

/// The polynomial's coefficients below x^32, the one of x^31 in the lowest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The polynomial 1.
const ONE: u32 = 1 << 31;

/// `x^(8·2^k)` modulo the polynomial: what moves a checksum past 2^k bytes.
const PAST: [u32; 31] = {
    let mut table = [0; 31];
    // x^8, then each one the square of the one before.
    table[0] = ONE >> 8;
    let mut k = 1;
    while k < table.len() {
        table[k] = times(table[k - 1], table[k - 1]);
        k += 1;
    }
    table
};

/// The product of two polynomials modulo the polynomial.
const fn times(a: u32, mut b: u32) -> u32 {
    let (mut product, mut bit) = (0, 32);
    while bit > 0 {
        bit -= 1;
        // All ones where the bit is set, so that there is no branch to guess wrongly.
        product ^= b & (a >> bit & 1).wrapping_neg();
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
    }
    product
}

/// What moves a checksum past `len` bytes.
fn past(len: usize) -> u32 {
    let (mut power, mut left) = (ONE, len as u64);
    while left > 0 {
        let k = left.trailing_zeros() as usize;
        // x has the order 2^31 - 1, so after 31 squares they repeat.
        power = times(PAST[k % PAST.len()], power);
        left &= left - 1;
    }
    power
}

/// The running checksum of a byte sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Crc(u32);

impl Crc {
    /// The checksum of `bytes` alone.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(crc32c::crc32c(bytes))
    }

    /// The checksum of everything so far followed by `bytes`.
    #[must_use]
    pub fn then(self, bytes: &[u8]) -> Self {
        Self(crc32c::crc32c_append(self.0, bytes))
    }

    /// The same as [`Crc::then`], where the checksum of `bytes` by themselves is already known.
    #[must_use]
    pub fn join(self, bytes: &[u8], known: Crc) -> Self {
        if bytes.len() < JOIN_FROM {
            return self.then(bytes);
        }
        Self(times(past(bytes.len()), self.0) ^ known.0)
    }

    /// The number.
    #[must_use]
    pub fn value(self) -> u32 {
        self.0
    }
}

/// CRC32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    Crc::of(bytes).value()
}

/// CRC32C of pieces that follow one another.
#[must_use]
pub fn crc32c_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    pieces.into_iter().fold(Crc::default(), Crc::then).value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_joins_give_the_checksum_of_the_whole() {
        let whole: Vec<u8> = (0..100_000u32).map(|i| (i * 31 % 251) as u8).collect();
        for cut in [0, 1, 5000, 16 * 1024, 50_000, 77_777, whole.len()] {
            let (a, b) = whole.split_at(cut);
            assert_eq!(crc32c_of([a, b]), crc32c(&whole));
            assert_eq!(Crc::of(a).join(b, Crc::of(b)), Crc::of(&whole));
        }
        for len in [1, 9, 4096, 131_071, (1 << 31) + 5, (1 << 40) + 3] {
            let known = crc32c::crc32c_combine(0x1234_5678, 0, len);
            assert_eq!(times(past(len), 0x1234_5678), known, "past {len} bytes");
        }
        assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of the CRC catalogue");
    }
}
