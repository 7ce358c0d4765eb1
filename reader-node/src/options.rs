//! What a caller asks of a read.

use std::str::FromStr;
use std::time::Duration;

use isle_storage::ids::{InvalidId, Position, SeqNo};
use isle_storage::range::KeyRange;

use crate::page::PageToken;

/// The least a view must hold to answer a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinSeq {
    /// Every mutation up to this number.
    Seq(SeqNo),
    /// The write answered with this position, and no other write of the same number.
    Position(Position),
}

impl FromStr for MinSeq {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.contains('.') {
            return text.parse().map(Self::Position);
        }
        let seq = text.parse().map_err(|_| InvalidId {
            what: "min_seq",
            text: text.to_owned(),
            why: "expected a sequence number or a position <epoch>.<sequence number>",
        })?;
        Ok(Self::Seq(SeqNo(seq)))
    }
}

/// Options common to all reads.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Wait until the view holds this.
    pub min_seq: Option<MinSeq>,
    /// How long to wait for it; the settings give the default and the limit.
    pub wait: Option<Duration>,
    /// Read what this named snapshot holds.
    pub snapshot: Option<String>,
}

impl ReadOptions {
    /// Whether whatever view is at hand will do.
    #[must_use]
    pub(crate) fn is_plain(&self) -> bool {
        self.min_seq.is_none() && self.snapshot.is_none()
    }
}

/// A scan.
#[derive(Debug, Clone, Default)]
pub struct ScanRequest {
    /// Which keys.
    pub range: KeyRange,
    /// At most this many rows; `None`: all of them.
    pub limit: Option<usize>,
    /// At most about this many bytes of keys and values; the row that passes it is the last. `None`: no bound.
    pub max_bytes: Option<u64>,
    /// Keys descending.
    pub reverse: bool,
    /// Leave values out.
    pub keys_only: bool,
    /// Continue after the page that ended with this token.
    pub page: Option<PageToken>,
    /// Refuse to continue a page from another view.
    pub consistent: bool,
    /// As for every read.
    pub options: ReadOptions,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn min_seq_is_a_number_or_a_position() {
        assert_eq!("7".parse::<MinSeq>().unwrap(), MinSeq::Seq(SeqNo(7)));
        assert!(matches!("2.7".parse::<MinSeq>().unwrap(), MinSeq::Position(p) if p.seq == SeqNo(7)));
        for bad in ["", "x", "1.", ".1", "-1", "1.2.3"] {
            assert!(bad.parse::<MinSeq>().is_err(), "{bad}");
        }
    }
}
