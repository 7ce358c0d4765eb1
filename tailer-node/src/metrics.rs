//! The tailer's metrics.

use std::sync::atomic::AtomicU64;

use isle_storage::environment::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

type Unsigned = Gauge<u64, AtomicU64>;

/// Everything the tailer counts.
#[derive(Debug, Clone)]
pub struct TailerMetrics {
    /// Changes delivered, over all consumers.
    pub delivered: Counter,
    /// Seconds from a change's write time to its delivery, for consumers at the head.
    pub delivery_seconds: Histogram,
    /// Consumers at present.
    pub consumers: Unsigned,
    /// Bootstraps under way.
    pub bootstraps: Unsigned,
    /// Rows that bootstraps delivered.
    pub copied: Counter,
    /// Pieces found in memory.
    pub cache_hits: Counter,
    /// Pieces that had to be fetched.
    pub cache_misses: Counter,
    /// Bytes in memory.
    pub cache_bytes: Unsigned,
    /// The newest manifest version known.
    pub head_version: Unsigned,
    /// Age of the view in seconds when it was last judged.
    pub view_lag_seconds: Gauge<f64, AtomicU64>,
}

impl TailerMetrics {
    /// Registers them.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let gauge = |name, help| metrics.register(name, help, Unsigned::default());
        let counter = |name, help| metrics.register(name, help, Counter::default());
        Self {
            delivered: counter("tail_changes", "Changes delivered to consumers"),
            delivery_seconds: metrics.register(
                "tail_delivery_seconds",
                "Seconds from write time to delivery, for consumers at the head",
                Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            ),
            consumers: gauge("tail_consumers", "Consumers connected"),
            bootstraps: gauge("bootstraps", "Bootstraps under way"),
            copied: counter("bootstrap_rows", "Rows delivered by bootstraps"),
            cache_hits: counter("cache_hits", "Log pieces found in memory"),
            cache_misses: counter("cache_misses", "Log pieces fetched from the bucket"),
            cache_bytes: gauge("cache_bytes", "Bytes of log pieces in memory"),
            head_version: gauge("head_version", "Newest manifest version known"),
            view_lag_seconds: metrics.register(
                "view_lag_seconds",
                "Age of the view",
                Gauge::<f64, AtomicU64>::default(),
            ),
        }
    }
}
