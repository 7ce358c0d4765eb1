//! Backups and restores: what they hold, what they refuse, and what is left when they are cut off.

mod clones;
mod large;
mod prunes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::TryStreamExt;
use isle_storage::coordination::bucket::BucketCoordination;
use isle_storage::coordination::groups::GroupChange;
use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::memory::MemoryCoordination;
use isle_storage::coordination::{Coordination, CoordinationSettings, NodeInfo};
use isle_storage::database::Database;
use isle_storage::environment::Environment;
use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::manifest::{Change, CompactionMode, GroupCursor, JudgedExpiry, Snapshot, TableEntry};
use isle_storage::names::ObjectPath;
use isle_storage::object::{Bucket, MemoryBucket, StoreErrorKind};
use isle_storage::row::{Row, Value};
use isle_storage::sst::{Block, TableMeta};
use isle_storage::transfer::{
    self, Backup, BackupRecord, Begin, Cloned, Place, Restored, Step, TransferError,
};
use isle_storage::verify::{From, verify};
use isle_testkit::embedded::{Embedded, ManualClock};
use isle_testkit::fault::{Fault, FaultBucket, Op, Rule};
use isle_testkit::scribe::{Entry, Scribe};

fn is_write(op: Op, _: &str) -> bool {
    !matches!(op, Op::Get | Op::Head | Op::List)
}

fn node() -> NodeInfo {
    NodeInfo { node: "backup".to_owned(), advertise: String::new() }
}

fn store() -> Arc<FaultBucket> {
    FaultBucket::new(Arc::new(MemoryBucket::new(ManualClock::at(1_700_000_000))))
}

/// The oldest run is merged alone, and with its rows others that had expired by the instant 123 were dropped.
async fn judge_expiry(scribe: &mut Scribe) {
    let m = Arc::clone(scribe.manifest());
    let oldest = m.runs.last().unwrap();
    let change = Change::Merge {
        inputs: vec![oldest.id],
        tables: oldest.tables.clone(),
        snapshots: Vec::new(),
        planned_mode: m.compaction.clone(),
        dropped: true,
        judged: SeqNo::ZERO,
        expiry: Some(JudgedExpiry { by: Some(Timestamp(123)), held: Vec::new() }),
    };
    scribe.commit(vec![change]).await;
}

/// Two flushed generations with deletes, and a log beyond them.
async fn filled(e: &Embedded) -> Scribe {
    let mut scribe = Scribe::take_over(&e.db).await;
    for n in 0..3u32 {
        let row = |i: u32| match (i + n) % 5 {
            0 => Entry::delete(format!("key/{i:03}")),
            _ => Entry::put(format!("key/{i:03}"), format!("{n}/{i} {}", "x".repeat(i as usize))),
        };
        scribe.append(&(0..100).map(row).collect::<Vec<_>>()).await;
        if n < 2 {
            scribe.flush().await;
        }
    }
    judge_expiry(&mut scribe).await;
    scribe
}

async fn back_up(e: &Embedded, to: &Arc<FaultBucket>) -> Result<Backup, TransferError> {
    let to: Arc<dyn Bucket> = to.clone();
    transfer::backup(&e.db, &node(), &to, &|_| {}).await
}

/// A place for a restore, in either form.
struct Target {
    store: Arc<FaultBucket>,
    coordination: Arc<dyn Coordination>,
    env: Environment,
}

impl Target {
    fn bucket_form() -> Self {
        let (store, env) = (store(), Environment::system("test", "copy"));
        let settings = CoordinationSettings::new("bucket".to_owned());
        let coordination = BucketCoordination::new(&settings, store.clone(), &env);
        Self { store, coordination, env }
    }

    fn memory_form() -> Self {
        let store = store();
        let coordination = MemoryCoordination::new(store.clone());
        Self { store, coordination, env: Environment::system("test", "copy") }
    }

