//! One bounded run, for cron: merges until nothing is left or a limit is reached, then checkpoint, garbage, orphans.
//!
//! Two runs that overlap are safe: whatever one has claimed the other leaves alone and says so. A claim that a dead
//! process left behind is waited out where only waiting can tell (see [`job::outlived`]), so that one crash does not
//! make every later run do nothing.
//!
//! What fails keeps nothing else from its turn: neither the other merges nor what comes after them. The summary tells the
//! first failure.

mod merging;
mod summary;

use std::time::Duration;

use isle_storage::coordination::NodeInfo;
use isle_storage::database::Database;
use isle_storage::ids::JobId;
use isle_storage::manifest::Manifest;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::merging::Merging;
use crate::compactor::{Compactor, Task};
use crate::error::JobError;
use crate::job;
use crate::plan;
use crate::settings::CompactorSettings;

pub use self::summary::{Outcome, Plan, PlannedExpiry, PlannedMerge, PlannedMove, Summary, TooLarge};

/// How often a run writes a checkpoint because what it has retired is not covered yet: it takes two.
const COVERED_BY: usize = 2;

/// The bounds of one run.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// No merge is started after this long, and one under way is dropped.
    pub max_time: Option<Duration>,
    /// No merge is started that would bring the bytes read above this; a smaller one may be.
    pub max_bytes: Option<u64>,
    /// Only says what would be done.
    pub dry_run: bool,
    /// Cancelled to end the run early: what is under way takes back what it has uploaded, and gives its claim back.
    pub stop: CancellationToken,
}

/// Runs once.
///
/// # Errors
/// [`JobError::Internal`] where a setting is wrong; nothing was done then. What fails in the run is in the summary.
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
    let summary = Run::new(&compactor, limits).run().await;
    drop(ended);
    compactor.close().await;
    Ok(summary)
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
        let deadline = limits.max_time.map(|t| started + t);
        let summary = Summary::new(limits.dry_run);
        Self { compactor, limits, started, deadline, summary, plan: Plan::default() }
    }

    async fn run(mut self) -> Summary {
        let merged = self.merges().await;
        self.ended("merges", merged);
        if !self.limits.dry_run && self.goes_on() {
            let kept = self.house().await;
            self.ended("housekeeping", kept);
        }
        if self.goes_on() {
            let collected = self.garbage().await;
            self.ended("garbage", collected);
        }
        if self.goes_on() {
            let swept = self.orphans().await;
            self.ended("the sweep", swept);
        }
        match self.compactor.database().load().await {
            Ok(end) => {
                self.summary.version = end.manifest.version.0;
                self.summary.retired_objects = end.manifest.retired.len() as u64;
            }
            Err(error) => self.ended("the end", Err(error.into())),
        }
        self.summary.seconds = self.started.elapsed().as_secs_f64();
        self.summary.plan = self.limits.dry_run.then_some(self.plan);
        self.summary
    }

    fn is_over(&self) -> bool {
        self.limits.stop.is_cancelled() || self.deadline.is_some_and(|d| Instant::now() >= d)
    }

    /// Whether the next step may begin; where the run was told to stop, nobody knows what it would have found.
    fn goes_on(&mut self) -> bool {
        let stopped = self.limits.stop.is_cancelled();
        if stopped {
            self.summary.ends(Outcome::WorkLeft);
        }
        !stopped
    }

    /// A step has ended.
    fn ended(&mut self, step: &'static str, result: Result<(), JobError>) {
        match result {
            Ok(()) => {}
            Err(JobError::Stopped(_)) => self.summary.ends(Outcome::WorkLeft),
            Err(error) => {
                tracing::error!(step, %error, "failed; the run goes on with what comes next");
                self.summary.fails(&error);
            }
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
        self.summary.ends(Outcome::ClaimedElsewhere);
        Ok(false)
    }

    async fn merges(&mut self) -> Result<(), JobError> {
        let manifest = self.compactor.database().load().await?.manifest;
        if self.compactor.is_paused(&manifest) {
            self.summary.paused = true;
            tracing::info!(
                "merges are paused: none is begun; `POST /v1/resume` at a compactor ends the pause"
            );
        }
        if self.limits.dry_run {
            self.foresee(&manifest);
            return Ok(());
        }
        loop {
            let done = Merging::new(self.compactor, &self.limits, self.deadline).run().await;
            self.summary.merges += done.merges;
            self.summary.parts += done.parts;
            self.summary.bytes_read += done.bytes_read;
            self.summary.bytes_written += done.bytes_written;
            self.summary.expired_tables += done.expired_tables;
            self.summary.did(done.merges + done.parts + done.expired_tables > 0);
            self.limits.max_bytes = self.limits.max_bytes.map(|most| most.saturating_sub(done.bytes_read));
            done.failures.iter().for_each(|error| self.summary.fails(error));
            if done.limited || !done.too_large.is_empty() {
                self.summary.ends(Outcome::WorkLeft);
            }
            done.too_large.into_iter().for_each(|work| self.summary.had_no_room_for(work));
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
        self.summary.ends(Outcome::WorkLeft);
        if self.summary.paused && task != Task::Expire {
            return;
        }
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
        self.summary.did(self.summary.checkpoint);
        Ok(())
    }

    /// All that may go, as far as the limits go; the first pass is always done. What was retired by this run is covered by
    /// two checkpoints when it ends, so that the next one that comes after the grace finds it ready to go.
    async fn garbage(&mut self) -> Result<(), JobError> {
        let (mut uncovered, mut failed) = (0, 0);
        loop {
            match self.compactor.collect(self.limits.dry_run).await {
                Ok(pass) => {
                    self.summary.deleted_objects += pass.deleted;
                    self.summary.failed_objects += pass.failed.saturating_sub(failed);
                    failed = failed.max(pass.failed);
                    self.plan.collect = pass.plan;
                    self.summary.did(pass.deleted > 0);
                    uncovered += usize::from(pass.uncovered);
                    let goes_on = pass.more && pass.deleted > 0 && !self.is_over();
                    let covers = pass.uncovered && uncovered <= COVERED_BY && self.goes_on();
                    if self.limits.dry_run || !(goes_on || covers) {
                        if pass.more {
                            self.summary.ends(Outcome::WorkLeft);
                        }
                        return Ok(());
                    }
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
                    self.summary.did(swept.deleted > 0);
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
