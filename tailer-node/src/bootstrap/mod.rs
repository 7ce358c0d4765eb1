//! Bootstraps: everything that is in the database at one number, and the cursor that goes on from there.
//!
//! ```text
//!   hold: a snapshot at the head, which holds the log ─▶ scan at it ─▶ cursor at its number ─▶ the hold lingers ─▶ drop
//!                                                         │  ▲
//!                              an object is gone: merged ─┘  └─ the newest manifest, after the last key
//! ```
//! **Without gap or repeat.** The scan shows every change up to the snapshot's number and none beyond it; the cursor
//! stands after that number; and the snapshot holds the log from there on. So copy and log meet exactly, whatever is
//! written, merged and trimmed meanwhile.
//!
//! **What holds.** The snapshot is an edit, so nothing that fails here ends it too early; and it carries an expiry, so a
//! tailer that dies holds nothing for longer than that. A snapshot holds rows, not objects: merges carry them into others,
//! and the old ones are deleted. Then the scan goes on over the newest manifest, after the last key it delivered; at the
//! snapshot that shows the same rows.
//!
//! A bootstrap at a named snapshot takes none of its own, and may be repeated. Its cursor is good where that snapshot
//! holds the log, or as long as the log reaches back to it.
//!
//! **Bounds.** A number of bootstraps at once; each a budget of read-ahead, of log in memory, and of time. Each is a task of
//! its own that stays a batch ahead of its consumer: one that takes nothing holds up nobody, and at the end of
//! its time no memory either.

mod copy;
mod hold;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::manifest::{KeyRange, Manifest};
use isle_storage::row::Row;
use tokio::sync::{mpsc, oneshot};

use self::copy::Copying;
use crate::cursor::Cursor;
use crate::error::TailError;
use crate::metrics::TailerMetrics;
use crate::tailer::Tailer;

/// Batches that wait for the consumer beside the one it has.
const BATCHES_AHEAD: usize = 1;

/// What is to be copied.
#[derive(Debug, Clone, Default)]
pub struct BootstrapRequest {
    /// Keys that begin with this.
    pub prefix: Bytes,
    /// At this named snapshot; absent: at one of the bootstrap's own, of everything committed.
    pub snapshot: Option<String>,
    /// How long the bootstrap may take; absent, and at most: `bootstrap_hold_seconds`.
    pub at_most: Option<Duration>,
}

/// How a bootstrap has ended that delivered everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// After everything that was copied: goes on without gap or repeat.
    pub cursor: Cursor,
    /// Rows delivered.
    pub rows: u64,
    /// The snapshot that was copied.
    pub snapshot: String,
    /// Until when the log after `cursor` is held for sure; absent: as long as the snapshot is there, if it holds the log.
    pub held_until: Option<Timestamp>,
}

#[derive(Debug)]
enum Step {
    Rows(Vec<Row>),
    Copied(Copied),
}

/// A bootstrap under way. Dropping it ends it, and its hold.
#[derive(Debug)]
pub struct Bootstrap {
    seq: SeqNo,
    instant: Timestamp,
    snapshot: String,
    steps: mpsc::Receiver<Result<Step, TailError>>,
    copied: Option<Copied>,
}

impl Bootstrap {
    /// The number up to which it sees.
    #[must_use]
    pub fn seq(&self) -> SeqNo {
        self.seq
    }

    /// The instant at which it judges expiry: a row that had expired by then is not in it.
    #[must_use]
    pub fn instant(&self) -> Timestamp {
        self.instant
    }

    /// The snapshot it copies: reads at it show the same.
    #[must_use]
    pub fn snapshot(&self) -> &str {
        &self.snapshot
    }

