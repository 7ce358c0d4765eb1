//! One bounded run, for cron: merges until nothing is left or a limit is reached, then checkpoint, garbage, orphans.
//!
//! Two runs that overlap are safe: whatever one has claimed the other leaves alone and says so. A claim that a dead
//! process left behind is waited out where only waiting can tell (see [`job::outlived`]), so that one crash does not
//! make every later run do nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use isle_storage::coordination::NodeInfo;
use isle_storage::database::Database;
use isle_storage::ids::JobId;
use isle_storage::manifest::Manifest;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::compactor::{Compactor, Task, Went};
use crate::error::JobError;
use crate::job;
use crate::plan;
use crate::settings::CompactorSettings;
use crate::sweep::Orphan;

/// The bounds of one run.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// No merge is started after this long, and one under way is dropped.
    pub max_time: Option<Duration>,
    /// No merge is started that would bring the bytes read above this.
    pub max_bytes: Option<u64>,
    /// Only says what would be done.
    pub dry_run: bool,
    /// Cancelled to end the run early: what is under way takes back what it has uploaded.
    pub stop: CancellationToken,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything there was to do is done.
    Done,
    /// There was nothing to do.
    NothingToDo,
    /// A limit was reached first.
    WorkLeft,
    /// Another process works on what is left.
    ClaimedElsewhere,
}

impl Outcome {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Done | Self::NothingToDo => 0,
            Self::WorkLeft => 3,
            Self::ClaimedElsewhere => 4,
        }
    }
}

/// The summary of a run: one JSON object on standard output.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// How it ended.
    pub outcome: Outcome,
    /// Whether nothing was changed because of `--dry-run`.
    pub dry_run: bool,
    /// Merges done (or planned, in a dry run).
    pub merges: u64,
    /// Parts of large merges done.
    pub parts: u64,
    /// Whether merges are paused for the whole fleet: then none was begun.
    pub paused: bool,
    /// Bytes they read.
    pub bytes_read: u64,
    /// Bytes they wrote.
    pub bytes_written: u64,
    /// Tables whose retention has ended, taken out of the tree (or that would be next, in a dry run).
    pub expired_tables: u64,
    /// Retired objects deleted (or that would be, in a dry run).
    pub deleted_objects: u64,
    /// Orphans deleted (or that would be, in a dry run).
    pub swept_objects: u64,
    /// Garbage that could not be deleted this time.
    pub failed_objects: u64,
    /// Objects under the prefix with names that are none of Isle's: left alone.
    pub unknown_objects: u64,
    /// Objects retired and waiting for their grace.
    pub retired_objects: u64,
    /// Whether a checkpoint was written.
    pub checkpoint: bool,
    /// Manifest version at the end.
    pub version: u64,
    /// How long it took.
    pub seconds: f64,
    /// In a dry run, what would be done and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
}

/// What a run would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The next work is this merge; what comes after it depends on its outcome.
    pub merge: Option<PlannedMerge>,
    /// The next work is to let these tables go.
    pub expire: Option<PlannedExpiry>,
    /// Where there is nothing to merge and nothing to let go: when there may be, in microseconds since 1970.
    pub look_again: Option<i64>,
    /// Retired objects, and leftovers of `manifest/`, that would be deleted. Pins are left out of account.
    pub collect: Vec<Orphan>,
    /// Orphans that would be deleted.
    pub sweep: Vec<Orphan>,
}

/// A merge that would be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedMerge {
    /// The runs, newest first.
    pub runs: Vec<u64>,
    /// Bytes to read.
    pub bytes: u64,
    /// Why.
    pub reason: &'static str,
    /// How due it is, in percent.
    pub score: u32,
    /// Where it is only about values that move out of blob files: how many, and of how much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moving: Option<PlannedMove>,
}

/// Values that would move out of blob files of which little is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedMove {
    /// The blob files.
    pub files: u64,
    /// Tables that would be written again.
    pub tables: u64,
    /// Bytes of values that would be copied.
    pub live_bytes: u64,
    /// Bytes of these files that nothing points at.
    pub garbage_bytes: u64,
}

