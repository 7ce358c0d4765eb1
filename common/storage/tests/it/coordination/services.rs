//! The forms under test as services of the contract.

use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt;
use isle_storage::coordination::bucket::BucketCoordination;
use isle_storage::coordination::memory::MemoryCoordination;
use isle_storage::coordination::settings::CoordinationSettings;
use isle_storage::coordination::{Backend, Coordination};
use isle_storage::environment::{Clock, Environment, SystemClock};
use isle_storage::ids::JobId;
use isle_storage::names::{self, ObjectPath};
use isle_storage::object::{Bucket, FileBucket, MemoryBucket};
use isle_testkit::contract::coordination::Service;
use tempfile::TempDir;

pub(super) fn memory_bucket() -> Arc<dyn Bucket> {
    Arc::new(MemoryBucket::new(Arc::new(SystemClock)))
}

/// The memory form over a bucket in memory.
pub(super) struct Memory {
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) service: Arc<MemoryCoordination>,
}

impl Memory {
    pub(super) fn fresh() -> Arc<Self> {
        let bucket = memory_bucket();
        Arc::new(Self { service: MemoryCoordination::new(bucket.clone()), bucket })
    }
}

#[async_trait]
impl Service for Memory {
    fn backend(&self) -> Backend {
        Backend::Memory
    }

    fn bucket(&self) -> Arc<dyn Bucket> {
        self.bucket.clone()
    }

    async fn connect(&self, bucket: Arc<dyn Bucket>) -> Arc<dyn Coordination> {
        self.service.through(bucket)
    }

    async fn expire_writer(&self) {
        self.service.expire_writer_silently();
    }

    async fn expire_jobs(&self) -> bool {
        self.service.expire_job(JobId(8));
        true
    }

    async fn expire_pins(&self) -> bool {
        self.service.expire_pins();
        true
    }

    async fn wipe(&self) {
        self.service.wipe();
    }
}

/// The bucket form, every process with an instance of its own.
pub(super) struct Objects {
    bucket: Arc<dyn Bucket>,
    _dir: Option<TempDir>,
}

impl Objects {
    pub(super) fn in_memory() -> Arc<Self> {
        Arc::new(Self { bucket: memory_bucket(), _dir: None })
    }

    /// Over a bucket whose clock the test moves.
    pub(super) fn on(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { bucket: Arc::new(MemoryBucket::new(clock)), _dir: None })
    }

    pub(super) fn in_files() -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let bucket = FileBucket::open(dir.path(), &Environment::system("test", "files")).unwrap();
        Arc::new(Self { bucket: Arc::new(bucket), _dir: Some(dir) })
    }
}

#[async_trait]
impl Service for Objects {
    fn backend(&self) -> Backend {
        Backend::Bucket
    }

    fn bucket(&self) -> Arc<dyn Bucket> {
        self.bucket.clone()
    }

    async fn connect(&self, bucket: Arc<dyn Bucket>) -> Arc<dyn Coordination> {
        let settings = CoordinationSettings { poll_max_ms: 50, ..CoordinationSettings::default() };
        BucketCoordination::trusting(&settings, bucket, &Environment::system("test", "contract"))
    }

    async fn expire_writer(&self) {}

    async fn expire_pins(&self) -> bool {
        let listed: Vec<_> = self.bucket.list("manifest").try_collect().await.unwrap();
        for pin in listed.into_iter().filter(|o| isle_storage::names::parse_pin(&o.path).is_some()) {
            self.bucket.delete(&ObjectPath::new(pin.path).unwrap()).await.unwrap();
        }
        true
    }

    async fn wipe(&self) {
        let listed: Vec<_> = self.bucket.list("manifest").try_collect().await.unwrap();
        for object in listed {
            self.bucket.delete(&ObjectPath::new(object.path).unwrap()).await.unwrap();
        }
    }
    async fn lose_head(&self) {
        let listed: Vec<_> = self.bucket.list("manifest").try_collect().await.unwrap();
        for object in listed {
            if names::parse_fold(&object.path).is_some() || names::parse_edit(&object.path).is_some() {
                self.bucket.delete(&ObjectPath::new(object.path).unwrap()).await.unwrap();
            }
        }
    }
}
