//! Blob files of which little is alive: their values move, nothing is lost, and nothing is left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use compactor_node::once::{self, Limits, Outcome, Summary};
use compactor_node::plan::{self, MergePlan};
use compactor_node::sweep::Sweeper;
use compactor_node::{Compactor, CompactorSettings, JobError};
use isle_storage::blob::{BlobEncoder, ValueReader};
use isle_storage::database::Database;
use isle_storage::ids::{JobId, RunId, SeqNo, Timestamp};
use isle_storage::manifest::{BlobFile, Change, Manifest, Snapshot};
use isle_storage::names;
use isle_storage::object::{Bucket, StoreErrorKind};
use isle_storage::row::{BlobPointer, Row, Value};
use isle_storage::sst::{TableBuilder, TableOptions};
use isle_storage::values;
use isle_storage::verify::{From, verify};
use isle_testkit::embedded::Embedded;
use isle_testkit::fault::{Fault, Op, Rule};
use isle_testkit::scribe::{Entry, Scribe};

use crate::merge::node;
use crate::objects::{data, named};
use crate::tree;

const DAY: Duration = Duration::from_secs(24 * 3600 + 1);

/// Values of the tests are about so long: a chunk and a bit of the next.
const LEN: usize = 70_000;

fn settings() -> CompactorSettings {
    CompactorSettings { merge_workers: 1, ..crate::merge::settings() }
}

/// A value that compresses badly and tells its key and generation.
fn value(key: u64, n: u64) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15u64 ^ (key << 8) ^ n;
    let mut out = format!("{key}/{n} ").into_bytes();
    while out.len() < LEN {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out
}

fn key(n: u64) -> String {
    format!("key/{n:02}")
}

/// One batch, whose values lie in one file.
fn batch(keys: impl IntoIterator<Item = u64>, n: u64) -> Vec<Entry> {
    keys.into_iter().map(|k| Entry::put(key(k), value(k, n))).collect()
}

struct World {
    e: Embedded,
    scribe: Scribe,
}

impl World {
    async fn new() -> Self {
        let e = Embedded::new().await;
        let mut scribe = Scribe::take_over(&e.db).await;
        scribe.blob_threshold = 1000;
        Self { e, scribe }
    }

    /// Eight values in one file, of which the first `overwritten` are superseded and gone, in one merged run.
    async fn with_garbage(overwritten: u64) -> Self {
        let mut world = Self::new().await;
        world.write(batch(0..8, 0)).await;
        world.write(batch(0..overwritten, 1)).await;
        world.merge_all().await;
        world
    }

    async fn write(&mut self, entries: Vec<Entry>) {
        self.scribe.append(&entries).await;
        self.scribe.flush().await;
    }

    async fn manifest(&self) -> Arc<Manifest> {
        self.e.db.load().await.unwrap().manifest
    }

    async fn garbage(&self) -> u64 {
        let m = self.manifest().await;
        garbage(&m)
    }

    /// Everything into one run, by a compactor that moves no value.
    async fn merge_all(&self) {
        let still = CompactorSettings { blob_garbage_percent: 100, ..settings() };
        let compactor = Compactor::open(self.e.process("compactor"), node("m"), still).unwrap();
        compactor.compact();
        let mut view = compactor.current();
        let one = |m: &Manifest| m.runs.len() == 1 && !m.runs[0].l0;
        view.wait_for(|c| c.as_ref().is_some_and(|c| one(&c.manifest))).await.unwrap();
        compactor.close().await;
    }

    /// Lets go of the log, which holds the values it points at.
    async fn trim(&mut self) {
        self.scribe.loaded = self.e.db.load().await.unwrap();
        let trimmed_seq = self.scribe.manifest().flushed_seq;
        self.scribe.commit(vec![Change::TrimLog { trimmed_seq }]).await;
    }

    async fn once(&self) -> Result<Summary, String> {
        self.once_with(settings()).await
    }

    /// The summary, or the failure that it tells.
    async fn once_with(&self, settings: CompactorSettings) -> Result<Summary, String> {
        let run =
            once::once(self.e.process("compactor"), node("c"), settings, Limits::default()).await.unwrap();
        match run.error {
            Some(why) => Err(why),
            None => Ok(run),
        }
    }

