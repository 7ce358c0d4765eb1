//! The driver: tasks that repeat one operation until time is up, and what is learned from watching them.
//!
//! Operations of different kinds that run side by side (puts among gets) are counted apart, each kind in its *lane*.
//!
//! Latencies go into a histogram per task (no sharing on the hot path) and are merged at the end. A sampler reads the
//! tasks' counters every second, so that a stall shows as a short window even where the average hides it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

/// Longest latency the histogram tells apart, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// What a stall is told by.
const WINDOW: Duration = Duration::from_secs(1);

/// One task's share of the work.
pub(super) trait Worker: Send + 'static {
    /// Kinds of operations that are measured apart.
    const LANES: usize = 1;

    /// One operation; `None` where there is nothing left to do.
    fn step(&mut self) -> impl Future<Output = Result<Option<Done>, String>> + Send;
}

/// What one operation dealt with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    /// The kind of operation, below [`Worker::LANES`].
    pub(super) lane: usize,
    /// Records put, found, scanned or delivered.
    pub(super) records: u64,
    /// Bytes of their keys and values.
    pub(super) bytes: u64,
}

impl Done {
    /// Records of the only lane.
    pub(super) fn new(records: u64, bytes: u64) -> Self {
        Self { lane: 0, records, bytes }
    }
}

/// A task that does two kinds of operations by turns: of `every` operations the last is a `rare` one, in lane 0; the
/// others are `common` ones, in lane 1.
pub(super) struct Mixed<R, C> {
    pub(super) rare: R,
    pub(super) common: C,
    pub(super) every: u64,
    pub(super) turn: u64,
}

impl<R: Worker, C: Worker> Worker for Mixed<R, C> {
    const LANES: usize = 2;

    async fn step(&mut self) -> Result<Option<Done>, String> {
        self.turn += 1;
        if self.turn.is_multiple_of(self.every) {
            return self.rare.step().await;
        }
        Ok(self.common.step().await?.map(|done| Done { lane: 1, ..done }))
    }
}

/// What the operations of one lane did.
#[derive(Debug)]
pub(super) struct Measured {
    /// Records.
    pub(super) records: u64,
    /// Bytes.
    pub(super) bytes: u64,
    /// How long it took.
    pub(super) elapsed: Duration,
    /// Nanoseconds per operation.
    pub(super) latency: Histogram<u64>,
    /// Records in each whole second, as a rate.
    pub(super) windows: Vec<u64>,
}

/// A task's records so far, by lane, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts([AtomicU64; MAX_LANES]);

/// More kinds of operations than any workload mixes.
const MAX_LANES: usize = 2;

/// Operations between two chances for other tasks, where the operations themselves never wait.
const YIELD_EVERY: u64 = 64;

/// Runs the workers side by side for `duration`, or until they have nothing left to do. One result a lane.
///
/// # Errors
/// The first worker's failure.
pub(super) async fn run<W: Worker>(workers: Vec<W>, duration: Duration) -> Result<Vec<Measured>, String> {
    let counts: Arc<Vec<Counts>> = Arc::new(workers.iter().map(|_| Counts::default()).collect());
    let started = Instant::now();
    let deadline = started + duration;
    let mut tasks = JoinSet::new();
    for (i, worker) in workers.into_iter().enumerate() {
        tasks.spawn(work(worker, i, Arc::clone(&counts), deadline));
    }
    let stop = Arc::new(AtomicBool::new(false));
    // A thread of its own, so that the windows stay a second long however busy the runtime is.
    let sampler = std::thread::spawn({
        let (counts, stop) = (Arc::clone(&counts), Arc::clone(&stop));
        move || sample(&counts, &stop, deadline)
    });
    let all = gather::<W>(&mut tasks).await;
    let elapsed = started.elapsed();
    stop.store(true, Ordering::Relaxed);
    let windows = tokio::task::spawn_blocking(move || sampler.join()).await.map_err(|e| e.to_string())?;
    let windows = windows.map_err(|_| "the sampler died".to_owned())?;
    let lane = |(i, share): (usize, Share)| {
        let Share { records, bytes, latency } = share;
        Measured { records, bytes, elapsed, latency, windows: windows.iter().map(|w| w[i]).collect() }
    };
    Ok(all?.into_iter().enumerate().map(lane).collect())
}

