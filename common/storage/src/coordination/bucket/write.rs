//! Writing the bucket form: creating the first fold record, the next edit, the next fold record.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::jobs;
use super::record::{FoldRecord, NumberedEdit};
use super::tip::Tip;
use super::{Inner, Turn};
use crate::coordination::write_once::get_if_there;
use crate::coordination::{Authority, CommitOutcome, CoordinationError, HeadState, Proposal};
use crate::ids::Version;
use crate::manifest::{CheckpointRef, Manifest};
use crate::names;
use crate::object::{StoreError, StoreErrorKind};

/// Edits deleted at the same time after a fold.
const PARALLEL_DELETES: usize = 8;

/// What became of a create, judged by what lies under the name.
pub(super) enum Created {
    /// Our bytes lie there (put there now, or by an earlier attempt).
    Ours,
    /// Somebody else's do.
    Theirs(Bytes),
    /// Nothing does any more: somebody was first, and a fold has deleted it since.
    Gone,
}

impl Inner {
    /// Creates the head: the first fold record.
    pub(super) async fn bootstrap(
        &self,
        genesis: &Manifest,
        checkpoint: &CheckpointRef,
    ) -> Result<bool, CoordinationError> {
        let record = FoldRecord {
            database: genesis.database,
            lineage: genesis.lineage,
            number: 1,
            checkpoint: checkpoint.clone(),
            gone: Version::ZERO,
        };
        match self.create(&names::fold(1), record.encode()?).await? {
            Created::Ours => Ok(true),
            Created::Theirs(_) => Ok(false),
            Created::Gone => Err(CoordinationError::Damaged(format!("{} was deleted", names::fold(1)))),
        }
    }

    /// One attempt to create the next edit.
    pub(super) async fn commit(&self, turn: &mut Turn, proposal: &Proposal) -> CommitOutcome {
        match self.try_commit(turn, proposal).await {
            Ok(outcome) => outcome,
            Err(e) => CommitOutcome::Unknown(e.to_string()),
        }
    }

    async fn try_commit(&self, turn: &mut Turn, p: &Proposal) -> Result<CommitOutcome, CoordinationError> {
        let as_of = Instant::now();
        let version = p.edit.version;
        if self.tip(Tip::version).is_none_or(|at| at < p.base.head.version) {
            self.load(turn).await?;
        }
        if let Some(refusal) = self.tip(|tip| refusal(p, &tip.state, &tip.manifest)).flatten() {
            return Ok(refusal);
        }
        match self.create(&names::edit(version), NumberedEdit::of(p).encode()?).await? {
            Created::Ours => {}
            Created::Theirs(bytes) => {
                let theirs = NumberedEdit::decode(version, &bytes)?;
                if theirs.edit.commit != p.edit.commit {
                    return Ok(overruled(p, &theirs));
                }
            }
            Created::Gone => return Ok(CommitOutcome::Moved),
        }
        // Ours lies there. It counts only if the name had never been used before.
        let folds = self.newer_folds().await?;
        turn.proven = Instant::now();
        if self.overtaken(version, &folds) {
            self.install(None);
            return Ok(CommitOutcome::Moved);
        }
        let state = self.update(|tip| {
            if let Some(newest) = folds.last() {
                tip.folded(newest);
            }
            let (checkpoint, revision) = (tip.state.head.checkpoint.clone(), tip.state.revision);
            let head = crate::manifest::Head { checkpoint, ..p.head.clone() };
            let state = HeadState { head, raw: Bytes::new(), revision };
            tip.made(Some(Arc::clone(&p.edit)), state.clone(), Arc::clone(&p.manifest));
            tip.fresh = as_of;
            Ok(state)
        })?;
        // A commit that went through is as good as a look for other people's.
        self.looked();
        Ok(CommitOutcome::Committed(state))
    }

    /// One attempt to create the next fold record; then the edits it covers are deleted. The head may have moved on:
    /// a checkpoint stays the right start for every version above it.
    pub(super) async fn fold(
        &self,
        turn: &mut Turn,
        base: &HeadState,
        checkpoint: &CheckpointRef,
        keep: usize,
    ) -> CommitOutcome {
        match self.try_fold(turn, base, checkpoint, keep).await {
            Ok(outcome) => outcome,
            Err(e) => CommitOutcome::Unknown(e.to_string()),
        }
    }

