//! The committed log: the truth that a history is judged against.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::key::{Digest, Key};

/// What a mutation did to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Gave it this value.
    Put(Digest),
    /// Took it away.
    Delete,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(digest) => write!(f, "put {digest}"),
            Self::Delete => f.write_str("delete"),
        }
    }
}

/// One committed mutation. Times are microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its sequence number.
    pub seq: u64,
    /// When it was written.
    pub time: i64,
    /// When it ends being visible.
    pub expires: Option<i64>,
    /// The epoch that wrote it, where known.
    pub epoch: Option<u64>,
    /// Its key.
    pub key: Key,
    /// What it did.
    pub op: Op,
}

impl Record {
    /// Whether the two say the same; an epoch known to one only is no difference.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        let epochs = match (self.epoch, other.epoch) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        epochs
            && (self.seq, self.time, self.expires, &self.key, self.op)
                == (other.seq, other.time, other.expires, &other.key, other.op)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seq {} {:?} {} at {}", self.seq, self.key, self.op, self.time)?;
        if let Some(expires) = self.expires {
            write!(f, " until {expires}")?;
        }
        self.epoch.map_or(Ok(()), |epoch| write!(f, " in epoch {epoch}"))
    }
}

/// A stretch of the committed log: every record with `after < seq <= through`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPiece {
    /// The number before the first one this piece covers. For the first piece of a log whose bottom was trimmed by
    /// retention this is above zero: what lies at or below cannot be judged.
    pub after: u64,
    /// The last number this piece covers.
    pub through: u64,
    /// The records, in sequence order.
    pub records: Vec<Record>,
}

impl LogPiece {
    /// The log from its very beginning that these records are the whole of.
    #[must_use]
    pub fn whole(records: Vec<Record>) -> Self {
        let through = records.last().map_or(0, |r| r.seq);
        Self { after: 0, through, records }
    }
}
