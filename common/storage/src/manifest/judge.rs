//! Judgements of the commit protocol, as pure functions: was it committed, is it lost, can it still come?
//!
//! ```text
//!   epochs      1 ─────────────── 2 ─────────── 3 ──────▶      each with its cut: the last segment it adopted
//!   segments    a1  a2  a3        b1  b2        c1
//!                       └ epoch 2's cut: a1..a3 are on the path; an a4 that arrives later never is
//! ```
//! The list of epochs alone decides which segments are on the committed path, long after a flush has replaced the
//! segments themselves. It is bounded ([`super::state::MAX_EPOCHS`]); of an epoch that has been forgotten, nothing is
//! claimed.

use serde::{Deserialize, Serialize};

use super::state::{EpochStart, LogTail, Manifest};
use crate::ids::{CommitId, DatabaseId, Epoch, Incarnation, Lineage, Position, SeqNo, Version};
use crate::sabotage::{Rule, broken};

/// Content of `manifest/epoch-<n>`: written after a takeover's adoption edit is committed and before its writer
/// accepts work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochObject {
    /// The database.
    pub database: DatabaseId,
    /// The history.
    pub lineage: Lineage,
    /// The epoch.
    pub epoch: Epoch,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The version of the adoption edit.
    pub head_version: Version,
    /// The last adopted segment: everything of older epochs beyond it is void.
    pub cut: Option<LogTail>,
    /// Every epoch up to this one, so that the path to the cut can be judged without the manifest.
    pub epochs: Vec<EpochStart>,
}

/// What became of an edit whose commit went unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It is part of the database.
    Committed,
    /// It is not, and never will be.
    NotCommitted,
    /// Nothing read so far decides it.
    Unknown,
}

/// Whether the path described by `epochs`, whose log ends at `last_seq`, leads through the segment ending at
/// `segment`. A segment of epoch `e` is on the path iff `e` (with that incarnation) is in the list and the segment
/// lies above its own cut and ends at or below the next epoch's, or at or below `last_seq` where `e` is the last.
#[must_use]
pub fn leads_through(epochs: &[EpochStart], last_seq: SeqNo, segment: &LogTail) -> bool {
    let own =
        epochs.iter().position(|e| e.epoch == segment.id.epoch && e.incarnation == segment.id.incarnation);
    let Some(at) = own else { return false };
    let end = epochs.get(at + 1).map_or(last_seq, EpochStart::cut_seq);
    segment.id.first_seq > epochs[at].cut_seq() && segment.last_seq <= end
}

/// Whether `epoch` is older than everything the list remembers.
fn forgotten(epochs: &[EpochStart], epoch: Epoch) -> bool {
    epochs.first().is_some_and(|first| epoch < first.epoch && first.cut.is_some())
}

/// Judges a log commit by a freshly read manifest and the highest epoch object in the bucket.
///
/// Committed: the head's log leads through the segment. Not committed: only where an epoch object of a later epoch
/// stands in the bucket and its cut does not lead through the segment. A higher `head.epoch` alone is not enough,
/// since etcd may still be lost, and an unchanged head proves nothing, since the transaction may still apply.
#[must_use]
pub fn log_commit(read: &Manifest, highest: Option<&EpochObject>, segment: &LogTail) -> Judgement {
    if leads_through(&read.epochs, read.last_seq, segment) {
        return Judgement::Committed;
    }
    if forgotten(&read.epochs, segment.id.epoch) {
        return Judgement::Unknown;
    }
    match highest {
        Some(o) if o.epoch > segment.id.epoch && o.lineage == read.lineage => {
            if forgotten(&o.epochs, segment.id.epoch) {
                return Judgement::Unknown;
            }
            let cut_seq = o.cut.map(|c| c.last_seq).unwrap_or_default();
            if leads_through(&o.epochs, cut_seq, segment) {
                Judgement::Committed
            } else {
                Judgement::NotCommitted
            }
        }
        _ if broken(Rule::UnchangedHeadProvesNothing) => Judgement::NotCommitted,
        _ => Judgement::Unknown,
    }
}

/// Judges any other edit by its commit id: `version` is the version it would have made. Decided only once the
/// manifest has reached that version and still remembers who made it. A version within what is remembered that
/// nobody made was used up by a void edit.
#[must_use]
pub fn by_commit_id(read: &Manifest, version: Version, commit: CommitId) -> Judgement {
    if read.version < version {
        return Judgement::Unknown;
    }
    match read.recent.iter().find(|(v, _)| *v == version) {
        Some((_, c)) if *c == commit => Judgement::Committed,
        Some(_) => Judgement::NotCommitted,
        None if read.recent.first().is_some_and(|(oldest, _)| *oldest < version) => Judgement::NotCommitted,
        None => Judgement::Unknown,
    }
}

/// What a manifest says of a position somebody was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PositionState {
    /// Committed and at or below the manifest's last sequence number.
    Here,
    /// Not there yet; may still come.
    Ahead,
    /// Its epoch ended below it: that write was lost, and the number may be somebody else's.
    Lost,
}

/// Judges a position against the manifest's epochs.
#[must_use]
pub fn position(read: &Manifest, position: Position) -> PositionState {
    let Some(at) = read.epochs.iter().position(|e| e.epoch == position.epoch) else {
        // Of a forgotten epoch, what lies below everything that is remembered is taken to be there.
        let old = forgotten(&read.epochs, position.epoch);
        return match read.epochs.first() {
            _ if position.epoch > read.epoch => PositionState::Ahead,
            Some(first) if old && position.seq <= first.cut_seq() => PositionState::Here,
            _ => PositionState::Lost,
        };
    };
    match read.epochs.get(at + 1) {
        Some(next) if position.seq > next.cut_seq() => PositionState::Lost,
        Some(_) => PositionState::Here,
        None if position.seq <= read.last_seq => PositionState::Here,
        None => PositionState::Ahead,
    }
}
