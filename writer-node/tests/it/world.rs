//! One small world: a bucket, a coordination service, a clock, and what the database holds, read independently.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::memory::MemoryCoordination;
use isle_storage::coordination::{Coordination, Loaded, NodeInfo};
use isle_storage::database::Database;
use isle_storage::environment::{Clock, Environment};
use isle_storage::format::Compression;
use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::log;
use isle_storage::manifest::CompactionMode;
use isle_storage::object::{Bucket, MemoryBucket};
use isle_storage::row::{Row, Value};
use isle_storage::sst::{Block, TableMeta};
use isle_testkit::fault::FaultBucket;
use writer_node::{Ack, Options, Role, Status, Writer, WriterSettings};

pub const BUCKET: Options = Options { ack: Ack::Bucket, ..DEFAULTS };
pub const MEMORY: Options = Options { ack: Ack::Memory, ..DEFAULTS };
const DEFAULTS: Options =
    Options { ack: Ack::Bucket, patience: writer_node::Patience::Wait, ack_timeout: None };

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct TestClock(AtomicI64);

impl TestClock {
    pub fn set(&self, micros: i64) {
        self.0.store(micros, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

pub struct World {
    pub bucket: Arc<FaultBucket>,
    pub coordination: Arc<MemoryCoordination>,
    pub clock: Arc<TestClock>,
}

/// Settings that make everything happen with little data.
pub fn small() -> WriterSettings {
    WriterSettings {
        max_value_bytes: 64 * 1024,
        max_batch_bytes: 160 * 1024,
        segment_bytes: 32 * 1024,
        block_bytes: 4 * 1024,
        generation_bytes: 256 * 1024,
        admission_bytes: 1024 * 1024,
        table_bytes: 64 * 1024,
        table_block_bytes: 2 * 1024,
        slow_down_percent: 100,
        compression: Compression::None,
        ..WriterSettings::default()
    }
}

impl World {
    pub fn new() -> Self {
        let clock = Arc::new(TestClock(AtomicI64::new(1_000_000)));
        let held: Arc<dyn Bucket> = Arc::new(MemoryBucket::new(Arc::clone(&clock) as Arc<dyn Clock>));
        let bucket = FaultBucket::new(held);
        let coordination = MemoryCoordination::new(Arc::clone(&bucket) as Arc<dyn Bucket>);
        Self { bucket, coordination, clock }
    }

    pub async fn database(&self) -> Database {
        self.database_in(CompactionMode::Merge).await
    }

    /// The database, created in this mode where it is not there yet.
    pub async fn database_in(&self, compaction: CompactionMode) -> Database {
        let env = Environment {
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            ..Environment::system("writer", "default")
        };
        let bucket = Arc::clone(&self.bucket) as Arc<dyn Bucket>;
        let coordination = Arc::clone(&self.coordination) as Arc<dyn Coordination>;
        let mode = OpenMode::CreateIfMissing(compaction);
        Database::open(bucket, coordination, env, "default", &mode).await.unwrap()
    }

    /// A writer that may or may not lead.
    pub async fn contender(&self, node: &str, settings: WriterSettings) -> Writer {
        let node = NodeInfo { node: node.to_owned(), advertise: format!("http://{node}") };
        Writer::open(self.database().await, settings, node).unwrap()
    }

    /// A writer that leads.
    pub async fn leader(&self, settings: WriterSettings) -> Writer {
        let writer = self.contender("w1", settings).await;
        writer.leading().await.unwrap();
        writer
    }

    pub async fn head(&self) -> Loaded {
        self.coordination.load().await.unwrap()
    }

    /// Every row the log names, in order, having checked that it is dense from the first retained number.
    pub async fn log(&self) -> Vec<Row> {
        let manifest = self.head().await.manifest;
        let mut rows = Vec::new();
        let mut next = manifest.earliest_seq();
        for entry in &manifest.log {
            let object = log::decode(&self.bucket.get(&entry.path()).await.unwrap()).unwrap();
            for row in object.blocks.iter().flat_map(log::RawBlock::rows) {
                assert_eq!(row.seq, next, "the log has a gap or a repeat");
                next = next.next();
                rows.push(row.to_row());
            }
        }
        assert_eq!(next, manifest.last_seq.next());
        rows
    }

    /// Every row the tables hold, run by run, newest first; order and bounds checked.
    pub async fn tables(&self) -> Vec<Row> {
        let manifest = self.head().await.manifest;
        let mut rows: Vec<Row> = Vec::new();
        for run in &manifest.runs {
            let mut last: Option<(Vec<u8>, SeqNo)> = None;
            for table in &run.tables {
                let bytes = self.bucket.get(&table.path()).await.unwrap();
                let meta =
                    TableMeta::decode(bytes.slice(table.meta_offset as usize..), table.meta_offset).unwrap();
                for i in 0..meta.block_count() {
                    let range = meta.block_range(i);
                    let block =
                        Block::decode(&bytes.slice(range.start as usize..range.end as usize)).unwrap();
                    let mut cursor = block.cursor();
                    cursor.first();
                    while let Some(row) = cursor.row() {
                        assert!(table.covers(row.key) && meta.may_contain(row.key));
                        if let Some((key, seq)) = &last {
                            let ordered =
                                key.as_slice() < row.key || key.as_slice() == row.key && *seq > row.seq;
                            assert!(ordered, "rows are out of order");
                        }
                        last = Some((row.key.to_vec(), row.seq));
                        rows.push(row.to_row());
                        cursor.next();
                    }
                }
            }
        }
        rows
    }
}

/// Waits until the status satisfies `f`, at most a minute of tokio's time.
pub async fn until(writer: &Writer, what: &str, f: impl Fn(&Status) -> bool) -> Status {
    let began = tokio::time::Instant::now();
    loop {
        let status = writer.status();
        if f(&status) {
            return status;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what} did not come: {status:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn until_role(writer: &Writer, role: Role) {
    let mut standing = writer.standing();
    let reached = standing.wait_for(|s| s.role == role);
    tokio::time::timeout(Duration::from_secs(60), reached).await.expect("the role was not reached").unwrap();
}

pub fn value(row: &Row) -> &[u8] {
    match &row.value {
        Value::Put(v) => v,
        other => panic!("{other:?} is no put"),
    }
}