impl From<&plan::Moving> for PlannedMove {
    fn from(moving: &plan::Moving) -> Self {
        Self {
            files: moving.files.len() as u64,
            tables: moving.tables.len() as u64,
            live_bytes: moving.live,
            garbage_bytes: moving.garbage,
        }
    }
}

/// Tables that would go because their retention has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedExpiry {
    /// How many.
    pub tables: u64,
    /// Rows in them.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why.
    pub reason: &'static str,
    /// How due it is, in percent.
    pub score: u32,
}

/// Runs once.
///
/// # Errors
/// [`JobError`] where something else than a limit or another's claim stopped it; [`JobError::Damaged`] once all that is
/// possible without the damaged table is done.
pub async fn once(
    db: Database,
    node: NodeInfo,
    settings: CompactorSettings,
    limits: Limits,
) -> Result<Summary, JobError> {
    let compactor = Compactor::idle(db, node, settings).map_err(JobError::Internal)?;
    let ended = {
        let stop = limits.stop.clone();
        let closing = compactor.clone();
        // Whoever stops the run stops the compactor's jobs.
        tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
            stop.cancelled().await;
            closing.close().await;
        }))
    };
    let result = Run::new(&compactor, limits).run().await;
    drop(ended);
    compactor.close().await;
    result
}

/// A run under way.
struct Run<'a> {
    compactor: &'a Compactor,
    limits: Limits,
    started: Instant,
    deadline: Option<Instant>,
    summary: Summary,
    plan: Plan,
    /// What the run fails with, when everything else is done.
    damaged: Option<JobError>,
}

impl<'a> Run<'a> {
    fn new(compactor: &'a Compactor, limits: Limits) -> Self {
        let started = Instant::now();
        let summary = Summary {
            outcome: Outcome::NothingToDo,
            dry_run: limits.dry_run,
            merges: 0,
            parts: 0,
            paused: false,
            bytes_read: 0,
            bytes_written: 0,
            expired_tables: 0,
            deleted_objects: 0,
            swept_objects: 0,
            failed_objects: 0,
            unknown_objects: 0,
            retired_objects: 0,
            checkpoint: false,
            version: 0,
            seconds: 0.0,
            plan: None,
        };
        let deadline = limits.max_time.map(|t| started + t);
        Self { compactor, limits, started, deadline, summary, plan: Plan::default(), damaged: None }
    }

    async fn run(mut self) -> Result<Summary, JobError> {
        self.merges().await?;
        if !self.limits.dry_run {
            self.house().await?;
        }
        self.garbage().await?;
        self.orphans().await?;
        if let Some(damaged) = self.damaged {
            return Err(damaged);
        }
        let end = self.compactor.database().load().await?;
        self.summary.version = end.manifest.version.0;
        self.summary.retired_objects = end.manifest.retired.len() as u64;
        self.summary.seconds = self.started.elapsed().as_secs_f64();
        self.summary.plan = self.limits.dry_run.then_some(self.plan);
        Ok(self.summary)
    }

    fn is_over(&self) -> bool {
        self.limits.stop.is_cancelled() || self.deadline.is_some_and(|d| Instant::now() >= d)
    }

    /// Something was done.
    fn did(&mut self, something: bool) {
        if something && self.summary.outcome == Outcome::NothingToDo {
            self.summary.outcome = Outcome::Done;
        }
    }

    /// Whether the claim that another process has on `job` is a dead one's and gone now; otherwise the summary says
    /// that somebody else is at it.
    async fn outlived(&mut self, job: JobId, who: &str) -> Result<bool, JobError> {
        match job::outlived(self.compactor.database(), job, &self.compactor.bounds(self.deadline)).await {
            Ok(true) => return Ok(true),
            Ok(false) | Err(JobError::Stopped(_)) => {}
            Err(error) => return Err(error),
        }
        tracing::info!(%who, %job, "claimed by another process");
        self.summary.outcome = Outcome::ClaimedElsewhere;
        Ok(false)
    }

