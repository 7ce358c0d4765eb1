//! A database in the bucket form with a bit of everything: three writers, flushed and unflushed generations, deletes
//! and expiries, folds, retired objects.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use isle_storage::coordination::bucket::BucketCoordination;
use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::{Coordination, CoordinationSettings, fold};
use isle_storage::database::Database;
use isle_storage::environment::Environment;
use isle_storage::manifest::CompactionMode;
use isle_storage::names::ObjectPath;
use isle_storage::object::{Bucket, MemoryBucket};
use isle_storage::verify::{From, Report, VerifyError, verify};
use isle_testkit::embedded::{ManualClock, SeededEntropy};
use isle_testkit::fault::FaultBucket;
use isle_testkit::scribe::{Entry, Scribe};

pub(super) struct Scene {
    pub(super) faults: Arc<FaultBucket>,
    pub(super) env: Environment,
    pub(super) scribe: Scribe,
}

fn environment(clock: &Arc<ManualClock>) -> Environment {
    Environment {
        clock: clock.clone(),
        entropy: SeededEntropy::new(7),
        ..Environment::system("test", "default")
    }
}

fn rows(n: u64, env: &Environment) -> Vec<Entry> {
    let row = |i: u64| {
        let key = format!("key/{:03}", (i * 37 + n * 11) % 150);
        match (i + n) % 7 {
            0 => Entry::delete(key),
            1 => {
                let expires = Some(env.clock.now().plus(Duration::from_secs(60 * (n + 1))));
                Entry { expires, ..Entry::put(key, format!("short-lived {n}/{i}")) }
            }
            _ => Entry::put(key, format!("value {n}/{i} {}", "x".repeat((i % 50) as usize))),
        }
    };
    (0..60).map(row).collect()
}

impl Scene {
    pub(super) fn empty_bucket() -> Arc<dyn Bucket> {
        Arc::new(MemoryBucket::new(ManualClock::at(1_700_000_000)))
    }

    pub(super) async fn new() -> Self {
        let clock = ManualClock::at(1_700_000_000);
        let env = environment(&clock);
        let faults = FaultBucket::new(Arc::new(MemoryBucket::new(clock.clone())));
        let bucket: Arc<dyn Bucket> = faults.clone();
        let settings = CoordinationSettings::new("bucket".to_owned());
        let coordination: Arc<dyn Coordination> =
            BucketCoordination::new(&settings, Arc::clone(&bucket), &env);
        let mode = OpenMode::CreateIfMissing(CompactionMode::Merge);
        let db = Database::open(bucket, coordination, env.clone(), "default", &mode).await.unwrap();
        let mut scribe = Scribe::take_over(&db).await;
        for n in 0..9 {
            if n % 3 == 2 {
                // Another writer takes over.
                scribe = Scribe::take_over(&db).await;
            }
            scribe.blob_threshold = if n % 2 == 0 { 45 } else { usize::MAX };
            for part in rows(n, &env).chunks(20) {
                scribe.append(part).await;
            }
            if n % 3 != 0 && n < 8 {
                scribe.flush().await;
            }
            clock.advance(Duration::from_secs(30));
            if n % 2 == 0 {
                fold::fold(&db, &scribe.loaded).await.unwrap().unwrap();
                scribe.loaded = db.load().await.unwrap();
            }
        }
        Self { faults, env, scribe }
    }

    pub(super) fn bucket(&self) -> Arc<dyn Bucket> {
        self.faults.clone()
    }

    /// The database as a process sees it that has just started.
    pub(super) fn live(&self) -> From {
        let settings = CoordinationSettings::new("bucket".to_owned());
        From::Coordination(BucketCoordination::new(&settings, self.bucket(), &self.env))
    }

    pub(super) async fn try_verify(&self, from: From) -> Result<Report, VerifyError> {
        verify(&self.bucket(), from, "default", &()).await
    }

    pub(super) async fn verify(&self, from: From) -> Report {
        self.try_verify(from).await.unwrap()
    }

    pub(super) async fn objects(&self) -> Vec<String> {
        let listed: Vec<_> = self.faults.list("").try_collect().await.unwrap();
        let mut paths: Vec<String> = listed.into_iter().map(|o| o.path).collect();
        paths.sort();
        paths
    }

    pub(super) async fn get(&self, path: &str) -> Vec<u8> {
        self.faults.get(&ObjectPath::new(path).unwrap()).await.unwrap().to_vec()
    }

    pub(super) async fn put(&self, path: &str, bytes: &[u8]) {
        self.faults.put(&ObjectPath::new(path).unwrap(), bytes.to_vec().into()).await.unwrap();
    }

    pub(super) async fn delete(&self, path: &str) {
        self.faults.delete(&ObjectPath::new(path).unwrap()).await.unwrap();
    }

    /// Whether the newest manifest names the object as live data.
    pub(super) fn is_live(&self, path: &str) -> bool {
        let manifest = self.scribe.manifest();
        manifest.log.iter().any(|e| e.path().as_str() == path)
            || manifest.tables().any(|t| t.path().as_str() == path)
            || manifest.blobs.keys().any(|b| isle_storage::names::blob(b).as_str() == path)
    }
}
