//! By which instant merges judge expiry, and why snapshots and merges come to no harm from one another.
//!
//! A merge may take a row for expired, and drop it or turn it into a delete. A snapshot reads at the instant at which it
//! was taken, for ever. So a row with the expiry `e` is missed by a snapshot that was taken at `c` where `e > c`: it should
//! still be seen there. Merges plan with the snapshots they know of ([`crate::merge::Rewrite`]); this module is about those
//! that they do not.
//!
//! Every merge of rows that expire therefore says, in its edit, **by which instant** it has judged: each row that it took
//! for expired had `e <= by`. A snapshot with `c >= by` then misses nothing of it, whenever it was taken; and that is where
//! one of the present lies, since merges judge `max_clock_skew` late. What is left is a snapshot with `c < by`.
//!
//! # Why none such is harmed
//! Commits have one order. Let the merge be edit `m` and the snapshot edit `s`.
//!
//! - **`s` before `m`**, and the merge did not plan with it: `m` is refused (`Manifest::harms_no_snapshot`), or, where it
//!   is a merge in parts, ended by `s` itself. The merge names the snapshots before `by` that it planned with, each with its
//!   instant: one that was dropped and taken anew at the same number, with an earlier instant, is another snapshot.
//! - **`m` before `s`**: `m` raises the manifest's **expiry floor** to `by`, and `s` is refused, since `c` lies below it.
//!   The writer takes the floor for the instant where its own clock is behind; so it is refused only if the floor rose
//!   between its look and its commit, and then it looks again.
//!
//! Neither needs a clock to be right. A clock that is slow makes the snapshot's instant later than it says, by the floor; a
//! clock that is fast makes a merge take rows for expired too early, which `max_clock_skew` is about, but what a snapshot has
//! shown once it shows for ever. A commit that is sent again is the same bytes on the same head, and a commit that is made
//! anew is judged anew: so whoever comes second in that one order is judged by what came first.
//!
//! **The floor follows the rows, not the clock**: it is the highest expiry among the rows that were taken for expired. A
//! compactor whose clock is a year ahead raises it no further than the lives of rows reach, and one that finds nothing
//! expired does not raise it at all.
//!
//! **The floor and the tree are one state.** Recover begins with an older checkpoint, whose tree lacks the merges since, and
//! their floor rightly with them. Backup and restore carry the manifest, and a clone the manifest without what lies above
//! the snapshot: the rows that were dropped are missing there as well, so the floor goes with them.
//!
//! # One instant for all parts
//! A merge in parts fixes the instant, and the snapshots to plan with, when it begins; every worker judges every part by
//! them. The other way, an instant for every part, would let rows go that expire while the merge runs. But then nobody could
//! say of a snapshot taken meanwhile whether the parts still to come will harm it: it would have to end the merge, and in a
//! database with a short time to live and a snapshot an hour, no large merge would ever come to its end. What expires in
//! the meantime goes with the next merge.
//!
//! A worker plans with the snapshots of the beginning whether they still stand or not, or one that is taken at the number of
//! one that was dropped would be taken for planned with.
//!
//! # Older programs
//! Where no row of the inputs expires nothing is said, and nothing has changed. Edits of older programs say nothing either:
//! by which instant they judged is unknown, so any snapshot that they did not plan with ends or refuses them. What is said
//! announces itself ([`EXPIRY_FEATURE`]): a program that does not know the floor would come to another manifest.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::state::{Run, Snapshot};
use crate::ids::{SeqNo, Timestamp};

/// The feature that an edit announces which says by which instant expiry was judged.
pub const EXPIRY_FEATURE: &str = "merge_expiry";

/// A snapshot as a rewrite sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Held {
    /// The newest number it sees.
    pub seq: SeqNo,
    /// The instant at which it judges expiry.
    pub instant: Timestamp,
}

impl From<&Snapshot> for Held {
    fn from(s: &Snapshot) -> Self {
        Self { seq: s.seq, instant: s.created }
    }
}

/// By which instant a merge has judged expiry, or is going to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgedExpiry {
    /// Every row that was taken for expired had expired by this instant; absent: none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Timestamp>,
    /// The snapshots before that instant, with which it was planned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Held>,
}

impl JudgedExpiry {
    /// A judgement by `by`, planned with `snapshots`.
    #[must_use]
    pub fn new(by: Option<Timestamp>, snapshots: &[Held]) -> Self {
        let mut held: Vec<Held> = snapshots.iter().filter(|s| Some(s.instant) < by).copied().collect();
        held.sort_unstable();
        held.dedup();
        Self { by, held }
    }

    /// Whether `snapshot` might miss a row of tables of which the first expires at `earliest`.
    fn may_harm(&self, snapshot: Held, earliest: Timestamp) -> bool {
        self.by.is_some_and(|by| earliest <= by && snapshot.instant < by) && !self.held.contains(&snapshot)
    }
}

/// What a merge says of how it has judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judgement<'a> {
    /// Every snapshot it planned with.
    pub(super) planned: &'a [SeqNo],
    /// Whether deletes or expired rows were dropped.
    pub(super) dropped: bool,
    /// The inputs' newest number, where any version was dropped; zero otherwise.
    pub(super) judged: SeqNo,
    /// How expiry was judged; unknown of old edits, and without meaning where nothing expires.
    pub(super) expiry: Option<&'a JudgedExpiry>,
}

impl Judgement<'_> {
    /// Whether what this did to `gone` harms `snapshot`. It does not where
    ///
    /// * nothing was judged: every row was kept as it was;
    /// * it planned with the snapshot's number, or the number lies at or above all of `gone`, where the snapshot sees of
    ///   each key the newest row there or a newer one: a newest row is dropped only as a delete, at the bottom, where
    ///   absence says the same, and older rows nobody sees but the snapshots that were planned with. That is where a
    ///   snapshot of the present always lies;
    /// * and no row was taken for expired that the snapshot still shows at its own instant.
    pub(super) fn harms(&self, gone: &[Arc<Run>], snapshot: &Snapshot) -> bool {
        if self.judged == SeqNo::ZERO {
            return false;
        }
        let newest = gone.iter().map(|r| r.max_seq()).max().unwrap_or_default();
        let earliest = gone.iter().flat_map(|r| &r.tables).filter_map(|t| t.min_expires).min();
        let planned = self.planned.contains(&snapshot.seq);
        let misses_expired = match (earliest, self.expiry) {
            (None, _) => false,
            (Some(_), None) => !planned,
            (Some(earliest), Some(expiry)) => expiry.may_harm(snapshot.into(), earliest),
        };
        !(planned || snapshot.seq >= newest) || misses_expired
    }
}
