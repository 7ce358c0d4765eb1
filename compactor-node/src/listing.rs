//! What `manifest/` holds, and whether the bucket agrees that a head is the newest: asked before anything is deleted.

use std::time::Duration;

use futures::StreamExt;
use isle_storage::coordination::{CoordinationError, Loaded, fold};
use isle_storage::database::Database;
use isle_storage::ids::{Epoch, Timestamp, Version};
use isle_storage::manifest::CheckpointRef;
use isle_storage::names::{self, ObjectPath};
use isle_storage::object::ObjectMeta;

use crate::error::JobError;
use crate::garbage::{self, ListedCheckpoint};

/// One listing of `manifest/`.
#[derive(Debug, Default)]
pub struct Listing {
    /// Newest first, by version, then by writing time.
    pub checkpoints: Vec<ListedCheckpoint>,
    /// The highest epoch object.
    pub newest_epoch: Epoch,
    big_edits: Vec<(Version, ObjectMeta)>,
    markers: Vec<ObjectMeta>,
}

impl Listing {
    /// Lists. The head is read after it: whatever was listed was written under a head no newer than that one.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(db: &Database) -> Result<Self, JobError> {
        let mut out = Self::default();
        let mut entries = db.bucket.list("manifest");
        while let Some(meta) = entries.next().await {
            let meta = meta?;
            if let Some(version) = names::parse_checkpoint(&meta.path) {
                out.checkpoints.push(ListedCheckpoint {
                    version,
                    written: meta.last_modified,
                    path: meta.path,
                });
            } else if let Some(epoch) = names::parse_epoch(&meta.path) {
                out.newest_epoch = out.newest_epoch.max(epoch);
            } else if let Some(version) = names::parse_big_edit(&meta.path) {
                out.big_edits.push((version, meta));
            } else if names::is_marker(&meta.path) {
                out.markers.push(meta);
            }
        }
        out.checkpoints.sort_by_key(|c| std::cmp::Reverse((c.version, c.written)));
        Ok(out)
    }

    /// Before anything is deleted: does the bucket agree that this head is the newest, and of the newest lineage?
    ///
    /// # Errors
    /// [`CoordinationError::Regressed`] or [`CoordinationError::WrongDatabase`] where it contradicts; the store's.
    pub async fn refuse_contradictions(&self, db: &Database, loaded: &Loaded) -> Result<(), JobError> {
        let manifest = &loaded.manifest;
        if let Some(c) = self.checkpoints.first().filter(|c| c.version > manifest.version) {
            return Err(CoordinationError::Regressed(format!(
                "{} stands in the bucket, and the head is only at version {}: coordination was set back; stop every \
                 role and run `isle recover`",
                c.path, manifest.version
            ))
            .into());
        }
        if self.newest_epoch > manifest.epoch {
            return Err(CoordinationError::Regressed(format!(
                "an epoch object of epoch {} stands in the bucket, and the head is only at {}: coordination was set \
                 back; stop every role and run `isle recover`",
                self.newest_epoch, manifest.epoch
            ))
            .into());
        }
        Ok(db.check_lineage(manifest.lineage).await?)
    }

    /// The newest epoch that is over and done with its takeover: adopted by the head, recorded in the bucket.
    #[must_use]
    pub fn settled(&self, head: Epoch) -> Epoch {
        self.newest_epoch.min(head)
    }

    /// Reads the two checkpoints that everything deleted must be covered by, and forgets those that do not decode:
    /// they cover nothing. Whether any was forgotten.
    ///
    /// # Errors
    /// The store's, where they can neither be read nor said to be damaged.
    pub async fn forget_damaged(&mut self, db: &Database, head: &CheckpointRef) -> Result<bool, JobError> {
        let mut damaged = Vec::new();
        for c in garbage::covering(&self.checkpoints, head) {
            let path = ObjectPath::new(c.path.clone()).map_err(JobError::Internal)?;
            let why = match db.bucket.get(&path).await {
                Ok(bytes) => match isle_storage::manifest::checkpoint::decode(&bytes) {
                    Ok(manifest) if manifest.version == c.version => continue,
                    Ok(manifest) => format!("it holds version {}", manifest.version),
                    Err(e) => e.to_string(),
                },
                Err(e) if e.is_not_found() => e.to_string(),
                Err(e) => return Err(e.into()),
            };
            tracing::error!(object = %c.path, why, "a checkpoint is damaged and counts for nothing; another is written");
            damaged.push(c.path.clone());
        }
        self.checkpoints.retain(|c| !damaged.contains(&c.path));
        Ok(!damaged.is_empty())
    }

    /// What nobody needs of `manifest/` itself, with the reason: checkpoints behind the newest two, edits' objects that
    /// both of those cover, markers left by a crash.
    #[must_use]
    pub fn surplus(
        &self,
        head: &CheckpointRef,
        store_now: Timestamp,
        grace: Duration,
    ) -> Vec<(ObjectPath, &'static str)> {
        let old = garbage::surplus_checkpoints(&self.checkpoints, head, store_now, grace);
        let old = old.into_iter().map(|c| (&c.path, "a checkpoint behind the newest two"));
        let covered = garbage::covering(&self.checkpoints, head).last().map(|c| c.version.0);
        let horizon = covered.unwrap_or_default().saturating_sub(fold::KEEP_EDITS as u64);
        let edits = self.big_edits.iter().filter(|(v, m)| v.0 < horizon && is_past(m, grace, store_now));
        let edits = edits.map(|(_, m)| (&m.path, "an edit that two checkpoints cover"));
        let markers = self.markers.iter().filter(|m| is_past(m, grace, store_now));
        let markers = markers.map(|m| (&m.path, "a marker left by a crash"));
        let all = old.chain(edits).chain(markers);
        all.filter_map(|(p, why)| Some((ObjectPath::new(p.clone()).ok()?, why))).collect()
    }
}

fn is_past(object: &ObjectMeta, grace: Duration, now: Timestamp) -> bool {
    object.last_modified.plus(grace) < now
}

/// Writes a checkpoint of the head and folds: what garbage waits for.
///
/// # Errors
/// As [`fold::fold`].
pub async fn fold_for_garbage(db: &Database, loaded: &mut Loaded) -> Result<(), JobError> {
    if let Some(state) = fold::fold(db, loaded).await? {
        // The fold may have met a newer head than the manifest at hand: only its checkpoint is taken over.
        if state.head.version == loaded.manifest.version {
            loaded.state = state;
        } else {
            *loaded = db.load().await?;
        }
    }
    Ok(())
}
