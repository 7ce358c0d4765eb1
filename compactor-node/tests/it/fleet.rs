//! A store with latency: more compactors are faster, and the memory of one does not grow with the latency. Time is
//! simulated, so what is measured is waiting.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use compactor_node::{Compactor, CompactorSettings};
use futures::stream::BoxStream;
use isle_storage::database::Database;
use isle_storage::environment::Offload;
use isle_storage::names::ObjectPath;
use isle_storage::object::{Body, Bucket, ObjectMeta, PartAt, StoreError, StoredPart, UploadId};
use isle_testkit::embedded::Embedded;
use isle_testkit::scribe::{Entry, Scribe};
use tokio::time::Instant;

use crate::merge::node;
use crate::tree;

/// A bucket whose tables are far away; counts the bytes on the way.
#[derive(Debug)]
struct Distant {
    inner: Arc<dyn Bucket>,
    latency: Duration,
    fetched: AtomicU64,
    sent: AtomicU64,
    sending: AtomicU64,
    most_sending: AtomicU64,
    /// The most that was fetched and not yet sent on: what is held in memory, but for what merging drops.
    most_held: AtomicU64,
}

impl Distant {
    fn new(e: &Embedded, latency: Duration) -> Arc<Self> {
        Arc::new(Self {
            inner: e.db.bucket.clone(),
            latency,
            fetched: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            sending: AtomicU64::new(0),
            most_sending: AtomicU64::new(0),
            most_held: AtomicU64::new(0),
        })
    }

    async fn send<T>(&self, len: u64, request: impl Future<Output = T>) -> T {
        self.most_sending.fetch_max(self.sending.fetch_add(len, SeqCst) + len, SeqCst);
        tokio::time::sleep(self.latency).await;
        let done = request.await;
        self.sending.fetch_sub(len, SeqCst);
        self.sent.fetch_add(len, SeqCst);
        done
    }
}

#[async_trait]
impl Bucket for Distant {
    async fn put(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        self.send(body.len(), self.inner.put(path, body)).await
    }

    async fn create(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        self.inner.create(path, body).await
    }

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, StoreError> {
        self.inner.get(path).await
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        tokio::time::sleep(self.latency).await;
        let bytes = self.inner.get_range(path, range).await?;
        let fetched = self.fetched.fetch_add(bytes.len() as u64, SeqCst) + bytes.len() as u64;
        self.most_held.fetch_max(fetched.saturating_sub(self.sent.load(SeqCst)), SeqCst);
        Ok(bytes)
    }

    async fn head(&self, path: &ObjectPath) -> Result<ObjectMeta, StoreError> {
        self.inner.head(path).await
    }

    fn list(&self, folder: &str) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        self.inner.list(folder)
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        self.inner.delete(path).await
    }

    async fn begin_upload(&self, path: &ObjectPath) -> Result<UploadId, StoreError> {
        self.inner.begin_upload(path).await
    }

    async fn upload_part(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        at: PartAt,
        body: Body,
    ) -> Result<StoredPart, StoreError> {
        self.send(body.len(), self.inner.upload_part(path, upload, at, body)).await
    }

    async fn complete_upload(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        parts: &[StoredPart],
    ) -> Result<(), StoreError> {
        self.inner.complete_upload(path, upload, parts).await
    }

    async fn abort_upload(&self, path: &ObjectPath, upload: &UploadId) -> Result<(), StoreError> {
        self.inner.abort_upload(path, upload).await
    }

    fn url(&self) -> String {
        self.inner.url()
    }
}

fn settings() -> CompactorSettings {
    CompactorSettings {
        part_bytes: 128 << 10,
        merge_workers: 1,
        // Room for one table at a time, which is one request.
        upload_part_bytes: 96 << 10,
        ..crate::merge::settings()
    }
}

