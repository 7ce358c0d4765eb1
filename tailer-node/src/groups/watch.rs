//! How far every group is behind, as a metric: also of those that nobody consumes, which matter most.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use isle_storage::coordination::groups;
use isle_storage::environment::Metrics;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::error::TailError;
use crate::tailer::Tailer;

/// How often the groups are looked at.
const PERIOD: Duration = Duration::from_secs(15);

/// Records not consumed yet, by group.
#[derive(Debug, Clone)]
pub(crate) struct GroupLags(Family<[(&'static str, String); 1], Gauge<u64, AtomicU64>>);

impl GroupLags {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let help = "Records that a consumer group has not consumed yet";
        Self(metrics.register("group_lag_records", help, Family::default()))
    }

    fn show(&self, lags: impl Iterator<Item = (String, u64)>) {
        // Groups that are gone leave nothing behind.
        self.0.clear();
        for (group, records) in lags {
            self.0.get_or_create(&[("group", group)]).set(records);
        }
    }
}

/// Looks again and again, until the tailer is closed.
pub(crate) async fn watch(tailer: Tailer, lags: GroupLags) {
    while !tailer.is_closed() {
        tokio::select! {
            biased;
            () = tailer.closed() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        if let Err(e) = look(&tailer, &lags).await {
            tracing::debug!(error = %e, "the consumer groups cannot be looked at");
        }
    }
}

async fn look(tailer: &Tailer, lags: &GroupLags) -> Result<(), TailError> {
    let manifest = tailer.manifest()?;
    let coordination = tailer.database().coordination.as_ref();
    let read = groups::beside(coordination, &manifest).await.map_err(TailError::Coordination)?;
    lags.show(read.cursors.into_iter().map(|(name, group)| (name, manifest.lag_after(group.seq).records)));
    Ok(())
}