    async fn restore(
        &self,
        from: &Arc<FaultBucket>,
        record: &BackupRecord,
    ) -> Result<Restored, TransferError> {
        let (from, bucket): (Arc<dyn Bucket>, Arc<dyn Bucket>) = (from.clone(), self.store.clone());
        let place = Place { bucket: &bucket, coordination: &self.coordination, env: &self.env, name: "copy" };
        transfer::restore(&from, record, place, &|_| {}).await
    }

    async fn open(&self) -> Result<Database, String> {
        let mode = OpenMode::CreateIfMissing(CompactionMode::Merge);
        let (store, coordination) = (self.store.clone(), Arc::clone(&self.coordination));
        let opened = Database::open(store, coordination, self.env.clone(), "copy", &mode).await;
        opened.map_err(|e| e.to_string())
    }

    /// It is whole, holds what `e` held, and goes on with the next number.
    async fn is_a_copy_of(&self, scribe: &Scribe) {
        let db = self.open().await.unwrap();
        let (ours, theirs) = (db.load().await.unwrap().manifest, scribe.manifest());
        assert_eq!((ours.last_seq, &ours.log, &ours.runs), (theirs.last_seq, &theirs.log, &theirs.runs));
        assert_eq!((ours.database, &ours.epochs), (theirs.database, &theirs.epochs));
        assert_ne!(ours.lineage, theirs.lineage, "a history of its own");
        assert_eq!(ours.expiry_floor, theirs.expiry_floor, "what was dropped is missing here too");
        let bucket: Arc<dyn Bucket> = self.store.clone();
        let from = From::Coordination(Arc::clone(&self.coordination));
        let report = verify(&bucket, from, "copy", &()).await.unwrap();
        assert!(report.is_clean() && report.unknown.total == 0, "{report:?}");
        let mut writer = Scribe::take_over(&db).await;
        let seq = writer.append(&[Entry::put("after", "the restore")]).await;
        assert_eq!(seq, theirs.last_seq.next());
        writer.flush().await;
    }
}

#[tokio::test]
async fn a_backup_can_be_verified_and_restored_in_either_form() {
    let e = Embedded::new().await;
    let mut scribe = filled(&e).await;
    let to = store();
    let made = back_up(&e, &to).await.unwrap();
    let m = scribe.manifest();
    assert_eq!((made.record.number, made.record.last_seq), (1, m.last_seq));
    assert_eq!(made.record.objects.len(), m.log.len() + m.tables().count());
    assert_eq!(made.copied, made.record.objects.len());
    let held: Arc<dyn Bucket> = to.clone();
    let checked = transfer::verify(&held, &e.db.env, &made.record, &|_, _| {}).await.unwrap();
    assert!(checked.faults.is_empty() && checked.objects == made.copied, "{checked:?}");
    assert_eq!(transfer::backups(to.as_ref()).await.unwrap(), std::slice::from_ref(&made.record));
    for target in [Target::bucket_form(), Target::memory_form()] {
        target.restore(&to, &made.record).await.unwrap();
        target.is_a_copy_of(&scribe).await;
    }
    scribe.append(&[Entry::put("the original", "goes on")]).await;
}

/// What an earlier backup holds is not read again; each can be restored by itself.
#[tokio::test]
async fn the_next_backup_copies_only_what_is_new() {
    let e = Embedded::new().await;
    let mut scribe = filled(&e).await;
    let to = store();
    let first = back_up(&e, &to).await.unwrap();
    let then = scribe.loaded.clone();
    scribe.append(&[Entry::put("new", "row")]).await;
    let _before = e.bucket.take_history();
    let second = back_up(&e, &to).await.unwrap();
    assert_eq!((second.record.number, second.copied), (2, 1));
    assert_eq!(e.bucket.count(Op::Get, "log/*") + e.bucket.count(Op::Get, "table/*"), 1);
    let newest = Target::bucket_form();
    newest.restore(&to, &second.record).await.unwrap();
    newest.is_a_copy_of(&scribe).await;
    let oldest = Target::bucket_form();
    let restored = oldest.restore(&to, &first.record).await.unwrap();
    assert_eq!(restored.loaded.manifest.last_seq, then.manifest.last_seq);
}

