//! Recover in the memory form: what stands there, and the new head in its place.

use bytes::Bytes;

use super::lease::Right;
use super::{MemoryCoordination, State};
use crate::coordination::recover::Remains;
use crate::coordination::{CoordinationError, HeadState};
use crate::ids::CommitId;
use crate::manifest::{CheckpointRef, Manifest};

impl State {
    fn mark(&self) -> Vec<Option<Bytes>> {
        let epoch = self.epoch.map(|(lineage, epoch)| Bytes::from(format!("{lineage}:{epoch}")));
        let groups = serde_json::to_vec(&self.groups.cursors).ok().map(Bytes::from);
        vec![self.head.as_ref().map(|h| h.raw.clone()), epoch, groups]
    }
}

impl MemoryCoordination {
    pub(super) fn read_remains(&self) -> Result<Remains, CoordinationError> {
        self.read(|state| {
            let head = state.head.as_ref().map(|h| h.head.clone());
            let edits = state.edits.keys().next_back().copied().unwrap_or_default();
            Remains {
                version: head.as_ref().map(|h| h.version).unwrap_or_default().max(edits),
                epoch: state.epoch.map(|(_, epoch)| epoch).unwrap_or_default(),
                writer: state.writer.as_ref().map(|(leader, _)| leader.clone()),
                edits: Vec::new(),
                groups: Some(state.groups.cursors.clone()),
                mark: state.mark(),
                head,
            }
        })
    }

    pub(super) fn replace_head(
        &self,
        found: &Remains,
        manifest: &Manifest,
        checkpoint: &CheckpointRef,
    ) -> Result<bool, CoordinationError> {
        let commit = manifest.recent.last().map_or(CommitId(0), |(_, commit)| *commit);
        let head = manifest.head(checkpoint.clone(), commit);
        self.change(|state| {
            state.available()?;
            if let Some(HeadState { head: there, .. }) = &state.head
                && *there == head
            {
                return Ok(true);
            }
            if state.mark() != found.mark || state.writer.is_some() {
                return Ok(false);
            }
            for job in state.jobs.keys().copied().collect::<Vec<_>>() {
                state.end(Right::Job(job), None, "the database was recovered");
            }
            for pin in state.pins.keys().copied().collect::<Vec<_>>() {
                state.end(Right::Pin(pin), None, "the database was recovered");
            }
            state.edits.clear();
            state.epoch = Some((manifest.lineage, manifest.epoch));
            state.put_groups(&manifest.groups);
            state.install(head)?;
            state.resets += 1;
            Ok(true)
        })
    }
}
