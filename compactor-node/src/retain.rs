//! Retention carried out: one commit takes the oldest tables out of the tree. Their objects are retired by it and deleted
//! by the collector, after the grace, like any other.
//!
//! There is nothing to undo: until the edit is committed nothing has changed, and a process that dies on the way leaves
//! only a claim.

use isle_storage::coordination::NodeInfo;
use isle_storage::database::Database;
use isle_storage::manifest::Author;

use crate::error::JobError;
use crate::job::{self, Bounds};
use crate::plan;
use crate::settings::CompactorSettings;

/// What retention took out of the tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Expired {
    /// Tables.
    pub tables: u64,
    /// Rows in them, every version counted.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Takes out what is over, judged by the manifest as it is after the claim.
///
/// # Errors
/// [`JobError::Stale`] where nothing is over any more; otherwise what claims and commits fail with.
pub async fn expire(
    db: &Database,
    node: &NodeInfo,
    settings: &CompactorSettings,
) -> Result<Expired, JobError> {
    let id = plan::job_named("retention");
    job::under_claim(db, node, id, &Bounds::default(), async |authority| {
        let loaded = db.load().await?;
        let planned = plan::expire(&loaded.manifest, settings, db.env.clock.now())
            .ok_or_else(|| JobError::Stale("no table's retention has ended".to_owned()))?;
        let tables = planned.tables.len() as u64;
        job::commit_changes(db, &authority, &Author::Job(id), vec![planned.change()], loaded).await?;
        let expired = Expired { tables, rows: planned.rows, bytes: planned.bytes };
        tracing::info!(job = %id, tables, rows = expired.rows, bytes = expired.bytes, "retention ended");
        Ok(expired)
    })
    .await
}