/// Whichever write fails, the backup does not count, the restored prefix does not open, and another run finishes.
#[tokio::test]
async fn cut_off_anywhere_it_is_finished_by_another_run() {
    let e = Embedded::new().await;
    let scribe = filled(&e).await;
    let to = store();
    for n in 1.. {
        let cut = store();
        cut.inject(Rule::any().when(is_write).after(n - 1).times(1), Fault::Fail(StoreErrorKind::Permanent));
        let failed = back_up(&e, &cut).await;
        cut.heal();
        if let Ok(made) = failed {
            assert!(n > made.copied as u64 + 1, "every write was cut off once");
            break;
        }
        assert!(transfer::backups(cut.as_ref()).await.unwrap().is_empty());
        let again = back_up(&e, &cut).await.unwrap();
        let target = Target::bucket_form();
        target.restore(&cut, &again.record).await.unwrap();
        target.is_a_copy_of(&scribe).await;
    }
    let made = back_up(&e, &to).await.unwrap();
    for form in [Target::bucket_form, Target::memory_form] {
        for n in 1.. {
            let target = form();
            target.store.inject(
                Rule::any().when(is_write).after(n - 1).times(1),
                Fault::Fail(StoreErrorKind::Permanent),
            );
            let failed = target.restore(&to, &made.record).await;
            target.store.heal();
            if failed.is_ok() {
                assert!(n > made.record.objects.len() as u64 + 4, "every write was cut off once");
                break;
            }
            if n > 1 {
                let opened = target.open().await;
                let finished = target.store.get(&ObjectPath::new("isle.json").unwrap()).await.is_ok();
                assert!(opened.is_err() || finished, "an unfinished restore opens after {n} writes");
            }
            target.restore(&to, &made.record).await.unwrap_or_else(|e| panic!("after {n} writes: {e}"));
            target.is_a_copy_of(&scribe).await;
        }
    }
}

fn held(seq: u64) -> Snapshot {
    let created = Timestamp(1_700_000_000_000_000);
    Snapshot { seq: SeqNo(seq), created, expires: None, holds_log: false, extra: Default::default() }
}

impl Target {
    async fn clone_of(&self, e: &Embedded, snapshot: Option<&str>) -> Result<Cloned, TransferError> {
        let bucket: Arc<dyn Bucket> = self.store.clone();
        let place = Place { bucket: &bucket, coordination: &self.coordination, env: &self.env, name: "copy" };
        let begin = Begin { snapshot, verify: false };
        transfer::clone_database(&e.db, &node(), begin, place, &|_| {}).await
    }

    /// It is whole, shows what `scribe` wrote up to `seq`, has an id of its own, and goes on with the next number.
    async fn holds(&self, scribe: &Scribe, seq: SeqNo) {
        let db = self.open().await.unwrap();
        let (ours, theirs) = (db.load().await.unwrap().manifest, scribe.manifest());
        assert_ne!((ours.database, ours.lineage), (theirs.database, theirs.lineage));
        assert_eq!((ours.last_seq, ours.snapshots.len()), (seq, 0));
        assert_eq!(ours.expiry_floor, theirs.expiry_floor, "what was dropped is missing here too");
        let mut writer = Scribe::take_over(&db).await;
        assert_eq!(writer.append(&[Entry::put("zz", "after")]).await, seq.next());
        writer.flush().await;
        let m = db.load().await.unwrap().manifest;
        let mut shown = BTreeMap::new();
        for table in m.tables() {
            for row in rows_of(self.store.as_ref(), table).await {
                assert!(row.seq <= seq.next(), "a newer row came along");
                let at = shown.entry(row.key.to_vec()).or_insert_with(|| row.clone());
                if row.seq > at.seq {
                    *at = row;
                }
            }
        }
        let shown: BTreeMap<_, _> = shown
            .into_iter()
            .filter_map(|(key, row)| match row.value {
                Value::Put(v) if key != b"zz" => Some((key, (row.seq, v.to_vec()))),
                _ => None,
            })
            .collect();
        assert_eq!(shown, scribe.visible_at(seq, self.env.clock.now()));
        let bucket: Arc<dyn Bucket> = self.store.clone();
        let from = From::Coordination(Arc::clone(&self.coordination));
        let report = verify(&bucket, from, "copy", &()).await.unwrap();
        assert!(report.is_clean() && report.unknown.total == 0, "{report:?}");
    }
}

