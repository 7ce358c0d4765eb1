//! `isle backup` and what there is of it, `isle restore`, `isle clone`: copies of a database in another store, and
//! databases made of them. Progress goes to standard error, what came of it to standard output.

mod prune;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytesize::ByteSize;
use comfy_table::{Table, presets};
use isle_service::wire::time::rfc3339;
use isle_storage::object::Bucket;
use isle_storage::transfer::{self, BackupRecord, Begin, Step, TransferError};
use serde_json::{Value, json};

use crate::args::{BackupArgs, BackupCommand, CloneArgs, RestoreArgs, Store};
use crate::output::{self, Failure};
use crate::place::{Failed, Place};

/// Bytes between two lines of progress.
const REPORT_BYTES: u64 = 64 << 20;

pub(crate) async fn backup(args: BackupArgs) -> Result<(), Failure> {
    match args.what {
        Some(BackupCommand::List { at }) => return list(&at).await,
        Some(BackupCommand::Verify { at, backup }) => return verify(&at, backup).await,
        Some(BackupCommand::Prune(args)) => return prune::prune(&args).await,
        None => {}
    }
    let Some(to) = args.to else {
        return Err(Failure::usage("where to: give --to URL (or use `isle backup list`, `verify`, `prune`)"));
    };
    let place = args.database.place()?;
    let target = place.other_store(&to)?;
    let db = place.database().await?;
    let node = place.environment.node("backup", "");
    let shown = Shown::default();
    let made = transfer::backup(&db, &node, &target, &|s| shown.show(s)).await.map_err(failure)?;
    let (record, copied, bytes) = (&made.record, made.copied, made.copied_bytes);
    if args.database.reach.json {
        let mut json = summary(record);
        json["copied_objects"] = copied.into();
        json["copied_bytes"] = bytes.into();
        return output::line(&json.to_string());
    }
    output::line(&format!(
        "backup {} of {:?}: everything up to sequence number {}, {} objects ({}), of which {copied} were copied ({})",
        record.number,
        record.name,
        record.last_seq,
        record.objects.len(),
        ByteSize(record.bytes()),
        ByteSize(bytes)
    ))
}

async fn list(at: &Store) -> Result<(), Failure> {
    let store = at.place()?.other_store(&at.from)?;
    let found = transfer::backups(store.as_ref()).await.map_err(failure)?;
    if at.json {
        let all: Vec<Value> = found.iter().map(summary).collect();
        return output::line(&json!({ "backups": all }).to_string());
    }
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(["BACKUP", "CREATED", "DATABASE", "SEQ", "OBJECTS", "BYTES"]);
    for b in &found {
        let (created, bytes) = (rfc3339(b.created.0), ByteSize(b.bytes()).to_string());
        let numbers = [b.last_seq.to_string(), b.objects.len().to_string(), bytes];
        table.add_row([b.number.to_string(), created, b.name.clone()].into_iter().chain(numbers));
    }
    output::line(&table.trim_fmt())
}

async fn verify(at: &Store, number: Option<u64>) -> Result<(), Failure> {
    let place = at.place()?;
    let store = place.other_store(&at.from)?;
    let record = chosen(&store, number).await?;
    let shown = Shown::default();
    let done = |objects, bytes| shown.show(Step::Copied { objects, bytes });
    let checked = transfer::verify(&store, place.env(), &record, &done).await.map_err(failure)?;
    let clean = checked.faults.is_empty();
    if at.json {
        let mut json = summary(&record);
        json["clean"] = clean.into();
        json["faults"] = checked.faults.clone().into();
        output::line(&json.to_string())?;
    } else {
        for fault in &checked.faults {
            output::line(fault)?;
        }
        let (objects, bytes) = (checked.objects, ByteSize(checked.bytes));
        let verdict = if clean { "clean" } else { "NOT CLEAN" };
        output::line(&format!("backup {}: {objects} objects ({bytes}) read, {verdict}", record.number))?;
    }
    if clean { Ok(()) } else { Err(Failure::new(format!("backup {} is damaged", record.number))) }
}

