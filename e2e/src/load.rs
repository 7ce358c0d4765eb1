//! A client that loads records while programs are killed and restarted under it, and knows afterwards what it was
//! promised.
//!
//! It sends batches over several connections. A batch without an acknowledgement is sent again, to the next writer; one
//! that may have been applied the first time is remembered, because then its records may stand in the log twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use isle_service::client::CallError;
use isle_service::error::ErrorCode;
use tokio::task::JoinSet;

use crate::client::{Api, Change, Written};
use crate::dataset::{Record, ndjson};

/// How long one batch is tried before the scenario has failed.
const PATIENCE: Duration = Duration::from_secs(90);

/// One batch and what became of it.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Its records.
    pub records: Vec<Record>,
    /// The acknowledgement.
    pub written: Written,
    /// How many earlier attempts may have been applied.
    pub uncertain: usize,
}

/// A load in progress.
#[derive(Debug)]
pub struct Load {
    workers: JoinSet<Vec<Batch>>,
    acknowledged: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Load {
    /// Begins to load `records` through any of `writers`, in batches of `size`, over `connections`.
    #[must_use]
    pub fn start(writers: &[Api], records: &[Record], size: usize, connections: usize) -> Self {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for n in 0..connections {
            let batches: Vec<Vec<Record>> =
                records.chunks(size).skip(n).step_by(connections).map(<[Record]>::to_vec).collect();
            let worker = Worker {
                writers: writers.to_vec(),
                acknowledged: Arc::clone(&acknowledged),
                stop: Arc::clone(&stop),
            };
            workers.spawn(worker.run(batches));
        }
        Self { workers, acknowledged, stop }
    }

    /// Batches acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until so many batches more than now are acknowledged.
    ///
    /// # Panics
    /// If that takes longer than a batch may.
    pub async fn goes_on(&self, batches: usize) {
        let goal = self.acknowledged() + batches;
        let reached = || std::future::ready((self.acknowledged() >= goal).then_some(()));
        crate::wait::until("the load going on", PATIENCE, reached).await;
    }

    /// Lets it send nothing further.
    pub fn enough(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Waits until everything is acknowledged.
    ///
    /// # Panics
    /// If a batch was refused for good.
    pub async fn finished(self) -> Vec<Batch> {
        self.workers.join_all().await.into_iter().flatten().collect()
    }
}

struct Worker {
    writers: Vec<Api>,
    acknowledged: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    async fn run(self, batches: Vec<Vec<Record>>) -> Vec<Batch> {
        let mut done = Vec::new();
        for records in batches {
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            done.push(self.send(records).await);
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
        done
    }

    async fn send(&self, records: Vec<Record>) -> Batch {
        let body = ndjson(&records);
        let started = Instant::now();
        let mut uncertain = 0;
        let mut attempt = 0;
        loop {
            let error = match self.writers[attempt % self.writers.len()].batch(body.clone()).await {
                Ok(written) => return Batch { records, written, uncertain },
                Err(e) => e,
            };
            uncertain += usize::from(may_be_applied(&error));
            assert!(started.elapsed() < PATIENCE, "a batch was not taken within {PATIENCE:?}: {error}");
            attempt += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Whether a request that failed so may have been applied.
///
/// # Panics
/// If it was refused for a reason that repeating does not mend.
fn may_be_applied(error: &CallError) -> bool {
    match error {
        CallError::Client(e) => !e.surely_not_sent(),
        CallError::Remote(e) if e.code == Some(ErrorCode::OutcomeUnknown) => true,
        CallError::Remote(e) => {
            assert!(e.retryable(), "the writer refuses for good: {e}");
            false
        }
        CallError::Read(_) => true,
        CallError::Answer(what) => panic!("not an answer of a writer: {what}"),
    }
}

/// Judges a log from its beginning: no gap, everything acknowledged at its place, and nothing twice but what may be.
///
/// # Panics
/// With the first thing that is wrong.
pub fn check_log(changes: &[Change], batches: &[Batch]) {
    for (at, change) in changes.iter().enumerate() {
        assert_eq!(change.seq, at as u64 + 1, "the tail has a gap or a repeat");
    }
    let mut allowed = 0;
    for batch in batches {
        let first = batch.written.first as usize;
        assert_eq!(batch.written.last - batch.written.first + 1, batch.records.len() as u64);
        for (n, record) in batch.records.iter().enumerate() {
            let found = changes.get(first + n - 1);
            let found =
                found.unwrap_or_else(|| panic!("{} was acknowledged and is not in the log", record.key));
            assert_eq!(found.key, record.key.as_bytes(), "at {} stands another key", found.seq);
            assert_eq!(found.value.as_deref(), Some(record.value.as_bytes()), "at {}", found.seq);
        }
        allowed += batch.records.len() * batch.uncertain;
    }
    let acknowledged: usize = batches.iter().map(|b| b.records.len()).sum();
    let extra = changes.len() - acknowledged;
    assert!(extra <= allowed, "{extra} changes stand twice, and at most {allowed} were sent again");
}
