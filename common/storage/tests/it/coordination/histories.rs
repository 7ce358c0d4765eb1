//! Recover after random histories: takeovers, appends, flushes, merges, folds, collections, each of which may be cut off
//! in the middle, then the coordination service lost. Whatever was acknowledged is there, in order and nothing twice; what
//! was in flight may follow it, in order; the tables hold exactly what they should. Every history is a number: a failure
//! names it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use isle_storage::coordination::claim;
use isle_storage::coordination::recover::Consent;
use isle_storage::coordination::{Backend, ClaimAttempt, NodeInfo, checkpoint, fold};
use isle_storage::environment::Entropy;
use isle_storage::ids::{Incarnation, SeqNo, Version};
use isle_storage::log;
use isle_storage::manifest::{Change, LogTail, Manifest, Run, TableEntry};
use isle_storage::names::{self, ObjectPath};
use isle_storage::object::{Bucket, StoreErrorKind};
use isle_storage::row::Row;
use isle_storage::sst::{TableBuilder, TableOptions};
use isle_testkit::contract::coordination::recovering::recover;
use isle_testkit::contract::coordination::{Service, World, world};
use isle_testkit::embedded::SeededEntropy;
use isle_testkit::fault::{Fault, FaultBucket, Op, Rule};
use isle_testkit::scribe::{Entry, Scribe};

use super::services::{Memory, Objects};
use crate::rows::{Opened, sort};

/// Random choices of one history.
struct Dice(Arc<SeededEntropy>);

impl Dice {
    fn below(&self, n: u64) -> u64 {
        self.0.next_u64() % n
    }

    fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// One database living through a history.
struct Life {
    world: World,
    dice: Dice,
    scribe: Option<Scribe>,
    /// Everything acknowledged, by sequence number from 1.
    acknowledged: Vec<Entry>,
    /// What was uploaded and never committed, after the acknowledged, up to the first that was not.
    in_flight: Vec<Entry>,
    names: u64,
}

impl Life {
    fn new(service: Arc<dyn Service>, seed: u64) -> Self {
        let dice = Dice(SeededEntropy::new(seed));
        let world = World::new(service);
        Self { world, dice, scribe: None, acknowledged: Vec::new(), in_flight: Vec::new(), names: 0 }
    }

    fn entries(&mut self) -> Vec<Entry> {
        let n = 1 + self.dice.below(4);
        let entry = |life: &mut Self| {
            life.names += 1;
            let key = format!("key-{:02}", life.dice.below(12));
            if life.dice.one_in(5) {
                Entry::delete(key)
            } else {
                Entry::put(key, format!("value {}", life.names))
            }
        };
        (0..n).map(|_| entry(self)).collect()
    }

    /// A new writer takes over; what it adopted is as good as acknowledged, what it did not is void.
    async fn take_over(&mut self) {
        self.world.service.expire_writer().await;
        let scribe = Scribe::take_over(&self.world.process().await).await;
        let before = self.acknowledged.len() as u64;
        let adopted = scribe.manifest().last_seq.0 - before;
        assert_eq!(adopted as usize, self.in_flight.len(), "a takeover adopts what is in flight");
        self.acknowledged.append(&mut self.in_flight);
        self.scribe = Some(scribe);
    }

    async fn scribe(&mut self) -> &mut Scribe {
        if self.scribe.is_none() {
            self.take_over().await;
        }
        self.scribe.as_mut().unwrap()
    }

    async fn append(&mut self) {
        let entries = self.entries();
        self.scribe().await.append(&entries).await;
        self.acknowledged.extend(entries);
    }

