//! The driver: tasks that repeat one operation until time is up, and what is learned from watching them.
//!
//! Latencies go into a histogram per task (no sharing on the hot path) and are merged at the end. A sampler reads the
//! tasks' counters every second, so that a stall shows as a short window even where the average hides it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Longest latency the histogram tells apart, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// One task's share of the work.
#[async_trait::async_trait]
pub(crate) trait Worker: Send + 'static {
    /// One operation. Returns how many records it dealt with and their bytes.
    async fn step(&mut self) -> Result<Done, String>;
}

/// What one operation dealt with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    /// Records put, found, scanned or delivered.
    pub(crate) records: u64,
    /// Bytes of their keys and values.
    pub(crate) bytes: u64,
}

/// What a group of workers did.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Operations.
    pub(crate) operations: u64,
    /// Records.
    pub(crate) records: u64,
    /// Bytes.
    pub(crate) bytes: u64,
    /// How long it took.
    pub(crate) elapsed: Duration,
    /// Nanoseconds per operation.
    pub(crate) latency: Histogram<u64>,
    /// Records in each whole second.
    pub(crate) windows: Vec<u64>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Count(AtomicU64);

/// Runs the workers side by side for `duration`.
///
/// # Errors
/// The first worker's failure; the others stop as well.
pub(crate) async fn run<W: Worker>(workers: Vec<W>, duration: Duration) -> Result<Measured, String> {
    let counts: Arc<Vec<Count>> = Arc::new(workers.iter().map(|_| Count::default()).collect());
    let started = Instant::now();
    let deadline = started + duration;
    let tasks: Vec<_> = workers
        .into_iter()
        .enumerate()
        .map(|(i, worker)| tokio::spawn(work(worker, i, Arc::clone(&counts), deadline)))
        .collect();
    let sampler = tokio::spawn(sample(Arc::clone(&counts), deadline));
    let mut all = Share::new()?;
    for task in tasks {
        let share = task.await.map_err(|e| e.to_string())??;
        all.add(&share)?;
    }
    let elapsed = started.elapsed();
    let windows = sampler.await.map_err(|e| e.to_string())?;
    let Share { operations, records, bytes, latency } = all;
    Ok(Measured { operations, records, bytes, elapsed, latency, windows })
}

struct Share {
    operations: u64,
    records: u64,
    bytes: u64,
    latency: Histogram<u64>,
}

impl Share {
    fn new() -> Result<Self, String> {
        let latency = Histogram::new_with_bounds(1, LONGEST_NS, 3).map_err(|e| e.to_string())?;
        Ok(Self { operations: 0, records: 0, bytes: 0, latency })
    }

    fn add(&mut self, other: &Self) -> Result<(), String> {
        self.operations += other.operations;
        self.records += other.records;
        self.bytes += other.bytes;
        self.latency.add(&other.latency).map_err(|e| e.to_string())
    }
}

async fn work<W: Worker>(
    mut worker: W,
    i: usize,
    counts: Arc<Vec<Count>>,
    deadline: Instant,
) -> Result<Share, String> {
    let mut share = Share::new()?;
    let mut before = Instant::now();
    while before < deadline {
        let done = worker.step().await?;
        let after = Instant::now();
        let nanos = u64::try_from((after - before).as_nanos()).unwrap_or(u64::MAX);
        share.latency.saturating_record(nanos.max(1));
        before = after;
        share.operations += 1;
        share.records += done.records;
        share.bytes += done.bytes;
        counts[i].0.store(share.records, Ordering::Relaxed);
        if share.operations % 64 == 0 {
            tokio::task::consume_budget().await;
        }
    }
    Ok(share)
}

async fn sample(counts: Arc<Vec<Count>>, deadline: Instant) -> Vec<u64> {
    let second = Duration::from_secs(1);
    let total = || counts.iter().map(|c| c.0.load(Ordering::Relaxed)).sum::<u64>();
    let mut windows = Vec::new();
    let (mut next, mut before) = (Instant::now() + second, 0);
    let mut last = Instant::now();
    while next <= deadline {
        tokio::time::sleep_until(next.into()).await;
        let (now, count) = (Instant::now(), total());
        // A late sampler must not make one window look rich and the next one poor.
        let seconds = (now - last).as_secs_f64().max(1e-3);
        windows.push(((count - before) as f64 / seconds) as u64);
        (before, last) = (count, now);
        next += second;
    }
    windows
}