    async fn try_fold(
        &self,
        turn: &mut Turn,
        base: &HeadState,
        checkpoint: &CheckpointRef,
        keep: usize,
    ) -> Result<CommitOutcome, CoordinationError> {
        let now = self.load(turn).await?;
        let head = &now.state.head;
        if head.checkpoint == *checkpoint {
            return Ok(CommitOutcome::Committed(now.state));
        }
        if head.lineage != base.head.lineage
            || checkpoint.version <= head.checkpoint.version
            || checkpoint.version > head.version
        {
            return Ok(CommitOutcome::Moved);
        }
        let spared = head.version.0.saturating_sub(keep as u64);
        let already = self.tip(|tip| tip.gone).unwrap_or_default();
        let record = FoldRecord {
            database: now.manifest.database,
            lineage: head.lineage,
            number: now.state.revision as u64 + 1,
            checkpoint: checkpoint.clone(),
            gone: Version(spared.min(checkpoint.version.0)).max(already),
        };
        match self.create(&names::fold(record.number), record.encode()?).await? {
            Created::Ours => {}
            Created::Theirs(bytes) => {
                if FoldRecord::decode(record.number, &bytes)? != record {
                    return Ok(CommitOutcome::Moved);
                }
            }
            Created::Gone => {
                let name = names::fold(record.number);
                return Err(CoordinationError::Damaged(format!("{name} was deleted")));
            }
        }
        let state = self.update(|tip| {
            tip.folded(&record);
            Ok(tip.state.clone())
        })?;
        Ok(CommitOutcome::Committed(state))
    }

    /// Deletes the edits that are gone: those the newest fold covers, and whatever crashed sweeps and stale creates
    /// have left below. What cannot be deleted now, the next sweep deletes.
    pub(super) async fn sweep(&self) {
        let Some(gone) = self.tip(|tip| tip.gone) else { return };
        let listing = self.bucket.list("manifest").try_filter_map(|object| {
            let version = names::parse_edit(&object.path).filter(|v| *v <= gone);
            std::future::ready(Ok(version))
        });
        let mut versions: Vec<Version> = match listing.try_collect().await {
            Ok(versions) => versions,
            Err(e) => {
                tracing::debug!(error = %e, "folded edits are left for the next fold to delete");
                return;
            }
        };
        versions.sort_unstable();
        let delete = |version| async move { self.bucket.delete(&names::edit(version)).await };
        let mut deletes = stream::iter(versions).map(delete).buffer_unordered(PARALLEL_DELETES);
        while let Some(done) = deletes.next().await {
            if let Err(e) = done {
                tracing::debug!(error = %e, "a folded edit is left for the next fold to delete");
            }
        }
    }

    /// Creates an object and looks what lies there where somebody, perhaps an earlier attempt of ours, was first.
    pub(super) async fn create(&self, path: &names::ObjectPath, bytes: Bytes) -> Result<Created, StoreError> {
        match self.bucket.create(path, bytes.clone().into()).await {
            Ok(()) => Ok(Created::Ours),
            Err(e) if e.kind == StoreErrorKind::AlreadyExists => match self.bucket.get(path).await {
                Ok(there) if there == bytes => Ok(Created::Ours),
                Ok(there) => Ok(Created::Theirs(there)),
                Err(e) if e.is_not_found() => Ok(Created::Gone),
                Err(e) => Err(e),
            },
            Err(e) => Err(e),
        }
    }

    /// Whether there is a head at all.
    pub(super) async fn exists(&self) -> Result<bool, CoordinationError> {
        if get_if_there(self.bucket.as_ref(), &names::fold(1)).await?.is_some() {
            return Ok(true);
        }
        // A recover goes on from the newest record, also where the first has been lost.
        let mut listing = self.bucket.list("manifest");
        while let Some(object) = listing.try_next().await? {
            if names::parse_fold(&object.path).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Why a proposal cannot be the next edit after `state`, if it cannot.
fn refusal(p: &Proposal, state: &HeadState, manifest: &Manifest) -> Option<CommitOutcome> {
    match &p.authority {
        Authority::Writer { lineage, epoch, .. } => {
            if manifest.lineage != *lineage {
                return Some(CommitOutcome::Fenced(format!("the lineage is {} now", manifest.lineage)));
            }
            let adopts = p.edit.epoch > p.base.head.epoch;
            if manifest.epoch > *epoch || (adopts && manifest.epoch >= *epoch) {
                return Some(CommitOutcome::Fenced(format!("epoch {} has taken over", manifest.epoch)));
            }
        }
        Authority::Job { job, token } => {
            if !jobs::holds(manifest, *job, *token) {
                return Some(CommitOutcome::Fenced(format!("the claim of job {job} is gone")));
            }
        }
        Authority::Observer => {}
    }
    let head = &state.head;
    let same = head.version == p.base.head.version && head.commit == p.base.head.commit;
    if !same || head.lineage != p.edit.lineage {
        return Some(CommitOutcome::Moved);
    }
    // Groups are part of the version: those of another one say nothing about this.
    p.groups.is_some_and(|read| read != head.version.0).then_some(CommitOutcome::Regrouped)
}

/// Another edit has the number.
fn overruled(p: &Proposal, theirs: &NumberedEdit) -> CommitOutcome {
    match &p.authority {
        Authority::Writer { epoch, .. } if theirs.edit.epoch > *epoch => {
            CommitOutcome::Fenced(format!("epoch {} has taken over", theirs.edit.epoch))
        }
        _ => CommitOutcome::Moved,
    }
}