/// Four generations of 512 KiB that do not compress and overlap one another.
async fn backlog() -> (Embedded, Scribe) {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    for n in 0..4u64 {
        let entries: Vec<Entry> = (0..1024u64)
            .map(|i| {
                let mut x = (i * 4 + n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let noise = (0..512)
                    .map(|_| {
                        x ^= x << 13;
                        x ^= x >> 7;
                        x ^= x << 17;
                        x as u8
                    })
                    .collect::<Vec<u8>>();
                Entry::put(format!("key/{:05}", i * 4 + n), noise)
            })
            .collect();
        scribe.append(&entries).await;
        scribe.flush().await;
    }
    (e, scribe)
}

/// A compactor's database over the far bucket; all work is done inline, so that time is only waited away.
fn over(e: &Embedded, bucket: &Arc<Distant>) -> Database {
    let mut db = e.process("compactor");
    db.bucket = bucket.clone();
    db.env.offload = Offload::Inline;
    db
}

/// How long `compactors` take to merge the backlog into one run.
async fn merged_by(compactors: usize) -> Duration {
    let (e, scribe) = backlog().await;
    let bucket = Distant::new(&e, Duration::from_millis(30));
    let begun = Instant::now();
    let fleet: Vec<Compactor> = (0..compactors)
        .map(|i| Compactor::open(over(&e, &bucket), node(&format!("c{i}")), settings()).unwrap())
        .collect();
    fleet[0].current().wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.runs.len() == 1)).await.unwrap();
    let took = begun.elapsed();
    for compactor in &fleet {
        compactor.close().await;
    }
    let now = e.db.env.clock.now();
    let m = e.db.load().await.unwrap().manifest;
    assert_eq!(tree::visible_at(&e.db, &m, m.last_seq, now).await, scribe.visible_at(m.last_seq, now));
    took
}

#[tokio::test(start_paused = true)]
async fn a_fleet_is_faster_than_one_on_a_distant_store() {
    let (one, two, four) = (merged_by(1).await, merged_by(2).await, merged_by(4).await);
    let ratio = |fleet: Duration| one.as_secs_f64() / fleet.as_secs_f64();
    let told = format!("one {one:?}, two {two:?} (x{:.2}), four {four:?} (x{:.2})", ratio(two), ratio(four));
    assert!(ratio(two) > 1.5 && ratio(four) > 2.2, "{told}");
}

/// Whatever the store's latency and however large the tables: read-ahead, and parts of tables being built or uploaded.
#[tokio::test(start_paused = true)]
async fn memory_does_not_grow_with_the_stores_latency_or_the_tables() {
    let s = CompactorSettings {
        part_bytes: 1 << 30,
        read_ahead_bytes: 8 << 10,
        upload_bytes_in_flight: 64 << 10,
        upload_part_bytes: 16 << 10,
        ..settings()
    };
    // Four runs, three windows each, which end with a whole block; a part is handed out with up to a piece too much.
    let windows = 4 * 3 * (s.read_ahead_bytes + 4096);
    let metadata = 4 * (64 << 10);
    let bound = windows + s.upload_bytes_in_flight + s.upload_part_bytes + metadata;
    for (latency, table_bytes) in [(1, 1 << 20), (100, 64 << 10), (100, 1 << 20), (60_000, 1 << 20)] {
        let (e, _scribe) = backlog().await;
        let bucket = Distant::new(&e, Duration::from_millis(latency));
        let s = CompactorSettings { table_bytes, ..s.clone() };
        let compactor = Compactor::open(over(&e, &bucket), node("c"), s.clone()).unwrap();
        let mut view = compactor.current();
        view.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.runs.len() == 1)).await.unwrap();
        compactor.close().await;
        let (sending, held) = (bucket.most_sending.load(SeqCst), bucket.most_held.load(SeqCst));
        let told = format!("at {latency} ms with tables of {table_bytes}");
        assert!(sending <= s.upload_bytes_in_flight, "{sending} bytes on their way {told}");
        assert!(held <= bound, "{held} bytes held {told}, more than {bound}");
        let all = bucket.fetched.load(SeqCst);
        assert!(all > 3 * bound, "too little was merged to tell: {all} bytes, and {bound} may be held");
    }
}

/// A limit on the rate is kept by reads and by writes.
#[tokio::test(start_paused = true)]
async fn merges_keep_to_their_rates() {
    for (reads, writes) in [(64 << 10, 0), (0, 32 << 10)] {
        let (e, _scribe) = backlog().await;
        let bucket = Distant::new(&e, Duration::from_millis(1));
        let s = CompactorSettings {
            max_read_bytes_per_second: reads,
            max_write_bytes_per_second: writes,
            ..settings()
        };
        let begun = Instant::now();
        let compactor = Compactor::open(over(&e, &bucket), node("c"), s).unwrap();
        let mut view = compactor.current();
        view.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.runs.len() == 1)).await.unwrap();
        compactor.close().await;
        let bytes = if reads > 0 { bucket.fetched.load(SeqCst) } else { bucket.sent.load(SeqCst) };
        let least = bytes as f64 / reads.max(writes) as f64 * 0.8;
        let took = begun.elapsed().as_secs_f64();
        assert!(took > least && took < 3.0 * least, "{bytes} bytes in {took} s at {reads}/{writes} a second");
    }
}
