//! The record of a backup: what makes it count, and what it is held against.
//!
//! ```text
//!   backup/<n>.json        sealed JSON: the database, the version, and every object with length and checksum
//!   backup/<n>-manifest    the manifest, as a checkpoint
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::copy::{self, Task};
use super::{COPIES_AT_ONCE, Content, Item, TransferError};
use crate::coordination::lineage::LineageObject;
use crate::coordination::sealed;
use crate::environment::Environment;
use crate::ids::{DatabaseId, Epoch, Lineage, SeqNo, Timestamp, Version};
use crate::manifest::{Manifest, checkpoint};
use crate::names::{self, ObjectPath};
use crate::object::Bucket;

/// Version of the record's format; a larger one is refused.
pub(super) const FORMAT: u32 = 1;

const KIND: &str = "backup";

/// An object of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUp {
    /// Its path.
    pub path: ObjectPath,
    /// Its length in bytes.
    pub len: u64,
    /// CRC32C of the whole object.
    pub crc: u32,
}

/// A finished backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRecord {
    /// Version of this format.
    pub format: u32,
    /// Its number, from 1.
    pub number: u64,
    /// When it was finished.
    pub created: Timestamp,
    /// The database.
    pub database: DatabaseId,
    /// Its name.
    pub name: String,
    /// Its histories, oldest first; the last is the backup's.
    pub lineages: Vec<LineageObject>,
    /// The version it holds.
    pub version: Version,
    /// The epoch of that version.
    pub epoch: Epoch,
    /// It holds every mutation up to this one.
    pub last_seq: SeqNo,
    /// Write time of the newest.
    pub last_write_time: Timestamp,
    /// The manifest's object.
    pub manifest: BackedUp,
    /// Every object that the manifest names, by path.
    pub objects: Vec<BackedUp>,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Json>,
}

impl BackupRecord {
    /// Its lineage.
    #[must_use]
    pub fn lineage(&self) -> Option<Lineage> {
        self.lineages.last().map(|l| l.lineage)
    }

    /// Bytes of its objects.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|o| o.len).sum()
    }

    pub(super) fn seal(&self) -> Result<bytes::Bytes, TransferError> {
        Ok(sealed::seal(KIND, self)?)
    }
}

/// What a verification has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Objects read.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong, one sentence each.
    pub faults: Vec<String>,
}

/// Every finished backup in a store, oldest first.
///
/// # Errors
/// [`TransferError`]: the store cannot be read, or a record is damaged.
pub async fn backups(store: &dyn Bucket) -> Result<Vec<BackupRecord>, TransferError> {
    let mut numbers = Vec::new();
    let mut listing = store.list("backup");
    while let Some(object) = listing.try_next().await.map_err(TransferError::Store)? {
        numbers.extend(names::parse_backup(&object.path));
    }
    numbers.sort_unstable();
    let mut records = Vec::new();
    for number in numbers {
        let path = names::backup(number);
        let bytes = store.get(&path).await.map_err(TransferError::Store)?;
        let record: BackupRecord = sealed::open(KIND, path.as_str(), &bytes)?;
        if record.format > FORMAT || record.number != number {
            return Err(TransferError::Refused(format!(
                "{path} has format {} and number {}; this program knows format {FORMAT}",
                record.format, record.number
            )));
        }
        records.push(record);
    }
    Ok(records)
}

/// The manifest of a backup, verified.
///
/// # Errors
/// [`TransferError`].
pub async fn read_manifest(store: &dyn Bucket, record: &BackupRecord) -> Result<Manifest, TransferError> {
    let BackedUp { path, len, crc } = &record.manifest;
    let damaged = |why: String| TransferError::Damaged { object: path.to_string(), why };
    let bytes = store.get(path).await.map_err(|e| copy::gone(e, path))?;
    if bytes.len() as u64 != *len || crc32c::crc32c(&bytes) != *crc {
        return Err(damaged("length or checksum is not the recorded one".to_owned()));
    }
    let manifest = checkpoint::decode(&bytes).map_err(|e| damaged(e.to_string()))?;
    if manifest.version != record.version || manifest.database != record.database {
        return Err(damaged("it is another manifest than the recorded one".to_owned()));
    }
    Ok(manifest)
}

/// Reads every object of a backup and holds it against the record, and the record against the manifest.
///
/// # Errors
/// [`TransferError`] where the store cannot be read; what is wrong with the backup is an answer.
pub async fn verify(
    store: &Arc<dyn Bucket>,
    env: &Environment,
    record: &BackupRecord,
    done: &(dyn Fn(usize, u64) + Sync),
) -> Result<Checked, TransferError> {
    let mut checked = Checked::default();
    match read_manifest(store.as_ref(), record).await {
        Ok(manifest) => checked.faults.extend(missing(record, &manifest)),
        Err(e @ (TransferError::Store(_) | TransferError::Coordination(_))) => return Err(e),
        Err(e) => checked.faults.push(e.to_string()),
    }
    let one = async |object: &BackedUp| -> Result<(u64, Option<String>), TransferError> {
        let BackedUp { path, len, crc } = object.clone();
        let item = Item { path, len, content: Content::Crc(crc) };
        match copy::read(store.as_ref(), env, &Task { item, crc: None, there: true }).await {
            Ok(_) => Ok((len, None)),
            Err(e @ TransferError::Damaged { .. }) => Ok((len, Some(e.to_string()))),
            Err(e @ TransferError::Gone(_)) => Ok((0, Some(e.to_string()))),
            Err(e) => Err(e),
        }
    };
    let mut looked = stream::iter(&record.objects).map(one).buffered(COPIES_AT_ONCE);
    while let Some((bytes, fault)) = looked.try_next().await? {
        checked.objects += 1;
        checked.bytes += bytes;
        checked.faults.extend(fault);
        done(checked.objects, checked.bytes);
    }
    Ok(checked)
}

/// Objects that the manifest names and the record does not have, or with another length.
pub(super) fn missing(record: &BackupRecord, manifest: &Manifest) -> Vec<String> {
    let recorded: BTreeMap<&ObjectPath, u64> = record.objects.iter().map(|o| (&o.path, o.len)).collect();
    let named = super::parcel(manifest);
    let lacking = named.iter().filter(|i| recorded.get(&i.path) != Some(&i.len));
    lacking.map(|i| format!("the record lacks {}, which the manifest names", i.path)).collect()
}