    /// The writer dies with segments in flight; one in the middle may not have arrived, and another epoch's late one
    /// may arrive beyond a later cut.
    async fn die_in_flight(&mut self) {
        let mut batches: Vec<Vec<Entry>> = Vec::new();
        for _ in 0..1 + self.dice.below(3) {
            batches.push(self.entries());
        }
        self.scribe().await;
        let scribe = self.scribe.take().unwrap();
        let mut tail = scribe.manifest().tail;
        for entries in batches {
            let segment = scribe.in_flight(tail, &entries).unwrap();
            tail = Some(LogTail { id: segment.entry.id, last_seq: segment.entry.last_seq });
            scribe.db.bucket.put(&segment.entry.path(), segment.body).await.unwrap();
            self.in_flight.extend(entries);
        }
    }

    /// A writer's upload that arrives after its epoch was cut off: it must never be seen again.
    async fn arrive_late(&mut self) {
        let entries = self.entries();
        self.scribe().await;
        let old = self.scribe.take().unwrap();
        let late = old.in_flight(old.manifest().tail, &entries).unwrap();
        self.take_over().await;
        old.db.bucket.put(&late.entry.path(), late.body).await.unwrap();
    }

    /// A claim that goes no further than the claim itself, or than its adoption.
    async fn claim_and_die(&mut self) {
        self.scribe = None;
        self.world.service.expire_writer().await;
        let faults = FaultBucket::new(self.world.bucket());
        let name = world::NAME;
        let db = self.world.try_open(faults.clone(), name, &world::creating()).await.unwrap();
        let node = NodeInfo { node: "dying".to_owned(), advertise: String::new() };
        let attempt = db.coordination.claim_writer(&node, Incarnation(self.dice.0.next_u64())).await.unwrap();
        let ClaimAttempt::Won(claim) = attempt else { panic!("{attempt:?}") };
        if self.dice.one_in(2) {
            faults.inject(Rule::on(Op::Create).path("manifest/epoch-*"), Fault::Fail(StoreErrorKind::Denied));
            claim::take_over(&db, &claim, "dying").await.unwrap_err();
            self.acknowledged.append(&mut self.in_flight);
        }
    }

    async fn flush(&mut self) {
        let cut_off = self.dice.one_in(5);
        let scribe = self.scribe().await;
        if !cut_off {
            scribe.flush().await;
            return;
        }
        // It dies between its uploads and its commit: tables and a chunk that nothing names.
        let rows = rows_of(&self.acknowledged);
        if !rows.is_empty() {
            self.write_table(rows).await;
        }
        self.scribe = None;
    }

    /// Two neighbouring runs become one, or the job dies before its commit.
    async fn merge(&mut self) {
        let cut_off = self.dice.one_in(4);
        let manifest = Arc::clone(self.scribe().await.manifest());
        if manifest.runs.len() < 2 {
            return;
        }
        let at = self.dice.below(manifest.runs.len() as u64 - 1) as usize;
        let inputs: Vec<&Arc<Run>> = manifest.runs[at..at + 2].iter().collect();
        let (from, to) = (inputs[1].min_seq(), inputs[0].max_seq());
        let rows = rows_of(&self.acknowledged).into_iter().filter(|r| from <= r.seq && r.seq <= to).collect();
        let table = self.write_table(rows).await;
        if cut_off {
            return;
        }
        let change = Change::Merge {
            inputs: inputs.iter().map(|r| r.id).collect(),
            tables: vec![table],
            snapshots: Vec::new(),
            planned_mode: manifest.compaction.clone(),
            dropped: false,
            judged: SeqNo::ZERO,
            expiry: None,
        };
        self.scribe().await.commit(vec![change]).await;
    }

    async fn write_table(&mut self, mut rows: Vec<Row>) -> Arc<TableEntry> {
        self.names += 1;
        sort(&mut rows);
        // Write times are the store's of another day; a merge may not change them.
        let times = self.times().await;
        let mut builder = TableBuilder::new(TableOptions::default());
        for row in &mut rows {
            row.time = times[row.seq.0 as usize - 1];
            builder.push(row.as_ref());
        }
        let table = builder.finish(&format!("job-{:016x}-{}", self.dice.0.next_u64(), self.names));
        self.world.bucket().put(&table.entry.path(), table.body).await.unwrap();
        Arc::new(table.entry)
    }

