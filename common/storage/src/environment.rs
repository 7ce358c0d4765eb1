//! What an engine takes from the world besides its store and its coordination: a clock, randomness, metrics.
//!
//! They are explicit parts so that a simulation can replace every one of them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus_client::registry::{Metric, Registry};

use crate::ids::Timestamp;

/// Wall-clock time. Monotonic time and timers are tokio's, which a simulation pauses.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The present instant.
    fn now(&self) -> Timestamp;

    /// For how long the machine has slept since it started: what timers have missed. A virtual machine that is stopped
    /// from outside may never learn of it.
    fn suspended(&self) -> Duration {
        Duration::ZERO
    }
}

/// The operating system's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    #[cfg(target_os = "linux")]
    fn suspended(&self) -> Duration {
        use rustix::time::{ClockId, clock_gettime};
        let read = |id| {
            let t = clock_gettime(id);
            Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
        };
        // Read in this order the difference is never too large.
        let booted = read(ClockId::Boottime);
        booted.saturating_sub(read(ClockId::Monotonic))
    }
}

/// Random bits for names and ids.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// 64 bits nobody has seen before.
    fn next_u64(&self) -> u64;

    /// 128 such bits.
    fn next_u128(&self) -> u128 {
        (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64())
    }
}

/// The operating system's random source.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn next_u64(&self) -> u64 {
        let mut bytes = [0u8; 8];
        match getrandom::fill(&mut bytes) {
            Ok(()) => u64::from_le_bytes(bytes),
            // Without a random source names could repeat, and a repeated name is lost data.
            Err(e) => panic!("the operating system gives no random bytes: {e}"),
        }
    }
}

/// A shared metrics registry; the process shell serves it, engines register into it. Names given here carry no
/// `isle_` prefix and no `_total` suffix: the registry adds both.
#[derive(Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// A registry whose metrics carry the labels `role` and `database`.
    #[must_use]
    pub fn new(role: &str, database: &str) -> Self {
        let labels =
            [("role".into(), role.to_owned().into()), ("database".into(), database.to_owned().into())];
        Self(Arc::new(Mutex::new(Registry::with_prefix_and_labels("isle", labels.into_iter()))))
    }

    /// Registers a metric and hands it back: `let puts = metrics.register("mutations", "…", Counter::default())`.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.0.lock().register(name, help, metric.clone());
        metric
    }

    /// The OpenMetrics text of everything registered.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        match prometheus_client::encoding::text::encode(&mut out, &self.0.lock()) {
            Ok(()) => out,
            Err(e) => format!("# the metrics could not be written: {e}\n# EOF\n"),
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Where work that keeps a processor busy is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offload {
    /// On threads beside the runtime's own, so that heartbeats and commits are not held up.
    #[default]
    Threads,
    /// Where it comes up: in a simulation, whose time stands still meanwhile and whose order of events must not depend
    /// on threads.
    Inline,
}

/// Offloaded work did not come to its end: it panicked, or the runtime is shutting down.
#[derive(Debug, Clone, thiserror::Error)]
#[error("work on another thread was cut off: {0}")]
pub struct CutOff(String);

impl Offload {
    /// Does `work` and hands back what it made.
    ///
    /// # Errors
    /// [`CutOff`].
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CutOff> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work).await.map_err(|e| CutOff(e.to_string())),
            Self::Inline => Ok(work()),
        }
    }

    /// Does `work`, which nobody waits for.
    pub fn detach(self, work: impl FnOnce() + Send + 'static) {
        match self {
            Self::Threads => drop(tokio::task::spawn_blocking(work)),
            Self::Inline => work(),
        }
    }
}

/// Everything an engine takes from the world besides store and coordination.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Random bits.
    pub entropy: Arc<dyn Entropy>,
    /// Where metrics are registered.
    pub metrics: Metrics,
    /// Where work that keeps a processor busy is done.
    pub offload: Offload,
}

impl Environment {
    /// The operating system's clock and randomness, and a fresh registry.
    #[must_use]
    pub fn system(role: &str, database: &str) -> Self {
        Self {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            metrics: Metrics::new(role, database),
            offload: Offload::Threads,
        }
    }
}
