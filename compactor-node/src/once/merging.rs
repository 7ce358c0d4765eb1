//! The merges of a run, by as many workers as a daemon has.
//!
//! What fails, or is too large, is left out for this run and keeps nothing else from its turn.

use std::collections::BTreeMap;
use std::time::Duration;

use isle_storage::ids::JobId;
use isle_storage::manifest::Manifest;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Limits, TooLarge};
use crate::compactor::{Backoff, Compactor, MergeReport, Task, Went, describe};
use crate::error::JobError;

/// What the workers of one run have done together.
#[derive(Debug, Default)]
pub(super) struct SoFar {
    pub(super) merges: u64,
    pub(super) parts: u64,
    pub(super) expired_tables: u64,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
    /// Tasks that are being done, and the bytes they will read.
    under_way: (usize, u64),
    /// Whether a limit, or a pause, kept a worker from going on.
    pub(super) limited: bool,
    /// What was larger than the room that was left.
    pub(super) too_large: Vec<TooLarge>,
    /// What went wrong.
    pub(super) failures: Vec<JobError>,
    /// What others have claimed, and who.
    pub(super) elsewhere: BTreeMap<JobId, String>,
}

/// The merges of a run, within its limits.
pub(super) struct Merging<'a> {
    compactor: &'a Compactor,
    limits: &'a Limits,
    deadline: Option<Instant>,
    so_far: Mutex<SoFar>,
    /// A worker is done with a task: there may be others now.
    ended: Notify,
}

/// Whether a task may be begun.
enum Room {
    Enough,
    TooLittle,
    TimeIsOver,
}

impl<'a> Merging<'a> {
    pub(super) fn new(compactor: &'a Compactor, limits: &'a Limits, deadline: Option<Instant>) -> Self {
        Self { compactor, limits, deadline, so_far: Mutex::default(), ended: Notify::new() }
    }

    /// Works until nothing is left that nobody works on, or a limit is reached.
    pub(super) async fn run(self) -> SoFar {
        let workers = (0..self.compactor.settings().merge_workers).map(|_| self.worker());
        let ended = futures::future::join_all(workers).await;
        let mut so_far = self.so_far.into_inner();
        so_far.failures.extend(ended.into_iter().filter_map(Result::err));
        so_far
    }

    async fn worker(&self) -> Result<(), JobError> {
        let mut backoff = Backoff::new(self.compactor.settings());
        loop {
            let ended = self.ended.notified();
            let manifest = self.compactor.database().load().await?.manifest;
            let Some(task) = self.compactor.choose(&manifest) else {
                // What another worker is at may leave more to do: a merge that it cuts into parts.
                if self.so_far.lock().under_way.0 > 0 {
                    ended.await;
                    continue;
                }
                self.look_at_the_pause(&manifest);
                return Ok(());
            };
            let bytes = self.compactor.bytes_of(&task, &manifest);
            match self.begin(bytes) {
                Room::Enough => {}
                Room::TooLittle => {
                    self.compactor.too_large(&task);
                    self.so_far.lock().too_large.push(TooLarge { work: describe(&task), bytes });
                    continue;
                }
                Room::TimeIsOver => {
                    self.compactor.leave(&task);
                    self.so_far.lock().limited = true;
                    return Ok(());
                }
            }
            let result = self.compactor.perform(&task, self.deadline).await;
            self.end(bytes);
            match result {
                Ok((went, report, _)) => {
                    backoff.reset();
                    self.count(&task, went, &report);
                }
                Err(JobError::Stale(why)) => {
                    tracing::debug!(%why, "will plan again");
                    self.pause(backoff.next()).await;
                }
                Err(JobError::Stopped(_)) => {
                    self.so_far.lock().limited = true;
                    return Ok(());
                }
                Err(JobError::ClaimedElsewhere(who)) => {
                    self.so_far.lock().elsewhere.insert(task.job(), who);
                }
                // The run with the damaged table, or the blob file, is left alone from here on.
                Err(error @ (JobError::Damaged { .. } | JobError::UnreadableValue { .. })) => {
                    self.so_far.lock().failures.push(error);
                }
                Err(error) => {
                    tracing::error!(%error, job = %task.job(), task = describe(&task), "failed; left out for this run");
                    self.compactor.leave_out(&task);
                    self.so_far.lock().failures.push(error);
                }
            }
        }
    }

    /// Takes the bytes that a task will read, if they are within the limits.
    fn begin(&self, bytes: u64) -> Room {
        let mut so_far = self.so_far.lock();
        if self.limits.stop.is_cancelled() || self.deadline.is_some_and(|d| Instant::now() >= d) {
            return Room::TimeIsOver;
        }
        let together = so_far.bytes_read + so_far.under_way.1 + bytes;
        if self.limits.max_bytes.is_some_and(|most| together > most) {
            return Room::TooLittle;
        }
        so_far.under_way.0 += 1;
        so_far.under_way.1 += bytes;
        Room::Enough
    }

    fn end(&self, bytes: u64) {
        let mut so_far = self.so_far.lock();
        so_far.under_way.0 -= 1;
        so_far.under_way.1 -= bytes;
        drop(so_far);
        self.ended.notify_waiters();
    }

    fn count(&self, task: &Task, went: Went, report: &MergeReport) {
        let mut so_far = self.so_far.lock();
        so_far.merges += u64::from(went == Went::Merged);
        so_far.parts += u64::from(matches!(task, Task::Part(..)));
        so_far.expired_tables += if let Went::Expired(tables) = went { tables } else { 0 };
        so_far.bytes_read += report.bytes_read;
        so_far.bytes_written += report.bytes_written;
    }

    /// What a pause holds up is work left.
    fn look_at_the_pause(&self, manifest: &Manifest) {
        if self.compactor.is_paused(manifest) && self.compactor.would_choose(manifest).is_some() {
            self.so_far.lock().limited = true;
        }
    }

    /// Between two attempts: not beyond the end of the run.
    async fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        tokio::select! {
            biased;
            () = self.limits.stop.cancelled() => {}
            () = tokio::time::sleep_until(self.deadline.map_or(until, |d| d.min(until))) => {}
        }
    }
}
