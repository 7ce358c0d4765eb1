//! The reader's metrics.

use isle_storage::environment::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use std::sync::atomic::AtomicU64;

/// What a reader counts and shows.
#[derive(Debug, Clone)]
pub(crate) struct ReaderMetrics {
    pub(crate) view_lag: Gauge<f64, AtomicU64>,
    pub(crate) head_version: Gauge,
    pub(crate) l0_tables: Gauge,
    pub(crate) runs: Gauge,
    pub(crate) memory_bytes: Gauge,
    pub(crate) cache_bytes: Gauge,
    pub(crate) cache_hits: Counter,
    pub(crate) cache_misses: Counter,
    pub(crate) segments: Counter,
    pub(crate) gets: Counter,
    pub(crate) scans: Counter,
    pub(crate) scanned_rows: Counter,
    pub(crate) pins: Counter,
    pub(crate) pins_refused: Counter,
}

impl ReaderMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let gauge = |name: &str, help: &str| metrics.register(name, help, Gauge::default());
        let counter = |name: &str, help: &str| metrics.register(name, help, Counter::default());
        Self {
            view_lag: metrics.register(
                "view_lag_seconds",
                "Age of the view that reads are answered from",
                Gauge::default(),
            ),
            head_version: gauge("head_version", "Manifest version of the view"),
            l0_tables: gauge("l0_tables", "Tables of runs that no merge has touched"),
            runs: gauge("runs", "Sorted runs of the view"),
            memory_bytes: gauge("unflushed_bytes", "Memory taken by rows not yet in tables"),
            cache_bytes: gauge("cache_bytes", "Bytes held by the block and metadata cache"),
            cache_hits: counter("cache_hits", "Blocks and metadata found in the cache"),
            cache_misses: counter("cache_misses", "Blocks and metadata not found in the cache"),
            segments: counter("segments_applied", "Log segments applied to the view"),
            gets: counter("gets", "Keys looked up"),
            scans: counter("scans", "Scans begun"),
            scanned_rows: counter("scanned_rows", "Rows delivered by scans"),
            pins: counter("pins", "Versions pinned for long scans"),
            pins_refused: counter("pins_refused", "Versions that a long scan could not pin"),
        }
    }
}