    /// The write time of every row in the log.
    async fn times(&mut self) -> Vec<isle_storage::ids::Timestamp> {
        let manifest = Arc::clone(self.scribe().await.manifest());
        log_of(&self.world.bucket(), &manifest).await.iter().map(|r| r.time).collect()
    }

    /// A checkpoint, folded or (its maker dies) only written.
    async fn fold(&mut self) {
        let cut_off = self.dice.one_in(4);
        let db = self.scribe().await.db.clone();
        let loaded = db.load().await.unwrap();
        if cut_off {
            checkpoint::write_verified(db.bucket.as_ref(), &db.env, &loaded.manifest).await.unwrap();
        } else {
            fold::fold(&db, &loaded).await.unwrap();
        }
    }

    /// Deletes what the collector may delete: what was retired at or below both newest checkpoints and the head's, and
    /// checkpoints beyond the newest two.
    async fn collect(&mut self) {
        let db = self.scribe().await.db.clone();
        let loaded = db.load().await.unwrap();
        let mut checkpoints = self.checkpoints().await;
        checkpoints.reverse();
        let named = &loaded.state.head.checkpoint;
        let covered = checkpoints.iter().take(2).map(|(v, _)| *v).min().unwrap().min(named.version);
        if checkpoints.len() < 2 {
            return;
        }
        for retired in loaded.manifest.retired.iter().filter(|r| r.version <= covered) {
            db.bucket.delete(&retired.path).await.unwrap();
        }
        for (_, path) in checkpoints.iter().skip(2).filter(|(_, path)| *path != named.path) {
            db.bucket.delete(path).await.unwrap();
        }
    }

    /// Ascending.
    async fn checkpoints(&self) -> Vec<(Version, ObjectPath)> {
        let listed: Vec<_> = self.world.bucket().list("manifest").try_collect().await.unwrap();
        let parsed = listed.into_iter().filter_map(|o| Some((names::parse_checkpoint(&o.path)?, o.path)));
        let mut found: Vec<_> = parsed.map(|(v, p)| (v, ObjectPath::new(p).unwrap())).collect();
        found.sort();
        found
    }

    async fn live(&mut self) {
        match self.dice.below(16) {
            0..5 => self.append().await,
            5..8 => self.flush().await,
            8..10 => self.merge().await,
            10..12 => self.fold().await,
            12 => self.collect().await,
            13 => self.arrive_late().await,
            14 => self.claim_and_die().await,
            _ => self.take_over().await,
        }
    }

    /// Coordination is lost, and sometimes the newest checkpoint is damaged too.
    async fn lose_everything(&mut self) {
        if self.dice.one_in(2) {
            self.die_in_flight().await;
        }
        if self.dice.one_in(3) && self.checkpoints().await.len() > 1 {
            let (_, path) = self.checkpoints().await.pop().unwrap();
            let mut bytes = self.world.bucket().get(&path).await.unwrap().to_vec();
            let at = self.dice.below(bytes.len() as u64) as usize;
            bytes[at] ^= 0x10;
            self.world.bucket().put(&path, bytes.into()).await.unwrap();
        }
        self.scribe = None;
        if self.world.service.backend() == Backend::Bucket && self.dice.one_in(2) {
            self.lose_an_edit().await;
        } else {
            self.world.service.lose_head().await;
        }
    }

