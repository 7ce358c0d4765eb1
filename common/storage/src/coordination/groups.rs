//! Consumer groups: durable cursors that no process owns (PROTOCOL section 13).
//!
//! ```text
//!   create ──► cursor ──advance──► cursor ──advance──► …        advance: monotone, by anybody, any number at once
//!                 ▲                   │
//!                 └──────rewind───────┘                         rewind, another lag, delete: explicit requests
//! ```
//! What a change makes of a group is one pure decision ([`GroupChange::decide`]) for every form; a form only has to carry
//! it out atomically. In `etcd` and `memory` groups are cells of their own beside the head, so that a commit of a cursor
//! makes no version of the manifest; in the bucket form they are edits.
//!
//! # Who holds the log
//! The retention of the log is planned from all groups, read at one instant, and committed by an edit that proves that
//! since then **no group has come to hold more** ([`Groups::mark`], [`super::Proposal::with_groups`]). Three changes make a
//! group hold more: a creation, a rewind, another lag. An advance needs less log than before, so it does not get in the
//! way: a retention that any commit of any busy group could refuse would never come through.
//!
//! One that had been left behind (further back than it may be) and advances at the very moment in which the log beneath
//! it is let go, is as if it had advanced a moment later.
//!
//! # Histories
//! A group's cursor is a number in the present history. Every change names the lineage that its number was read in, and
//! the form compares it in the same transaction: a tailer that has not yet heard of a recover cannot move a group beyond
//! the log that was rebuilt. What a recover makes of the groups is said at [`recovered`].

use std::collections::BTreeMap;

use super::recover::Remains;
use super::{Backend, Coordination, CoordinationError};
use crate::ids::{Lineage, SeqNo};
use crate::manifest::{GroupCursor, Manifest, MaxLag};

/// Groups of one database at most. A recover puts all of them in one transaction with the head, and an etcd takes 128
/// operations in one.
pub const MAX_GROUPS: usize = 100;

/// Every consumer group, read at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Groups {
    /// The groups by name.
    pub cursors: BTreeMap<String, GroupCursor>,
    /// Changes whenever a group comes to hold more of the log than before; a form's own, for
    /// [`super::Proposal::with_groups`].
    pub mark: u64,
}

/// What is to become of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupChange {
    /// It begins, unless it is there.
    Create {
        /// Where.
        cursor: GroupCursor,
        /// How many groups there may be then.
        most: usize,
    },
    /// It may be this far behind from now on.
    SetMaxLag(MaxLag),
    /// Everything up to this number is consumed. Where the group is further on nothing changes.
    Advance(SeqNo),
    /// It begins again after this number, wherever it was.
    Rewind(SeqNo),
    /// It ends.
    Delete,
}

/// What became of it. Except for [`GroupOutcome::Stored`] and [`GroupOutcome::Deleted`] nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupOutcome {
    /// The group is stored as asked for, and this is it.
    Stored(GroupCursor),
    /// To create: it is there already.
    Exists(GroupCursor),
    /// To advance: it is further on already.
    Ahead(GroupCursor),
    /// It has ended; this was it.
    Deleted(GroupCursor),
    /// There is no such group.
    Unknown,
    /// There are as many groups as there may be.
    TooMany,
    /// The history is another one.
    OtherLineage(Lineage),
}

/// What a form has to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// To store this; whether the group then holds more of the log, so that the mark must change with it.
    Put(GroupCursor, bool),
    /// To remove the group.
    Remove(GroupCursor),
    /// Nothing.
    Nothing(GroupOutcome),
}

