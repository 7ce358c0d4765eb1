//! The writer's metrics, named as API.md names them.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use isle_storage::environment::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

type Stage = [(&'static str, &'static str); 1];

/// The stages a commit's time is spent in.
pub(crate) const LINGER: Stage = [("stage", "linger")];
pub(crate) const UPLOAD: Stage = [("stage", "upload")];
pub(crate) const COMMIT: Stage = [("stage", "commit")];

/// Every metric of the writer; nothing here is touched once a mutation, only once a segment.
#[derive(Debug, Clone)]
pub(crate) struct WriterMetrics {
    pub(crate) commit_seconds: Family<Stage, Histogram, fn() -> Histogram>,
    pub(crate) commits: Counter,
    pub(crate) mutations: Counter,
    pub(crate) fenced: Counter,
    pub(crate) conflicts: Counter,
    pub(crate) takeovers: Counter,
    pub(crate) flushes: Counter,
    pub(crate) flush_failures: Counter,
    pub(crate) upload_failures: Counter,
    pub(crate) overloaded: Counter,
    pub(crate) lease_remaining: Gauge<f64, AtomicU64>,
    pub(crate) head_version: Gauge<i64, AtomicI64>,
    pub(crate) queue_bytes: Gauge<i64, AtomicI64>,
    pub(crate) leading: Gauge<i64, AtomicI64>,
}

impl WriterMetrics {
    pub(crate) fn register(m: &Metrics) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.0005, 2.0, 17));
        Self {
            commit_seconds: m.register(
                "commit_seconds",
                "Time from a segment's first mutation to its commit, by stage",
                Family::new_with_constructor(histogram),
            ),
            commits: m.register("commits", "Commits made", Counter::default()),
            mutations: m.register("mutations", "Mutations committed", Counter::default()),
            fenced: m.register(
                "fenced",
                "Times another writer took over, or the lease was lost",
                Counter::default(),
            ),
            conflicts: m.register(
                "manifest_conflicts",
                "Commits that found the head moved and were made again",
                Counter::default(),
            ),
            takeovers: m.register("takeovers", "Times this writer began to lead", Counter::default()),
            flushes: m.register("flushes", "Generations turned into tables", Counter::default()),
            flush_failures: m.register(
                "flush_failures",
                "Failed uploads of tables and chunks",
                Counter::default(),
            ),
            upload_failures: m.register(
                "segment_upload_failures",
                "Failed uploads of segments",
                Counter::default(),
            ),
            overloaded: m.register("overloaded", "Writes refused for lack of admission", Counter::default()),
            lease_remaining: m.register(
                "lease_remaining_seconds",
                "How long the writer's lease certainly lives",
                Gauge::default(),
            ),
            head_version: m.register("head_version", "Newest manifest version known", Gauge::default()),
            queue_bytes: m.register(
                "writer_queue_bytes",
                "Bytes of mutations in memory: queued, in flight, waiting to be flushed",
                Gauge::default(),
            ),
            leading: m.register("leader", "1 while this writer leads", Gauge::default()),
        }
    }

    pub(crate) fn observe(&self, stage: Stage, took: Duration) {
        self.commit_seconds.get_or_create(&stage).observe(took.as_secs_f64());
    }
}
