//! A new database that begins with what another one holds: see the head of this folder.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::copy::{self, Means, PARTS_AT_ONCE, Route, Task};
use super::restore::{Origin, Place, forget};
use super::{Content, Item, Progress, Step, TransferError};
use crate::coordination::identity;
use crate::coordination::{Loaded, NodeInfo, PinAttempt};
use crate::database::Database;
use crate::format::Compression;
use crate::ids::{CommitId, DatabaseId, JobId, SeqNo};
use crate::log::{self, SealedBatch};
use crate::manifest::{LogEntry, LogTail, Manifest, Run, TableEntry, check};
use crate::names::{self, LogId};
use crate::object::{PART_BYTES, PartBudget, Upload};
use crate::sst::{Block, TableBuilder, TableOptions};

/// How often it begins again whose objects are deleted under it.
const ROUNDS: usize = 10;

/// A database that was cloned.
#[derive(Debug, Clone)]
pub struct Cloned {
    /// Its head.
    pub loaded: Loaded,
    /// What it began with: every mutation up to this one.
    pub seq: SeqNo,
    /// Objects that the store copied by reference.
    pub referenced: usize,
    /// Objects read and written as they are, or found to be there from an interrupted run.
    pub copied: usize,
    /// Objects written anew.
    pub rewritten: usize,
}

/// What a clone begins with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Begin<'a> {
    /// What this named snapshot holds; everything committed where there is none.
    pub snapshot: Option<&'a str>,
    /// Read and verify every byte, of objects copied by reference too.
    pub verify: bool,
}

/// Makes a new database of what a snapshot of `db` holds, or of everything committed, in an empty prefix. What can stay
/// as it is comes by reference where the stores are near enough.
///
/// # Errors
/// [`TransferError`]; run again it goes on.
pub async fn clone_database(
    db: &Database,
    node: &NodeInfo,
    begin: Begin<'_>,
    place: Place<'_>,
    progress: Progress<'_>,
) -> Result<Cloned, TransferError> {
    identity::check_name(place.name)?;
    if copy::same_place(&db.bucket, place.bucket) {
        return Err(TransferError::Refused(format!("{} is the database itself", db.bucket.url())));
    }
    let mut why = String::new();
    for _ in 0..ROUNDS {
        let loaded = db.load().await?;
        let version = loaded.manifest.version;
        let seq = at(&loaded.manifest, begin.snapshot)?;
        let hold = match db.coordination.pin(version, node).await? {
            PinAttempt::Held(hold) => hold,
            PinAttempt::Passed(floor) => {
                why = format!("the collector has passed version {version} and is at {floor}");
                progress(Step::Again(why.clone()));
                continue;
            }
        };
        progress(Step::Holding(version));
        let done = round(db, &loaded.manifest, seq, begin, &place, progress).await;
        hold.give_back().await;
        match done {
            Err(TransferError::Gone(object)) => {
                why = format!("{object} is gone");
                progress(Step::Again(why.clone()));
            }
            other => return other,
        }
    }
    Err(TransferError::Refused(format!("no clone was made in {ROUNDS} attempts: {why}")))
}

/// The last number that the clone holds.
fn at(manifest: &Manifest, snapshot: Option<&str>) -> Result<SeqNo, TransferError> {
    let Some(name) = snapshot else { return Ok(manifest.last_seq) };
    let known = || manifest.snapshots.keys().cloned().collect::<Vec<_>>().join(", ");
    let found = manifest.snapshots.get(name).map(|s| s.seq);
    found.ok_or_else(|| {
        TransferError::Refused(format!("there is no snapshot {name:?} (there are: {})", known()))
    })
}