async fn gather<W: Worker>(tasks: &mut JoinSet<Result<Vec<Share>, String>>) -> Result<Vec<Share>, String> {
    let mut all = shares::<W>()?;
    while let Some(task) = tasks.join_next().await {
        for (sum, share) in all.iter_mut().zip(task.map_err(|e| e.to_string())??) {
            sum.add(&share)?;
        }
    }
    Ok(all)
}

/// What one task did in one lane.
struct Share {
    records: u64,
    bytes: u64,
    latency: Histogram<u64>,
}

fn shares<W: Worker>() -> Result<Vec<Share>, String> {
    (0..W::LANES.min(MAX_LANES)).map(|_| Share::new()).collect()
}

impl Share {
    fn new() -> Result<Self, String> {
        let latency = Histogram::new_with_bounds(1, LONGEST_NS, 3).map_err(|e| e.to_string())?;
        Ok(Self { records: 0, bytes: 0, latency })
    }

    fn add(&mut self, other: &Self) -> Result<(), String> {
        self.records += other.records;
        self.bytes += other.bytes;
        self.latency.add(&other.latency).map_err(|e| e.to_string())
    }
}

async fn work<W: Worker>(
    mut worker: W,
    i: usize,
    counts: Arc<Vec<Counts>>,
    deadline: Instant,
) -> Result<Vec<Share>, String> {
    let mut shares = shares::<W>()?;
    let (mut before, mut operations) = (Instant::now(), 0u64);
    while before < deadline {
        let Some(done) = worker.step().await? else { break };
        let after = Instant::now();
        let share = shares.get_mut(done.lane).ok_or("an operation of an unknown lane")?;
        share.latency.saturating_record((after - before).as_nanos().clamp(1, LONGEST_NS.into()) as u64);
        before = after;
        share.records += done.records;
        share.bytes += done.bytes;
        counts[i].0[done.lane].store(share.records, Ordering::Relaxed);
        operations += 1;
        if operations.is_multiple_of(YIELD_EVERY) {
            tokio::task::consume_budget().await;
        }
    }
    Ok(shares)
}

/// The rate of every whole second up to the deadline, by lane.
fn sample(counts: &[Counts], stop: &AtomicBool, deadline: Instant) -> Vec<[u64; MAX_LANES]> {
    let total = || -> [u64; MAX_LANES] {
        std::array::from_fn(|lane| counts.iter().map(|c| c.0[lane].load(Ordering::Relaxed)).sum())
    };
    let mut windows = Vec::new();
    let (mut last, mut before) = (Instant::now(), [0; MAX_LANES]);
    while last + WINDOW <= deadline {
        std::thread::sleep((last + WINDOW).saturating_duration_since(Instant::now()).min(WINDOW / 10));
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let now = Instant::now();
        if now < last + WINDOW {
            continue;
        }
        let count = total();
        // A late sampler must not make one window look rich and the next one poor.
        let seconds = (now - last).as_secs_f64();
        windows.push(std::array::from_fn(|lane| ((count[lane] - before[lane]) as f64 / seconds) as u64));
        (before, last) = (count, now);
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Countdown(u64);

    impl Worker for Countdown {
        const LANES: usize = 2;

        async fn step(&mut self) -> Result<Option<Done>, String> {
            let Some(left) = self.0.checked_sub(1) else { return Ok(None) };
            self.0 = left;
            Ok(Some(Done { lane: (left % 2) as usize, records: 3, bytes: 10 }))
        }
    }

    #[tokio::test]
    async fn lanes_are_counted_apart_over_all_workers() {
        let workers = vec![Countdown(10), Countdown(5)];
        let lanes = run(workers, Duration::from_secs(60)).await.unwrap();
        let counted: Vec<_> = lanes.iter().map(|m| (m.records, m.bytes, m.latency.len())).collect();
        assert_eq!(counted, [(8 * 3, 80, 8), (7 * 3, 70, 7)]);
    }

    struct Failing;

    impl Worker for Failing {
        async fn step(&mut self) -> Result<Option<Done>, String> {
            Err("no".to_owned())
        }
    }

    #[tokio::test]
    async fn the_first_failure_ends_the_run() {
        assert_eq!(run(vec![Failing], Duration::from_secs(60)).await.unwrap_err(), "no");
    }
}