impl GroupChange {
    /// What the change makes of the group that was `found` among `count`. `again`: an earlier attempt of the same request
    /// may have been applied.
    pub(super) fn decide(&self, found: Option<&GroupCursor>, count: usize, again: bool) -> Decision {
        use GroupOutcome::{Ahead, Deleted, Exists, Stored, TooMany, Unknown};
        let Some(found) = found else {
            return match self {
                Self::Create { most, .. } if count >= *most => Decision::Nothing(TooMany),
                Self::Create { cursor, .. } => Decision::Put(cursor.clone(), true),
                Self::Delete if again => Decision::Nothing(Deleted(GroupCursor::after(SeqNo::ZERO))),
                _ => Decision::Nothing(Unknown),
            };
        };
        let at = |seq: SeqNo| GroupCursor { seq, ..found.clone() };
        match self {
            Self::Create { cursor, .. } if again && cursor == found => {
                Decision::Nothing(Stored(found.clone()))
            }
            Self::Create { .. } => Decision::Nothing(Exists(found.clone())),
            Self::SetMaxLag(max_lag) if *max_lag == found.max_lag => Decision::Nothing(Stored(found.clone())),
            Self::SetMaxLag(max_lag) => {
                Decision::Put(GroupCursor { max_lag: *max_lag, ..found.clone() }, true)
            }
            Self::Advance(seq) if *seq < found.seq => Decision::Nothing(Ahead(found.clone())),
            Self::Advance(seq) | Self::Rewind(seq) if *seq == found.seq => {
                Decision::Nothing(Stored(found.clone()))
            }
            Self::Advance(seq) => Decision::Put(at(*seq), false),
            Self::Rewind(seq) => Decision::Put(at(*seq), *seq < found.seq),
            Self::Delete => Decision::Remove(found.clone()),
        }
    }
}

impl GroupCursor {
    /// A group that has consumed everything up to `seq` and sets no bounds of its own.
    #[must_use]
    pub fn after(seq: SeqNo) -> Self {
        Self { seq, max_lag: MaxLag::default(), extra: BTreeMap::new() }
    }
}

/// The groups to plan with beside `manifest`: in the bucket form those of that very version, without asking anybody.
///
/// # Errors
/// As [`Coordination::groups`].
pub async fn beside(
    coordination: &dyn Coordination,
    manifest: &Manifest,
) -> Result<Groups, CoordinationError> {
    match coordination.backend() {
        Backend::Bucket => Ok(of_version(manifest)),
        Backend::Etcd | Backend::Memory => coordination.groups().await,
    }
}

/// The groups of a manifest that holds them itself.
pub(super) fn of_version(manifest: &Manifest) -> Groups {
    Groups { cursors: manifest.groups.clone(), mark: manifest.version.0 }
}

/// `manifest` with the groups as they are now: what a checkpoint or a backup of it takes with it. In the bucket form it
/// has them already, and newer ones would not fit the edits that are replayed onto it.
///
/// # Errors
/// As [`Coordination::groups`].
pub async fn copied(
    coordination: &dyn Coordination,
    manifest: &Manifest,
) -> Result<Manifest, CoordinationError> {
    let mut copy = manifest.clone();
    if coordination.backend() != Backend::Bucket {
        copy.groups = coordination.groups().await?.cursors;
    }
    Ok(copy)
}

