//! Who is at work in a store of backups: nothing is pruned while a backup is being made there.
//!
//! A backup counts on objects of earlier ones, and uploads objects that no record names yet; a prune deletes what no record
//! names. So each leaves a mark before it looks for the other's, and of two at once at least one sees the other and stops:
//!
//! ```text
//!   backup   mark running-<x> ─▶ a prune at work? ─▶ read records, list, copy ─▶ still sure? ─▶ record ─▶ still sure? ─▶ unmark
//!   prune    mark pruning-<x> ─▶ a backup at work? ─▶ read records ─▶ still sure? delete one ─▶ … ─▶ unmark
//! ```
//! Any number of backups may run beside each other, and of prunes too: those only ever delete what no record names.
//!
//! **Whoever dies** leaves its mark. It is written again every minute; one that has not been for an hour of the store's own
//! time counts for nothing. Its owner, should it live on, stops being sure of it after half of that by its own clock, and
//! deletes, or records, nothing any more. That the two clocks run equally fast is all that this rests on.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::TransferError;
use crate::coordination::sealed;
use crate::environment::Environment;
use crate::ids::Timestamp;
use crate::names::{self, ObjectPath};
use crate::object::{Bucket, ObjectMeta};

/// A mark is written again this often.
const SIGN_EVERY: Duration = Duration::from_secs(60);

/// A mark older than this counts for nothing.
const DEAD_AFTER: Duration = Duration::from_secs(3600);

/// Without a sign for so long, its owner is not sure of its mark.
const SURE_FOR: Duration = Duration::from_secs(1800);

const KIND: &str = "presence";

/// What is done in a store of backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Backup,
    Prune,
}

impl Work {
    fn mark(self, nonce: u64) -> ObjectPath {
        match self {
            Self::Backup => names::backup_running(nonce),
            Self::Prune => names::backup_pruning(nonce),
        }
    }

    /// Whether a mark is that of work which must not go on beside this.
    fn excludes(self, path: &str) -> bool {
        match self {
            Self::Backup => names::is_backup_pruning(path),
            Self::Prune => names::is_backup_running(path),
        }
    }

    fn other(self) -> &'static str {
        match self {
            Self::Backup => "a prune",
            Self::Prune => "a backup",
        }
    }
}

/// What a mark says, for people.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    node: String,
    since: Timestamp,
}

/// A mark of this process.
#[derive(Debug)]
pub(super) struct Presence {
    store: Arc<dyn Bucket>,
    env: Environment,
    path: ObjectPath,
    said: Bytes,
    /// When the newest sign was begun, in microseconds.
    signed: AtomicI64,
}

impl Presence {
    /// Leaves a mark, unless work is under way that excludes this.
    ///
    /// # Errors
    /// [`TransferError::Refused`]: there is such work.
    pub(super) async fn enter(
        store: &Arc<dyn Bucket>,
        env: &Environment,
        work: Work,
        node: &str,
    ) -> Result<Self, TransferError> {
        let now = env.clock.now();
        let said = sealed::seal(KIND, &Said { node: node.to_owned(), since: now })?;
        let here = Self {
            store: Arc::clone(store),
            env: env.clone(),
            path: work.mark(env.entropy.next_u64()),
            said,
            signed: AtomicI64::new(now.0),
        };
        here.sign().await?;
        match here.other(work).await {
            Ok(None) => Ok(here),
            Ok(Some(other)) => {
                here.leave().await;
                Err(TransferError::Refused(other))
            }
            Err(e) => {
                here.leave().await;
                Err(e)
            }
        }
    }

    /// Who excludes this; marks of the dead are taken away.
    async fn other(&self, work: Work) -> Result<Option<String>, TransferError> {
        // The store's own time.
        let now = self.store.head(&self.path).await.map_err(TransferError::Store)?.last_modified;
        let mut listing = self.store.list("backup");
        while let Some(mark) = listing.try_next().await.map_err(TransferError::Store)? {
            let alive = mark.last_modified.plus(DEAD_AFTER) > now;
            if alive && work.excludes(&mark.path) {
                return self.described(work, &mark).await.map(Some);
            }
            let is_mark = names::is_backup_running(&mark.path) || names::is_backup_pruning(&mark.path);
            if let (true, false, Ok(path)) = (is_mark, alive, ObjectPath::new(mark.path)) {
                self.store.delete(&path).await.map_err(TransferError::Store)?;
            }
        }
        Ok(None)
    }

    async fn described(&self, work: Work, mark: &ObjectMeta) -> Result<String, TransferError> {
        let path = ObjectPath::new(mark.path.clone()).map_err(TransferError::Refused)?;
        let said = match self.store.get(&path).await {
            Ok(bytes) => sealed::open::<Said>(KIND, path.as_str(), &bytes).ok(),
            Err(_) => None,
        };
        let by = said.map_or_else(String::new, |said| format!(", by {}", said.node));
        Ok(format!(
            "{} is at work in {}{by} ({path}): run this again once it is done. One that was cut off counts for an hour \
             after its last sign of life. Nothing was changed",
            work.other(),
            self.store.url()
        ))
    }

    async fn sign(&self) -> Result<(), TransferError> {
        let begun = self.env.clock.now();
        self.store.put(&self.path, self.said.clone().into()).await.map_err(TransferError::Store)?;
        self.signed.store(begun.0, Ordering::Relaxed);
        Ok(())
    }

    /// Does `work` and writes the mark again meanwhile.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            done = work => done,
            never = self.signs() => match never {},
        }
    }

    async fn signs(&self) -> Infallible {
        loop {
            tokio::time::sleep(SIGN_EVERY).await;
            // One that is not sure any more does not pretend to live: others may be at work by now.
            if self.sure().is_ok()
                && let Err(error) = self.sign().await
            {
                tracing::debug!(mark = %self.path, %error, "no sign of life could be written");
            }
        }
    }

    /// Whether nobody can have taken this process for dead.
    ///
    /// # Errors
    /// [`TransferError::Refused`]: it was silent for too long.
    pub(super) fn sure(&self) -> Result<(), TransferError> {
        let silent = Timestamp(self.signed.load(Ordering::Relaxed)).plus(SURE_FOR) < self.env.clock.now();
        if !silent {
            return Ok(());
        }
        Err(TransferError::Refused(format!(
            "no sign of life could be written to {} for half an hour, and others may take this run for dead: run it again",
            self.store.url()
        )))
    }

    /// Takes the mark away; one that stays counts for another hour.
    pub(super) async fn leave(self) {
        if let Err(error) = self.store.delete(&self.path).await {
            tracing::warn!(mark = %self.path, %error, "the mark stays and counts for an hour");
        }
    }
}
