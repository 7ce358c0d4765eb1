//! One bounded run, for cron: merges until nothing is left or a limit is reached, then checkpoint, garbage, orphans.
//!
//! Two runs that overlap are safe: whatever one has claimed the other leaves alone and says so. A claim that a dead
//! process left behind is waited out where only waiting can tell (see [`job::outlived`]), so that one crash does not
//! make every later run do nothing.

use std::time::Duration;

use isle_storage::coordination::NodeInfo;
use isle_storage::database::Database;
use isle_storage::ids::JobId;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::compactor::Compactor;
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
/// [`JobError`] where something else than a limit or another's claim stopped it.
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
}

impl<'a> Run<'a> {
    fn new(compactor: &'a Compactor, limits: Limits) -> Self {
        let started = Instant::now();
        let summary = Summary {
            outcome: Outcome::NothingToDo,
            dry_run: limits.dry_run,
            merges: 0,
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
        Self { compactor, limits, started, deadline, summary, plan: Plan::default() }
    }

    async fn run(mut self) -> Result<Summary, JobError> {
        self.merges().await?;
        if !self.limits.dry_run {
            self.house().await?;
        }
        self.garbage().await?;
        self.orphans().await?;
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

    async fn merges(&mut self) -> Result<(), JobError> {
        loop {
            let manifest = self.compactor.database().load().await?.manifest;
            let now = self.compactor.database().env.clock.now();
            let outlook = plan::next(&manifest, self.compactor.settings(), now);
            self.plan.look_again = outlook.look_again.map(|at| at.micros());
            let Some(planned) = outlook.plan else { return Ok(()) };
            let bytes = self.summary.bytes_read + planned.bytes();
            let over = self.limits.max_bytes.is_some_and(|most| bytes > most);
            if over || self.is_over() {
                self.summary.outcome = Outcome::WorkLeft;
                return Ok(());
            }
            if self.limits.dry_run {
                self.foresee(&planned);
                return Ok(());
            }
            match self.carry_out(&planned).await {
                Ok(()) => self.summary.outcome = Outcome::Done,
                Err(JobError::Stale(_)) => {}
                Err(JobError::Stopped(_)) => {
                    self.summary.outcome = Outcome::WorkLeft;
                    return Ok(());
                }
                Err(JobError::ClaimedElsewhere(who)) => {
                    if !self.outlived(planned.job(), &who).await? {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What would be done next; what comes after it depends on its outcome.
    fn foresee(&mut self, planned: &plan::Plan) {
        self.summary.outcome = Outcome::WorkLeft;
        let (reason, score) = (planned.reason(), planned.score());
        match planned {
            plan::Plan::Merge(merge) => {
                self.summary.merges += 1;
                self.summary.bytes_read += merge.bytes;
                let runs = merge.inputs.iter().map(|r| r.0).collect();
                self.plan.merge = Some(PlannedMerge { runs, bytes: merge.bytes, reason, score });
            }
            plan::Plan::Expire(gone) => {
                self.summary.expired_tables += gone.tables.len() as u64;
                let (tables, rows, bytes) = (gone.tables.len() as u64, gone.rows, gone.bytes);
                self.plan.expire = Some(PlannedExpiry { tables, rows, bytes, reason, score });
            }
        }
    }

    async fn carry_out(&mut self, planned: &plan::Plan) -> Result<(), JobError> {
        match planned {
            plan::Plan::Merge(merge) => {
                let report = self.compactor.merge(merge, self.deadline).await?;
                self.summary.merges += 1;
                self.summary.bytes_read += report.bytes_read;
                self.summary.bytes_written += report.bytes_written;
            }
            plan::Plan::Expire(_) => {
                self.summary.expired_tables += self.compactor.expire().await?.tables;
            }
        }
        Ok(())
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
