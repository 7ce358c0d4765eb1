//! Merges in parts: what the manifest knows of a merge that several processes work on, before it is one run.
//!
//! A large merge is cut by key into parts. Each part is merged by whoever claims it, for itself, and its tables are
//! *staged*: named by the manifest, so that nobody takes them for orphans, and read by nobody. The edit that stages the
//! last part puts the whole merged run in the place of its inputs.
//!
//! ```text
//!   BeginMerge          StagePart 1   StagePart 0   StagePart 2 = the last
//!   ────┬───────────────────┬─────────────┬─────────────┬──────────▶ versions
//!       │ inputs are held:  │             │             │ inputs ─▶ retired
//!       │ no other merge    │ tables of part 1 staged   │ one run in their place: the tables of
//!       │ may take them     │                           │ parts 0, 1, 2 in this order
//!       └─ ends early ──────┴─────────────┴────▶ every staged table is retired
//! ```
//!
//! # Why it is right
//! The parts' key ranges are disjoint and together everything, and versions of one key are never in two parts: so the
//! tables of all parts, in order, are what one merge would have made. Each part was judged against the snapshots, the
//! mode, the bottom and the instant of expiry that `BeginMerge` fixed. The merge therefore ends by itself, within the very edit that makes it
//! impossible, where
//!
//! - an input is gone, or they are no longer neighbours (retention took them; another merge is refused);
//! - the mode of compaction is another;
//! - a snapshot was taken that it was not planned with and that it may harm: the same judgement as for any merge
//!   ([`super::expiry`]). A snapshot of the present is harmless.
//!
//! Nothing can come to lie beneath the inputs meanwhile: flushes make runs on top, merges keep their places.
//!
//! # Crash cases
//! A worker that dies leaves a claim, which expires, and orphans under its claim's name, which the sweep takes; the
//! parts that are staged stay staged. A worker that lost its claim and finds its part staged by somebody else is refused
//! and takes its own tables back. A merge is known by the version that began it and never by its inputs: a sleeper's
//! part of a merge that was abandoned cannot get into a later one of the same inputs.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::entry::{Key, TableEntry};
use super::expiry::{Held, JudgedExpiry};
use super::state::{CompactionMode, is_false};
use crate::ids::{RunId, SeqNo, Timestamp};
use crate::range::KeyRange;

/// Most parts of one merge: bounds the manifest, and a part is large.
pub const MAX_PARTS: usize = 256;

/// Most merges in parts at one time: each holds its inputs, and a manifest stays small.
pub const MAX_STAGED_MERGES: usize = 16;

/// The feature that edits about merges in parts announce.
pub const PARTS_FEATURE: &str = "merge_parts";

/// The feature that an edit about a pause announces.
pub const PAUSE_FEATURE: &str = "compaction_pause";

/// What a range of keys is to a table.
impl KeyRange {
    /// Whether any key of `table`'s bounds lies inside.
    #[must_use]
    pub fn meets(&self, table: &TableEntry) -> bool {
        self.start[..] <= *table.largest.as_slice()
            && self.end.as_ref().is_none_or(|end| *table.smallest.as_slice() < end[..])
    }

    /// Whether all of `table` lies inside.
    #[must_use]
    pub fn holds_all(&self, table: &TableEntry) -> bool {
        self.holds(table.smallest.as_slice()) && self.holds(table.largest.as_slice())
    }
}

/// A merge in parts under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedMerge {
    /// The inputs, newest first: neighbours, held by this merge.
    pub inputs: Vec<RunId>,
    /// The keys at which parts meet, ascending: part `i` ends before `splits[i]`.
    pub splits: Vec<Key>,
    /// Every snapshot it was planned with, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SeqNo>,
    /// The mode it was planned in.
    pub planned_mode: CompactionMode,
    /// Whether nothing lies beneath the inputs: then deletes and expired rows may go.
    #[serde(default, skip_serializing_if = "is_false")]
    pub bottom: bool,
    /// How every part judges expiry. Absent where no row of the inputs expires, or an older program began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry: Option<JudgedExpiry>,
    /// When it was begun or a part was staged last, by its worker's clock: for people, and to give it up at a great age.
    pub touched: Timestamp,
    /// The parts that are done.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<u32, Arc<StagedPart>>,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Json>,
}

/// A part that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedPart {
    /// Ascending and disjoint by key; empty where nothing survived. An input's table may stand here as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<Arc<TableEntry>>,
    /// Whether deletes or expired rows were dropped.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dropped: bool,
    /// As in a merge: the inputs' newest number, where any version was dropped; zero otherwise.
    pub judged: SeqNo,
    /// The highest expiry of a row that was taken for expired, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired_by: Option<Timestamp>,
}

impl StagedMerge {
    /// Number of parts.
    #[must_use]
    pub fn part_count(&self) -> u32 {
        self.splits.len() as u32 + 1
    }

    /// The keys of part `i`.
    #[must_use]
    pub fn range(&self, i: u32) -> KeyRange {
        let split = |i: usize| self.splits.get(i).map(|k| k.0.clone());
        let start = (i as usize).checked_sub(1).and_then(split).unwrap_or_default();
        KeyRange { start, end: split(i as usize) }
    }

    /// The parts that nobody has staged.
    pub fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.part_count()).filter(|i| !self.parts.contains_key(i))
    }

    /// The snapshots of the beginning, with which every part is planned whether they still stand or not. One of which the
    /// instant is not kept shows no row that is taken for expired; where nothing is known of expiry, it might show any.
    #[must_use]
    pub fn planned_with(&self) -> Vec<Held> {
        let by = self.expiry.as_ref().and_then(|e| e.by).unwrap_or(Timestamp(i64::MIN));
        let kept = self.expiry.iter().flat_map(|e| e.held.iter().copied());
        self.snapshots.iter().map(|seq| Held { seq: *seq, instant: by }).chain(kept).collect()
    }

    /// Every staged table, in key order.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableEntry>> {
        self.parts.values().flat_map(|p| &p.tables)
    }
}

/// Nobody begins a merge while it lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Who asked, for people.
    pub by: String,
    /// When, by that host's clock.
    pub since: Timestamp,
    /// After this instant it is over; without one it lasts until somebody ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Pause {
    /// Whether it still lasts.
    #[must_use]
    pub fn lasts(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn parts_are_disjoint_and_together_everything() {
        let merge = StagedMerge {
            inputs: vec![RunId(1)],
            splits: [&b"d"[..], b"m"].map(|k| Key(Bytes::copy_from_slice(k))).to_vec(),
            snapshots: Vec::new(),
            planned_mode: CompactionMode::Merge,
            bottom: false,
            expiry: None,
            touched: Timestamp(0),
            parts: BTreeMap::new(),
            extra: BTreeMap::new(),
        };
        assert_eq!(merge.part_count(), 3);
        for (key, part) in [(&b"a"[..], 0), (b"czz", 0), (b"d", 1), (b"lzz", 1), (b"m", 2), (b"\xff", 2)] {
            let holding: Vec<u32> = (0..3).filter(|i| merge.range(*i).holds(key)).collect();
            assert_eq!(holding, [part], "{key:?}");
        }
        assert_eq!(merge.missing().collect::<Vec<_>>(), [0, 1, 2]);
    }
}
