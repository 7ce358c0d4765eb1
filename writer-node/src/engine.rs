//! What the parts of one writer share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use isle_storage::coordination::{Backend, NodeInfo};
use isle_storage::database::Database;
use isle_storage::ids::{Epoch, SeqNo, Version};
use isle_storage::watch;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::WriterSettings;
use crate::blobs::Blobs;
use crate::error::WriteError;
use crate::intake::{Admission, Refused, Sequencer};
use crate::leadership::limbo::Limbo;
use crate::metrics::WriterMetrics;
use crate::standing::{Role, Standing, Troubles};

/// Shared by the handle, the leadership task and the pipeline. The tasks hold this, never the handle, so that the
/// last handle's end can stop them.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) db: Database,
    pub(crate) settings: WriterSettings,
    pub(crate) node: NodeInfo,
    pub(crate) metrics: WriterMetrics,
    /// Held by the leader only: `None` refuses every mutation.
    pub(crate) seat: Mutex<Option<Sequencer>>,
    pub(crate) admission: Admission,
    pub(crate) blobs: Blobs,
    /// Wakes the pipeline.
    pub(crate) work: Notify,
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) troubles: Troubles,
    pub(crate) limbo: Limbo,
    pub(crate) gauges: Gauges,
    /// Asks the pipeline to end the open generation.
    pub(crate) end_generation: AtomicBool,
    /// Asked to commit what was accepted and to stop.
    pub(crate) drain: CancellationToken,
    /// Told to stop at once; implies `drain`.
    pub(crate) stop: CancellationToken,
    #[cfg(feature = "sabotage")]
    pub(crate) kept: Mutex<Option<crate::generation::Generations>>,
}

/// Figures for `/v1/status`, written where they change.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) accepted_seq: AtomicU64,
    pub(crate) committed_seq: AtomicU64,
    pub(crate) flushed_seq: AtomicU64,
    pub(crate) version: AtomicU64,
    pub(crate) waiters: AtomicU64,
    pub(crate) segments_in_flight: AtomicU64,
    pub(crate) generations: AtomicU64,
}

/// Counts a waiter for as long as it lives.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a AtomicU64);

impl Gauges {
    pub(crate) fn waiting(&self) -> Waiting<'_> {
        self.waiters.fetch_add(1, Ordering::Relaxed);
        Waiting(&self.waiters)
    }

    pub(crate) fn set_head(&self, committed: SeqNo, flushed: SeqNo, version: Version) {
        self.committed_seq.store(committed.0, Ordering::Relaxed);
        self.flushed_seq.store(flushed.0, Ordering::Relaxed);
        self.version.store(version.0, Ordering::Relaxed);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Engine {
    pub(crate) fn new(db: Database, settings: WriterSettings, node: NodeInfo) -> Self {
        let metrics = WriterMetrics::register(&db.env.metrics);
        let stop = CancellationToken::new();
        let admission = Admission::new(settings.admission_bytes, settings.slow_down_percent);
        let blobs = Blobs::new(&settings);
        Self {
            db,
            settings,
            node,
            metrics,
            seat: Mutex::new(None),
            admission,
            blobs,
            work: Notify::new(),
            #[cfg(feature = "sabotage")]
            kept: Mutex::default(),
            standing: watch::Sender::new(Standing::starting()),
            troubles: Troubles::default(),
            limbo: Limbo::default(),
            gauges: Gauges::default(),
            end_generation: AtomicBool::new(false),
            drain: stop.child_token(),
            stop,
        }
    }

    /// Takes a new role.
    pub(crate) fn stand(&self, role: Role, why: Option<String>) {
        self.metrics.leading.set(i64::from(role == Role::Leading));
        self.standing.send_modify(|s| {
            s.role = role;
            s.why = why;
        });
    }

    /// Begins to lead `epoch`.
    pub(crate) fn stand_leading(&self, epoch: Epoch) {
        self.metrics.leading.set(1);
        let leader = isle_storage::coordination::LeaderInfo { node: self.node.clone(), epoch };
        self.standing.send_modify(|s| {
            *s = Standing { role: Role::Leading, epoch: Some(epoch), leader: Some(leader), why: None };
        });
    }

    /// Why there is nobody in the seat, as an answer. Certainly not applied.
    pub(crate) fn refusal(&self) -> WriteError {
        let s = self.standing.borrow();
        let why = s.why.clone().unwrap_or_else(|| s.role.to_string());
        match s.role {
            Role::Fenced => WriteError::Fenced { why },
            Role::Draining | Role::Closed => WriteError::Closing,
            // A leader whose seat is empty has just lost it and not said so yet.
            Role::Leading => {
                WriteError::NotLeader { leader: None, why: "leadership was just lost".to_owned() }
            }
            Role::Starting => WriteError::NotLeader { leader: None, why },
            Role::Standby => WriteError::NotLeader { leader: s.leader.clone(), why },
        }
    }

    /// What those are told whose mutations were certainly not applied, because leadership was lost.
    pub(crate) fn refused(&self, why: String) -> Refused {
        match self.db.coordination.backend() {
            Backend::Bucket => Refused::Fenced(why),
            Backend::Etcd | Backend::Memory => Refused::SteppedDown(why),
        }
    }

    /// A pause that doubles from the settings' shortest to their longest.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff {
            next: Duration::from_millis(self.settings.retry_min_ms),
            longest: Duration::from_millis(self.settings.retry_max_ms),
        }
    }
}

/// Pauses between attempts: double each time up to the longest.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// The next pause.
    pub(crate) fn pause(&mut self) -> Duration {
        let now = self.next;
        self.next = (self.next * 2).min(self.longest);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut b = Backoff { next: Duration::from_millis(20), longest: Duration::from_millis(50) };
        assert_eq!([b.pause(), b.pause(), b.pause()].map(|d| d.as_millis()), [20, 40, 50]);
    }
}
