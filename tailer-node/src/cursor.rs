//! Cursors: an ordered position in one history of one database, opaque to consumers.
//!
//! `<database>.<lineage>.<seq>`: everything up to and including `seq` has been consumed. A cursor of another database
//! or lineage is refused, never reinterpreted: after a recover the same number may be another record.

use std::fmt;
use std::str::FromStr;

use isle_storage::ids::{DatabaseId, Lineage, SeqNo, Timestamp};

/// A consumer's position: *after* the change `seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// The database.
    pub database: DatabaseId,
    /// Its history.
    pub lineage: Lineage,
    /// The last change consumed.
    pub seq: SeqNo,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.database, self.lineage, self.seq)
    }
}

/// A text that is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a cursor of this service: use one that was handed out as `cursor`, `next` or an event's id"
)]
pub struct InvalidCursor(pub String);

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let parse = || {
            let (database, rest) = text.split_once('.')?;
            let (lineage, seq) = rest.split_once('.')?;
            if seq.is_empty() || !seq.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            Some(Self {
                database: database.parse().ok()?,
                lineage: lineage.parse().ok()?,
                seq: SeqNo(seq.parse().ok()?),
            })
        };
        parse().ok_or_else(|| InvalidCursor(text.to_owned()))
    }
}

/// Where a consumer wants to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// At the first change still in the log.
    Earliest,
    /// After the newest change.
    Latest,
    /// After this cursor's change.
    Cursor(Cursor),
    /// At the first change with this number or a higher one.
    Seq(SeqNo),
    /// At the first change written at this time or later.
    Time(Timestamp),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_refuse_everything_else() {
        let c = Cursor { database: DatabaseId(1), lineage: Lineage(u128::MAX), seq: SeqNo(42) };
        let text = c.to_string();
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.'));
        assert_eq!(text.parse::<Cursor>().unwrap(), c);
        let plus = text.replace(".42", ".+42");
        for bad in ["", "latest", "1.2.3", plus.as_str(), &text[1..]] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
