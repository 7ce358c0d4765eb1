//! A database in this process's memory, with a clock the test moves and a store that fails on command.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::memory::MemoryCoordination;
use isle_storage::database::Database;
use isle_storage::environment::{Clock, Entropy, Environment, Metrics};
use isle_storage::ids::Timestamp;
use isle_storage::manifest::CompactionMode;
use isle_storage::object::Bucket;
use isle_storage::object::MemoryBucket;

use crate::fault::FaultBucket;

/// A wall clock that only a test moves.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that stands at `seconds` after 1970.
    #[must_use]
    pub fn at(seconds: i64) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(seconds * 1_000_000)))
    }

    /// Moves on.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// Numbers that repeat from run to run.
#[derive(Debug)]
pub struct SeededEntropy(AtomicU64);

impl SeededEntropy {
    /// The stream of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(seed)))
    }
}

impl Entropy for SeededEntropy {
    fn next_u64(&self) -> u64 {
        // SplitMix64: every state gives another output, so no id repeats.
        let mut z =
            self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The parts of a test's database.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The database.
    pub db: Database,
    /// Its store, which fails on command and remembers every operation.
    pub bucket: Arc<FaultBucket>,
    /// The store beneath, which never fails.
    pub objects: Arc<MemoryBucket>,
    /// Its coordination.
    pub coordination: Arc<MemoryCoordination>,
    /// Its clock, which is the store's clock too.
    pub clock: Arc<ManualClock>,
}

impl Embedded {
    /// A new, empty database.
    ///
    /// # Panics
    /// Where it cannot be created.
    pub async fn new() -> Self {
        let clock = ManualClock::at(1_700_000_000);
        let objects = Arc::new(MemoryBucket::new(clock.clone()));
        let bucket = FaultBucket::new(objects.clone());
        let store: Arc<dyn Bucket> = bucket.clone();
        let coordination = MemoryCoordination::new(Arc::clone(&store));
        let env = Environment {
            clock: clock.clone(),
            entropy: SeededEntropy::new(7),
            metrics: Metrics::new("test", "default"),
            offload: Default::default(),
        };
        let mode = OpenMode::CreateIfMissing(CompactionMode::Merge);
        let db = match Database::open(store, coordination.clone(), env, "default", &mode).await {
            Ok(db) => db,
            Err(e) => panic!("the test's database cannot be created: {e}"),
        };
        Self { db, bucket, objects, coordination, clock }
    }

    /// The same database as another process sees it: metrics of its own.
    #[must_use]
    pub fn process(&self, role: &str) -> Database {
        let mut db = self.db.clone();
        db.env.metrics = Metrics::new(role, "default");
        db
    }
}