    async fn snapshot(&mut self, name: &str) -> SeqNo {
        self.scribe.loaded = self.e.db.load().await.unwrap();
        let seq = self.scribe.manifest().last_seq;
        let created = self.e.db.env.clock.now();
        let snapshot = Snapshot { seq, created, expires: None, holds_log: false, extra: Default::default() };
        self.scribe.commit(vec![Change::TakeSnapshot { name: name.to_owned(), snapshot }]).await;
        seq
    }

    /// What the tables show at `at`, values of blob files read as readers do.
    async fn content(&self, at: SeqNo) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut newest: BTreeMap<Vec<u8>, Row> = BTreeMap::new();
        let m = self.manifest().await;
        for row in tree::rows(&self.e.db, &m).await {
            let slot = newest.entry(row.key.to_vec()).or_insert_with(|| row.clone());
            if row.seq <= at && (row.seq > slot.seq || slot.seq > at) {
                *slot = row;
            }
        }
        let mut content = BTreeMap::new();
        for (key, row) in newest.into_iter().filter(|(_, row)| row.seq <= at) {
            match row.value {
                Value::Put(v) => drop(content.insert(key, v.to_vec())),
                Value::Blob(p) => drop(content.insert(key, read(&self.e.db, &p).await)),
                Value::Delete => {}
            }
        }
        content
    }

    /// Every value is what it was, every file that nobody points at is gone or goes, nothing is left behind, and the
    /// database is sound.
    async fn assert_sound(&self) {
        let m = self.manifest().await;
        let shown = self.scribe.visible_at(m.last_seq, self.e.db.env.clock.now());
        let shown: BTreeMap<_, _> = shown.into_iter().map(|(key, (_, value))| (key, value)).collect();
        assert!(self.content(m.last_seq).await == shown, "a value is not what it was");
        let pointed: BTreeSet<_> = m.named_tables().flat_map(|t| &t.blobs).collect();
        let logged: BTreeSet<_> = m.log.iter().flat_map(|e| &e.blobs).collect();
        assert!(m.blobs.keys().all(|b| pointed.contains(b) || logged.contains(b)), "{:?}", m.blobs);
        assert_eq!(data(&self.e).await, named(&self.e).await);
        let bucket: Arc<dyn Bucket> = self.e.bucket.clone();
        let from = From::Coordination(self.e.coordination.clone());
        let report = verify(&bucket, from, "default", &()).await.unwrap();
        assert!(report.is_clean(), "{:?}", report.damage);
    }
}

async fn read(db: &Database, pointer: &BlobPointer) -> Vec<u8> {
    values::rest(&*db.bucket, &mut ValueReader::whole(pointer, 1 << 20)).await.unwrap().to_vec()
}

fn garbage(m: &Manifest) -> u64 {
    m.blob_files().values().map(BlobFile::garbage).sum()
}

fn only_file(m: &Manifest, from: &Manifest) -> String {
    let new: Vec<_> = m.blobs.keys().filter(|b| !from.blobs.contains_key(*b)).collect();
    assert_eq!(new.len(), 1, "{new:?}");
    new[0].clone()
}

#[tokio::test]
async fn the_values_of_a_file_of_which_little_is_alive_move_and_it_goes() {
    let mut w = World::with_garbage(6).await;
    w.trim().await;
    let before = w.manifest().await;
    assert!(garbage(&before) > 6 * LEN as u64);
    let dry = Limits { dry_run: true, ..Limits::default() };
    let dry = once::once(w.e.process("compactor"), node("c"), settings(), dry).await.unwrap();
    let planned = dry.plan.unwrap().merge.unwrap();
    assert_eq!((planned.reason, planned.moving.unwrap().files), ("blob_garbage", 1));

    let done = w.once().await.unwrap();
    assert_eq!((done.outcome, done.merges), (Outcome::Done, 1), "{done:?}");
    let after = w.manifest().await;
    let old = before.blobs.keys().next().unwrap();
    assert!(!after.blobs.contains_key(old) && after.blobs.len() == 2, "{:?}", after.blobs);
    let new = only_file(&after, &before);
    assert!(after.blobs[&new] > 2 * LEN as u64 && after.blobs[&new] < 3 * LEN as u64);
    assert_eq!(garbage(&after), 0);
    w.assert_sound().await;
    let again = w.once().await.unwrap();
    assert_eq!(again.merges, 0, "what has moved is not moved again");
    // The old file goes with its grace, and with the tables that pointed at it.
    for _ in 0..3 {
        w.e.clock.advance(Duration::from_secs(600));
        w.once().await.unwrap();
    }
    assert!(!data(&w.e).await.contains(names::blob(old).as_str()));
    w.assert_sound().await;
}