    /// Merges, with as many workers as a daemon has.
    async fn merges(&mut self) -> Result<(), JobError> {
        let manifest = self.compactor.database().load().await?.manifest;
        if self.compactor.is_paused(&manifest) {
            self.summary.paused = true;
            tracing::info!(
                "merges are paused: none is begun; `POST /v1/resume` at a compactor ends the pause"
            );
            // What the pause holds up is work left.
            if self.compactor.would_choose(&manifest).is_some() {
                self.summary.outcome = Outcome::WorkLeft;
            }
            return Ok(());
        }
        if self.limits.dry_run {
            self.foresee(&manifest);
            return Ok(());
        }
        loop {
            let bounds = Merging {
                compactor: self.compactor,
                limits: &self.limits,
                deadline: self.deadline,
                so_far: Mutex::default(),
            };
            let workers = (0..self.compactor.settings().merge_workers).map(|_| bounds.worker());
            let ended = futures::future::join_all(workers).await;
            let done = bounds.so_far.into_inner();
            self.summary.merges += done.merges;
            self.summary.parts += done.parts;
            self.summary.bytes_read += done.bytes_read;
            self.summary.bytes_written += done.bytes_written;
            self.limits.max_bytes = self.limits.max_bytes.map(|most| most.saturating_sub(done.bytes_read));
            self.summary.expired_tables += done.expired_tables;
            self.did(done.merges + done.parts + done.expired_tables > 0);
            ended.into_iter().collect::<Result<Vec<()>, JobError>>()?;
            self.damaged = done.damaged.or(self.damaged.take());
            if done.limited {
                self.summary.outcome = Outcome::WorkLeft;
                return Ok(());
            }
            // Nothing is left but what others have claimed. A dead one's claim may be waited out.
            let mut freed = false;
            for (job, who) in done.elsewhere {
                if self.outlived(job, &who).await? {
                    self.compactor.freed(job);
                    freed = true;
                } else {
                    return Ok(());
                }
            }
            if !freed {
                return Ok(());
            }
        }
    }

    /// What would be done next; what comes after it depends on its outcome.
    fn foresee(&mut self, manifest: &Manifest) {
        let (settings, now) = (self.compactor.settings(), self.compactor.database().env.clock.now());
        let Some(task) = self.compactor.would_choose(manifest) else {
            self.plan.look_again = plan::next(manifest, settings, now).look_again.map(|at| at.micros());
            return;
        };
        self.summary.outcome = Outcome::WorkLeft;
        let bytes = task.bytes(manifest);
        let mut moving = None;
        let (runs, reason, score) = match &task {
            Task::Merge(planned) => {
                moving = planned.moving.as_ref().map(PlannedMove::from);
                (planned.inputs.clone(), planned.reason, planned.score)
            }
            Task::Part(merge, _) => {
                (manifest.staged.get(merge).map(|m| m.inputs.clone()).unwrap_or_default(), "part", 100)
            }
            Task::Expire => {
                let Some(gone) = plan::expire(manifest, settings, now) else { return };
                self.summary.expired_tables += gone.tables.len() as u64;
                let (tables, rows, bytes) = (gone.tables.len() as u64, gone.rows, gone.bytes);
                let (reason, score) = (gone.reason, gone.score);
                self.plan.expire = Some(PlannedExpiry { tables, rows, bytes, reason, score });
                return;
            }
        };
        let runs = runs.iter().map(|r| r.0).collect();
        self.summary.merges += 1;
        self.summary.bytes_read += bytes;
        self.plan.merge = Some(PlannedMerge { runs, bytes, reason, score, moving });
    }

