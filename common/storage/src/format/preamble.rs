//! Magic and version: the first bytes of an object, and part of its footer.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic: which kind of object |
//! | 4 | 2 | version of that kind's format, little-endian, from 1 |
//! | 6 | 2 | zero (a newer version may use it) |

use super::FormatError;

/// Length in bytes.
pub const LEN: usize = 8;

/// One kind of object and the newest version of its format this build knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble {
    /// What errors call the structure.
    pub what: &'static str,
    /// Four characters, unique per kind.
    pub magic: [u8; 4],
    /// The version written, and the newest one read.
    pub version: u16,
}

impl Preamble {
    /// The bytes written.
    #[must_use]
    pub fn encode(&self) -> [u8; LEN] {
        let [m0, m1, m2, m3] = self.magic;
        let [v0, v1] = self.version.to_le_bytes();
        [m0, m1, m2, m3, v0, v1, 0, 0]
    }

    /// Reads the version from the first [`LEN`] bytes.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] where it is another kind of object, [`FormatError::TooNew`] where the version is
    /// above [`Preamble::version`].
    pub fn check(&self, bytes: &[u8]) -> Result<u16, FormatError> {
        let what = self.what;
        let Some(head) = bytes.first_chunk::<LEN>() else {
            return Err(FormatError::damaged(what, format!("{} bytes cannot hold its magic", bytes.len())));
        };
        let [m0, m1, m2, m3, v0, v1, z0, z1] = *head;
        if [m0, m1, m2, m3] != self.magic {
            return Err(FormatError::damaged(what, "the magic is another"));
        }
        match u16::from_le_bytes([v0, v1]) {
            0 => Err(FormatError::damaged(what, "version 0 never existed")),
            v if v > self.version => Err(FormatError::too_new(
                what,
                format!("version {v}, this build reads up to {}", self.version),
            )),
            _ if [z0, z1] != [0, 0] => Err(FormatError::damaged(what, "reserved bytes are not zero")),
            v => Ok(v),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Preamble = Preamble { what: "test", magic: *b"TEST", version: 2 };

    #[test]
    fn older_versions_are_read_newer_ones_and_strangers_refused() {
        assert_eq!(P.check(&P.encode()), Ok(2));
        assert_eq!(P.check(b"TEST\x01\0\0\0"), Ok(1));
        assert!(matches!(P.check(b"TEST\x03\0\0\0"), Err(FormatError::TooNew { .. })));
        for bad in [&b"TEST\0\0\0\0"[..], b"TEXT\x01\0\0\0", b"TEST\x01\0\0", b"TEST\x01\0\x01\0"] {
            assert!(matches!(P.check(bad), Err(FormatError::Damaged { .. })), "{bad:?}");
        }
    }
}
