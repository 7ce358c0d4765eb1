//! The tables a merge makes: uploaded while they are built, and taken back where they will never be named.
//!
//! A table has an upload from before its first row on, because that holds the place of its next part in the budget. What
//! is finished of it is handed over as it comes; a table that stays smaller than a part is one put, at its end. Its end
//! is waited for beside the next table's rows.

use std::sync::Arc;

use bytes::Bytes;
use isle_storage::database::Database;
use isle_storage::manifest::TableEntry;
use isle_storage::names::{self, ObjectPath};
use isle_storage::object::Upload;
use isle_storage::sst::EncodedTable;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Resources;
use crate::error::JobError;

/// Tables made so far, and the uploads that are under way.
#[derive(Debug)]
pub(super) struct Outputs<'a> {
    db: &'a Database,
    resources: &'a Resources,
    table_bytes: u64,
    /// The table that is being built.
    open: Option<Upload>,
    uploads: JoinSet<Result<(), JobError>>,
    /// Cancelled when they are to be taken back.
    given_up: CancellationToken,
    /// Every table of the result, kept ones included, in key order.
    pub(super) entries: Vec<Arc<TableEntry>>,
    /// The objects that were made, or may have been.
    pub(super) names: Vec<ObjectPath>,
    pub(super) bytes: u64,
}

impl<'a> Outputs<'a> {
    /// For tables of about `table_bytes`.
    pub(super) fn new(db: &'a Database, resources: &'a Resources, table_bytes: u64) -> Self {
        Self {
            db,
            resources,
            table_bytes,
            open: None,
            uploads: JoinSet::new(),
            given_up: CancellationToken::new(),
            entries: Vec::new(),
            names: Vec::new(),
            bytes: 0,
        }
    }

    /// Waits until the next part of the table called `name` may be built.
    pub(super) async fn room(&mut self, name: impl FnOnce() -> String) {
        match &mut self.open {
            Some(upload) => upload.ready().await,
            None => {
                let (bucket, budget) = (&self.db.bucket, &self.resources.uploads);
                let path = names::table(&name());
                self.open = Some(Upload::begin(bucket, path, budget, Some(self.table_bytes)).await);
            }
        }
    }

    /// Takes what is finished of the table that is being built; waits while too much is on its way.
    pub(super) async fn pieces(&mut self, pieces: Vec<Bytes>) -> Result<(), JobError> {
        self.reap()?;
        let Some(upload) = &mut self.open else {
            return Err(JobError::Internal("pieces of a table that was never begun".to_owned()));
        };
        for piece in pieces {
            self.resources.writes.take(piece.len() as u64).await;
            upload.append(piece).await?;
        }
        Ok(())
    }

    /// Takes the rest of the table; its end is beside whatever comes next.
    pub(super) async fn table(&mut self, table: EncodedTable) -> Result<(), JobError> {
        self.names.push(table.entry.path());
        self.pieces(table.body.pieces().to_vec()).await?;
        self.bytes += table.entry.len;
        self.entries.push(Arc::new(table.entry));
        if let Some(upload) = self.open.take() {
            let given_up = self.given_up.clone().cancelled_owned();
            self.uploads
                .spawn(async move { upload.finish_unless(given_up).await.map(drop).map_err(JobError::from) });
        }
        Ok(())
    }

    /// Uploads that failed end the merge at once, not only at its end.
    fn reap(&mut self) -> Result<(), JobError> {
        while let Some(done) = self.uploads.try_join_next() {
            done.map_err(|e| JobError::Internal(e.to_string()))??;
        }
        Ok(())
    }

    /// Every upload is done; no further table comes.
    pub(super) async fn uploaded(&mut self) -> Result<(), JobError> {
        self.open = None;
        while let Some(done) = self.uploads.join_next().await {
            done.map_err(|e| JobError::Internal(e.to_string()))??;
        }
        Ok(())
    }

    pub(super) async fn take_back(&mut self) {
        self.given_up.cancel();
        if let Some(upload) = self.open.take() {
            upload.abort().await;
        }
        while self.uploads.join_next().await.is_some() {}
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
