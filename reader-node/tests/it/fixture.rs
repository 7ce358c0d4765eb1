//! A small writer and compactor that make databases for the tests: segments, flushes and merges through the real
//! encoders and the real commit path, step by step and under the test's control.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use isle_storage::coordination::commit::{self, Resolved};
use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::memory::MemoryCoordination;
use isle_storage::coordination::{Claim, ClaimAttempt, Coordination, Loaded, NodeInfo, claim};
use isle_storage::database::Database;
use isle_storage::environment::{Clock, Environment};
use isle_storage::format::Compression;
use isle_storage::ids::{CommitId, Incarnation, RunId, SeqNo, Timestamp};
use isle_storage::log::{self, Batch, LogHeader, Push};
use isle_storage::manifest::{
    Author, Change, CompactionMode, Edit, LogEntry, LogTail, Manifest, Snapshot, TableEntry,
};
use isle_storage::names::{self, LogKind};
use isle_storage::object::{Bucket, MemoryBucket};
use isle_storage::row::{Row, Value};
use isle_storage::sst::{TableBuilder, TableOptions};
use isle_testkit::fault::FaultBucket;
use reader_node::{Reader, ReaderSettings};
use tokio::time::Instant;

pub(crate) const NAME: &str = "default";

/// The instant at which every test begins.
pub(crate) const START: Timestamp = Timestamp(1_000_000_000);

/// A clock that only a test moves.
#[derive(Debug)]
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_micros() as i64, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// A database with its one writer. Readers see it through a bucket that fails on command.
pub(crate) struct World {
    pub(crate) clock: Arc<TestClock>,
    pub(crate) store: Arc<MemoryBucket>,
    pub(crate) faults: Arc<FaultBucket>,
    pub(crate) coordination: Arc<MemoryCoordination>,
    pub(crate) db: Database,
    pub(crate) claim: Claim,
    pub(crate) loaded: Loaded,
    pub(crate) shape: Shape,
    /// Every row committed, by sequence number; the model is made from it.
    pub(crate) rows: Vec<Row>,
    batch: Vec<Row>,
    tables: u64,
    runs: BTreeMap<RunId, Vec<Row>>,
    commits: u64,
}