async fn rows_of(store: &FaultBucket, table: &TableEntry) -> Vec<Row> {
    let bytes = store.get(&table.path()).await.unwrap();
    let meta = TableMeta::decode(bytes.slice(table.meta_offset as usize..), table.meta_offset).unwrap();
    let mut rows = Vec::new();
    for i in 0..meta.block_count() {
        let range = meta.block_range(i);
        let mut cursor =
            Block::decode(&bytes.slice(range.start as usize..range.end as usize)).unwrap().cursor();
        cursor.first();
        while let Some(row) = cursor.row() {
            rows.push(row.to_row());
            cursor.next();
        }
    }
    rows
}

/// At the newest number, inside the log, at the end of the tables, in the middle of one, and at nothing at all.
#[tokio::test]
async fn a_clone_holds_exactly_what_the_snapshot_does() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    let row = |n: u32, i: u32| match (i + n).is_multiple_of(5) {
        true => Entry::delete(format!("key/{i:03}")),
        false => Entry::put(format!("key/{i:03}"), format!("{n}/{i}")),
    };
    scribe.commit(vec![Change::TakeSnapshot { name: "s0".to_owned(), snapshot: held(0) }]).await;
    for n in 0..6u32 {
        let seq = scribe.append(&(0..60).map(|i| row(n, i)).collect::<Vec<_>>()).await;
        let name = format!("s{}", n + 1);
        scribe.commit(vec![Change::TakeSnapshot { name, snapshot: held(seq.0) }]).await;
        if n == 2 || n == 3 {
            scribe.flush().await;
        }
    }
    judge_expiry(&mut scribe).await;
    for n in 0..=6u64 {
        for target in [Target::bucket_form(), Target::memory_form()] {
            let made = target.clone_of(&e, Some(&format!("s{n}"))).await.unwrap();
            assert_eq!(made.seq, SeqNo(60 * n));
            target.holds(&scribe, made.seq).await;
        }
    }
    let newest = Target::bucket_form();
    let made = newest.clone_of(&e, None).await.unwrap();
    assert!(made.referenced > 0 && made.rewritten == 2, "tables as they are, the log anew: {made:?}");
    assert_eq!(made.copied, 0, "the stores are near enough");
    newest.holds(&scribe, SeqNo(360)).await;
    let refused = Target::bucket_form().clone_of(&e, Some("nope")).await;
    assert!(matches!(&refused, Err(TransferError::Refused(why)) if why.contains("s6")), "{refused:?}");
    let again = newest.clone_of(&e, None).await;
    assert!(matches!(&again, Err(TransferError::Refused(why)) if why.contains("is not empty")), "{again:?}");
}

