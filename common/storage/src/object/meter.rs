//! Metering: requests, bytes, seconds and money, as metrics and as plain counters.
//!
//! It sits below the retries, so that every request that goes to the store is counted, as the provider counts it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::time::Instant;

use super::{
    Body, Bucket, Copied, ObjectMeta, Origin, PartAt, StoreError, StoreErrorKind, StoredPart, UploadId,
};
use crate::environment::Metrics;
use crate::names::ObjectPath;

/// Objects in one page of a listing, which is one request, at every provider's usual page size.
const LIST_PAGE: u64 = 1000;

/// What requests cost, in US dollars.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Prices {
    /// A million puts, creates, copies or pages of a listing.
    pub million_writes: f64,
    /// A million gets or heads.
    pub million_reads: f64,
    /// One GiB read.
    pub gib_read: f64,
}

/// The operations that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Put,
    Create,
    Get,
    Head,
    List,
    Delete,
    Copy,
    Begin,
    Part,
    Complete,
    Abort,
}

const OPS: [(Op, &str); 11] = [
    (Op::Put, "put"),
    (Op::Create, "create"),
    (Op::Get, "get"),
    (Op::Head, "head"),
    (Op::List, "list"),
    (Op::Delete, "delete"),
    (Op::Copy, "copy"),
    (Op::Begin, "begin_upload"),
    (Op::Part, "upload_part"),
    (Op::Complete, "complete_upload"),
    (Op::Abort, "abort_upload"),
];

/// What a store has done so far: plain numbers, for benchmarks and tests. Subtract two with [`Usage::since`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// Puts, whatever their result; so are the others.
    pub puts: u64,
    /// Conditional creates.
    pub creates: u64,
    /// Gets, whole or ranged.
    pub gets: u64,
    /// Heads.
    pub heads: u64,
    /// Pages of listings.
    pub lists: u64,
    /// Deletes.
    pub deletes: u64,
    /// Copies by reference.
    pub copies: u64,
    /// Requests of uploads in parts, of every kind.
    pub uploads: u64,
    /// How many of all of them failed (NotFound and AlreadyExists are answers, not failures).
    pub failures: u64,
    /// Bytes of bodies read.
    pub bytes_read: u64,
    /// Bytes of bodies written.
    pub bytes_written: u64,
    /// What it cost, in US dollars, at the configured prices.
    pub cost_usd: f64,
}

impl Usage {
    /// Requests of every kind together.
    #[must_use]
    pub fn requests(&self) -> u64 {
        let reads = self.gets + self.heads + self.lists;
        let writes = self.puts + self.creates + self.deletes + self.copies + self.uploads;
        reads + writes
    }

    /// What was added since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            puts: self.puts - earlier.puts,
            creates: self.creates - earlier.creates,
            gets: self.gets - earlier.gets,
            heads: self.heads - earlier.heads,
            lists: self.lists - earlier.lists,
            deletes: self.deletes - earlier.deletes,
            copies: self.copies - earlier.copies,
            uploads: self.uploads - earlier.uploads,
            failures: self.failures - earlier.failures,
            bytes_read: self.bytes_read - earlier.bytes_read,
            bytes_written: self.bytes_written - earlier.bytes_written,
            cost_usd: self.cost_usd - earlier.cost_usd,
        }
    }
}

/// The counters of one store; shared by everything that was opened over it.
#[derive(Debug)]
pub struct Meter {
    prices: Prices,
    requests: Family<RequestLabels, Counter>,
    seconds: [Histogram; OPS.len()],
    succeeded: [Counter; OPS.len()],
    totals: [AtomicU64; OPS.len()],
    failures: AtomicU64,
    read: Counter,
    written: Counter,
    cost: Counter<f64, AtomicU64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    op: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpLabel {
    op: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabel {
    direction: &'static str,
}

impl Meter {
    /// Registers `isle_store_requests_total{op,result}`, `isle_store_request_seconds{op}`,
    /// `isle_store_bytes_total{direction}` and `isle_store_cost_usd_total`.
    #[must_use]
    pub fn new(prices: Prices, metrics: &Metrics) -> Arc<Self> {
        let requests: Family<RequestLabels, Counter> =
            metrics.register("store_requests", "Requests to the bucket", Family::default());
        let seconds: Family<OpLabel, Histogram> = metrics.register(
            "store_request_seconds",
            "Time of a request to the bucket",
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_25, 2.0, 18))),
        );
        let bytes: Family<DirectionLabel, Counter> =
            metrics.register("store_bytes", "Bytes of object bodies moved", Family::default());
        let cost = metrics.register("store_cost_usd", "Price of the requests so far", Counter::default());
        let of = |direction| bytes.get_or_create(&DirectionLabel { direction }).clone();
        let ok = |op| requests.get_or_create(&RequestLabels { op, result: "ok" }).clone();
        Arc::new(Self {
            prices,
            seconds: OPS.map(|(_, op)| seconds.get_or_create(&OpLabel { op }).clone()),
            succeeded: OPS.map(|(_, op)| ok(op)),
            totals: OPS.map(|_| AtomicU64::new(0)),
            failures: AtomicU64::new(0),
            read: of("read"),
            written: of("write"),
            cost,
            requests: requests.clone(),
        })
    }

    /// The numbers so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let of = |op: Op| self.totals[op as usize].load(Ordering::Relaxed);
        Usage {
            puts: of(Op::Put),
            creates: of(Op::Create),
            gets: of(Op::Get),
            heads: of(Op::Head),
            lists: of(Op::List),
            deletes: of(Op::Delete),
            copies: of(Op::Copy),
            uploads: of(Op::Begin) + of(Op::Part) + of(Op::Complete) + of(Op::Abort),
            failures: self.failures.load(Ordering::Relaxed),
            bytes_read: self.read.get(),
            bytes_written: self.written.get(),
            cost_usd: self.cost.get(),
        }
    }

    fn count(&self, op: Op, failed: Option<StoreErrorKind>) {
        self.totals[op as usize].fetch_add(1, Ordering::Relaxed);
        match failed {
            None => {
                self.succeeded[op as usize].inc();
            }
            Some(kind) => {
                if !matches!(kind, StoreErrorKind::NotFound | StoreErrorKind::AlreadyExists) {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                }
                let labels = RequestLabels { op: OPS[op as usize].1, result: kind.as_str() };
                self.requests.get_or_create(&labels).inc();
            }
        }
        let million = match op {
            Op::Put | Op::Create | Op::List | Op::Copy | Op::Begin | Op::Part | Op::Complete => {
                self.prices.million_writes
            }
            Op::Get | Op::Head => self.prices.million_reads,
            Op::Delete | Op::Abort => 0.0, // Free at every provider.
        };
        self.charge(million / 1e6);
    }

    fn charge(&self, usd: f64) {
        if usd > 0.0 {
            self.cost.inc_by(usd);
        }
    }

    fn finish<T>(&self, op: Op, started: Instant, result: &Result<T, StoreError>) {
        self.seconds[op as usize].observe(started.elapsed().as_secs_f64());
        self.count(op, result.as_ref().err().map(|e| e.kind));
    }

    fn finish_write<T>(&self, op: Op, started: Instant, len: u64, result: &Result<T, StoreError>) {
        self.finish(op, started, result);
        if result.is_ok() {
            self.written.inc_by(len);
        }
    }

    fn finish_read(&self, started: Instant, result: &Result<Bytes, StoreError>) {
        self.finish(Op::Get, started, result);
        if let Ok(bytes) = result {
            self.read.inc_by(bytes.len() as u64);
            self.charge(bytes.len() as f64 / f64::from(1 << 30) * self.prices.gib_read);
        }
    }
}

