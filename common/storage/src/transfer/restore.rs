//! A database made of a backup: see the head of this folder.

use std::sync::Arc;

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::backup::put_once;
use super::copy::{self, Means, Route, Task};
use super::record::{BackupRecord, read_manifest};
use super::{Progress, Step, TransferError, parcel};
use crate::coordination::identity::{self, Identity};
use crate::coordination::lineage::{self, LineageObject};
use crate::coordination::{Coordination, Loaded, checkpoint, sealed};
use crate::environment::Environment;
use crate::ids::{CommitId, DatabaseId, Lineage};
use crate::manifest::{Manifest, check};
use crate::names;
use crate::object::{Bucket, StoreError};

const KIND: &str = "restore";

/// What an unfinished restore, or clone, has left in the prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The database that it is made of.
    pub(super) database: DatabaseId,
    /// Which state of it.
    pub(super) of: Origin,
    /// The name the database gets.
    pub(super) name: String,
    /// The history it begins.
    pub(super) lineage: Lineage,
    /// Its id: the same, or a clone's own.
    pub(super) becomes: DatabaseId,
}

/// What a database is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Origin {
    /// A backup, with the CRC32C of its manifest.
    Backup(u64, u32),
    /// What a named snapshot holds, or the newest state.
    Snapshot(Option<String>),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Backup(number, _) => write!(f, "an unfinished restore of backup {number}"),
            Self::Snapshot(Some(name)) => write!(f, "an unfinished clone at snapshot {name:?}"),
            Self::Snapshot(None) => write!(f, "an unfinished clone"),
        }
    }
}

