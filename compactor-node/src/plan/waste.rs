//! Runs that are mostly waste: tombstones, and rows that have expired.
//!
//! Sizes alone would leave them where they are: the last run of an idle database may be nothing but expired rows, and a
//! run of tombstones is small beside what it deletes. Two cases:
//!
//! * From some run down to the bottom, `waste_percent` of the rows are tombstones, expired, or deleted by a tombstone
//!   above: one merge of all of them drops the lot.
//! * In one run, wherever it lies, `waste_percent` of the rows have expired: rewritten they are deletes, and their values
//!   are gone.
//!
//! A tombstone or an expired row beneath which a snapshot lies cannot go (see `isle_storage::merge::Rewrite`) and is not
//! counted, or the same merge would be planned for ever. Every merge planned here makes its own reason smaller.
//!
//! In `fifo` and `time_window` retention ends rows; what expires before is left to it, or each would be written a third
//! time.

use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::manifest::{Manifest, Run, TableEntry};

use super::{MergePlan, Stretch, percent};
use crate::settings::CompactorSettings;

/// How exactly the next instant is looked for, in microseconds.
const GRAIN: i64 = 1_000_000;

/// What a run, or several, hold.
#[derive(Debug, Clone, Copy, Default)]
struct Rows {
    all: u64,
    deletes: u64,
    expired: u64,
}

pub(super) fn plan(stretch: Stretch<'_>, settings: &CompactorSettings, now: Timestamp) -> Option<MergePlan> {
    let (manifest, runs) = (stretch.manifest, stretch.runs);
    if manifest.compaction.retention_us().is_some() {
        return None;
    }
    let due =
        |waste: u64, rows: u64| percent(waste, rows).saturating_mul(100) / settings.waste_percent.max(1);
    // Anywhere else it would drop nothing, and be planned for ever.
    let bottom = Some(stretch)
        .filter(Stretch::is_at_the_bottom)
        .and_then(|stretch| to_the_bottom(stretch, settings, now))
        .map(|(from, rows)| (from, runs.len(), due(rows.waste(), rows.all), "waste"));
    let one = (0..runs.len()).map(|at| {
        let rows = in_one(manifest, &runs[at], now);
        (at, at + 1, due(rows.expired, rows.all), "expired")
    });
    // Of equally wasteful merges the one that takes more of them away: `max_by_key` gives the last.
    let (from, to, score, reason) = one.chain(bottom).filter(|c| c.2 >= 100).max_by_key(|c| c.2)?;
    Some(stretch.plan(from, to, reason, score))
}

/// Whether a merge of `run`, at the bottom, would drop anything for being a tombstone or having expired.
pub(super) fn has_any(manifest: &Manifest, run: &Run, now: Timestamp) -> bool {
    at_the_bottom(manifest, run, now).waste() > 0
}

/// The next instant at which enough will have expired, where not enough has.
pub(super) fn next_waste(
    stretch: Stretch<'_>,
    settings: &CompactorSettings,
    now: Timestamp,
) -> Option<Timestamp> {
    let tables = stretch.runs.iter().flat_map(|r| &r.tables);
    let ends = tables.filter_map(|t| t.expiring.map(|e| e.last).or(t.min_expires));
    let (mut before, mut after) = (now, ends.max().filter(|last| *last > now)?);
    if plan(stretch, settings, now).is_some() {
        return None;
    }
    // More expires as time passes, never less: where it is enough at some instant, it is at every later one.
    plan(stretch, settings, after)?;
    while after.0.saturating_sub(before.0) > GRAIN {
        let middle = Timestamp(before.0.midpoint(after.0));
        match plan(stretch, settings, middle) {
            Some(_) => after = middle,
            None => before = middle,
        }
    }
    Some(after)
}

/// From which run on down to the bottom there is most waste, and what is in them.
fn to_the_bottom(
    stretch: Stretch<'_>,
    settings: &CompactorSettings,
    now: Timestamp,
) -> Option<(usize, Rows)> {
    let mut sum = Rows::default();
    let mut best: Option<(usize, Rows)> = None;
    for (from, run) in stretch.runs.iter().enumerate().rev().take(settings.max_merge_width) {
        let beneath = sum;
        sum.add(at_the_bottom(stretch.manifest, run, now));
        // A tombstone above deletes one row beneath, if there is one.
        let mut with_deleted = sum;
        with_deleted.expired +=
            (sum.deletes - beneath.deletes).min(beneath.all.saturating_sub(beneath.waste()));
        let better =
            |(_, b): &(usize, Rows)| percent(with_deleted.waste(), sum.all) > percent(b.waste(), b.all);
        if best.as_ref().is_none_or(better) {
            best = Some((from, with_deleted));
        }
    }
    best
}

/// What a merge that ends at the bottom would find in `run`. A tombstone goes unless a snapshot lies beneath it; a row that
/// has expired by now may not have for a snapshot, so where there is any, none is counted.
fn at_the_bottom(manifest: &Manifest, run: &Run, now: Timestamp) -> Rows {
    let lowest = manifest.snapshots.values().map(|s| s.seq).min().unwrap_or(SeqNo(u64::MAX));
    let mut rows = Rows::default();
    for t in &run.tables {
        let deletes = if t.max_seq <= lowest { t.deletes } else { 0 };
        let expired = if manifest.snapshots.is_empty() { expired(t, now) } else { 0 };
        rows.add(Rows { all: t.rows, deletes, expired });
    }
    rows
}

/// What a merge of `run` alone would find: expired rows, where no snapshot sees any of the run.
fn in_one(manifest: &Manifest, run: &Run, now: Timestamp) -> Rows {
    let held = run.tables.iter().any(|t| manifest.holder_of(t).is_some());
    let mut rows = Rows::default();
    for t in &run.tables {
        let expired = if held { 0 } else { expired(t, now) };
        rows.add(Rows { all: t.rows, deletes: 0, expired });
    }
    rows
}

impl Rows {
    fn add(&mut self, other: Self) {
        self.all = self.all.saturating_add(other.all);
        self.deletes = self.deletes.saturating_add(other.deletes);
        self.expired = self.expired.saturating_add(other.expired);
    }

    fn waste(&self) -> u64 {
        self.deletes.saturating_add(self.expired)
    }
}

fn expired(table: &TableEntry, now: Timestamp) -> u64 {
    table.expired_rows(now).min(table.rows.saturating_sub(table.deletes))
}
