//! Folding, where no compactor does it: a checkpoint is written and verified beside the commits, and made the head's
//! between two of them.
//!
//! The checkpoint is of a manifest that the head has left behind by then. That does no harm: a checkpoint of version
//! `v` stays the right start for every version above it. So commits wait for one small transaction only, never for the
//! checkpoint's upload.

use std::sync::Arc;
use std::time::Duration;

use isle_storage::coordination::fold::{FoldBounds, KEEP_EDITS, is_due};
use isle_storage::coordination::{CommitOutcome, CoordinationError, Loaded, checkpoint, groups};
use isle_storage::manifest::CheckpointRef;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::Pipeline;
use super::publish::{Turn, TurnResult};
use crate::engine::Engine;
use crate::standing::Trouble;

/// After a failed fold the next attempt waits this long: folding is never urgent.
const PAUSE: Duration = Duration::from_secs(30);

/// How often the head is compared and swapped; at the limit the next fold does it.
const ATTEMPTS: usize = 8;

type Written = Result<CheckpointRef, CoordinationError>;

/// How far a fold has come.
#[derive(Debug, Default)]
pub(super) enum Folding {
    /// None is due.
    #[default]
    Idle,
    /// The checkpoint is being written and read back.
    Writing(JoinHandle<Written>),
    /// It stands in the bucket, verified, and waits for its turn.
    Ready(CheckpointRef),
    /// The last attempt failed then.
    Failed(Instant),
}

impl Folding {
    /// The checkpoint's end; never, where none is being written.
    pub(super) async fn written(&mut self) -> Result<Written, JoinError> {
        match self {
            Self::Writing(work) => work.await,
            _ => std::future::pending().await,
        }
    }

    /// The checkpoint whose turn has come.
    pub(super) fn take_ready(&mut self) -> Option<CheckpointRef> {
        match std::mem::take(self) {
            Self::Ready(checkpoint) => Some(checkpoint),
            other => {
                *self = other;
                None
            }
        }
    }

    pub(super) fn abort(&self) {
        if let Self::Writing(work) = self {
            work.abort();
        }
    }
}

impl Pipeline {
    /// Begins to write a checkpoint, if a fold is due.
    pub(super) fn begin_fold(&mut self) {
        let may = match &self.folding {
            Folding::Idle => true,
            Folding::Failed(at) => at.elapsed() >= PAUSE,
            Folding::Writing(_) | Folding::Ready(_) => false,
        };
        let bounds = FoldBounds { edits: self.engine.settings.fold_edits };
        if !may || self.draining || !is_due(&self.current.manifest, &self.current.state, bounds) {
            return;
        }
        let (db, manifest) = (self.engine.db.clone(), Arc::clone(&self.current.manifest));
        self.folding = Folding::Writing(tokio::spawn(async move {
            db.check_lineage(manifest.lineage).await?;
            let whole = groups::copied(db.coordination.as_ref(), &manifest).await?;
            checkpoint::write_verified(db.bucket.as_ref(), &db.env, &whole).await
        }));
    }

    /// The checkpoint is written, or could not be.
    pub(super) fn end_checkpoint(&mut self, written: Result<Written, JoinError>) {
        match written {
            Ok(Ok(checkpoint)) => self.folding = Folding::Ready(checkpoint),
            Ok(Err(e)) => self.fold_failed(&e.to_string()),
            Err(e) => self.fold_failed(&e.to_string()),
        }
    }

    /// The turn in which the head is made to name `checkpoint`.
    pub(super) fn fold_turn(&self, checkpoint: CheckpointRef) -> Turn {
        let (engine, loaded) = (Arc::clone(&self.engine), self.current.clone());
        Turn::new(async move { TurnResult::Fold(fold(&engine, loaded, &checkpoint).await) })
    }

    /// That turn's end: the newest head known, under whichever checkpoint.
    pub(super) fn end_fold(&mut self, folded: Result<Loaded, String>) -> Result<(), super::End> {
        match folded {
            Ok(loaded) => {
                debug!(version = %loaded.state.head.version, checkpoint = %loaded.state.head.checkpoint.path, "edits folded");
                self.engine.troubles.clear(Trouble::Fold);
                self.install(loaded)
            }
            Err(why) => {
                self.fold_failed(&why);
                Ok(())
            }
        }
    }

    fn fold_failed(&mut self, why: &str) {
        warn!(why, "the edits could not be folded");
        self.engine.troubles.set(Trouble::Fold, why);
        self.folding = Folding::Failed(Instant::now());
    }
}

async fn fold(engine: &Engine, mut now: Loaded, written: &CheckpointRef) -> Result<Loaded, String> {
    let mut backoff = engine.backoff();
    for _ in 0..ATTEMPTS {
        match engine.db.coordination.fold(&now.state, written, KEEP_EDITS).await {
            CommitOutcome::Committed(state) if state.head.version == now.manifest.version => {
                return Ok(Loaded { state, ..now });
            }
            // In the bucket form a fold meets whatever the head has become: a newer head with the older manifest would
            // be taken for another writer's.
            CommitOutcome::Committed(_) => return engine.db.load().await.map_err(|e| e.to_string()),
            CommitOutcome::Fenced(why) => return Err(why),
            // The identical request again: at most one of them applies.
            CommitOutcome::Unknown(why) => {
                debug!(why, "the outcome of a fold is unknown");
                tokio::time::sleep(backoff.pause()).await;
            }
            CommitOutcome::Moved | CommitOutcome::Regrouped => {
                now = engine.db.load().await.map_err(|e| e.to_string())?;
                if now.state.head.checkpoint.version >= written.version {
                    return Ok(now);
                }
            }
        }
    }
    Err("the head never stood still".to_owned())
}