#[tokio::test]
async fn below_its_ratio_a_file_stays_as_it_is() {
    let mut w = World::with_garbage(3).await;
    w.trim().await;
    let _forget = w.e.bucket.take_history();
    assert!(w.garbage().await > 2 * LEN as u64);
    assert_eq!(w.once().await.unwrap().merges, 0);
    assert_eq!(w.e.bucket.count(Op::Put, "blob/*"), 0);
    let sharper = CompactorSettings { blob_garbage_percent: 30, ..settings() };
    assert_eq!(w.once_with(sharper).await.unwrap().merges, 1);
    w.assert_sound().await;
}

/// A tailer may still have to deliver what the log points at.
#[tokio::test]
async fn the_log_holds_what_it_points_at() {
    let mut w = World::with_garbage(6).await;
    assert_eq!((w.garbage().await, w.once().await.unwrap().merges), (0, 0));
    w.assert_sound().await;
    w.trim().await;
    assert_eq!(w.once().await.unwrap().merges, 1);
    w.assert_sound().await;
}

/// What a snapshot sees is alive, moves with the rest, and is read at the snapshot as before.
#[tokio::test]
async fn a_snapshot_sees_what_it_saw_after_its_values_have_moved() {
    let mut w = World::with_garbage(6).await;
    let seq = w.snapshot("s").await;
    let seen = w.content(seq).await;
    w.write(batch(6..7, 2)).await;
    w.trim().await;
    let before = w.manifest().await;
    let compactor = Compactor::idle(w.e.process("compactor"), node("c"), settings()).unwrap();
    // Of two runs; the values of the lower one move in passing.
    let everything = plan::full(&before, &settings(), w.e.db.env.clock.now(), before.last_seq).unwrap();
    compactor.merge(&everything, None).await.unwrap();
    let after = w.manifest().await;
    assert!(!after.blobs.contains_key(before.blobs.keys().next().unwrap()));
    assert!(w.content(seq).await == seen, "the snapshot sees something else");
    w.assert_sound().await;
    // With the snapshot's end one of the two is garbage, with the next merge of these rows.
    w.scribe.loaded = w.e.db.load().await.unwrap();
    w.scribe.commit(vec![Change::DropSnapshot { name: "s".to_owned() }]).await;
    w.write(batch(8..9, 3)).await;
    w.merge_all().await;
    w.trim().await;
    assert!(w.garbage().await > LEN as u64 / 2);
    let sharper = CompactorSettings { blob_garbage_percent: 40, ..settings() };
    assert_eq!(w.once_with(sharper).await.unwrap().merges, 1);
    assert_eq!(w.garbage().await, 0);
    w.assert_sound().await;
}

/// A value longer than many windows, an empty one, and files that are closed early.
#[tokio::test]
async fn values_of_any_length_move_into_files_of_a_bounded_size() {
    let mut w = World::new().await;
    let long: Vec<u8> = (0..3_500_000u64).map(|i| ((i * i) >> 7) as u8).collect();
    let mut entries = batch(0..20, 0);
    entries.push(Entry::put("long", long));
    entries.extend((20..24).map(|k| Entry::put(key(k), vec![7; 1001])));
    // Enough garbage for the rest.
    entries.push(Entry::put("gone", vec![1; 6_000_000]));
    w.write(entries).await;
    w.write(vec![Entry::delete("gone")]).await;
    w.merge_all().await;
    w.trim().await;
    let before = w.manifest().await;
    let small = CompactorSettings { blob_file_bytes: 300_000, ..settings() };
    assert_eq!(w.once_with(small).await.unwrap().merges, 1);
    let after = w.manifest().await;
    let lens: Vec<u64> = after.blobs.values().copied().collect();
    assert!(lens.len() >= 4 && after.blobs.keys().all(|b| !before.blobs.contains_key(b)), "{lens:?}");
    assert_eq!(lens.iter().filter(|len| **len > 300_000 + 2 * LEN as u64).count(), 1, "{lens:?}");
    w.assert_sound().await;
}

