//! Where a watch stands in the sequence of edits: a pure state machine from etcd's events to the next step.
//!
//! A commit puts an edit and then the head in one transaction, so both arrive with one revision, the edit first; a fold
//! puts the head alone. Whatever does not continue the sequence exactly (a hole, another history, a head without its
//! edit) asks for a fresh load; what was seen before is passed over.

use bytes::Bytes;

use crate::coordination::HeadState;
use crate::ids::{Lineage, Version};
use crate::manifest::Head;

/// Where a watch stands.
#[derive(Debug, Clone)]
pub(super) struct Track {
    lineage: Lineage,
    version: Version,
    /// Everything up to this revision has been seen.
    revision: i64,
    /// An edit whose head has not come yet.
    pending: Option<Pending>,
}

#[derive(Debug, Clone)]
struct Pending {
    version: Version,
    revision: i64,
    value: Vec<u8>,
}

/// What an event of the head means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Seen before.
    Nothing,
    /// The next version, with its edit's value.
    Edit(HeadState, Vec<u8>),
    /// The same version under another checkpoint.
    Folded(HeadState),
    /// The sequence is broken.
    Reset(String),
}

impl Track {
    /// Right after `from`.
    pub(super) fn after(from: &HeadState) -> Self {
        Self {
            lineage: from.head.lineage,
            version: from.head.version,
            revision: from.revision,
            pending: None,
        }
    }

    /// Somewhere, for tests of what only asks for the revision.
    #[cfg(test)]
    pub(super) fn at_revision(revision: i64) -> Self {
        Self { lineage: Lineage(0), version: Version::ZERO, revision, pending: None }
    }

    /// The revision to watch from.
    pub(super) fn next_revision(&self) -> i64 {
        self.revision + 1
    }

    /// Whether everything up to `revision` has been seen.
    pub(super) fn has_seen(&self, revision: i64) -> bool {
        revision <= self.revision
    }

    /// A linearizable read has shown that the head has not changed from where the watch stands up to `revision`; a
    /// watch that resumes need not go back further, where etcd may have compacted.
    pub(super) fn quiet_until(&mut self, revision: i64) {
        self.revision = self.revision.max(revision);
    }

    /// A new stream begins right after the last complete step.
    pub(super) fn resume(&mut self) {
        self.pending = None;
    }

    /// An edit was put.
    pub(super) fn edit(&mut self, version: Version, revision: i64, value: &[u8]) {
        if !self.has_seen(revision) {
            self.pending = Some(Pending { version, revision, value: value.to_vec() });
        }
    }

    /// The head was put.
    pub(super) fn head(&mut self, head: Head, raw: Bytes, revision: i64) -> Step {
        if self.has_seen(revision) {
            return Step::Nothing;
        }
        if head.lineage != self.lineage {
            return Step::Reset(format!(
                "the head is of lineage {} now, and was of {}",
                head.lineage, self.lineage
            ));
        }
        let pending = self.pending.take();
        let state = HeadState { head, raw, revision };
        if state.head.version == self.version {
            self.revision = revision;
            return Step::Folded(state);
        }
        match pending {
            Some(p)
                if p.version == self.version.next()
                    && p.version == state.head.version
                    && p.revision == revision =>
            {
                self.version = p.version;
                self.revision = revision;
                Step::Edit(state, p.value)
            }
            _ => Step::Reset(format!("version {} came after {}", state.head.version, self.version)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ids::{CommitId, Epoch, SeqNo, Timestamp};
    use crate::manifest::CheckpointRef;
    use crate::names;

    fn head(version: u64) -> Head {
        Head {
            lineage: Lineage(1),
            epoch: Epoch(1),
            version: Version(version),
            checkpoint: CheckpointRef {
                path: names::checkpoint(Version(1), 0),
                len: 0,
                crc: 0,
                version: Version(1),
            },
            last_seq: SeqNo(0),
            last_write_time: Timestamp(0),
            commit: CommitId(version),
            extra: BTreeMap::new(),
        }
    }

    fn at(version: u64, revision: i64) -> Track {
        Track::after(&HeadState { head: head(version), raw: Bytes::new(), revision })
    }

    fn put(track: &mut Track, version: u64, revision: i64) -> Step {
        track.edit(Version(version), revision, b"edit");
        track.head(head(version), Bytes::new(), revision)
    }

    #[test]
    fn edits_come_once_and_in_order() {
        let mut track = at(5, 100);
        assert!(matches!(put(&mut track, 6, 101), Step::Edit(s, v) if s.revision == 101 && v == b"edit"));
        assert_eq!(put(&mut track, 6, 101), Step::Nothing, "delivered again after a reconnect");
        assert!(matches!(track.head(head(6), Bytes::new(), 103), Step::Folded(_)));
        assert!(matches!(put(&mut track, 7, 104), Step::Edit(..)));
        assert_eq!(track.next_revision(), 105);
    }

    #[test]
    fn whatever_breaks_the_sequence_asks_for_a_load() {
        assert!(matches!(put(&mut at(5, 100), 7, 101), Step::Reset(_)), "a hole");
        assert!(matches!(put(&mut at(5, 100), 4, 101), Step::Reset(_)), "a step back");
        assert!(
            matches!(at(5, 100).head(head(6), Bytes::new(), 101), Step::Reset(_)),
            "a head without its edit"
        );
        let other = Head { lineage: Lineage(2), ..head(6) };
        assert!(matches!(at(5, 100).head(other, Bytes::new(), 101), Step::Reset(_)), "another history");
    }

    #[test]
    fn an_edit_cut_off_from_its_head_is_not_paired_with_another() {
        let mut track = at(5, 100);
        track.edit(Version(6), 101, b"half");
        track.resume();
        assert!(matches!(put(&mut track, 6, 101), Step::Edit(_, v) if v == b"edit"));
    }

    #[test]
    fn a_quiet_stretch_moves_the_point_of_resumption() {
        let mut track = at(5, 100);
        track.quiet_until(500);
        assert_eq!(track.next_revision(), 501);
        track.quiet_until(400);
        assert_eq!(track.next_revision(), 501);
    }
}