/// The groups of a database whose head was rebuilt, `base` being the checkpoint it was built on and `rebuilt` what came
/// of it.
///
/// - What the service still has of a group goes before the copy in the checkpoint: the copy is older, and where it is not
///   (the service was set back) to consume twice is better than to skip.
/// - Groups that only the copy has come back, unless the service has seen that checkpoint come and go: then they were
///   deleted.
/// - None is beyond the end of the rebuilt log: what it had consumed there is no longer part of the history.
pub(super) fn recovered(
    base: &Manifest,
    remains: &Remains,
    rebuilt: &Manifest,
) -> BTreeMap<String, GroupCursor> {
    let Some(kept) = &remains.groups else { return rebuilt.bound_groups(&base.groups) };
    let knows_all = remains.head.as_ref().is_some_and(|h| h.version >= base.version);
    let mut groups = if knows_all { BTreeMap::new() } else { base.groups.clone() };
    groups.extend(kept.clone());
    rebuilt.bound_groups(&groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{CommitId, DatabaseId, Version};
    use crate::manifest::{CheckpointRef, CompactionMode};
    use crate::names;

    fn at(seq: u64) -> GroupCursor {
        GroupCursor::after(SeqNo(seq))
    }

    #[test]
    fn a_group_is_created_once_and_within_the_bound() {
        let create = GroupChange::Create { cursor: at(5), most: 2 };
        assert_eq!(create.decide(None, 1, false), Decision::Put(at(5), true));
        assert_eq!(create.decide(None, 2, false), Decision::Nothing(GroupOutcome::TooMany));
        assert_eq!(create.decide(Some(&at(5)), 2, false), Decision::Nothing(GroupOutcome::Exists(at(5))));
        // After an answer that was lost, what one finds may be one's own.
        assert_eq!(create.decide(Some(&at(5)), 2, true), Decision::Nothing(GroupOutcome::Stored(at(5))));
        assert_eq!(create.decide(Some(&at(6)), 2, true), Decision::Nothing(GroupOutcome::Exists(at(6))));
    }

    #[test]
    fn a_cursor_advances_and_goes_back_only_where_it_is_asked_to() {
        let found = GroupCursor { extra: [("later".to_owned(), 1.into())].into(), ..at(5) };
        let moved = |seq: u64| GroupCursor { seq: SeqNo(seq), ..found.clone() };
        let decide = |change: GroupChange| change.decide(Some(&found), 1, false);
        assert_eq!(decide(GroupChange::Advance(SeqNo(9))), Decision::Put(moved(9), false));
        assert_eq!(
            decide(GroupChange::Advance(SeqNo(5))),
            Decision::Nothing(GroupOutcome::Stored(found.clone()))
        );
        assert_eq!(
            decide(GroupChange::Advance(SeqNo(4))),
            Decision::Nothing(GroupOutcome::Ahead(found.clone()))
        );
        assert_eq!(decide(GroupChange::Rewind(SeqNo(4))), Decision::Put(moved(4), true));
        assert_eq!(decide(GroupChange::Rewind(SeqNo(9))), Decision::Put(moved(9), false));
        assert_eq!(decide(GroupChange::Delete), Decision::Remove(found.clone()));
        let max_lag = MaxLag { records: Some(7), ..MaxLag::default() };
        let lagging = GroupCursor { max_lag, ..found.clone() };
        assert_eq!(decide(GroupChange::SetMaxLag(max_lag)), Decision::Put(lagging, true));
    }

    #[test]
    fn what_is_not_there_is_unknown() {
        for change in [
            GroupChange::Advance(SeqNo(1)),
            GroupChange::Rewind(SeqNo(1)),
            GroupChange::SetMaxLag(MaxLag::default()),
            GroupChange::Delete,
        ] {
            assert_eq!(change.decide(None, 3, false), Decision::Nothing(GroupOutcome::Unknown), "{change:?}");
        }
        let deleted = GroupChange::Delete.decide(None, 3, true);
        assert!(matches!(deleted, Decision::Nothing(GroupOutcome::Deleted(_))), "{deleted:?}");
    }

    #[test]
    fn a_recover_keeps_what_the_service_has_and_takes_the_rest_from_the_checkpoint() {
        let mut base = Manifest::genesis(DatabaseId(1), Lineage(1), CompactionMode::Merge);
        base.groups = [("both".to_owned(), at(3)), ("copied".to_owned(), at(4))].into();
        let mut rebuilt = base.clone();
        rebuilt.last_seq = SeqNo(10);
        let kept = Some([("both".to_owned(), at(2)), ("newer".to_owned(), at(99))].into());
        let path = names::checkpoint(base.version, 0);
        let checkpoint = CheckpointRef { path, len: 1, crc: 2, version: base.version };
        let mut head = base.head(checkpoint, CommitId(1));
        head.version = Version(0);
        let set_back = Remains { head: Some(head.clone()), groups: kept.clone(), ..Remains::default() };
        let groups = recovered(&base, &set_back, &rebuilt);
        assert_eq!((groups["both"].seq, groups["copied"].seq), (SeqNo(2), SeqNo(4)));
        assert_eq!(groups["newer"].seq, SeqNo(10), "no further than the log");
        head.version = base.version;
        let sound = Remains { head: Some(head), groups: kept, ..Remains::default() };
        assert!(!recovered(&base, &sound, &rebuilt).contains_key("copied"), "it was deleted");
        let wiped = Remains { groups: Some(BTreeMap::new()), ..Remains::default() };
        assert_eq!(recovered(&base, &wiped, &rebuilt), base.groups);
        assert_eq!(recovered(&base, &Remains::default(), &rebuilt), base.groups, "the bucket form");
    }
}
