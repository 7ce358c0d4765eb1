//! The newest state a process has read or made: one for all roles that share the instance.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::record::{FoldRecord, NumberedEdit};
use crate::coordination::{CoordinationError, HeadState, Loaded};
use crate::ids::{CommitId, Version};
use crate::manifest::{Change, Edit, Manifest};

/// How many of the newest edits are kept for watchers in this process; one that has fallen further behind reads the
/// bucket by itself.
const RECENT: usize = 1_024;

/// One step that watchers have yet to see.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) edit: Option<Arc<Edit>>,
    pub(super) state: HeadState,
}

/// The newest state.
#[derive(Debug)]
pub(super) struct Tip {
    pub(super) state: HeadState,
    pub(super) manifest: Arc<Manifest>,
    /// Edits up to here may be gone, and a name up to here proves nothing.
    pub(super) gone: Version,
    /// Known to be the newest as of this instant.
    pub(super) fresh: Instant,
    /// The node named by the newest adoption, if it was seen.
    pub(super) leader: Option<String>,
    /// Ends at `state`, without gaps.
    recent: VecDeque<Step>,
}

impl Tip {
    /// The state right at a fold's checkpoint.
    pub(super) fn at_fold(record: &FoldRecord, manifest: Manifest, fresh: Instant) -> Self {
        let commit = manifest.recent.last().map_or(CommitId(0), |(_, commit)| *commit);
        let head = manifest.head(record.checkpoint.clone(), commit);
        let state = HeadState { head, raw: Bytes::new(), revision: record.number as i64 };
        Self {
            state,
            manifest: manifest.into(),
            gone: record.gone,
            fresh,
            leader: None,
            recent: VecDeque::new(),
        }
    }

    pub(super) fn version(&self) -> Version {
        self.state.head.version
    }

    /// The number of the newest fold record known.
    pub(super) fn fold(&self) -> u64 {
        self.state.revision as u64
    }

    pub(super) fn loaded(&self, as_of: Instant) -> Loaded {
        Loaded { state: self.state.clone(), manifest: Arc::clone(&self.manifest), as_of }
    }

    /// Takes the next edit, read from the bucket.
    pub(super) fn read(&mut self, numbered: NumberedEdit) -> Result<(), CoordinationError> {
        let (edit, state) = numbered.step(&self.state);
        let manifest = match &edit {
            Some(edit) => self.manifest.apply(edit).map_err(|e| {
                CoordinationError::Damaged(format!(
                    "{} does not replay: {e}",
                    crate::names::edit(edit.version)
                ))
            })?,
            None => self.manifest.skip_void(state.head.version),
        };
        self.made(edit, state, manifest.into());
        Ok(())
    }

    /// Takes a step that has been checked.
    pub(super) fn made(&mut self, edit: Option<Arc<Edit>>, state: HeadState, manifest: Arc<Manifest>) {
        for change in edit.iter().flat_map(|e| &e.changes) {
            if let Change::Adopt { node, .. } = change {
                self.leader = Some(node.clone());
            }
        }
        self.state = state.clone();
        self.manifest = manifest;
        self.recent.push_back(Step { edit, state });
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// Takes a newer fold record: the same version under another checkpoint.
    pub(super) fn folded(&mut self, record: &FoldRecord) {
        self.state.head.checkpoint = record.checkpoint.clone();
        self.state.revision = record.number as i64;
        self.gone = record.gone;
    }

    /// The step that follows `version`, if it is still kept.
    pub(super) fn after(&self, version: Version) -> Option<&Step> {
        let first = self.recent.front()?.state.head.version;
        let at = version.next().0.checked_sub(first.0)?;
        self.recent.get(usize::try_from(at).ok()?)
    }
}
