//! The tables a merge makes: uploaded beside it, and taken back where they will never be named.

use std::sync::Arc;

use isle_storage::database::Database;
use isle_storage::manifest::TableEntry;
use isle_storage::names::{self, ObjectPath};
use isle_storage::sst::EncodedTable;
use tokio::task::JoinSet;

use super::Resources;
use super::resources::permits;
use crate::error::JobError;

/// Tables made so far, and the uploads that are under way.
#[derive(Debug)]
pub(super) struct Outputs<'a> {
    db: &'a Database,
    resources: &'a Resources,
    uploads: JoinSet<Result<(), JobError>>,
    /// Every table of the result, kept ones included, in key order.
    pub(super) entries: Vec<Arc<TableEntry>>,
    /// The objects that were made.
    pub(super) names: Vec<ObjectPath>,
    pub(super) bytes: u64,
}

impl<'a> Outputs<'a> {
    pub(super) fn new(db: &'a Database, resources: &'a Resources) -> Self {
        Self { db, resources, uploads: JoinSet::new(), entries: Vec::new(), names: Vec::new(), bytes: 0 }
    }

    /// Uploads `table` beside whatever comes next, once there is room for its bytes.
    pub(super) async fn upload(&mut self, table: EncodedTable) -> Result<(), JobError> {
        let path = names::table(&table.entry.name);
        self.names.push(path.clone());
        let len = table.entry.len;
        let permit = Arc::clone(&self.resources.uploads)
            .acquire_many_owned(permits(len, self.resources.upload_bytes))
            .await
            .map_err(|e| JobError::Internal(e.to_string()))?;
        self.reap()?;
        self.bytes += len;
        self.entries.push(Arc::new(table.entry));
        let (bucket, resources) = (Arc::clone(&self.db.bucket), self.resources.clone());
        self.uploads.spawn(async move {
            let _permit = permit;
            resources.writes.take(len).await;
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
    pub(super) async fn uploaded(&mut self) -> Result<(), JobError> {
        while let Some(done) = self.uploads.join_next().await {
            done.map_err(|e| JobError::Internal(e.to_string()))??;
        }
        Ok(())
    }

    pub(super) async fn take_back(&mut self) {
        self.uploads.shutdown().await;
        take_back(self.db, &self.names).await;
    }
}

/// Deletes outputs that will certainly never be named: no commit has named them, or its outcome is "not committed".
pub async fn take_back(db: &Database, outputs: &[ObjectPath]) {
    for path in outputs {
        if let Err(error) = db.bucket.delete(path).await {
            tracing::warn!(object = %path, %error, "an unused merge output stays for the orphan sweep");
        }
    }
}
