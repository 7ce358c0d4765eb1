//! Consumer groups: a durable cursor each, and how far behind it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::state::Manifest;
use crate::ids::{SeqNo, Timestamp};

/// A consumer group's durable cursor.
///
/// It is a number and no more. The history that the number counts in is the database's present one: whoever hands out or
/// takes in a consumer's cursor compares lineages, and a recover bounds every group by the log it has rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCursor {
    /// Everything up to and including this has been consumed.
    pub seq: SeqNo,
    /// How far behind it may be and still hold the log; where it says nothing, the compactor's settings do.
    #[serde(default, skip_serializing_if = "MaxLag::is_default")]
    pub max_lag: MaxLag,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Json>,
}

/// How far behind a consumer group may be and still hold the log. One that is further behind is left out: a dead consumer
/// must not keep all history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MaxLag {
    /// Records not consumed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// Stored bytes of the log objects that hold them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Microseconds since the oldest log object it needs ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_us: Option<i64>,
}

impl MaxLag {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How far a consumer group is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Records not consumed yet.
    pub records: u64,
    /// Stored bytes of the log objects that hold them, as far as they are still there.
    pub bytes: u64,
    /// When the oldest of those objects ended, if there is one.
    pub since: Option<Timestamp>,
}

impl Manifest {
    /// How far behind somebody is who has consumed everything up to `seq`.
    #[must_use]
    pub fn lag_after(&self, seq: SeqNo) -> Lag {
        let needed = self.log_from(seq.next());
        Lag {
            records: self.last_seq.0.saturating_sub(seq.0),
            bytes: needed.iter().map(|e| e.len).sum(),
            since: needed.first().map(|e| e.last_time),
        }
    }

    /// The groups as they are in this history: none has consumed what it does not hold.
    #[must_use]
    pub fn bound_groups(&self, groups: &BTreeMap<String, GroupCursor>) -> BTreeMap<String, GroupCursor> {
        let bound = |c: &GroupCursor| GroupCursor { seq: c.seq.min(self.last_seq), ..c.clone() };
        groups.iter().map(|(name, cursor)| (name.clone(), bound(cursor))).collect()
    }
}