#[tokio::test]
async fn a_clone_cut_off_anywhere_is_finished_by_another_run() {
    let e = Embedded::new().await;
    let mut scribe = filled(&e).await;
    scribe.commit(vec![Change::TakeSnapshot { name: "s".to_owned(), snapshot: held(100) }]).await;
    for n in 1.. {
        let target = Target::bucket_form();
        target
            .store
            .inject(Rule::any().when(is_write).after(n - 1).times(1), Fault::Fail(StoreErrorKind::Permanent));
        let failed = target.clone_of(&e, Some("s")).await;
        target.store.heal();
        if failed.is_ok() {
            assert!(n > 6, "every write was cut off once");
            return;
        }
        if n > 1 {
            let opened = target.open().await;
            let finished = target.store.get(&ObjectPath::new("isle.json").unwrap()).await.is_ok();
            assert!(opened.is_err() || finished, "an unfinished clone opens after {n} writes");
            let other = target.clone_of(&e, None).await;
            assert!(finished || other.is_err(), "another clone goes on where this one was");
        }
        target.clone_of(&e, Some("s")).await.unwrap_or_else(|e| panic!("after {n} writes: {e}"));
        target.holds(&scribe, SeqNo(100)).await;
    }
}

/// The collector wins a race once: the backup begins again with the newest manifest.
#[tokio::test]
async fn objects_deleted_under_a_backup_make_it_begin_again() {
    let e = Embedded::new().await;
    let mut scribe = filled(&e).await;
    let unflushed = scribe.manifest().unflushed()[0].path();
    let gate = e.bucket.hold(Rule::on(Op::Get).path(unflushed.as_str()).nth(1));
    let (to, said) = (store(), Arc::new(Mutex::new(Vec::new())));
    let running = tokio::spawn({
        let (db, to, said) = (e.db.clone(), Arc::clone(&to) as Arc<dyn Bucket>, Arc::clone(&said));
        async move { transfer::backup(&db, &node(), &to, &|s| said.lock().unwrap().push(s)).await }
    });
    gate.arrived(1).await;
    scribe.append(&[Entry::put("more", "rows")]).await;
    scribe.flush().await;
    e.bucket.delete(&unflushed).await.unwrap();
    gate.open();
    let made = running.await.unwrap().unwrap();
    assert!(said.lock().unwrap().iter().any(|s| matches!(s, Step::Again(why) if why.contains("is gone"))));
    assert_eq!(made.record.last_seq, scribe.manifest().last_seq);
}

#[tokio::test]
async fn damage_is_found_and_never_restored() {
    let e = Embedded::new().await;
    let scribe = filled(&e).await;
    let to = store();
    let made = back_up(&e, &to).await.unwrap();
    let held: Arc<dyn Bucket> = to.clone();
    for object in &made.record.objects {
        let whole = to.get(&object.path).await.unwrap();
        let mut bad = whole.to_vec();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        to.put(&object.path, bad.into()).await.unwrap();
        let checked = transfer::verify(&held, &e.db.env, &made.record, &|_, _| {}).await.unwrap();
        assert_eq!(checked.faults.len(), 1, "{checked:?}");
        let target = Target::bucket_form();
        let refused = target.restore(&to, &made.record).await;
        assert!(matches!(refused, Err(TransferError::Damaged { .. })), "{refused:?}");
        assert!(target.open().await.is_err(), "nothing opens");
        to.put(&object.path, whole.into()).await.unwrap();
        // The same restore goes on once the object is whole again.
        target.restore(&to, &made.record).await.unwrap();
    }
    let gone = &made.record.objects[0].path;
    to.delete(gone).await.unwrap();
    let checked = transfer::verify(&held, &e.db.env, &made.record, &|_, _| {}).await.unwrap();
    assert!(checked.faults[0].contains("is gone"), "{checked:?}");
    // A damaged source is refused as well, before anything counts.
    let table = scribe.manifest().tables().next().unwrap().path();
    let mut bad = e.bucket.get(&table).await.unwrap().to_vec();
    bad[9] ^= 1;
    e.bucket.put(&table, bad.into()).await.unwrap();
    let refused = back_up(&e, &store()).await;
    assert!(matches!(refused, Err(TransferError::Damaged { .. })), "{refused:?}");
}