pub(crate) async fn restore(args: RestoreArgs) -> Result<(), Failure> {
    let place = args.target.place()?;
    let from = place.other_store(&args.from)?;
    let record = chosen(&from, args.backup).await?;
    let (bucket, coordination) = place.patiently(async || place.open().await).await?;
    let name = place.store.database.clone();
    let target =
        transfer::Place { bucket: &bucket, coordination: &coordination, env: place.env(), name: &name };
    let shown = Shown::default();
    let made = transfer::restore(&from, &record, target, &|s| shown.show(s)).await.map_err(failure)?;
    let m = &made.loaded.manifest;
    if args.target.reach.json {
        let mut json = summary(&record);
        json["restored_to"] = bucket.url().into();
        json["restored_as"] = name.as_str().into();
        json["restored_lineage"] = m.lineage.to_string().into();
        json["copied_objects"] = made.copied.into();
        json["copied_bytes"] = made.copied_bytes.into();
        return output::line(&json.to_string());
    }
    output::line(&format!(
        "restored backup {} to {} as {name:?}: sequence number {}, version {}, lineage {}. Tail cursors and page tokens \
         of the database it was taken of are refused: consumers go on with seq:<n>.",
        record.number,
        bucket.url(),
        m.last_seq,
        m.version,
        m.lineage
    ))
}

pub(crate) async fn clone(args: CloneArgs) -> Result<(), Failure> {
    let config = args.target.reach.config.as_deref();
    let source = Place::of(Some(&args.from), args.from_coordination, args.from_database, config)?;
    let place = args.target.place()?;
    let db = source.database().await?;
    let (bucket, coordination) = place.patiently(async || place.open().await).await?;
    let name = place.store.database.clone();
    let target =
        transfer::Place { bucket: &bucket, coordination: &coordination, env: place.env(), name: &name };
    let node = source.environment.node("clone", "");
    let shown = Shown::default();
    let show = |s| shown.show(s);
    let begin = Begin { snapshot: args.snapshot.as_deref(), verify: args.verify };
    let made = transfer::clone_database(&db, &node, begin, target, &show).await;
    let made = made.map_err(failure)?;
    let m = &made.loaded.manifest;
    if args.target.reach.json {
        let json = json!({
            "database": m.database.to_string(),
            "name": name,
            "lineage": m.lineage.to_string(),
            "last_seq": made.seq,
            "referenced_objects": made.referenced,
            "copied_objects": made.copied,
            "rewritten_objects": made.rewritten,
        });
        return output::line(&json.to_string());
    }
    output::line(&format!(
        "cloned to {} as {name:?} ({}): everything up to sequence number {}; {} objects copied by reference, {} read and \
         written, {} written anew",
        bucket.url(),
        m.database,
        made.seq,
        made.referenced,
        made.copied,
        made.rewritten
    ))
}

async fn chosen(store: &Arc<dyn Bucket>, number: Option<u64>) -> Result<BackupRecord, Failure> {
    let mut found = transfer::backups(store.as_ref()).await.map_err(failure)?;
    let known: Vec<String> = found.iter().map(|b| b.number.to_string()).collect();
    let wanted = match number {
        Some(n) => found.into_iter().find(|b| b.number == n),
        None => found.pop(),
    };
    wanted.ok_or_else(|| {
        let asked = number.map_or_else(|| "a backup".to_owned(), |n| format!("backup {n}"));
        let known = if known.is_empty() { "none is".to_owned() } else { format!("{} are", known.join(", ")) };
        Failure::usage(format!("{} does not hold {asked}: {known} there", store.url()))
    })
}

fn summary(b: &BackupRecord) -> Value {
    json!({
        "backup": b.number,
        "created": rfc3339(b.created.0),
        "database": b.database.to_string(),
        "name": b.name,
        "version": b.version,
        "epoch": b.epoch,
        "last_seq": b.last_seq,
        "last_write_time": rfc3339(b.last_write_time.0),
        "objects": b.objects.len(),
        "bytes": b.bytes(),
    })
}

/// What must not be done ends with exit code 2, everything else with 1.
fn failure(e: TransferError) -> Failure {
    match e {
        TransferError::Refused(why) => Failure::usage(why),
        TransferError::Coordination(e) => Failed::from(e).into_failure(),
        e => Failure::new(e.to_string()),
    }
}

/// Lines of progress, one for every so many bytes.
#[derive(Default)]
struct Shown(AtomicU64);

impl Shown {
    fn show(&self, step: Step) {
        output::note(&match step {
            Step::Holding(version) => format!("holding version {version}"),
            Step::Begins { objects, bytes, present } => {
                format!("{objects} objects to copy ({}), {present} are there already", ByteSize(bytes))
            }
            Step::Copied { objects, bytes } => {
                let part = bytes / REPORT_BYTES;
                if self.0.fetch_max(part, Ordering::Relaxed) >= part {
                    return;
                }
                format!("{objects} objects, {}", ByteSize(bytes))
            }
            Step::Again(why) => format!("beginning again: {why}"),
            Step::Wrote(object) => format!("wrote {object}"),
            Step::Removed(object) => format!("deleted {object}"),
        });
    }
}
