//! Many schedules, on a few threads, until a number or a time is reached.
//!
//! A schedule belongs to one thread from its first event to its last, so how many run at once changes nothing of what
//! happens in any of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::run::{Report, run};

/// What a soak runs.
#[derive(Debug, Clone, Copy)]
pub struct Soak {
    /// The first seed.
    pub from: u64,
    /// Schedules at most.
    pub schedules: u64,
    /// Time at most.
    pub time: Duration,
    /// Threads.
    pub threads: usize,
    /// Whether it goes on after a violation.
    pub goes_on: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Summary {
    /// Schedules run.
    pub schedules: u64,
    /// Seeds whose schedules broke a promise, with the first one broken.
    pub failed: BTreeMap<u64, String>,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// In how many schedules this happened, of what few come to.
    pub reached: BTreeMap<&'static str, u64>,
    /// Durable writes acknowledged.
    pub acknowledged: u64,
    /// Reads answered.
    pub answered: u64,
    /// Versions committed.
    pub versions: u64,
    /// Mutations committed.
    pub committed: u64,
    /// Objects deleted.
    pub deleted: u64,
    /// Simulated seconds.
    pub simulated: u64,
    /// The hash of all fingerprints, whatever their order.
    pub fingerprint: u64,
    /// How long it took.
    pub took: Duration,
}

impl Summary {
    fn add(&mut self, report: &Report) {
        self.schedules += 1;
        self.acknowledged += report.acknowledged;
        self.answered += report.answered;
        self.versions += report.versions;
        self.committed += report.committed;
        self.deleted += report.deleted;
        self.simulated += report.lasted / crate::world::SECOND;
        self.fingerprint ^= report.fingerprint.rotate_left((report.plan.seed % 64) as u32);
        for (kind, n) in &report.faults {
            *self.faults.entry(kind).or_default() += n;
        }
        for what in &report.reached {
            *self.reached.entry(what).or_default() += 1;
        }
        if let Some(first) = report.violations.first() {
            self.failed.insert(report.plan.seed, first.clone());
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        writeln!(
            f,
            "{} schedules in {seconds:.1} s ({:.1} a second), {} simulated seconds, fingerprint {:016x}",
            self.schedules,
            self.schedules as f64 / seconds.max(0.001),
            self.simulated,
            self.fingerprint
        )?;
        writeln!(
            f,
            "{} writes acknowledged, {} reads answered, {} mutations in {} versions committed, {} objects deleted",
            self.acknowledged, self.answered, self.committed, self.versions, self.deleted
        )?;
        for (kind, n) in &self.faults {
            writeln!(f, "  {n:>9} x {kind}")?;
        }
        for (what, n) in &self.reached {
            writeln!(f, "  in {n} schedules {what}")?;
        }
        writeln!(f, "{} schedules broke a promise", self.failed.len())?;
        for (seed, why) in &self.failed {
            writeln!(f, "  --seed {seed}: {why}")?;
        }
        Ok(())
    }
}

/// Runs schedules; `each` hears of every one that has ended.
pub fn soak(what: Soak, each: impl Fn(&Report) + Sync) -> Summary {
    let began = Instant::now();
    let (next, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let summary = Mutex::new(Summary::default());
    let work = || {
        while began.elapsed() < what.time && !ended.load(Ordering::Relaxed) {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= what.schedules {
                return;
            }
            let report = run(what.from + n, false);
            each(&report);
            summary.lock().add(&report);
            if !report.is_clean() && !what.goes_on {
                ended.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..what.threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut summary = summary.into_inner();
    summary.took = began.elapsed();
    summary
}