/// How tables are cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) block_bytes: usize,
    pub(crate) rows_per_table: usize,
    pub(crate) chunks: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { block_bytes: 256, rows_per_table: 8, chunks: true }
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Shape::default()).await
    }

    pub(crate) async fn with(shape: Shape) -> Self {
        let clock = Arc::new(TestClock(AtomicI64::new(START.0)));
        let store = Arc::new(MemoryBucket::new(Arc::clone(&clock) as Arc<dyn Clock>));
        let coordination = MemoryCoordination::new(Arc::clone(&store) as Arc<dyn Bucket>);
        let faults = FaultBucket::new(Arc::clone(&store) as Arc<dyn Bucket>);
        let env = Environment { clock: Arc::clone(&clock) as _, ..Environment::system("writer", NAME) };
        let mode = OpenMode::CreateIfMissing(CompactionMode::Merge);
        let db = Database::open(Arc::clone(&store) as _, Arc::clone(&coordination) as _, env, NAME, &mode)
            .await
            .unwrap();
        let (claim, loaded) = take_over(&db, &coordination, 1).await;
        Self {
            clock,
            store,
            faults,
            coordination,
            db,
            claim,
            loaded,
            shape,
            rows: Vec::new(),
            batch: Vec::new(),
            tables: 0,
            runs: BTreeMap::new(),
            commits: 0,
        }
    }

    /// Another writer takes over; what the old one had not committed is lost.
    pub(crate) async fn take_over(&mut self) {
        self.coordination.expire_writer();
        self.batch.clear();
        let (claim, loaded) = take_over(&self.db, &self.coordination, self.claim.epoch.0 + 1).await;
        (self.claim, self.loaded) = (claim, loaded);
    }

    pub(crate) async fn reader_db(&self) -> Database {
        let env = Environment { clock: Arc::clone(&self.clock) as _, ..Environment::system("reader", NAME) };
        let bucket = Arc::clone(&self.faults) as Arc<dyn Bucket>;
        let coordination = self.coordination.through(Arc::clone(&bucket));
        Database::open(bucket, coordination, env, NAME, &OpenMode::Existing).await.unwrap()
    }

    pub(crate) async fn reader(&self) -> Reader {
        self.reader_with(ReaderSettings::default()).await
    }

    /// A reader that has caught up.
    pub(crate) async fn reader_with(&self, settings: ReaderSettings) -> Reader {
        let reader = Reader::open(self.reader_db().await, settings).unwrap();
        self.catch_up(&reader).await;
        reader
    }

    pub(crate) async fn catch_up(&self, reader: &Reader) {
        let version = self.loaded.manifest.version;
        tokio::time::timeout(Duration::from_secs(60), reader.reached(version)).await.unwrap().unwrap();
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.loaded.manifest
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> SeqNo {
        self.push(key, Value::Put(Bytes::copy_from_slice(value)), None)
    }

    pub(crate) fn put_until(&mut self, key: &[u8], value: &[u8], expires: Timestamp) -> SeqNo {
        self.push(key, Value::Put(Bytes::copy_from_slice(value)), Some(expires))
    }

    pub(crate) fn delete(&mut self, key: &[u8]) -> SeqNo {
        self.push(key, Value::Delete, None)
    }

    fn push(&mut self, key: &[u8], value: Value, expires: Option<Timestamp>) -> SeqNo {
        let seq = SeqNo(self.manifest().last_seq.0 + self.batch.len() as u64 + 1);
        let time = self.now();
        self.batch.push(Row { key: Bytes::copy_from_slice(key), seq, time, expires, value });
        seq
    }

    /// Commits what was pushed as one segment.
    pub(crate) async fn commit(&mut self) {
        self.commit_marked(false).await;
    }

    /// The same; `first` marks the start of a generation.
    pub(crate) async fn commit_marked(&mut self, first: bool) {
        if self.batch.is_empty() {
            return;
        }
        let segment = self.upload_segment(first).await;
        self.edit(vec![Change::AppendLog { segments: vec![segment] }]).await;
        self.rows.append(&mut self.batch);
    }

    async fn upload_segment(&self, first: bool) -> Arc<LogEntry> {
        let m = self.manifest();
        let mut batch = Batch::new(m.last_seq.next(), 1024);
        for row in &self.batch {
            let what = match &row.value {
                Value::Put(v) => Push::Put(v),
                Value::Delete => Push::Delete,
                Value::Blob(_) => unreachable!("the fixture writes no blobs"),
            };
            batch.push(&row.key, row.time, row.expires, what);
        }
        let sealed = batch.seal().unwrap();
        let header = self.header(LogKind::Segment, sealed.first_seq, sealed.last_seq, m.tail, first);
        let encoded = log::encode_segment(&header, &sealed, Compression::Lz4);
        self.store.put(&encoded.entry.path(), encoded.body).await.unwrap();
        Arc::new(encoded.entry)
    }

    fn header(
        &self,
        kind: LogKind,
        first_seq: SeqNo,
        last_seq: SeqNo,
        previous: Option<LogTail>,
        starts_generation: bool,
    ) -> LogHeader {
        LogHeader {
            kind,
            database: self.db.identity.database,
            lineage: self.manifest().lineage,
            epoch: self.claim.epoch,
            incarnation: self.claim.incarnation,
            first_seq,
            last_seq,
            previous,
            starts_generation,
            blobs: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// Flushes the oldest `segments` unflushed segments.
    pub(crate) async fn flush(&mut self, segments: usize) {
        let unflushed = self.manifest().unflushed();
        let Some(last) = unflushed.iter().take(segments).next_back() else { return };
        let (from, flushed_seq) = (self.manifest().flushed_seq, last.last_seq);
        let covered: Vec<Arc<LogEntry>> = unflushed.iter().take(segments).cloned().collect();
        let rows: Vec<Row> = self.rows[from.0 as usize..flushed_seq.0 as usize].to_vec();
        let tables = self.upload_tables(rows.clone()).await;
        let chunk = if self.shape.chunks { Some(self.upload_chunk(&covered).await) } else { None };
        self.edit(vec![Change::Flush { flushed_seq, tables, chunk }]).await;
        self.runs.insert(RunId(self.manifest().version.0), rows);
    }

    async fn upload_chunk(&self, covered: &[Arc<LogEntry>]) -> Arc<LogEntry> {
        let mut blocks = Vec::new();
        for entry in covered {
            let bytes = self.store.get(&entry.path()).await.unwrap();
            blocks.extend(log::decode(&bytes).unwrap().blocks);
        }
        let (first, last) = (covered[0].id.first_seq, covered[covered.len() - 1].last_seq);
        let mut header = self.header(LogKind::Chunk, first, last, None, true);
        header.parts = covered.iter().map(|e| LogTail { id: e.id, last_seq: e.last_seq }).collect();
        let encoded = log::encode_chunk(&header, &blocks, 4096, Compression::Lz4);
        self.store.put(&encoded.entry.path(), encoded.body).await.unwrap();
        Arc::new(encoded.entry)
    }

    /// Merges `count` neighbouring runs from position `at` (newest is 0) on.
    pub(crate) async fn merge(&mut self, at: usize, count: usize) {
        let m = Arc::clone(&self.loaded.manifest);
        let inputs: Vec<RunId> = m.runs.iter().skip(at).take(count).map(|r| r.id).collect();
        if inputs.is_empty() {
            return;
        }
        let bottom = at + inputs.len() == m.runs.len();
        let judged = m.runs[at].max_seq();
        let snapshots: Vec<SeqNo> = m.snapshots.values().map(|s| s.seq).collect();
        let rows: Vec<Row> = inputs.iter().flat_map(|id| self.runs.remove(id).unwrap()).collect();
        let rows = survivors(rows, &snapshots, bottom);
        let tables = if rows.is_empty() { Vec::new() } else { self.upload_tables(rows.clone()).await };
        let planned_mode = m.compaction.clone();
        let (dropped, expiry) = (bottom, None);
        self.edit(vec![Change::Merge { inputs, tables, snapshots, planned_mode, dropped, judged, expiry }])
            .await;
        self.runs.insert(RunId(self.manifest().version.0), rows);
    }

    pub(crate) async fn snapshot(&mut self, name: &str) {
        let snapshot = Snapshot {
            seq: self.manifest().last_seq,
            created: self.now(),
            expires: None,
            holds_log: false,
            extra: BTreeMap::new(),
        };
        self.edit(vec![Change::TakeSnapshot { name: name.to_owned(), snapshot }]).await;
    }

    pub(crate) async fn drop_snapshot(&mut self, name: &str) {
        self.edit(vec![Change::DropSnapshot { name: name.to_owned() }]).await;
    }

    /// Deletes every retired object from the bucket, at once.
    pub(crate) async fn collect(&mut self) {
        let paths: Vec<_> = self.manifest().retired.iter().map(|r| r.path.clone()).collect();
        if paths.is_empty() {
            return;
        }
        for path in &paths {
            self.store.delete(path).await.unwrap();
        }
        self.edit(vec![Change::Collected { paths }]).await;
    }

    async fn upload_tables(&mut self, mut rows: Vec<Row>) -> Vec<Arc<TableEntry>> {
        rows.sort_by(|a, b| a.key.cmp(&b.key).then(b.seq.cmp(&a.seq)));
        let options = TableOptions { block_bytes: self.shape.block_bytes, compression: Compression::Lz4 };
        let mut entries = Vec::new();
        let mut builder = TableBuilder::new(options);
        let mut pushed = 0;
        for row in &rows {
            if pushed >= self.shape.rows_per_table && builder.last_key() != Some(&row.key) {
                let full = std::mem::replace(&mut builder, TableBuilder::new(options));
                entries.push(self.upload_table(full).await);
                pushed = 0;
            }
            builder.push(row.as_ref());
            pushed += 1;
        }
        entries.push(self.upload_table(builder).await);
        entries
    }

    async fn upload_table(&mut self, builder: TableBuilder) -> Arc<TableEntry> {
        self.tables += 1;
        let owner = names::writer_owner(self.claim.epoch, self.claim.incarnation);
        let table = builder.finish(&format!("{owner}-{}", self.tables));
        self.store.put(&table.entry.path(), table.body).await.unwrap();
        Arc::new(table.entry)
    }

    pub(crate) async fn edit(&mut self, changes: Vec<Change>) {
        self.commits += 1;
        let edit = Edit {
            version: self.manifest().version.next(),
            lineage: self.manifest().lineage,
            epoch: self.manifest().epoch,
            commit: CommitId(self.commits),
            author: Author::Writer,
            changes,
            required_features: Vec::new(),
            extra: BTreeMap::new(),
        };
        let proposal =
            commit::propose(&self.loaded.state, &self.loaded.manifest, edit, &self.claim.authority).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        match commit::commit(&self.db, &proposal, deadline).await {
            Resolved::Committed(state) => {
                self.loaded = Loaded { state, manifest: proposal.manifest, as_of: Instant::now() };
            }
            other => panic!("{other:?}"),
        }
    }

    /// What must be visible of the rows up to `seq` at the instant `now`.
    pub(crate) fn model(&self, seq: SeqNo, now: Timestamp) -> BTreeMap<Bytes, Row> {
        let mut model = BTreeMap::new();
        for row in self.rows.iter().filter(|r| r.seq <= seq) {
            model.insert(row.key.clone(), row.clone());
        }
        model.retain(|_, row| !matches!(row.value, Value::Delete) && row.expires.is_none_or(|e| e > now));
        model
    }

    /// What must be visible now.
    pub(crate) fn model_now(&self) -> BTreeMap<Bytes, Row> {
        self.model(self.manifest().last_seq, self.now())
    }

    /// Paths of every table of the newest manifest.
    pub(crate) fn table_paths(&self) -> Vec<names::ObjectPath> {
        self.manifest().tables().map(|t| t.path()).collect()
    }
}

async fn take_over(db: &Database, coordination: &Arc<MemoryCoordination>, n: u64) -> (Claim, Loaded) {
    let node = NodeInfo { node: format!("writer-{n}"), advertise: String::new() };
    match coordination.claim_writer(&node, Incarnation(0xab00 + n)).await.unwrap() {
        ClaimAttempt::Won(claim) => {
            let loaded = claim::take_over(db, &claim, &node.node).await.unwrap();
            (claim, loaded)
        }
        held => panic!("{held:?}"),
    }
}

/// What a merge keeps: of each key the newest version, and the newest for each snapshot; no delete at the bottom.
fn survivors(mut rows: Vec<Row>, snapshots: &[SeqNo], bottom: bool) -> Vec<Row> {
    rows.sort_by(|a, b| a.key.cmp(&b.key).then(b.seq.cmp(&a.seq)));
    let mut kept: Vec<Row> = Vec::new();
    let mut newer: Option<(Bytes, SeqNo)> = None;
    for row in rows {
        let above = newer.as_ref().filter(|(key, _)| *key == row.key).map(|(_, seq)| *seq);
        let seen = above.is_none_or(|above| snapshots.iter().any(|s| row.seq <= *s && *s < above));
        newer = Some((row.key.clone(), row.seq));
        let droppable = bottom && snapshots.is_empty() && matches!(row.value, Value::Delete);
        if seen && !droppable {
            kept.push(row);
        }
    }
    kept
}

/// The value of a put.
pub(crate) fn value_of(row: &Row) -> &Bytes {
    match &row.value {
        Value::Put(v) => v,
        other => panic!("{other:?}"),
    }
}