/// What an unfinished restore, or clone, has left in `bucket`, in words, where there is one.
///
/// # Errors
/// The store's.
pub async fn unfinished(bucket: &dyn Bucket) -> Result<Option<String>, StoreError> {
    let path = names::restore_mark();
    match bucket.get(&path).await {
        Ok(bytes) => Ok(Some(match sealed::open::<Mark>(KIND, path.as_str(), &bytes) {
            Ok(mark) => mark.of.to_string(),
            Err(e) => format!("an unfinished restore or clone ({e})"),
        })),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

/// A database that was restored.
#[derive(Debug, Clone)]
pub struct Restored {
    /// Its head.
    pub loaded: Loaded,
    /// Objects copied by this run; others were there from an interrupted one.
    pub copied: usize,
    /// Their bytes.
    pub copied_bytes: u64,
}

/// Where a database is to be made.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// Its prefix, which must be empty.
    pub bucket: &'a Arc<dyn Bucket>,
    /// Its coordination, which must have no head of it.
    pub coordination: &'a Arc<dyn Coordination>,
    /// Clock, randomness.
    pub env: &'a Environment,
    /// Its name.
    pub name: &'a str,
}

/// Restores the backup `record` of the store `from` into an empty prefix, every byte verified.
///
/// # Errors
/// [`TransferError`]; run again it goes on where it was.
pub async fn restore(
    from: &Arc<dyn Bucket>,
    record: &BackupRecord,
    place: Place<'_>,
    progress: Progress<'_>,
) -> Result<Restored, TransferError> {
    identity::check_name(place.name)?;
    if copy::same_place(from, place.bucket) {
        return Err(TransferError::Refused(format!("{} is where the backup lies", from.url())));
    }
    let source = read_manifest(from.as_ref(), record).await?;
    let origin = Origin::Backup(record.number, record.manifest.crc);
    let mark = place.mark(record.database, origin, record.database).await?;
    place.coordination.prepare_to_write().await?;
    let manifest = of_a_new_history(source, mark.lineage, place.env)?;
    if !place.coordination.exists().await? {
        let (copied, copied_bytes) = place.fill(from, record, &manifest, progress).await?;
        place.found(&record.lineages, &manifest, progress).await?;
        let loaded = place.finish(&record.lineages, &manifest).await?;
        return Ok(Restored { loaded, copied, copied_bytes });
    }
    let loaded = place.finish(&record.lineages, &manifest).await?;
    Ok(Restored { loaded, copied: 0, copied_bytes: 0 })
}

/// The same rows under another history. What was retired was not copied, and whoever had a claim had it there.
fn of_a_new_history(
    mut manifest: Manifest,
    lineage: Lineage,
    env: &Environment,
) -> Result<Manifest, TransferError> {
    manifest.lineage = lineage;
    let commit = CommitId(env.entropy.next_u64());
    forget(&mut manifest, commit);
    check::whole(&manifest).map_err(|v| TransferError::Damaged {
        object: "the backup's manifest".to_owned(),
        why: v.to_string(),
    })?;
    Ok(manifest)
}

/// What belongs to the place it was copied from.
pub(super) fn forget(manifest: &mut Manifest, commit: CommitId) {
    manifest.retired.clear();
    manifest.jobs.clear();
    // What merges in parts had staged was not copied: they begin anew.
    manifest.staged.clear();
    manifest.recent.clear();
    manifest.recent.push((manifest.version, commit));
}

impl Place<'_> {
    /// The mark that this restore has left, or leaves now in an empty prefix.
    pub(super) async fn mark(
        &self,
        database: DatabaseId,
        of: Origin,
        becomes: DatabaseId,
    ) -> Result<Mark, TransferError> {
        let (path, url) = (names::restore_mark(), self.bucket.url());
        let drawn = Mark {
            database,
            of,
            name: self.name.to_owned(),
            lineage: Lineage(self.env.entropy.next_u128()),
            becomes,
        };
        match self.bucket.get(&path).await {
            Ok(bytes) => {
                let found: Mark = sealed::open(KIND, path.as_str(), &bytes)?;
                let cloned = matches!(found.of, Origin::Snapshot(_));
                let becomes = if cloned { found.becomes } else { drawn.becomes };
                let same = Mark { lineage: found.lineage, becomes, ..drawn };
                if found == same {
                    return Ok(found);
                }
                return Err(TransferError::Refused(format!(
                    "{url} holds {} of database {} as {:?}: finish that one, or empty the prefix",
                    found.of, found.database, found.name
                )));
            }
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(TransferError::Store(e)),
        }
        if let Some(object) = self.bucket.list("").try_next().await.map_err(TransferError::Store)? {
            return Err(TransferError::Refused(format!(
                "{url} is not empty ({} is there): a restore needs an empty prefix. Nothing was changed",
                object.path
            )));
        }
        if self.coordination.exists().await? {
            return Err(TransferError::Refused(format!(
                "{} has a head of a database {:?} already: use another name, or another coordination. Nothing was \
                 changed",
                self.coordination.describe(),
                self.name
            )));
        }
        put_once(self.bucket.as_ref(), &path, sealed::seal(KIND, &drawn)?).await?;
        Ok(drawn)
    }

    /// Copies every object, and checks those that an interrupted run has left.
    async fn fill(
        &self,
        from: &Arc<dyn Bucket>,
        record: &BackupRecord,
        manifest: &Manifest,
        progress: Progress<'_>,
    ) -> Result<(usize, u64), TransferError> {
        let there = copy::listed(self.bucket.as_ref()).await?;
        let mut tasks = Vec::new();
        for item in parcel(manifest) {
            let recorded = record.objects.iter().find(|o| o.path == item.path && o.len == item.len);
            let Some(recorded) = recorded else {
                return Err(TransferError::Damaged {
                    object: names::backup(record.number).to_string(),
                    why: format!("it lacks {}, which its manifest names", item.path),
                });
            };
            let there = there.get(item.path.as_str()) == Some(&item.len);
            tasks.push(Task { item, crc: Some(recorded.crc), there });
        }
        let fresh = || tasks.iter().filter(|t| !t.there).map(|t| t.item.len);
        let (copied, copied_bytes) = (fresh().count(), fresh().sum());
        progress(Step::Begins { objects: copied, bytes: copied_bytes, present: tasks.len() - copied });
        let route = Route { from, to: self.bucket, env: self.env, means: Means::Stream };
        copy::copy(route, tasks, progress).await?;
        Ok((copied, copied_bytes))
    }

    /// Lineages, checkpoint, head: in this order, so that a head never names what is not there.
    pub(super) async fn found(
        &self,
        before: &[LineageObject],
        manifest: &Manifest,
        progress: Progress<'_>,
    ) -> Result<(), TransferError> {
        let bucket = self.bucket.as_ref();
        for old in before {
            lineage::write(bucket, old).await?;
        }
        let number = before.len() as u64 + 1;
        let (database, lineage) = (manifest.database, manifest.lineage);
        lineage::write(bucket, &LineageObject { database, number, lineage }).await?;
        let written = checkpoint::write_verified(bucket, self.env, manifest).await?;
        progress(Step::Wrote(written.path.to_string()));
        self.coordination.bootstrap(manifest, &written).await?;
        Ok(())
    }

    /// The head is there: makes sure that it is this restore's, then gives the prefix its identity.
    pub(super) async fn finish(
        &self,
        before: &[LineageObject],
        manifest: &Manifest,
    ) -> Result<Loaded, TransferError> {
        let loaded = self.coordination.load().await?;
        if loaded.manifest.lineage != manifest.lineage || loaded.manifest.database != manifest.database {
            return Err(TransferError::Refused(format!(
                "{} has a head of another database under this name",
                self.coordination.describe()
            )));
        }
        let identity = Identity {
            database: manifest.database,
            name: self.name.to_owned(),
            format: identity::FORMAT,
            backend: self.coordination.backend(),
            lineage: before.first().map_or(manifest.lineage, |l| l.lineage),
        };
        identity::write(self.bucket.as_ref(), &identity).await?;
        self.bucket.delete(&names::restore_mark()).await.map_err(TransferError::Store)?;
        Ok(loaded)
    }
}
