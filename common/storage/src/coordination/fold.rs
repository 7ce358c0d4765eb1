//! Folding: a checkpoint written, read back, verified, and made the head's, so that few edits have to be replayed.
//!
//! The checkpoint is written from a manifest that was the head's a moment ago. While it is being written the head moves
//! on, under load always; that does no harm, since a checkpoint of version `v` stays the right start for every version
//! above it. So the fold compares the head as it is *then*, and tries again with the same checkpoint when it loses.
//!
//! A checkpoint takes the consumer groups with it as they are when it is written ([`groups`]).
//!
//! **Crashes.** Before the fold: an unnamed checkpoint lies about, and the collector deletes it once two newer ones
//! stand. Between the fold and the deletes (bucket form): superfluous edits lie about, and the next fold deletes them.
//! At no instant does the head name a checkpoint that was not read back and compared.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::{CommitOutcome, CoordinationError, HeadState, Loaded, checkpoint, groups};
use crate::database::Database;
use crate::manifest::Manifest;

/// How many of the newest edits a fold leaves in place, so that whoever watches is not thrown off.
pub const KEEP_EDITS: usize = 128;

/// How often a fold is tried against a head that keeps moving; at the limit the next fold does it.
const ATTEMPTS: usize = 16;

/// When edits are folded: whichever bound is passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoldBounds {
    /// Edits since the checkpoint.
    pub edits: u64,
}

/// Whether `manifest` is due for a fold.
#[must_use]
pub fn is_due(manifest: &Manifest, state: &HeadState, bounds: FoldBounds) -> bool {
    manifest.version.0.saturating_sub(state.head.checkpoint.version.0) >= bounds.edits
}

/// Folds at once what has just been committed and is in no log: a recover knows nothing but checkpoints and the log, and
/// would bring back what `what` was before. Where that fails it is committed all the same; the next fold is some hundred
/// edits away at most.
pub async fn into_the_bucket(db: &Database, committed: &Loaded, what: &str) {
    if let Err(error) = fold(db, committed).await {
        tracing::warn!(%error, "{what} has no checkpoint yet: a recover would not know it");
    }
}

/// Writes and verifies a checkpoint of `loaded`, and folds. `Ok(None)` where somebody else has folded further: no
/// harm, the next fold is theirs or ours.
///
/// # Errors
/// [`CoordinationError`].
pub async fn fold(db: &Database, loaded: &Loaded) -> Result<Option<HeadState>, CoordinationError> {
    db.check_lineage(loaded.manifest.lineage).await?;
    let whole = groups::copied(db.coordination.as_ref(), &loaded.manifest).await?;
    let written = checkpoint::write_verified(db.bucket.as_ref(), &db.env, &whole).await?;
    let mut base = loaded.state.clone();
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(500));
    for _ in 0..ATTEMPTS {
        match db.coordination.fold(&base, &written, KEEP_EDITS).await {
            CommitOutcome::Committed(state) => return Ok(Some(state)),
            CommitOutcome::Fenced(_) => return Ok(None),
            // The identical request again: at most one of them applies.
            CommitOutcome::Unknown(why) => {
                tracing::debug!(why, "the outcome of a fold is unknown");
                tokio::time::sleep_until(Instant::now() + backoff.pause()).await;
            }
            CommitOutcome::Moved | CommitOutcome::Regrouped => {
                let now = db.load().await?;
                if now.state.head.checkpoint == written {
                    return Ok(Some(now.state));
                }
                let same = now.manifest.lineage == loaded.manifest.lineage;
                if !same || now.state.head.checkpoint.version >= written.version {
                    return Ok(None);
                }
                base = now.state;
            }
        }
    }
    Ok(None)
}
