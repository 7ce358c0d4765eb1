//! Making a backup: see the head of this folder.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::copy::{self, Means, Route, Task};
use super::presence::{Presence, Work};
use super::record::{self, BackedUp, BackupRecord, backups};
use super::{Progress, Step, TransferError, parcel};
use crate::coordination::{CoordinationError, Loaded, NodeInfo, PinAttempt, groups, lineage};
use crate::database::Database;
use crate::manifest::{Manifest, checkpoint};
use crate::names;
use crate::object::{Bucket, StoreErrorKind};

/// How often a backup begins again whose objects are deleted under it, or whose version cannot be pinned.
const ROUNDS: usize = 10;

/// A backup that was made.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Its record.
    pub record: BackupRecord,
    /// Objects copied by this run.
    pub copied: usize,
    /// Their bytes.
    pub copied_bytes: u64,
}

/// Makes a backup of `db` in the store `to`, online. What is there from earlier backups is not copied again.
///
/// # Errors
/// [`TransferError`]; what was copied stays, and the next run finds it.
pub async fn backup(
    db: &Database,
    node: &NodeInfo,
    to: &Arc<dyn Bucket>,
    progress: Progress<'_>,
) -> Result<Backup, TransferError> {
    fit(db, to).await?;
    let here = Presence::enter(to, &db.env, Work::Backup, &node.node).await?;
    let done = here.during(rounds(db, node, to, &here, progress)).await;
    here.leave().await;
    done
}

async fn rounds(
    db: &Database,
    node: &NodeInfo,
    to: &Arc<dyn Bucket>,
    here: &Presence,
    progress: Progress<'_>,
) -> Result<Backup, TransferError> {
    // Read under the mark: what these name stays.
    let earlier = own_backups(db, to).await?;
    let mut why = String::new();
    for _ in 0..ROUNDS {
        let loaded = db.load().await?;
        let version = loaded.manifest.version;
        let hold = match db.coordination.pin(version, node).await? {
            PinAttempt::Held(hold) => hold,
            PinAttempt::Passed(floor) => {
                why = format!("the collector has passed version {version} and is at {floor}");
                progress(Step::Again(why.clone()));
                continue;
            }
        };
        progress(Step::Holding(version));
        let done = round(db, &loaded, to, &earlier, here, progress).await;
        hold.give_back().await;
        match done {
            // What another prefix, or a damaged one, lacks is lacking for ever; what the collector took is not.
            Err(TransferError::Gone(object)) => {
                why = format!(
                    "{object} is gone: the hold on version {version} was lost, or the database is damaged"
                );
                progress(Step::Again(why.clone()));
            }
            other => return other,
        }
    }
    Err(TransferError::Refused(format!("no backup was made in {ROUNDS} attempts: {why}")))
}

/// Whether `to` may take a backup of this database.
async fn fit(db: &Database, to: &Arc<dyn Bucket>) -> Result<(), TransferError> {
    if copy::same_place(&db.bucket, to) {
        return Err(TransferError::Refused(format!("{} is the database's own prefix", to.url())));
    }
    match to.head(&names::identity()).await {
        Ok(_) => {
            return Err(TransferError::Refused(format!(
                "{} is the prefix of a database (it has an isle.json): a backup needs a place of its own",
                to.url()
            )));
        }
        Err(e) if e.is_not_found() => {}
        Err(e) => return Err(TransferError::Store(e)),
    }
    own_backups(db, to).await.map(drop)
}

/// The backups that are there, which must be of this database.
async fn own_backups(db: &Database, to: &Arc<dyn Bucket>) -> Result<Vec<BackupRecord>, TransferError> {
    let earlier = backups(to.as_ref()).await?;
    match earlier.iter().find(|b| b.database != db.identity.database) {
        Some(other) => Err(TransferError::Refused(format!(
            "{} holds backups of another database, {:?} ({}): use another place",
            to.url(),
            other.name,
            other.database
        ))),
        None => Ok(earlier),
    }
}