    /// The next rows in key order, none of them a delete, at least one; `None` at the end. Values above
    /// [`isle_storage::row::MAX_INLINE_VALUE_LEN`] stay in their blob file, all others are here. Cancelling the wait loses
    /// nothing.
    ///
    /// # Errors
    /// [`TailError`]: what was delivered is right, and not everything. To be begun again.
    pub async fn next(&mut self) -> Result<Option<Vec<Row>>, TailError> {
        if self.copied.is_some() {
            return Ok(None);
        }
        match self.steps.recv().await {
            Some(Ok(Step::Rows(rows))) => Ok(Some(rows)),
            Some(Ok(Step::Copied(copied))) => {
                self.copied = Some(copied);
                Ok(None)
            }
            Some(Err(e)) => Err(e),
            None => Err(TailError::Closing),
        }
    }

    /// Where to go on, once [`Bootstrap::next`] has said that everything is there.
    #[must_use]
    pub fn copied(&self) -> Option<&Copied> {
        self.copied.as_ref()
    }
}

impl Tailer {
    /// Begins to copy what the database holds.
    ///
    /// # Errors
    /// [`TailError`]: not ready, too many bootstraps, no such snapshot, or one from which no cursor can go on.
    pub async fn bootstrap(&self, request: BootstrapRequest) -> Result<Bootstrap, TailError> {
        if self.is_closed() {
            return Err(TailError::Closing);
        }
        let place = Place::take(self)?;
        let (opened_tx, opened) = oneshot::channel();
        // On a task of its own: whoever asks may go away while the hold is being taken.
        self.tasks().spawn(begin(self.clone(), request, place, opened_tx));
        opened.await.map_err(|_| TailError::Closing)?
    }

    fn longest(&self, asked: Option<Duration>) -> Duration {
        let most = Duration::from_secs(self.settings().bootstrap_hold_seconds);
        asked.map_or(most, |asked| asked.min(most))
    }
}

/// Takes hold, says so, and copies. Where nobody hears it, the copying ends at once, and with it the hold.
async fn begin(
    tailer: Tailer,
    request: BootstrapRequest,
    place: Place,
    opened: oneshot::Sender<Result<Bootstrap, TailError>>,
) {
    let at_most = tailer.longest(request.at_most);
    let held = match &request.snapshot {
        Some(name) => hold::named(&tailer, name).await,
        None => hold::take(&tailer, at_most).await,
    };
    let held = match held {
        Ok(held) => held,
        Err(e) => {
            drop(place);
            let _nobody = opened.send(Err(e));
            return;
        }
    };
    let (tx, steps) = mpsc::channel(BATCHES_AHEAD);
    let At { name: snapshot, seq, instant } = held.at.clone();
    let _nobody = opened.send(Ok(Bootstrap { seq, instant, snapshot, steps, copied: None }));
    let range = KeyRange::prefix(&request.prefix);
    Copying::new(tailer, held, range, at_most).run(tx, place).await;
}

/// A bootstrap's place among `max_bootstraps`.
#[derive(Debug)]
struct Place {
    taken: Arc<AtomicUsize>,
    metrics: TailerMetrics,
}

impl Place {
    fn take(tailer: &Tailer) -> Result<Self, TailError> {
        let most = tailer.settings().max_bootstraps;
        let place = Self { taken: Arc::clone(tailer.bootstraps()), metrics: tailer.metrics().clone() };
        let before = place.taken.fetch_add(1, Ordering::Relaxed);
        place.metrics.bootstraps.set(before as u64 + 1);
        if before >= most {
            return Err(TailError::Busy(format!("there are already {most} bootstraps: try another tailer")));
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.taken.fetch_sub(1, Ordering::Relaxed) - 1;
        self.metrics.bootstraps.set(left as u64);
    }
}

/// The snapshot that is copied, wherever it came from.
#[derive(Debug, Clone)]
struct At {
    name: String,
    seq: SeqNo,
    /// Reads judge expiry at this instant.
    instant: Timestamp,
}

impl At {
    /// Whether `manifest` still holds it.
    fn stands_in(&self, manifest: &Manifest) -> bool {
        let same = |s: &isle_storage::manifest::Snapshot| (s.seq, s.created) == (self.seq, self.instant);
        manifest.snapshots.get(&self.name).is_some_and(same)
    }
}
