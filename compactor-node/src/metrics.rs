//! The compactor's metrics.

use std::sync::atomic::AtomicU64;

use isle_storage::environment::Metrics;
use isle_storage::manifest::Manifest;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::collector::Pass;
use crate::compactor::{MergeReport, Went};
use crate::plan;
use crate::retain::Expired;
use crate::settings::CompactorSettings;
use crate::sweep::Swept;

type Unsigned = Gauge<u64, AtomicU64>;

/// Everything the compactor counts.
#[derive(Debug, Clone)]
pub struct CompactorMetrics {
    l0_tables: Unsigned,
    runs: Unsigned,
    head_version: Unsigned,
    debt_bytes: Unsigned,
    blob_bytes: Unsigned,
    blob_garbage_bytes: Unsigned,
    bytes: Counter,
    merges: Counter,
    expired: Counter,
    damaged: Unsigned,
    garbage: Family<[(&'static str, &'static str); 1], Counter>,
}

impl CompactorMetrics {
    /// Registers them.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let gauge = |name, help| metrics.register(name, help, Unsigned::default());
        Self {
            l0_tables: gauge("l0_tables", "Tables in L0"),
            runs: gauge("runs", "Sorted runs, L0 included"),
            head_version: gauge("head_version", "Newest manifest version known"),
            debt_bytes: gauge("compaction_debt_bytes", "Bytes that should have been merged by now"),
            blob_bytes: gauge("blob_bytes", "Bytes of blob files in use"),
            blob_garbage_bytes: gauge(
                "blob_garbage_bytes",
                "Bytes of blob files that nothing points at, as far as that is known",
            ),
            bytes: metrics.register(
                "compaction_bytes",
                "Bytes read and written by merges",
                Counter::default(),
            ),
            merges: metrics.register("compactions", "Merges committed", Counter::default()),
            expired: metrics.register(
                "expired_tables",
                "Tables that retention took out of the tree",
                Counter::default(),
            ),
            damaged: gauge(
                "damaged_tables",
                "Tables that merges found damaged, whose runs are left out for a while",
            ),
            garbage: metrics.register(
                "garbage_objects",
                "Objects the collector and the orphan sweep dealt with",
                Family::default(),
            ),
        }
    }

    pub(crate) fn observe(&self, manifest: &Manifest, settings: &CompactorSettings, blob_garbage: u64) {
        let l0 = manifest.runs.iter().filter(|r| r.l0).map(|r| r.tables.len() as u64).sum();
        self.l0_tables.set(l0);
        self.runs.set(manifest.runs.len() as u64);
        self.head_version.set(manifest.version.0);
        self.debt_bytes.set(plan::debt_bytes(manifest, settings));
        self.blob_bytes.set(manifest.blobs.values().sum());
        self.blob_garbage_bytes.set(blob_garbage);
    }

    pub(crate) fn merged(&self, report: &MergeReport, went: Went) {
        self.merges.inc_by(u64::from(went == Went::Merged));
        self.bytes.inc_by(report.bytes_read + report.bytes_written);
    }

    pub(crate) fn expired(&self, gone: &Expired) {
        self.expired.inc_by(gone.tables);
    }

    pub(crate) fn damaged(&self, tables: usize) {
        self.damaged.set(tables as u64);
    }

    pub(crate) fn collected(&self, pass: &Pass) {
        self.garbage.get_or_create(&[("outcome", "deleted")]).inc_by(pass.deleted);
        self.garbage.get_or_create(&[("outcome", "failed")]).inc_by(pass.failed);
    }

    pub(crate) fn swept(&self, swept: &Swept) {
        self.garbage.get_or_create(&[("outcome", "swept")]).inc_by(swept.deleted);
        self.garbage.get_or_create(&[("outcome", "failed")]).inc_by(swept.failed);
    }
}