async fn round(
    db: &Database,
    loaded: &Loaded,
    to: &Arc<dyn Bucket>,
    earlier: &[BackupRecord],
    here: &Presence,
    progress: Progress<'_>,
) -> Result<Backup, TransferError> {
    let manifest = &loaded.manifest;
    db.check_lineage(manifest.lineage).await?;
    let mut known: BTreeMap<String, (u64, u32)> = BTreeMap::new();
    known.extend(earlier.iter().flat_map(|b| &b.objects).map(|o| (o.path.to_string(), (o.len, o.crc))));
    let there = copy::listed(to.as_ref()).await?;
    let (mut objects, mut tasks) = (BTreeMap::new(), Vec::new());
    for item in parcel(manifest) {
        let path = item.path.as_str();
        let present = there.get(path) == Some(&item.len);
        match known.get(path) {
            Some((len, crc)) if present && *len == item.len => {
                objects.insert(path.to_owned(), *crc);
            }
            _ => tasks.push(Task { item, crc: None, there: present }),
        }
    }
    let (copied, copied_bytes) = (tasks.len(), tasks.iter().map(|t| t.item.len).sum());
    progress(Step::Begins { objects: copied, bytes: copied_bytes, present: objects.len() });
    // Never by reference, even where the target could: one torn or overwritten file, one failing disk, would take the
    // database and its backup together.
    let route = Route { from: &db.bucket, to, env: &db.env, means: Means::Stream };
    objects.extend(copy::copy(route, tasks, progress).await?.crcs);
    here.sure()?;
    let record = write_record(db, manifest, to.as_ref(), &objects, earlier, progress).await?;
    if let Err(e) = here.sure() {
        // What it names may have been pruned.
        to.delete(&names::backup(record.number)).await.map_err(TransferError::Store)?;
        return Err(e);
    }
    Ok(Backup { record, copied, copied_bytes })
}

async fn write_record(
    db: &Database,
    manifest: &Manifest,
    to: &dyn Bucket,
    crcs: &BTreeMap<String, u32>,
    earlier: &[BackupRecord],
    progress: Progress<'_>,
) -> Result<BackupRecord, TransferError> {
    let number = earlier.last().map_or(0, |b| b.number) + 1;
    let mut whole = groups::copied(db.coordination.as_ref(), manifest).await?;
    whole.groups = manifest.bound_groups(&whole.groups);
    let encoded = checkpoint::encode(&whole);
    let path = names::backup_manifest(number, db.env.entropy.next_u64());
    let whole = BackedUp { path, len: encoded.len() as u64, crc: crc32c::crc32c(&encoded) };
    to.put(&whole.path, encoded.into()).await.map_err(TransferError::Store)?;
    progress(Step::Wrote(whole.path.to_string()));
    let items = parcel(manifest);
    let objects = items.into_iter().filter_map(|i| {
        let crc = *crcs.get(i.path.as_str())?;
        Some(BackedUp { path: i.path, len: i.len, crc })
    });
    let record = BackupRecord {
        format: record::FORMAT,
        number,
        created: db.env.clock.now(),
        database: manifest.database,
        name: db.identity.name.clone(),
        lineages: lineage::all(db.bucket.as_ref()).await?,
        version: manifest.version,
        epoch: manifest.epoch,
        last_seq: manifest.last_seq,
        last_write_time: manifest.last_write_time,
        manifest: whole,
        objects: objects.collect(),
        extra: BTreeMap::new(),
    };
    if record.lineage() != Some(manifest.lineage) {
        return Err(TransferError::Refused("the database was recovered meanwhile: run it again".to_owned()));
    }
    put_once(to, &names::backup(number), record.seal()?).await?;
    progress(Step::Wrote(names::backup(number).to_string()));
    Ok(record)
}

/// Writes an object that must not be there yet. On a store without conditional create it is looked for first.
pub(super) async fn put_once(
    to: &dyn Bucket,
    path: &names::ObjectPath,
    bytes: bytes::Bytes,
) -> Result<(), TransferError> {
    let taken = || {
        let why =
            format!("{path} is there already in {}: another run has just written it; run it again", to.url());
        TransferError::Refused(why)
    };
    match to.create(path, bytes.clone().into()).await {
        Ok(()) => Ok(()),
        Err(e) if e.kind == StoreErrorKind::AlreadyExists => {
            // After a retry it may be our own.
            let there = to.get(path).await.map_err(TransferError::Store)?;
            if there == bytes { Ok(()) } else { Err(taken()) }
        }
        Err(e) if e.kind == StoreErrorKind::Unsupported => match to.head(path).await {
            Ok(_) => Err(taken()),
            Err(e) if e.is_not_found() => to.put(path, bytes.into()).await.map_err(TransferError::Store),
            Err(e) => Err(CoordinationError::from(e).into()),
        },
        Err(e) => Err(TransferError::Store(e)),
    }
}
