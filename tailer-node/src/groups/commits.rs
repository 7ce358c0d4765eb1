//! Commits of cursors, coalesced: while one write of a group is under way, and for a short time after it began, further
//! commits of that group gather, and the furthest of them is the next write. A commit that comes alone is written at once.
//!
//! ```text
//!   commits   3    5 4 7      9
//!   writes    ├─3─┤  ├──7──┤  ├─9─┤        each commit is answered by the write that stored it, or something later
//!             └─ interval ──┘
//! ```
//! So a consumer that commits after every change, or a hundred that share a group, cost coordination no more than one
//! write in an interval. Waiting commits are bounded over all groups.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use isle_storage::coordination::CoordinationError;
use isle_storage::coordination::groups::{GroupChange, GroupOutcome};
use isle_storage::database::Database;
use isle_storage::ids::{Lineage, SeqNo};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::cursor::Cursor;
use crate::error::TailError;
use crate::settings::TailerSettings;

/// A group in one history: commits of another one must not be mixed with it.
type Key = (String, Lineage);

type Told = Result<GroupOutcome, CoordinationError>;

/// The commits of one tailer.
#[derive(Debug, Clone)]
pub(crate) struct Commits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Database,
    interval: Duration,
    most: usize,
    stop: CancellationToken,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// A group is here as long as a task writes for it.
    groups: BTreeMap<Key, Vec<Waiter>>,
    count: usize,
}

#[derive(Debug)]
struct Waiter {
    seq: SeqNo,
    told: oneshot::Sender<Told>,
}

impl Commits {
    pub(crate) fn new(db: &Database, settings: &TailerSettings, stop: &CancellationToken) -> Self {
        Self(Arc::new(Inner {
            db: db.clone(),
            interval: Duration::from_millis(settings.group_commit_interval_ms),
            most: settings.max_group_commits,
            stop: stop.clone(),
            waiting: Mutex::default(),
        }))
    }

    /// Commits `cursor`; resolves once it, or something later, is stored.
    pub(super) async fn commit(&self, group: &str, cursor: Cursor) -> Result<GroupOutcome, TailError> {
        let (told, answer) = oneshot::channel();
        self.join((group.to_owned(), cursor.lineage), Waiter { seq: cursor.seq, told })?;
        // The task answers everybody before it ends.
        answer.await.map_err(|_| TailError::Closing)?.map_err(TailError::Coordination)
    }

    fn join(&self, key: Key, waiter: Waiter) -> Result<(), TailError> {
        let inner = &self.0;
        if inner.stop.is_cancelled() {
            return Err(TailError::Closing);
        }
        let mut waiting = inner.waiting.lock();
        if waiting.count >= inner.most {
            let most = inner.most;
            return Err(TailError::Busy(format!(
                "{most} commits of consumer groups are waiting to be stored already"
            )));
        }
        waiting.count += 1;
        match waiting.groups.get_mut(&key) {
            Some(others) => others.push(waiter),
            None => {
                waiting.groups.insert(key.clone(), vec![waiter]);
                tokio::spawn(write(Arc::clone(inner), key));
            }
        }
        Ok(())
    }
}

/// Writes for one group until nobody waits.
async fn write(inner: Arc<Inner>, key: Key) {
    while let Some(batch) = inner.next(&key) {
        let again = Instant::now() + inner.interval;
        let furthest = batch.iter().map(|w| w.seq).max().unwrap_or_default();
        let change = GroupChange::Advance(furthest);
        let told = inner.db.coordination.change_group(key.1, &key.0, &change).await;
        inner.waiting.lock().count -= batch.len();
        for waiter in batch {
            // Whoever has gone away needs no answer.
            let _gone = waiter.told.send(told.clone());
        }
        // What was accepted is written before the end, without another pause.
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => {}
            () = sleep_until(again) => {}
        }
    }
}

impl Inner {
    /// Those who wait; where nobody does, the group is forgotten.
    fn next(&self, key: &Key) -> Option<Vec<Waiter>> {
        let mut waiting = self.waiting.lock();
        let batch = waiting.groups.get_mut(key).map(std::mem::take).filter(|b| !b.is_empty());
        if batch.is_none() {
            waiting.groups.remove(key);
        }
        batch
    }
}
