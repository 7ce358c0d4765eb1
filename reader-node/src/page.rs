//! Page tokens: where a scan's next page begins, as opaque text in `[A-Za-z0-9._-]`.
//!
//! ```text
//! base64url( u8 format = 1 | u8 flags (1: reverse) | u64 version | u64 view seq | i64 instant µs | last key | u32 crc )
//! ```
//! The checksum is seeded with the database's lineage, so that a token of another history is refused like a damaged
//! one. The instant is the one at which the first page judged expiry: pages of one held view judge alike.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use isle_storage::ids::{Lineage, SeqNo, Timestamp, Version};
use isle_storage::row::MAX_KEY_LEN;

const FORMAT: u8 = 1;
const REVERSE: u8 = 1;
const FIXED: usize = 2 + 8 + 8 + 8;

/// A text that is no page token of this scan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the page token {0}")]
pub struct InvalidPage(pub &'static str);

/// Where a scan's next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageToken {
    /// Version of the view the page was read from.
    pub version: Version,
    /// Highest sequence number the page saw.
    pub seq: SeqNo,
    /// The instant at which the page judged expiry.
    pub instant: Timestamp,
    /// Whether keys descend.
    pub reverse: bool,
    /// The last key delivered.
    pub last: Bytes,
    check: u32,
}

impl PageToken {
    /// The token after a page of the view `version` in `lineage`.
    #[must_use]
    pub fn new(
        lineage: Lineage,
        version: Version,
        seq: SeqNo,
        instant: Timestamp,
        reverse: bool,
        last: Bytes,
    ) -> Self {
        let mut token = Self { version, seq, instant, reverse, last, check: 0 };
        token.check = token.checksum(lineage);
        token
    }

    /// Whether the token was made in `lineage` for a scan of this direction.
    ///
    /// # Errors
    /// [`InvalidPage`] with the rule it breaks.
    pub fn verify(&self, lineage: Lineage, reverse: bool) -> Result<(), InvalidPage> {
        if self.check != self.checksum(lineage) {
            return Err(InvalidPage("is damaged or of another database"));
        }
        if self.reverse != reverse {
            return Err(InvalidPage("belongs to a scan in the other direction"));
        }
        Ok(())
    }

    fn checksum(&self, lineage: Lineage) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&lineage.0.to_le_bytes()), &self.body())
    }

    fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED + self.last.len() + 4);
        out.extend([FORMAT, if self.reverse { REVERSE } else { 0 }]);
        out.extend(self.version.0.to_le_bytes());
        out.extend(self.seq.0.to_le_bytes());
        out.extend(self.instant.0.to_le_bytes());
        out.extend_from_slice(&self.last);
        out
    }

    fn decode(raw: &[u8]) -> Option<Self> {
        let (body, check) = raw.split_last_chunk::<4>()?;
        let (fixed, last) = body.split_first_chunk::<FIXED>()?;
        let number = |at: usize| Some(u64::from_le_bytes(fixed.get(at..at + 8)?.try_into().ok()?));
        let known = fixed[0] == FORMAT && fixed[1] <= REVERSE && (1..=MAX_KEY_LEN).contains(&last.len());
        known.then_some(())?;
        Some(Self {
            version: Version(number(2)?),
            seq: SeqNo(number(10)?),
            instant: Timestamp(number(18)? as i64),
            reverse: fixed[1] == REVERSE,
            last: Bytes::copy_from_slice(last),
            check: u32::from_le_bytes(*check),
        })
    }
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut raw = self.body();
        raw.extend(self.check.to_le_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(raw))
    }
}

impl FromStr for PageToken {
    type Err = InvalidPage;

    fn from_str(text: &str) -> Result<Self, InvalidPage> {
        let raw = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidPage("is not a token"))?;
        Self::decode(&raw).ok_or(InvalidPage("is not a token"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> PageToken {
        let last = Bytes::from_static(b"a\xff/z");
        PageToken::new(Lineage(9), Version(7), SeqNo(42), Timestamp(-5), true, last)
    }

    #[test]
    fn tokens_round_trip_in_their_alphabet() {
        let text = token().to_string();
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{text}");
        let back: PageToken = text.parse().unwrap();
        assert_eq!(back, token());
        back.verify(Lineage(9), true).unwrap();
    }

    #[test]
    fn tokens_of_another_history_or_direction_are_refused() {
        assert!(token().verify(Lineage(8), true).is_err());
        assert!(token().verify(Lineage(9), false).is_err());
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let text = token().to_string();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            let ok = changed.parse::<PageToken>().is_ok_and(|t| t.verify(Lineage(9), true).is_ok());
            assert!(!ok, "byte {at}");
            let ok = text[..at].parse::<PageToken>().is_ok_and(|t| t.verify(Lineage(9), true).is_ok());
            assert!(!ok, "cut at {at}");
        }
    }
}