/// What one merge moves is bounded; the next goes on with the rest.
#[tokio::test]
async fn much_moves_in_several_merges_each_of_which_is_committed() {
    let mut w = World::with_garbage(0).await;
    w.write(batch(0..5, 1)).await;
    w.merge_all().await;
    w.trim().await;
    let one_each = CompactorSettings { part_bytes: 1, ..settings() };
    let done = w.once_with(one_each).await.unwrap();
    assert_eq!((done.merges, done.parts), (3, 0), "three values, one each time: {done:?}");
    assert_eq!(w.garbage().await, 0);
    w.assert_sound().await;
}

/// Flushes a run by hand whose rows point into a file that is there already, or is added.
async fn flush_pointing(w: &mut World, keys: &[u64], places: &[BlobPointer], add: Option<(&str, u64)>) {
    w.scribe.loaded = w.e.db.load().await.unwrap();
    let last =
        w.scribe.append(&keys.iter().map(|k| Entry::put(key(*k), value(*k, 0))).collect::<Vec<_>>()).await;
    let m = Arc::clone(w.scribe.manifest());
    let first = last.0 + 1 - keys.len() as u64;
    let mut builder = TableBuilder::new(TableOptions { block_bytes: 512, ..TableOptions::default() });
    for (i, (k, place)) in keys.iter().zip(places).enumerate() {
        let value = Value::Blob(place.clone());
        let seq = SeqNo(first + i as u64);
        let row = Row { key: key(*k).into(), seq, time: m.last_write_time, expires: None, value };
        builder.push(row.as_ref());
    }
    let start = m.epochs.last().unwrap();
    let table = builder.finish(&format!("{}-{}-9{first}", start.epoch, start.incarnation));
    w.e.db.bucket.put(&table.entry.path(), table.body).await.unwrap();
    let mut changes =
        vec![Change::Flush { flushed_seq: last, tables: vec![Arc::new(table.entry)], chunk: None }];
    if let Some((name, len)) = add {
        changes.insert(0, Change::AddBlobs { blobs: [(name.to_owned(), len)].into() });
    }
    w.scribe.commit(changes).await;
}

/// Two runs, the newer first, that point at two and one of the eight values of one file.
async fn shared() -> (World, String, [RunId; 2]) {
    let mut w = World::new().await;
    w.scribe.blob_threshold = usize::MAX;
    let start = w.scribe.manifest().epochs.last().unwrap().clone();
    let name = format!("{}-{}-77", start.epoch, start.incarnation);
    let (mut file, mut encoder) = (Vec::new(), BlobEncoder::new());
    let places: Vec<BlobPointer> = (0..8)
        .map(|k| {
            encoder.write(&value(k, 0), &mut file);
            let (offset, len, crc) = encoder.end_value(&mut file);
            BlobPointer { blob: name.clone(), offset, len, crc }
        })
        .collect();
    encoder.finish(&mut file);
    let len = file.len() as u64;
    w.e.db.bucket.put(&names::blob(&name), file.into()).await.unwrap();
    flush_pointing(&mut w, &[0, 1], &places[..2], Some((&name, len))).await;
    flush_pointing(&mut w, &[2], &places[2..3], None).await;
    w.trim().await;
    let m = w.manifest().await;
    let runs = [m.runs[0].id, m.runs[1].id];
    (w, name, runs)
}

fn merge_of(m: &Manifest, inputs: &[RunId]) -> MergePlan {
    MergePlan {
        inputs: inputs.to_vec(),
        bottom: false,
        bytes: m.runs.iter().map(|r| r.len_bytes()).sum(),
        moving: None,
        snapshots: Vec::new(),
        mode: m.compaction.clone(),
        reason: "test",
        score: 100,
    }
}

#[tokio::test]
async fn a_shared_file_stays_until_the_last_run_has_left_it() {
    let (w, file, [newer, older]) = shared().await;
    let compactor = Compactor::idle(w.e.process("compactor"), node("c"), settings()).unwrap();
    let before = w.manifest().await;
    compactor.merge(&merge_of(&before, &[older]), None).await.unwrap();
    let m = w.manifest().await;
    assert!(m.blobs.contains_key(&file) && m.blobs.len() == 2, "the other run points at it");
    assert!(garbage(&m) > garbage(&before));
    w.assert_sound().await;
    compactor.merge(&merge_of(&m, &[newer]), None).await.unwrap();
    let m = w.manifest().await;
    assert!(!m.blobs.contains_key(&file) && m.blobs.len() == 2);
    w.assert_sound().await;
}