/// A bucket whose requests are counted.
#[derive(Debug)]
pub struct MeterBucket {
    inner: Arc<dyn Bucket>,
    meter: Arc<Meter>,
}

impl MeterBucket {
    /// Counts what goes to `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Bucket>, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
    }
}

#[async_trait]
impl Bucket for MeterBucket {
    async fn put(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        let (started, len) = (Instant::now(), body.len());
        let result = self.inner.put(path, body).await;
        self.meter.finish_write(Op::Put, started, len, &result);
        result
    }

    async fn create(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        let (started, len) = (Instant::now(), body.len());
        let result = self.inner.create(path, body).await;
        self.meter.finish_write(Op::Create, started, len, &result);
        result
    }

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, StoreError> {
        let started = Instant::now();
        let result = self.inner.get(path).await;
        self.meter.finish_read(started, &result);
        result
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        let started = Instant::now();
        let result = self.inner.get_range(path, range).await;
        self.meter.finish_read(started, &result);
        result
    }

    async fn head(&self, path: &ObjectPath) -> Result<ObjectMeta, StoreError> {
        let started = Instant::now();
        let result = self.inner.head(path).await;
        self.meter.finish(Op::Head, started, &result);
        result
    }

    fn list(&self, folder: &str) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        let meter = Arc::clone(&self.meter);
        meter.count(Op::List, None);
        let mut seen = 0;
        let counted = self.inner.list(folder).inspect(move |item| match item {
            Ok(_) => {
                seen += 1;
                if seen % LIST_PAGE == 0 {
                    meter.count(Op::List, None);
                }
            }
            Err(e) => meter.count(Op::List, Some(e.kind)),
        });
        counted.boxed()
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let started = Instant::now();
        let result = self.inner.delete(path).await;
        self.meter.finish(Op::Delete, started, &result);
        result
    }

    async fn begin_upload(&self, path: &ObjectPath) -> Result<UploadId, StoreError> {
        let started = Instant::now();
        let result = self.inner.begin_upload(path).await;
        self.meter.finish(Op::Begin, started, &result);
        result
    }

    async fn upload_part(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        at: PartAt,
        body: Body,
    ) -> Result<StoredPart, StoreError> {
        let (started, len) = (Instant::now(), body.len());
        let result = self.inner.upload_part(path, upload, at, body).await;
        self.meter.finish_write(Op::Part, started, len, &result);
        result
    }

    async fn complete_upload(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        parts: &[StoredPart],
    ) -> Result<(), StoreError> {
        let started = Instant::now();
        let result = self.inner.complete_upload(path, upload, parts).await;
        self.meter.finish(Op::Complete, started, &result);
        result
    }

    async fn abort_upload(&self, path: &ObjectPath, upload: &UploadId) -> Result<(), StoreError> {
        let started = Instant::now();
        let result = self.inner.abort_upload(path, upload).await;
        self.meter.finish(Op::Abort, started, &result);
        result
    }

    fn origin(&self) -> Origin {
        self.inner.origin()
    }

    async fn copy_from(
        &self,
        source: &Origin,
        from: &ObjectPath,
        to: &ObjectPath,
    ) -> Result<Copied, StoreError> {
        let started = Instant::now();
        let result = self.inner.copy_from(source, from, to).await;
        // Where the store was not asked there is no request to count.
        if !matches!(result, Ok(Copied::Cannot)) {
            self.meter.finish(Op::Copy, started, &result);
        }
        result
    }

    fn has_atomic_create(&self) -> bool {
        self.inner.has_atomic_create()
    }

    fn url(&self) -> String {
        self.inner.url()
    }
}
