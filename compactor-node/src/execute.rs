//! The executor: a merge plan in, tables in the bucket and a `Merge` change out.
//!
//! ```text
//!   source ─┐
//!   source ─┼─▶ tournament tree ─▶ rewrite policy ─▶ table builder ─▶ uploads (bounded bytes)
//!   source ─┘
//! ```
//! The loop gives way to other tasks every few hundred rows, so that heartbeats and commits on the same runtime are
//! never starved by a long merge. Finished tables are uploaded beside it, at most `upload_bytes_in_flight` at once.
//!
//! # Crash cases
//! Until the `Merge` edit is committed nobody names the outputs. A merge that fails, loses its claim, runs out of time or
//! is closed deletes what it has uploaded; one that dies leaves orphans under a name that carries its job, for the sweep,
//! and so does an upload that was under way and arrives after the delete.

use std::sync::Arc;
use std::time::Duration;

use isle_storage::database::Database;
use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::manifest::{Change, Manifest, Run, TableEntry};
use isle_storage::merge::{Direction, Feed, Held, Merge, Rewrite, Step};
use isle_storage::names::{self, ObjectPath};
use isle_storage::row::RowRef;
use isle_storage::sabotage::{Rule, broken};
use isle_storage::sst::{TableBuilder, TableOptions};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::error::JobError;
use crate::job::Claimed;
use crate::plan::MergePlan;
use crate::settings::CompactorSettings;
use crate::source::Source;

/// Rows between two chances for other tasks.
const ROWS_PER_TURN: u32 = 256;

/// What all read-ahead windows of one merge take together, in bytes: a wider merge reads smaller windows.
const READ_BUDGET: u64 = 256 << 20;

/// Permits of the upload budget are kibibytes, so that a table's length fits a permit count.
const PERMIT_BYTES: u64 = 1024;

/// A merge that is done but not committed.
#[derive(Debug, Clone)]
pub struct Merged {
    /// What to commit.
    pub change: Change,
    /// Bytes of the outputs.
    pub bytes_written: u64,
    /// Rows read.
    pub rows_in: u64,
    /// Rows written.
    pub rows_out: u64,
    /// The outputs, for whoever must take them back.
    pub outputs: Vec<ObjectPath>,
}

/// Carries out `plan` against `manifest`, as long as the claim stands and the time lasts. Outputs are named
/// `<owner>-<n>`.
///
/// # Errors
/// [`JobError`]; what was uploaded has been deleted again, as far as the store allowed.
pub async fn merge(
    db: &Database,
    settings: &CompactorSettings,
    plan: &MergePlan,
    manifest: &Manifest,
    owner: &str,
    claimed: &Claimed,
) -> Result<Merged, JobError> {
    let mut out = Outputs::new(db, settings, owner);
    let work = async {
        let done = run(db, settings, plan, manifest, &mut out).await?;
        out.uploaded().await?;
        Ok(done)
    };
    let sealed = match claimed.guard(work).await {
        Ok((rows_in, rewrite)) => out.seal(plan, manifest, rows_in, &rewrite),
        Err(error) => Err(error),
    };
    if sealed.is_err() {
        out.take_back().await;
    }
    sealed
}

/// Deletes outputs that will certainly never be named: no commit has named them, or its outcome is "not committed".
pub async fn take_back(db: &Database, outputs: &[ObjectPath]) {
    for path in outputs {
        if let Err(error) = db.bucket.delete(path).await {
            tracing::warn!(object = %path, %error, "an unused merge output stays for the orphan sweep");
        }
    }
}

async fn run(
    db: &Database,
    settings: &CompactorSettings,
    plan: &MergePlan,
    manifest: &Manifest,
    out: &mut Outputs<'_>,
) -> Result<(u64, Rewrite), JobError> {
    let inputs = inputs(plan, manifest)?;
    let window = (READ_BUDGET / (3 * inputs.len() as u64)).max(64 << 10).min(settings.read_ahead_bytes);
    let mut sources: Vec<Source> = inputs.iter().map(|r| Source::open(db, r, window)).collect();
    let expired = expiry_horizon(db.env.clock.now(), settings);
    let mut held: Vec<Held> = manifest.snapshots.values().map(Held::from).collect();
    if broken(Rule::MergeForSnapshots) {
        held.clear();
    }
    let mut rewrite = Rewrite::new(&held, plan.bottom, Some(expired));
    let mut tree = Merge::new(sources.len(), Direction::Forward);
    let (mut rows, mut turn) = (0u64, 0u32);
    loop {
        match tree.step() {
            Step::Need(i) => {
                let feed = match sources[i].next().await? {
                    Some(block) => {
                        let mut cursor = block.cursor();
                        cursor.first();
                        Feed::Block(cursor)
                    }
                    None => Feed::End,
                };
                tree.feed(i, feed);
            }
            Step::Row => {
                let Some(row) = tree.row() else {
                    return Err(JobError::Internal("the merge promised a row and had none".to_owned()));
                };
                rows += 1;
                if let Some(row) = rewrite.judge(row) {
                    if out.is_full_before(&row) {
                        out.finish_table().await?;
                    }
                    out.push(row);
                }
                tree.pop();
            }
            Step::Done => break,
        }
        turn += 1;
        if turn >= ROWS_PER_TURN {
            turn = 0;
            tokio::task::yield_now().await;
        }
    }
    out.finish_table().await?;
    Ok((rows, rewrite))
}