async fn round(
    db: &Database,
    source: &Manifest,
    seq: SeqNo,
    begin: Begin<'_>,
    place: &Place<'_>,
    progress: Progress<'_>,
) -> Result<Cloned, TransferError> {
    let origin = Origin::Snapshot(begin.snapshot.map(str::to_owned));
    let drawn = DatabaseId(place.env.entropy.next_u128());
    let mark = place.mark(source.database, origin, drawn).await?;
    place.coordination.prepare_to_write().await?;
    let mut manifest = Manifest { database: mark.becomes, lineage: mark.lineage, ..source.clone() };
    if place.coordination.exists().await? {
        let loaded = place.finish(&[], &manifest).await?;
        let seq = loaded.manifest.last_seq;
        return Ok(Cloned { loaded, seq, referenced: 0, copied: 0, rewritten: 0 });
    }
    let means = Means::Reference { verify: begin.verify };
    let route = Route { from: &db.bucket, to: place.bucket, env: place.env, means };
    cut(&mut manifest, seq, place);
    let (runs, whole) = tables(route, source, seq).await?;
    manifest.runs = runs;
    manifest.log = segments(route, &manifest).await?;
    let rewritten = manifest.log.len() + manifest.tables().count() - whole.len();
    let named = manifest.log.iter().flat_map(|e| &e.blobs).chain(manifest.tables().flat_map(|t| &t.blobs));
    let named: BTreeSet<_> = named.cloned().collect();
    let blobs: BTreeMap<_, _> =
        source.blobs.iter().filter(|(b, _)| named.contains(*b)).map(|(b, len)| (b.clone(), *len)).collect();
    let mut tasks = whole;
    tasks.extend(blobs.iter().map(|(blob, len)| Item {
        path: names::blob(blob),
        len: *len,
        content: Content::Length,
    }));
    manifest.blobs = Arc::new(blobs);
    check::whole(&manifest).map_err(|v| TransferError::Damaged {
        object: "the manifest cut at the snapshot".to_owned(),
        why: v.to_string(),
    })?;
    let there = copy::listed(place.bucket.as_ref()).await?;
    let task = |item: Item| Task { there: there.get(item.path.as_str()) == Some(&item.len), item, crc: None };
    let tasks: Vec<Task> = tasks.into_iter().map(task).collect();
    let carried = tasks.len();
    let fresh = tasks.iter().filter(|t| !t.there);
    let (objects, bytes) = (fresh.clone().count(), fresh.map(|t| t.item.len).sum());
    progress(Step::Begins { objects, bytes, present: carried - objects });
    let referenced = copy::copy(route, tasks, progress).await?.referenced;
    place.found(&[], &manifest, progress).await?;
    let loaded = place.finish(&[], &manifest).await?;
    Ok(Cloned { loaded, seq, referenced, copied: carried - referenced, rewritten })
}

/// Everything but tables, log objects and blobs, as it is at `seq`.
fn cut(manifest: &mut Manifest, seq: SeqNo, place: &Place<'_>) {
    forget(manifest, CommitId(place.env.entropy.next_u64()));
    manifest.snapshots.clear();
    manifest.groups.clear();
    let flushed = manifest.flushed_seq;
    manifest.log.retain(|e| e.last_seq > flushed && e.last_seq <= seq);
    manifest.last_seq = seq;
    manifest.flushed_seq = flushed.min(seq);
    manifest.trimmed_seq = manifest.flushed_seq;
    // Earlier versions may be gone: a snapshot below would not see what it should.
    manifest.history_floor = manifest.flushed_seq;
    let bound = |tail: LogTail| match tail.last_seq > seq {
        true => LogTail { id: LogId { first_seq: tail.id.first_seq.min(seq), ..tail.id }, last_seq: seq },
        false => tail,
    };
    for start in &mut manifest.epochs {
        start.cut = start.cut.map(bound);
    }
    let last = manifest.log.last().map(|e| LogTail { id: e.id, last_seq: e.last_seq });
    manifest.tail = last.or(manifest.tail.map(bound)).filter(|_| seq > SeqNo::ZERO);
}