#[tokio::test]
async fn what_must_not_be_overwritten_is_refused_and_left_as_it_is() {
    let e = Embedded::new().await;
    filled(&e).await;
    let to = store();
    let made = back_up(&e, &to).await.unwrap();
    let refused = |r: Result<Restored, TransferError>, text: &str| {
        let Err(TransferError::Refused(why)) = r else { panic!("{r:?}") };
        assert!(why.contains(text), "{why}");
    };

    let occupied = Target::bucket_form();
    occupied.store.put(&ObjectPath::new("somebody/else").unwrap(), b"x".to_vec().into()).await.unwrap();
    refused(occupied.restore(&to, &made.record).await, "is not empty");
    let there: Vec<_> = occupied.store.list("").try_collect().await.unwrap();
    assert_eq!(there.len(), 1, "nothing was changed");

    let restored = Target::bucket_form();
    restored.restore(&to, &made.record).await.unwrap();
    refused(restored.restore(&to, &made.record).await, "is not empty");

    // The same name has a head already, of a database in another prefix.
    let taken = Target { coordination: e.coordination.clone(), ..Target::memory_form() };
    refused(taken.restore(&to, &made.record).await, "has a head");

    let unfinished = Target::bucket_form();
    unfinished.store.inject(Rule::on(Op::Put).path("table/*"), Fault::Fail(StoreErrorKind::Permanent));
    assert!(unfinished.restore(&to, &made.record).await.is_err());
    unfinished.store.heal();
    let second = back_up(&e, &to).await.unwrap();
    refused(unfinished.restore(&to, &second.record).await, "an unfinished restore of backup 1");
    unfinished.restore(&to, &made.record).await.unwrap();

    // A place for backups of one database takes no other's, and no database's own prefix takes any.
    let other = Embedded::new().await;
    let own: Arc<dyn Bucket> = e.bucket.clone();
    let same = transfer::backup(&e.db, &node(), &own, &|_| {}).await;
    assert!(matches!(&same, Err(TransferError::Refused(why)) if why.contains("own prefix")), "{same:?}");
    let prefix = transfer::backup(&e.db, &node(), &(other.bucket.clone() as Arc<dyn Bucket>), &|_| {}).await;
    assert!(matches!(&prefix, Err(TransferError::Refused(why)) if why.contains("isle.json")), "{prefix:?}");
}

/// A backup takes the groups as they are beside the head, and a restore puts them there again, none of them beyond what it
/// restores; a clone begins without.
#[tokio::test]
async fn consumer_groups_come_along_with_a_backup_and_not_with_a_clone() {
    let e = Embedded::new().await;
    let mut scribe = filled(&e).await;
    let lineage = scribe.manifest().lineage;
    let create = async |name: &str, seq: SeqNo| {
        let create = GroupChange::Create { cursor: GroupCursor::after(seq), most: 9 };
        e.coordination.change_group(lineage, name, &create).await.unwrap();
    };
    create("early", SeqNo(7)).await;
    let to = store();
    back_up(&e, &to).await.unwrap();
    let last = scribe.append(&[Entry::put("later", "v")]).await;
    create("late", last).await;
    let made = back_up(&e, &to).await.unwrap();
    let expected: BTreeMap<_, _> =
        [("early", SeqNo(7)), ("late", last)].map(|(n, s)| (n.to_owned(), GroupCursor::after(s))).into();
    for target in [Target::memory_form(), Target::bucket_form()] {
        target.restore(&to, &made.record).await.unwrap();
        let groups = target.coordination.groups().await.unwrap().cursors;
        assert_eq!(groups, expected);
        target.is_a_copy_of(&scribe).await;
    }
    let target = Target::memory_form();
    let bucket: Arc<dyn Bucket> = target.store.clone();
    let coordination = &target.coordination;
    let place = Place { bucket: &bucket, coordination, env: &target.env, name: "copy" };
    transfer::clone_database(&e.db, &node(), Begin::default(), place, &|_| {}).await.unwrap();
    assert!(target.coordination.groups().await.unwrap().cursors.is_empty());
}