/// A part that was staged by a compactor that moves nothing still points at the old file, and holds it.
#[tokio::test]
async fn staged_parts_hold_what_they_point_at() {
    let (w, file, runs) = shared().await;
    let still = CompactorSettings { blob_garbage_percent: 100, part_bytes: 300, ..settings() };
    let begin = Compactor::idle(w.e.process("compactor"), node("a"), still.clone()).unwrap();
    let m = w.manifest().await;
    begin.merge(&merge_of(&m, &runs), None).await.unwrap();
    begin.close().await;
    let m = w.manifest().await;
    let parts = m.staged.values().next().unwrap().part_count();
    assert!(parts > 1, "it is not cut");
    // One part by each, as far as bytes go.
    let part = Limits {
        max_bytes: Some(m.runs.iter().map(|r| r.len_bytes()).sum::<u64>() / 2),
        ..Limits::default()
    };
    once::once(w.e.process("compactor"), node("a"), still.clone(), part).await.unwrap();
    let m = w.manifest().await;
    assert!(m.staged.values().any(|s| s.tables().any(|t| t.blobs.contains(&file))), "{:?}", m.staged);
    let rest = CompactorSettings { blob_garbage_percent: 50, ..still };
    let done = w.once_with(rest).await.unwrap();
    assert_eq!(done.outcome, Outcome::Done);
    w.assert_sound().await;
    let m = w.manifest().await;
    assert!(m.staged.is_empty() && !m.blobs.contains_key(&file), "the last of it has moved as well");
}

/// A merge in parts that is given up takes the files of its parts with it.
#[tokio::test]
async fn a_forsaken_merge_in_parts_retires_what_its_values_have_moved_into() {
    let (w, file, runs) = shared().await;
    let cut = CompactorSettings { part_bytes: 300, ..settings() };
    let begin = Compactor::idle(w.e.process("compactor"), node("a"), cut.clone()).unwrap();
    let m = w.manifest().await;
    begin.merge(&merge_of(&m, &runs), None).await.unwrap();
    begin.close().await;
    let m = w.manifest().await;
    let half = Limits {
        max_bytes: Some(m.runs.iter().map(|r| r.len_bytes()).sum::<u64>() / 2),
        ..Limits::default()
    };
    once::once(w.e.process("compactor"), node("a"), cut, half).await.unwrap();
    let m = w.manifest().await;
    assert!(!m.staged.is_empty() && m.blobs.len() == 2, "{:?}", m.blobs);
    w.assert_sound().await;
    w.e.clock.advance(8 * DAY);
    let none = Limits { max_bytes: Some(0), ..Limits::default() };
    once::once(w.e.process("compactor"), node("b"), settings(), none).await.unwrap();
    let m = w.manifest().await;
    assert_eq!((m.staged.len(), m.blobs.keys().collect::<Vec<_>>()), (0, vec![&file]));
    w.assert_sound().await;
}

/// Damages the file in the midst of its last value, which is alive.
async fn damage(w: &World, blob: &str) {
    let path = names::blob(blob);
    let mut bytes = w.e.objects.get(&path).await.unwrap().to_vec();
    let at = bytes.len() - LEN / 2;
    bytes[at] ^= 1;
    w.e.objects.put(&path, bytes.into()).await.unwrap();
}

#[tokio::test]
async fn a_damaged_value_stays_where_it_is_and_everything_else_goes_on() {
    let mut w = World::with_garbage(6).await;
    w.write(batch(10..18, 5)).await;
    w.write(batch(10..16, 6)).await;
    w.merge_all().await;
    w.trim().await;
    let before = w.manifest().await;
    let due = plan::due_blobs(&before, &settings(), &BTreeSet::new());
    assert_eq!(due.len(), 2);
    let bad = due.iter().next().unwrap().clone();
    damage(&w, &bad).await;
    // A run does all the rest, and then says so.
    let failed = w.once().await.unwrap_err();
    assert!(failed.contains(names::blob(&bad).as_str()), "{failed}");
    let m = w.manifest().await;
    assert!(m.blobs.contains_key(&bad) && !m.blobs.contains_key(due.iter().nth(1).unwrap()));
    assert_eq!(data(&w.e).await, named(&w.e).await, "what was begun is taken back");

    // A daemon says so and merges whatever else there is, these very rows included.
    let compactor = Compactor::open(w.e.process("compactor"), node("d"), settings()).unwrap();
    w.write(batch(20..21, 0)).await;
    compactor.compact();
    let mut view = compactor.current();
    let merged =
        |m: &Manifest| m.runs.len() == 1 && m.tables().any(|t| t.largest.as_slice() == key(20).as_bytes());
    view.wait_for(|c| c.as_ref().is_some_and(|c| merged(&c.manifest))).await.unwrap();
    let trouble = compactor.status().trouble;
    compactor.close().await;
    let why = &trouble["blobs"];
    assert!(why.contains(names::blob(&bad).as_str()) && why.contains("checksum"), "{why}");
    let m = w.manifest().await;
    assert!(m.blobs.contains_key(&bad), "its rows still point at it");
    assert_eq!(data(&w.e).await, named(&w.e).await);
}

