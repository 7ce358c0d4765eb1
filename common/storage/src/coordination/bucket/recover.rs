//! Recover in the bucket form: there the head *is* objects in the bucket, so there is no service to lose; what can be lost
//! is a numbered edit, a fold record, or the checkpoint that the newest record names.
//!
//! The new head is one more fold record, of the new lineage, whose `gone` covers every edit of the old one. Whoever knows
//! the records before it asks for it after its next create or read, and finds that it has been overtaken: the same
//! question that keeps deleted names from being believed.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;

use super::Inner;
use super::record::{FoldRecord, NumberedEdit};
use super::write::Created;
use crate::coordination::recover::Remains;
use crate::coordination::{CoordinationError, Loaded};
use crate::ids::Version;
use crate::manifest::{CheckpointRef, Edit, Manifest};
use crate::names;

impl Inner {
    pub(super) async fn remains(&self) -> Result<Remains, CoordinationError> {
        let (mut newest, mut edits) = (0, Vec::new());
        let mut listing = self.bucket.list("manifest");
        while let Some(object) = listing.try_next().await? {
            newest = newest.max(names::parse_fold(&object.path).unwrap_or_default());
            edits.extend(names::parse_edit(&object.path));
        }
        edits.sort_unstable();
        let head = match self.load_now().await {
            Ok(Loaded { state, .. }) => Some(state.head),
            Err(e) if e.is_passing() => return Err(e),
            // What is wrong with it is what is to be mended.
            Err(_) => None,
        };
        let readable = self.readable(newest, &edits).await?;
        let epoch = readable.iter().map(|e| e.epoch).chain(head.iter().map(|h| h.epoch)).max();
        Ok(Remains {
            version: edits.last().copied().max(head.as_ref().map(|h| h.version)).unwrap_or_default(),
            epoch: epoch.unwrap_or_default(),
            writer: None,
            edits: readable,
            groups: None,
            mark: vec![
                Some(Bytes::from(newest.to_string())),
                edits.last().map(|v| Bytes::from(v.to_string())),
            ],
            head,
        })
    }

    /// The edits that can be read, above what the newest fold record allows to be deleted. Without that record none can be
    /// trusted: a name may have been deleted and created again.
    async fn readable(&self, newest: u64, edits: &[Version]) -> Result<Vec<Arc<Edit>>, CoordinationError> {
        let gone = match self.fold_record(newest).await {
            Ok(Some(record)) => record.gone,
            Err(e) if e.is_passing() => return Err(e),
            Ok(None) | Err(_) => return Ok(Vec::new()),
        };
        let mut found = Vec::new();
        for version in edits.iter().filter(|v| **v > gone) {
            match self.edit(*version).await {
                Ok(Some(NumberedEdit { edit, .. })) => found.push(edit),
                Err(e) if e.is_passing() => return Err(e),
                // It ends what can be replayed.
                Ok(None) | Err(_) => {}
            }
        }
        Ok(found)
    }

    pub(super) async fn replace(
        &self,
        found: &Remains,
        manifest: &Manifest,
        checkpoint: &CheckpointRef,
    ) -> Result<bool, CoordinationError> {
        let before = found.mark.first().cloned().flatten().unwrap_or_default();
        let before: u64 = String::from_utf8_lossy(&before).parse().unwrap_or_default();
        let record = FoldRecord {
            database: manifest.database,
            lineage: manifest.lineage,
            number: before + 1,
            checkpoint: checkpoint.clone(),
            gone: manifest.version,
        };
        let ours = match self.create(&names::fold(record.number), record.encode()?).await? {
            Created::Ours => true,
            Created::Theirs(_) | Created::Gone => false,
        };
        self.install(None);
        Ok(ours)
    }
}
