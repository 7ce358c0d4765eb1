//! What a run came to, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use isle_history::check::Counts;
use serde_json::{Value, json};

use crate::proxy::Done;

/// Violations printed whole; the rest is counted.
const SHOWN: usize = 20;

/// A run, judged.
#[derive(Debug)]
pub struct Report {
    /// What the plan was made from.
    pub seed: u64,
    /// How long faults were done.
    pub length: Duration,
    /// Whether every program had a network namespace of its own.
    pub namespaces: bool,
    /// How often each kind of fault was done.
    pub faults: BTreeMap<String, u64>,
    /// Planned faults there was nobody to do to.
    pub skipped: u64,
    /// What was judged.
    pub counts: Counts,
    /// How refused writes were refused.
    pub refusals: BTreeMap<String, u64>,
    /// How reads failed that failed.
    pub failed_reads: BTreeMap<String, u64>,
    /// Epochs that writers went through.
    pub epochs: u64,
    /// Snapshots that were taken, and read at every reader.
    pub snapshots: u64,
    /// What the collectors deleted while it lasted, as far as known.
    pub collected: u64,
    /// What the proxies did.
    pub proxied: Done,
    /// What no fault excuses.
    pub violations: Vec<String>,
}

impl Report {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// The same for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "seed": self.seed,
            "seconds": self.length.as_secs(),
            "namespaces": self.namespaces,
            "faults": self.faults,
            "faults_total": self.faults.values().sum::<u64>(),
            "skipped": self.skipped,
            "counts": self.counts,
            "refusals": self.refusals,
            "failed_reads": self.failed_reads,
            "epochs": self.epochs,
            "snapshots": self.snapshots,
            "collected": self.collected,
            "proxies": {
                "connections": self.proxied.connections,
                "broken": self.proxied.broken,
                "bytes_swallowed": self.proxied.swallowed,
                "requests_refused": self.proxied.refused,
                "replies_lost": self.proxied.replies_lost,
            },
            "violations": self.violations,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = if self.namespaces { "network namespaces" } else { "loopback" };
        writeln!(f, "seed {}, {} s, {form}, {} epochs", self.seed, self.length.as_secs(), self.epochs)?;
        writeln!(f, "faults: {} ({} skipped)", self.faults.values().sum::<u64>(), self.skipped)?;
        for (kind, n) in &self.faults {
            writeln!(f, "  {n:>4}  {kind}")?;
        }
        let c = &self.counts;
        writeln!(f, "writes: {} acknowledged, {} refused, {} unknown", c.acknowledged, c.refused, c.unknown)?;
        for (code, n) in &self.refusals {
            writeln!(f, "  {n:>6}  {code}")?;
        }
        writeln!(
            f,
            "log: {} records; {} objects collected; {} snapshots taken",
            c.records, self.collected, self.snapshots
        )?;
        writeln!(f, "reads judged: {} with {} rows; failed:", c.reads, c.rows)?;
        for (code, n) in &self.failed_reads {
            writeln!(f, "  {n:>6}  {code}")?;
        }
        writeln!(f, "deliveries judged: {}; not judged: {}", c.deliveries, c.unjudged)?;
        let p = &self.proxied;
        writeln!(
            f,
            "proxies: {} connections, {} broken, {} bytes swallowed, {} requests refused, {} replies lost",
            p.connections, p.broken, p.swallowed, p.refused, p.replies_lost
        )?;
        writeln!(f, "violations: {}", self.violations.len())?;
        self.violations.iter().take(SHOWN).try_for_each(|v| writeln!(f, "- {v}"))
    }
}