/// Whatever request fails, and however: nothing is lost, nothing is left, and the next run does it.
#[tokio::test]
async fn a_store_that_fails_at_any_request_of_a_move_loses_nothing() {
    for (op, path) in [(Op::Put, "blob/*"), (Op::Put, "table/*"), (Op::Get, "blob/*"), (Op::Get, "table/*")] {
        for fault in [Fault::Fail(StoreErrorKind::Transient), Fault::LoseReply] {
            let mut w = World::with_garbage(6).await;
            w.trim().await;
            let failing = w.e.bucket.inject(Rule::on(op).path(path), fault.clone());
            let failed = w.once().await;
            assert!(failed.is_err(), "{op:?} {path} {fault:?}: {failed:?}");
            w.e.bucket.remove(failing);
            w.assert_sound().await;
            assert_eq!(w.once().await.unwrap().merges, 1);
            assert_eq!(w.garbage().await, 0);
            w.assert_sound().await;
        }
    }
}

/// The process dies while it copies, or when everything is in the bucket: what it has left goes with the sweep, once its
/// claim is over.
#[tokio::test]
async fn what_a_dead_process_has_moved_is_swept() {
    for (op, path) in [(Op::Put, "blob/*"), (Op::Put, "table/*")] {
        let mut w = World::with_garbage(6).await;
        w.trim().await;
        let gate = isle_testkit::fault::Gate::new();
        w.e.bucket.inject(Rule::on(op).path(path), Fault::HoldAfter(gate.clone()));
        let process = w.e.process("compactor");
        let dying = tokio::spawn(once::once(process, node("dying"), settings(), Limits::default()));
        gate.arrived(1).await;
        dying.abort();
        assert!(dying.await.unwrap_err().is_cancelled());
        w.e.bucket.heal();
        let m = w.manifest().await;
        let job = plan::all(&m, &settings(), Timestamp(0))[0].job();
        let left: BTreeSet<String> = data(&w.e).await.difference(&named(&w.e).await).cloned().collect();
        assert!(!left.is_empty() && left.iter().all(|p| p.contains(&job.to_string())), "{left:?}");
        w.e.coordination.expire_job(job);
        w.e.clock.advance(DAY);
        let swept = Sweeper::default().pass(&w.e.process("compactor"), &node("c"), &settings(), false).await;
        assert_eq!(swept.unwrap().deleted, left.len() as u64);
        w.assert_sound().await;
        assert_eq!(w.once().await.unwrap().merges, 1);
        w.assert_sound().await;
    }
}

/// What one has claimed another leaves alone, and the loser of a claim takes its files back.
#[tokio::test]
async fn a_move_that_loses_its_claim_takes_its_files_back() {
    let mut w = World::with_garbage(6).await;
    w.trim().await;
    let gate = isle_testkit::fault::Gate::new();
    w.e.bucket.inject(Rule::on(Op::Put).path("blob/*"), Fault::HoldAfter(gate.clone()));
    let m = w.manifest().await;
    let plans = plan::all(&m, &settings(), Timestamp(0));
    let plan::Plan::Merge(planned) = plans[0].clone() else { panic!("{plans:?}") };
    let compactor = Compactor::idle(w.e.process("compactor"), node("c"), settings()).unwrap();
    let job: JobId = planned.job();
    let losing = async {
        gate.arrived(1).await;
        w.e.coordination.expire_job(job);
    };
    let (moved, ()) = tokio::join!(compactor.merge(&planned, None), losing);
    assert!(matches!(moved, Err(JobError::ClaimLost(_))), "{moved:?}");
    w.e.bucket.heal();
    w.assert_sound().await;
}
