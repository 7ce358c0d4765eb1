//! CRC32C (Castagnoli) over the pieces of an object.
//!
//! A log object's bytes are many pieces: block payloads by reference, trailers, an index. Each block's checksum is
//! wanted by itself and the whole object's too; [`Crc::join`] makes the second from the first without reading a
//! large payload again.

/// From this many bytes on, joining two checksums is cheaper than reading the bytes a second time.
const JOIN_FROM: usize = 16 * 1024;

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
        Self(crc32c::crc32c_combine(self.0, known.0, bytes.len()))
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
        for cut in [0, 1, 5000, 16 * 1024, 50_000, whole.len()] {
            let (a, b) = whole.split_at(cut);
            assert_eq!(crc32c_of([a, b]), crc32c(&whole));
            assert_eq!(Crc::of(a).join(b, Crc::of(b)), Crc::of(&whole));
        }
        assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of the CRC catalogue");
    }
}