/// The tree without rows above `seq`, and those of its tables that are copied as they are.
async fn tables(
    route: Route<'_>,
    source: &Manifest,
    seq: SeqNo,
) -> Result<(Vec<Arc<Run>>, Vec<Item>), TransferError> {
    let entropy = &route.env.entropy;
    let owner = format!("{}-{:016x}", JobId(entropy.next_u64()), entropy.next_u64());
    let (mut runs, mut whole, mut made) = (Vec::new(), Vec::new(), 0u64);
    for run in &source.runs {
        let mut kept = Vec::new();
        for table in run.tables.iter().filter(|t| t.min_seq <= seq) {
            if table.max_seq <= seq {
                let content = Content::Table(Arc::clone(table));
                whole.push(Item { path: table.path(), len: table.len, content });
                kept.push(Arc::clone(table));
                continue;
            }
            made += 1;
            kept.extend(without_newer(route, table, seq, format!("{owner}-{made}")).await?.map(Arc::new));
        }
        if !kept.is_empty() {
            runs.push(Arc::new(Run { id: run.id, l0: run.l0, tables: kept }));
        }
    }
    Ok((runs, whole))
}

/// The table's rows at or below `seq`, as a new table of the target; `None` where there is none.
async fn without_newer(
    route: Route<'_>,
    table: &Arc<TableEntry>,
    seq: SeqNo,
    name: String,
) -> Result<Option<TableEntry>, TransferError> {
    let item = Item { path: table.path(), len: table.len, content: Content::Table(Arc::clone(table)) };
    let mut check = copy::begin(route.from.as_ref(), route.env, &item).await?;
    let mut out = Older { seq, rows: 0, table: TableBuilder::new(TableOptions::default()) };
    let parts = PartBudget::new(PARTS_AT_ONCE, PART_BYTES);
    let mut upload = Upload::begin(route.to, names::table(&name), &parts, Some(table.len)).await;
    while let Some(window) = check.wants() {
        let bytes = route.from.get_range(&item.path, window).await.map_err(|e| copy::gone(e, &item.path))?;
        let fed = move || {
            check.feed(&bytes, |block| out.take(block))?;
            Ok((check, out))
        };
        (check, out) = copy::offloaded(route.env, fed).await?;
        for piece in out.table.take_finished() {
            upload.append(piece).await.map_err(TransferError::Store)?;
        }
    }
    check.finish()?;
    if out.rows == 0 {
        upload.abort().await;
        return Ok(None);
    }
    let built = copy::offloaded(route.env, move || Ok(out.table.finish(&name))).await?;
    for piece in built.body.pieces() {
        upload.append(piece.clone()).await.map_err(TransferError::Store)?;
    }
    upload.finish().await.map_err(TransferError::Store)?;
    Ok(Some(built.entry))
}

/// The rows of a table at or below a number, as a table.
struct Older {
    seq: SeqNo,
    rows: u64,
    table: TableBuilder,
}

impl Older {
    fn take(&mut self, block: Block) {
        let mut cursor = block.cursor();
        cursor.first();
        while let Some(row) = cursor.row() {
            if row.seq <= self.seq {
                self.table.push(row);
                self.rows += 1;
            }
            cursor.next();
        }
    }
}

/// The log that is not in tables yet, written anew under the new database.
async fn segments(route: Route<'_>, manifest: &Manifest) -> Result<Vec<Arc<LogEntry>>, TransferError> {
    let mut made = Vec::new();
    for entry in &manifest.log {
        let path = entry.path();
        let bytes = route.from.get(&path).await.map_err(|e| copy::gone(e, &path))?;
        let damaged = |why: String| TransferError::Damaged { object: path.to_string(), why };
        if crc32c::crc32c(&bytes) != entry.crc {
            return Err(damaged("its checksum is not the recorded one".to_owned()));
        }
        let object = log::decode(&bytes).map_err(|e| damaged(e.to_string()))?;
        let mut header = object.header;
        (header.database, header.lineage) = (manifest.database, manifest.lineage);
        let batch = SealedBatch {
            first_seq: header.first_seq,
            last_seq: header.last_seq,
            first_time: entry.first_time,
            last_time: entry.last_time,
            raw_bytes: entry.raw_bytes,
            blobs: header.blobs.clone(),
            blocks: object.blocks.into(),
        };
        let encoded = log::encode_segment(&header, &batch, Compression::Lz4);
        route.to.put(&encoded.entry.path(), encoded.body).await.map_err(TransferError::Store)?;
        made.push(Arc::new(encoded.entry));
    }
    Ok(made)
}
