//! One bounded run, for cron: merges until nothing is left or a limit is reached, then checkpoint and garbage.
//!
//! Two runs that overlap are safe: whatever one has claimed the other leaves alone and says so.

use std::time::Duration;

use isle_storage::coordination::NodeInfo;
use isle_storage::database::Database;
use serde::Serialize;
use tokio::time::Instant;

use crate::compactor::Compactor;
use crate::error::JobError;
use crate::plan;
use crate::settings::CompactorSettings;

/// The bounds of one run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// No merge is started after this long, and one under way is dropped.
    pub max_time: Option<Duration>,
    /// No merge is started that would bring the bytes read above this.
    pub max_bytes: Option<u64>,
    /// Only says what would be done.
    pub dry_run: bool,
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
    /// Objects deleted (or that would be, in a dry run).
    pub deleted_objects: u64,
    /// Objects retired and waiting for their grace.
    pub retired_objects: u64,
    /// Whether a checkpoint was written.
    pub checkpoint: bool,
    /// Manifest version at the end.
    pub version: u64,
    /// How long it took.
    pub seconds: f64,
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
    let result = run(&compactor, limits).await;
    compactor.close().await;
    result
}

async fn run(compactor: &Compactor, limits: Limits) -> Result<Summary, JobError> {
    let started = Instant::now();
    let deadline = limits.max_time.map(|t| started + t);
    let mut summary = Summary {
        outcome: Outcome::NothingToDo,
        dry_run: limits.dry_run,
        merges: 0,
        bytes_read: 0,
        bytes_written: 0,
        deleted_objects: 0,
        retired_objects: 0,
        checkpoint: false,
        version: 0,
        seconds: 0.0,
    };
    merges(compactor, limits, deadline, &mut summary).await?;
    if !limits.dry_run {
        house(compactor, &mut summary).await?;
    }
    garbage(compactor, limits, &mut summary).await?;
    let end = compactor.database().coordination.load().await?;
    summary.version = end.manifest.version.0;
    summary.retired_objects = end.manifest.retired.len() as u64;
    summary.seconds = started.elapsed().as_secs_f64();
    Ok(summary)
}

async fn merges(
    compactor: &Compactor,
    limits: Limits,
    deadline: Option<Instant>,
    summary: &mut Summary,
) -> Result<(), JobError> {
    loop {
        let manifest = compactor.database().coordination.load().await?.manifest;
        let Some(planned) = plan::merge(&manifest, compactor.settings()) else { return Ok(()) };
        let over = limits.max_bytes.is_some_and(|most| summary.bytes_read + planned.bytes > most);
        if over || deadline.is_some_and(|d| Instant::now() >= d) {
            summary.outcome = Outcome::WorkLeft;
            return Ok(());
        }
        if limits.dry_run {
            summary.merges += 1;
            summary.bytes_read += planned.bytes;
            summary.outcome = Outcome::WorkLeft;
            return Ok(());
        }
        match bounded(deadline, compactor.merge(&planned)).await {
            Ok(report) => {
                summary.outcome = Outcome::Done;
                summary.merges += 1;
                summary.bytes_read += report.bytes_read;
                summary.bytes_written += report.bytes_written;
            }
            Err(JobError::Stale(_)) => {}
            Err(JobError::Stopped(_)) => {
                summary.outcome = Outcome::WorkLeft;
                return Ok(());
            }
            Err(JobError::ClaimedElsewhere(who)) => {
                tracing::info!(%who, "the merge is claimed by another process");
                summary.outcome = Outcome::ClaimedElsewhere;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

async fn bounded<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, JobError>>,
) -> Result<T, JobError> {
    match deadline {
        None => work.await,
        Some(at) => {
            tokio::time::timeout_at(at, work).await.unwrap_or(Err(JobError::Stopped("--max-time is over")))
        }
    }
}

async fn house(compactor: &Compactor, summary: &mut Summary) -> Result<(), JobError> {
    let loaded = compactor.database().coordination.load().await?;
    match compactor.keep_house(&loaded).await {
        Ok(()) => {}
        Err(JobError::ClaimedElsewhere(_) | JobError::Stale(_)) => return Ok(()),
        Err(error) => return Err(error),
    }
    summary.checkpoint = compactor.status().checkpoints > 0;
    if summary.checkpoint && summary.outcome == Outcome::NothingToDo {
        summary.outcome = Outcome::Done;
    }
    Ok(())
}

async fn garbage(compactor: &Compactor, limits: Limits, summary: &mut Summary) -> Result<(), JobError> {
    match compactor.collect(limits.dry_run).await {
        Ok(pass) => {
            summary.deleted_objects = pass.deleted;
            if pass.deleted > 0 && summary.outcome == Outcome::NothingToDo {
                summary.outcome = Outcome::Done;
            }
            Ok(())
        }
        Err(JobError::ClaimedElsewhere(_) | JobError::Stale(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
