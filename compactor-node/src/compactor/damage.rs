//! Tables that a merge found damaged, and that this process leaves alone for a while.
//!
//! A merge refuses a damaged input, and the tree stays as it is. But it would be planned again at once, before anything
//! else of its kind, and a merge in parts would hold all its inputs until it is forsaken, days later. So a merge in parts is
//! abandoned by whoever meets the damage, and the run with the damaged table is a wall to this process's planner: whatever
//! lies above and beneath it is merged as if others worked on it. The wall comes down after a pause, since the bytes
//! may have been damaged on their way only, or somebody may have put the object right; each time the pause is twice as long,
//! up to [`LONGEST`]. Every process finds out for itself, which costs it one failed merge.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use isle_storage::ids::RunId;
use isle_storage::manifest::Manifest;
use serde::Serialize;
use tokio::time::Instant;

/// For how long a table is left alone when it is first found damaged.
const FIRST: Duration = Duration::from_secs(60);

/// For how long at most.
pub(crate) const LONGEST: Duration = Duration::from_secs(3600);

/// A table that was found damaged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DamagedTable {
    /// Its object.
    pub object: String,
    /// What is wrong with it.
    pub error: String,
    /// How many merges it has failed here.
    pub failures: u32,
    /// Until merges may take it again; zero: they may.
    pub retry_in_seconds: f64,
}

/// What this process knows of damage.
#[derive(Debug, Default)]
pub(super) struct Damage(BTreeMap<String, Found>);

#[derive(Debug)]
struct Found {
    error: String,
    failures: u32,
    /// `None` once it may be tried again.
    until: Option<Instant>,
}

impl Damage {
    /// A merge has failed on `object`; for how long it is left alone.
    pub(super) fn found(&mut self, object: &str, error: &str, now: Instant) -> Duration {
        let failures = self.0.get(object).map_or(0, |f| f.failures).saturating_add(1);
        let pause = FIRST.saturating_mul(2u32.saturating_pow(failures - 1)).min(LONGEST);
        let found = Found { error: error.to_owned(), failures, until: Some(now + pause) };
        self.0.insert(object.to_owned(), found);
        pause
    }

    /// Forgets tables that are gone.
    pub(super) fn forget_gone(&mut self, manifest: &Manifest) {
        if !self.0.is_empty() {
            let there: BTreeSet<String> = manifest.tables().map(|t| t.path().to_string()).collect();
            self.0.retain(|object, _| there.contains(object));
        }
    }

    /// The runs that are left alone.
    pub(super) fn runs(&self, manifest: &Manifest) -> BTreeSet<RunId> {
        let left_alone: BTreeSet<&str> =
            self.0.iter().filter(|(_, f)| f.until.is_some()).map(|(object, _)| object.as_str()).collect();
        if left_alone.is_empty() {
            return BTreeSet::new();
        }
        let damaged = |run: &&std::sync::Arc<isle_storage::manifest::Run>| {
            run.tables.iter().any(|t| left_alone.contains(t.path().as_str()))
        };
        manifest.runs.iter().filter(damaged).map(|r| r.id).collect()
    }

    /// When the first of them may be tried again.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.0.values().filter_map(|f| f.until).min()
    }

    /// Those whose pause is over may be tried again.
    pub(super) fn look_again(&mut self, now: Instant) {
        for found in self.0.values_mut() {
            found.until = found.until.filter(|until| now < *until);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// For people.
    pub(super) fn shown(&self, now: Instant) -> Vec<DamagedTable> {
        let show = |(object, f): (&String, &Found)| DamagedTable {
            object: object.clone(),
            error: f.error.clone(),
            failures: f.failures,
            retry_in_seconds: f.until.map_or(0.0, |u| u.saturating_duration_since(now).as_secs_f64()),
        };
        self.0.iter().map(show).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_bounded() {
        let (mut damage, now) = (Damage::default(), Instant::now());
        let pauses: Vec<u64> =
            (0..40).map(|_| damage.found("table/t", "a checksum", now).as_secs()).collect();
        assert_eq!(pauses[..7], [60, 120, 240, 480, 960, 1920, 3600]);
        assert!(pauses[7..].iter().all(|pause| *pause == LONGEST.as_secs()));
        assert_eq!(damage.next_look(), Some(now + LONGEST));
        damage.look_again(now + LONGEST);
        assert_eq!((damage.next_look(), damage.shown(now)[0].failures), (None, 40));
    }
}