    async fn house(&mut self) -> Result<(), JobError> {
        let loaded = self.compactor.database().load().await?;
        match self.compactor.keep_house(&loaded).await {
            Ok(_) => {}
            Err(JobError::ClaimedElsewhere(_) | JobError::Stale(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
        self.summary.checkpoint = self.compactor.status().checkpoints > 0;
        self.did(self.summary.checkpoint);
        Ok(())
    }

    async fn garbage(&mut self) -> Result<(), JobError> {
        loop {
            match self.compactor.collect(self.limits.dry_run).await {
                Ok(pass) => {
                    self.summary.deleted_objects = pass.deleted;
                    self.summary.failed_objects += pass.failed;
                    self.plan.collect = pass.plan;
                    self.did(pass.deleted > 0);
                    return Ok(());
                }
                Err(JobError::ClaimedElsewhere(who)) => {
                    if !self.outlived(plan::job_named("collect"), &who).await? {
                        return Ok(());
                    }
                }
                Err(JobError::Stale(_)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// A whole round, unless the time is over first; the next run begins anew.
    async fn orphans(&mut self) -> Result<(), JobError> {
        while !self.is_over() {
            match self.compactor.sweep(self.limits.dry_run).await {
                Ok(swept) => {
                    self.summary.swept_objects += swept.deleted;
                    self.summary.failed_objects += swept.failed;
                    self.summary.unknown_objects += swept.unknown;
                    self.plan.sweep.extend(swept.plan);
                    self.did(swept.deleted > 0);
                    if swept.complete || self.limits.dry_run {
                        return Ok(());
                    }
                }
                Err(JobError::ClaimedElsewhere(who)) => {
                    if !self.outlived(plan::job_named("sweep"), &who).await? {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What the workers of one run have done together.
#[derive(Debug, Default)]
struct SoFar {
    merges: u64,
    parts: u64,
    expired_tables: u64,
    bytes_read: u64,
    /// Of what is under way.
    reserved: u64,
    bytes_written: u64,
    /// Whether a limit kept a worker from going on.
    limited: bool,
    /// The damage that one of them met last.
    damaged: Option<JobError>,
    /// What others have claimed, and who.
    elsewhere: BTreeMap<JobId, String>,
}

/// The merges of a run, within its limits.
struct Merging<'a> {
    compactor: &'a Compactor,
    limits: &'a Limits,
    deadline: Option<Instant>,
    so_far: Mutex<SoFar>,
}

impl Merging<'_> {
    fn is_over(&self) -> bool {
        self.limits.stop.is_cancelled() || self.deadline.is_some_and(|d| Instant::now() >= d)
    }

    /// Works until nothing is left that nobody works on, or a limit is reached.
    async fn worker(&self) -> Result<(), JobError> {
        loop {
            let manifest = self.compactor.database().load().await?.manifest;
            if self.compactor.is_paused(&manifest) {
                self.so_far.lock().limited = true;
                return Ok(());
            }
            let Some(task) = self.compactor.choose(&manifest) else { return Ok(()) };
            let bytes = self.compactor.bytes_of(&task, &manifest);
            if !self.reserve(bytes) {
                self.compactor.leave(&task);
                self.so_far.lock().limited = true;
                return Ok(());
            }
            let result = self.compactor.perform(&task, self.deadline).await;
            let mut so_far = self.so_far.lock();
            so_far.reserved -= bytes;
            match result {
                Ok((went, report, _)) => {
                    so_far.merges += u64::from(went == Went::Merged);
                    so_far.parts += u64::from(matches!(task, Task::Part(..)));
                    so_far.expired_tables += if let Went::Expired(tables) = went { tables } else { 0 };
                    so_far.bytes_read += report.bytes_read;
                    so_far.bytes_written += report.bytes_written;
                }
                Err(JobError::Stale(why)) => {
                    tracing::debug!(%why, "will plan again");
                }
                Err(JobError::Stopped(_)) => {
                    so_far.limited = true;
                    return Ok(());
                }
                Err(JobError::ClaimedElsewhere(who)) => {
                    so_far.elsewhere.insert(task.job(), who);
                }
                // Its run, or the blob file, is left alone from here on, and other work goes on.
                Err(error @ (JobError::Damaged { .. } | JobError::UnreadableValue { .. })) => {
                    so_far.damaged = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the bytes that a task will read, if they are within the limits.
    fn reserve(&self, bytes: u64) -> bool {
        let mut so_far = self.so_far.lock();
        let together = so_far.bytes_read + so_far.reserved + bytes;
        if self.is_over() || self.limits.max_bytes.is_some_and(|most| together > most) {
            return false;
        }
        so_far.reserved += bytes;
        true
    }
}
