//! The compaction mode: a property of the database, changed by one commit.
//!
//! A change of mode may delete data, so it says beforehand what it will do: [`foresee`] judges the manifest as if it
//! were in the new mode already. What is over by then is not deleted by the change itself but by the next pass of
//! retention, which judges again; until then, setting the mode back keeps everything.

use isle_storage::coordination::{NodeInfo, fold};
use isle_storage::database::Database;
use isle_storage::ids::Timestamp;
use isle_storage::manifest::{Author, Change, CompactionMode, Manifest};

use crate::error::JobError;
use crate::job::{self, Bounds};
use crate::plan;
use crate::retain::Expired;
use crate::settings::CompactorSettings;

/// What a mode means for the database as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// The mode.
    pub mode: CompactionMode,
    /// Everything there is.
    pub all: Expired,
    /// What of it is over at once, and goes with the next passes.
    pub over: Expired,
    /// When the next table will be over, where one is ever by age.
    pub next: Option<Timestamp>,
    /// A snapshot that holds back what is over or will be next.
    pub held_by: Option<String>,
    /// Runs there are.
    pub runs: usize,
}

/// What `mode` would mean for `manifest` at `now`.
#[must_use]
pub fn foresee(
    manifest: &Manifest,
    mode: &CompactionMode,
    settings: &CompactorSettings,
    now: Timestamp,
) -> Forecast {
    let then = Manifest { compaction: mode.clone(), ..manifest.clone() };
    let sum = |tables: &mut dyn Iterator<Item = (u64, u64)>| {
        tables.fold(Expired::default(), |sum, (rows, bytes)| Expired {
            tables: sum.tables + 1,
            rows: sum.rows + rows,
            bytes: sum.bytes + bytes,
        })
    };
    let oldest = manifest.runs.last().and_then(|r| r.tables.iter().min_by_key(|t| t.max_seq));
    let ends = mode.retention_us().is_some();
    Forecast {
        mode: mode.clone(),
        all: sum(&mut manifest.tables().map(|t| (t.rows, t.len))),
        over: sum(&mut plan::over(&then, settings, now).iter().map(|t| (t.rows, t.len))),
        next: plan::next_end(&then, settings, now),
        held_by: oldest.filter(|_| ends).and_then(|t| manifest.holder_of(t)).map(str::to_owned),
        runs: manifest.runs.len(),
    }
}

/// What became of a request to change the mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// What it means for the database as it was found.
    pub forecast: Forecast,
    /// Whether the mode was another one before.
    pub changed: bool,
}

/// Sets the mode; does nothing where it is set already.
///
/// # Errors
/// [`JobError::Refused`] where the mode contradicts itself; otherwise what claims and commits fail with.
pub async fn set(
    db: &Database,
    node: &NodeInfo,
    settings: &CompactorSettings,
    mode: &CompactionMode,
) -> Result<Changed, JobError> {
    mode.validate().map_err(JobError::Refused)?;
    let id = plan::job_named("mode");
    job::under_claim(db, node, id, &Bounds::default(), async |authority| {
        let loaded = db.load().await?;
        let forecast = foresee(&loaded.manifest, mode, settings, db.env.clock.now());
        let changed = loaded.manifest.compaction != *mode;
        if changed {
            let changes = vec![Change::SetCompaction { compaction: mode.clone() }];
            let committed = job::commit_changes(db, &authority, &Author::Job(id), changes, loaded).await?;
            // An older mode may have a shorter retention, which deletes what should stay.
            fold::into_the_bucket(db, &committed, "the new mode").await;
            tracing::info!(?mode, over = ?forecast.over, "the compaction mode has changed");
        }
        Ok(Changed { forecast, changed })
    })
    .await
}