    /// In the bucket form a single numbered edit may be lost or damaged.
    async fn lose_an_edit(&mut self) {
        let listed: Vec<_> = self.world.bucket().list("manifest").try_collect().await.unwrap();
        let mut edits: Vec<String> =
            listed.into_iter().map(|o| o.path).filter(|p| names::parse_edit(p).is_some()).collect();
        if edits.is_empty() {
            return self.world.service.lose_head().await;
        }
        let path = edits.swap_remove(self.dice.below(edits.len() as u64) as usize);
        let path = ObjectPath::new(path).unwrap();
        if self.dice.one_in(2) {
            self.world.bucket().delete(&path).await.unwrap();
        } else {
            self.world
                .bucket()
                .put(&path, Bytes::from_static(b"isle-edit 1 00000000\n{}").into())
                .await
                .unwrap();
        }
    }

    async fn recover(&mut self) {
        let consent = Consent { loss: false, sound: true };
        let rebuilt = recover(&self.world, consent).await.unwrap().manifest;
        self.acknowledged.append(&mut self.in_flight);
        self.check(&rebuilt).await;
    }

    /// Log and tables hold exactly what they should.
    async fn check(&self, manifest: &Manifest) {
        let bucket = self.world.bucket();
        let mut log = log_of(&bucket, manifest).await;
        let mut tables = Vec::new();
        for table in manifest.tables() {
            let object = bucket.get(&table.path()).await.unwrap();
            tables.extend(Opened::new(object, table.meta_offset).unwrap().all().unwrap());
        }
        for row in log.iter_mut().chain(&mut tables) {
            row.time = isle_storage::ids::Timestamp(0);
        }
        let expected = rows_of(&self.acknowledged);
        assert_eq!(log, expected);
        tables.sort_by_key(|r| r.seq);
        assert_eq!(tables, expected[..manifest.flushed_seq.0 as usize]);
    }
}

/// The rows of a history, in sequence order, at the beginning of time.
fn rows_of(history: &[Entry]) -> Vec<Row> {
    let row = |(n, e): (usize, &Entry)| {
        use isle_storage::row::Value;
        let value = e.value.clone().map_or(Value::Delete, |v| Value::Put(v.into()));
        let time = isle_storage::ids::Timestamp(0);
        Row { key: e.key.clone().into(), seq: SeqNo(n as u64 + 1), time, expires: None, value }
    };
    history.iter().enumerate().map(row).collect()
}

/// Every row of the log.
async fn log_of(bucket: &Arc<dyn Bucket>, manifest: &Manifest) -> Vec<Row> {
    let mut rows = Vec::new();
    for entry in &manifest.log {
        let object = log::decode(&bucket.get(&entry.path()).await.unwrap()).unwrap();
        rows.extend(object.blocks.iter().flat_map(|b| b.rows().map(|r| r.to_row()).collect::<Vec<_>>()));
    }
    rows
}

/// One history, lost and recovered a few times.
async fn history(service: Arc<dyn Service>, seed: u64) {
    let mut life = Life::new(service, seed);
    for _ in 0..1 + life.dice.below(3) {
        life.scribe().await;
        for _ in 0..life.dice.below(30) {
            life.live().await;
        }
        life.lose_everything().await;
        life.recover().await;
    }
    // And it goes on.
    life.append().await;
    life.flush().await;
    let now = life.world.fresh_load().await.manifest;
    life.check(&now).await;
    let epochs: BTreeSet<_> = now.epochs.iter().map(|e| e.epoch).collect();
    assert_eq!(epochs.len(), now.epochs.len());
}

/// Every seed in a task of its own, so that a failure can be told by its number.
async fn histories(seeds: std::ops::Range<u64>, fresh: impl Fn() -> Arc<dyn Service>) {
    for seed in seeds {
        let life = tokio::spawn(history(fresh(), seed));
        if let Err(e) = life.await {
            panic!("history {seed}: {e}");
        }
    }
}

#[tokio::test]
async fn no_history_loses_an_acknowledged_row_in_the_memory_form() {
    histories(0..150, || Memory::fresh() as Arc<dyn Service>).await;
}

#[tokio::test]
async fn no_history_loses_an_acknowledged_row_in_the_bucket_form() {
    histories(0..100, || Objects::in_memory() as Arc<dyn Service>).await;
}