fn inputs(plan: &MergePlan, manifest: &Manifest) -> Result<Vec<Arc<Run>>, JobError> {
    let find = |id| manifest.runs.iter().find(|r| r.id == id).cloned();
    let found: Option<Vec<_>> = plan.inputs.iter().map(|id| find(*id)).collect();
    found.ok_or_else(|| JobError::Stale("an input is gone: another job merged it".to_owned()))
}

/// The tables a merge makes.
#[derive(Debug)]
struct Outputs<'a> {
    db: &'a Database,
    settings: &'a CompactorSettings,
    owner: &'a str,
    options: TableOptions,
    open: Option<TableBuilder>,
    next: u64,
    rows: u64,
    budget: Arc<Semaphore>,
    uploads: JoinSet<Result<(), JobError>>,
    entries: Vec<Arc<TableEntry>>,
    names: Vec<ObjectPath>,
}

impl<'a> Outputs<'a> {
    fn new(db: &'a Database, settings: &'a CompactorSettings, owner: &'a str) -> Self {
        let permits = (settings.upload_bytes_in_flight / PERMIT_BYTES).min(u64::from(u32::MAX)) as usize;
        Self {
            db,
            settings,
            owner,
            options: TableOptions { block_bytes: settings.block_bytes, compression: settings.compression },
            open: None,
            next: 0,
            rows: 0,
            budget: Arc::new(Semaphore::new(permits)),
            uploads: JoinSet::new(),
            entries: Vec::new(),
            names: Vec::new(),
        }
    }

    /// Whether the open table is large enough and `row` may start the next one: the versions of one key stay together,
    /// so that a run has one candidate table for a key.
    fn is_full_before(&self, row: &RowRef<'_>) -> bool {
        self.open
            .as_ref()
            .is_some_and(|b| b.estimated_len() >= self.settings.table_bytes && b.last_key() != Some(row.key))
    }

    fn push(&mut self, row: RowRef<'_>) {
        self.rows += 1;
        self.open.get_or_insert_with(|| TableBuilder::new(self.options)).push(row);
    }

    async fn finish_table(&mut self) -> Result<(), JobError> {
        let Some(builder) = self.open.take() else { return Ok(()) };
        let name = format!("{}-{}", self.owner, self.next);
        self.next += 1;
        let table = self
            .db
            .env
            .offload
            .run(move || builder.finish(&name))
            .await
            .map_err(|e| JobError::Internal(e.to_string()))?;
        let path = names::table(&table.entry.name);
        self.names.push(path.clone());
        let most = (self.settings.upload_bytes_in_flight / PERMIT_BYTES).min(u64::from(u32::MAX));
        let cost = (table.entry.len / PERMIT_BYTES + 1).min(most) as u32;
        let permit = Arc::clone(&self.budget)
            .acquire_many_owned(cost)
            .await
            .map_err(|e| JobError::Internal(e.to_string()))?;
        self.reap()?;
        self.entries.push(Arc::new(table.entry));
        let bucket = Arc::clone(&self.db.bucket);
        self.uploads.spawn(async move {
            let _permit = permit;
            bucket.put(&path, table.body).await.map_err(JobError::from)
        });
        Ok(())
    }

    /// Uploads that failed end the merge at once, not only at its end.
    fn reap(&mut self) -> Result<(), JobError> {
        while let Some(done) = self.uploads.try_join_next() {
            done.map_err(|e| JobError::Internal(e.to_string()))??;
        }
        Ok(())
    }

    /// Every upload is done.
    async fn uploaded(&mut self) -> Result<(), JobError> {
        while let Some(done) = self.uploads.join_next().await {
            done.map_err(|e| JobError::Internal(e.to_string()))??;
        }
        Ok(())
    }

    fn seal(
        &mut self,
        plan: &MergePlan,
        manifest: &Manifest,
        rows_in: u64,
        rewrite: &Rewrite,
    ) -> Result<Merged, JobError> {
        let newest = inputs(plan, manifest)?.iter().map(|r| r.max_seq()).max().unwrap_or_default();
        let counts = rewrite.counts();
        let untouched = counts.kept == counts.judged && counts.expired_to_deletes == 0;
        let judged = if untouched { SeqNo::ZERO } else { newest };
        Ok(Merged {
            bytes_written: self.entries.iter().map(|e| e.len).sum(),
            rows_in,
            rows_out: self.rows,
            outputs: std::mem::take(&mut self.names),
            change: Change::Merge {
                inputs: plan.inputs.clone(),
                tables: std::mem::take(&mut self.entries),
                snapshots: plan.snapshots.clone(),
                planned_mode: plan.mode.clone(),
                dropped: rewrite.dropped(),
                judged,
            },
        })
    }

    async fn take_back(&mut self) {
        self.uploads.shutdown().await;
        take_back(self.db, &self.names).await;
    }
}

/// The oldest instant a row may have expired at to be dropped: expired on every clock.
#[must_use]
pub fn expiry_horizon(now: Timestamp, settings: &CompactorSettings) -> Timestamp {
    now.minus(Duration::from_secs(settings.max_clock_skew_seconds))
}
