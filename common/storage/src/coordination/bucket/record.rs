//! The bucket form's two kinds of objects: numbered edits and numbered fold records.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::coordination::{CoordinationError, HeadState, Proposal, sealed};
use crate::ids::{DatabaseId, Epoch, Lineage, SeqNo, Timestamp, Version};
use crate::manifest::{Change, CheckpointRef, Edit, Head};
use crate::names;

const EDIT: &str = "edit";
const FOLD: &str = "fold";

/// Content of `manifest/edit-<version>`: an edit, and what the head says after it, so that a watcher needs no manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NumberedEdit {
    pub(super) edit: Arc<Edit>,
    pub(super) last_seq: SeqNo,
    pub(super) last_write_time: Timestamp,
}

impl NumberedEdit {
    pub(super) fn of(proposal: &Proposal) -> Self {
        Self {
            edit: Arc::clone(&proposal.edit),
            last_seq: proposal.head.last_seq,
            last_write_time: proposal.head.last_write_time,
        }
    }

    pub(super) fn encode(&self) -> Result<Bytes, CoordinationError> {
        sealed::seal(EDIT, self)
    }

    pub(super) fn decode(version: Version, bytes: &[u8]) -> Result<Self, CoordinationError> {
        let name = names::edit(version);
        let numbered: Self = sealed::open(EDIT, name.as_str(), bytes)?;
        if numbered.edit.version == version {
            return Ok(numbered);
        }
        Err(CoordinationError::Damaged(format!("{name} holds edit {}", numbered.edit.version)))
    }

    /// Whether a fenced maker put this edit after `head`: its number is used up, and nothing else happens. An adoption
    /// is valid above every epoch before it, anything else only under the newest.
    pub(super) fn is_void_after(&self, head: &Head) -> bool {
        self.is_void_under(head.lineage, head.epoch)
    }

    /// The same, after a manifest of this lineage and epoch.
    pub(super) fn is_void_under(&self, lineage: Lineage, epoch: Epoch) -> bool {
        let edit = &self.edit;
        let adopts = edit.changes.iter().any(|c| matches!(c, Change::Adopt { .. }));
        let fits = if adopts { edit.epoch > epoch } else { edit.epoch == epoch };
        edit.lineage != lineage || !fits
    }

    /// The head after this edit, and the edit itself unless it is void.
    pub(super) fn step(self, before: &HeadState) -> (Option<Arc<Edit>>, HeadState) {
        let mut state = before.clone();
        state.head.version = self.edit.version;
        if self.is_void_after(&before.head) {
            return (None, state);
        }
        state.head.epoch = self.edit.epoch;
        state.head.last_seq = self.last_seq;
        state.head.last_write_time = self.last_write_time;
        state.head.commit = self.edit.commit;
        (Some(self.edit), state)
    }
}

/// Content of `manifest/fold-<n>`: from here on a load starts at this checkpoint, and the edits up to `gone` may
/// disappear. Written once, never deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FoldRecord {
    pub(super) database: DatabaseId,
    pub(super) lineage: Lineage,
    pub(super) number: u64,
    pub(super) checkpoint: CheckpointRef,
    pub(super) gone: Version,
}

impl FoldRecord {
    pub(super) fn encode(&self) -> Result<Bytes, CoordinationError> {
        sealed::seal(FOLD, self)
    }

    pub(super) fn decode(number: u64, bytes: &[u8]) -> Result<Self, CoordinationError> {
        let name = names::fold(number);
        let record: Self = sealed::open(FOLD, name.as_str(), bytes)?;
        if record.number == number && record.gone <= record.checkpoint.version {
            return Ok(record);
        }
        Err(CoordinationError::Damaged(format!("{name} contradicts itself: {record:?}")))
    }
}
