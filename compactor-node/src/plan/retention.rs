//! Retention: which of the oldest tables are over.
//!
//! From the old end on, run by run, every table whose retention has ended goes, up to the first run in which one has not;
//! the newest tables (or windows) that are kept in any case, and whatever a snapshot sees, stay. What goes is thus a
//! prefix in sequence order, which `isle_storage::manifest` demands again when the edit is applied.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use isle_storage::ids::Timestamp;
use isle_storage::manifest::{Manifest, TableEntry};

use super::{ExpirePlan, certain};
use crate::settings::CompactorSettings;

/// Tables that one edit takes out at most: it names them all. The rest goes with the next one.
const MOST_TABLES: usize = 1000;

/// It costs one commit, and frees space.
const SCORE: u32 = 1000;

/// What is over at `now`, on the caller's clock.
#[must_use]
pub fn expire(manifest: &Manifest, settings: &CompactorSettings, now: Timestamp) -> Option<ExpirePlan> {
    plan(manifest, certain(now, settings))
}

/// Every table that is over at `now`, on the caller's clock, however many edits they take to go.
#[must_use]
pub fn over(manifest: &Manifest, settings: &CompactorSettings, now: Timestamp) -> Vec<Arc<TableEntry>> {
    if manifest.compaction.retention_us().is_none() {
        return Vec::new();
    }
    let as_of = certain(now, settings);
    oldest(manifest, usize::MAX, |t| is_over(manifest, t, as_of))
}

/// The next instant, on the caller's clock, at which a table will be over that nothing else holds.
#[must_use]
pub fn next_end(manifest: &Manifest, settings: &CompactorSettings, now: Timestamp) -> Option<Timestamp> {
    let next = end_after(manifest, certain(now, settings))?;
    Some(next.plus(Duration::from_secs(settings.max_clock_skew_seconds)))
}

pub(super) fn plan(manifest: &Manifest, as_of: Timestamp) -> Option<ExpirePlan> {
    manifest.compaction.retention_us()?;
    let gone = oldest(manifest, MOST_TABLES, |t| is_over(manifest, t, as_of));
    if gone.is_empty() {
        return None;
    }
    Some(ExpirePlan {
        tables: gone.iter().map(|t| t.name.clone()).collect(),
        rows: gone.iter().map(|t| t.rows).sum(),
        bytes: gone.iter().map(|t| t.len).sum(),
        as_of,
        mode: manifest.compaction.clone(),
        reason: "retention",
        score: SCORE,
    })
}

/// The next instant at which a table will be over that nothing else holds.
pub(super) fn end_after(manifest: &Manifest, now: Timestamp) -> Option<Timestamp> {
    manifest.compaction.retention_us()?;
    let could_go = oldest(manifest, usize::MAX, |_| true);
    let ends = could_go.iter().filter_map(|t| manifest.compaction.over_at(t.max_time));
    ends.filter(|end| *end > now).min()
}

fn is_over(manifest: &Manifest, table: &TableEntry, as_of: Timestamp) -> bool {
    manifest.compaction.over_at(table.max_time).is_some_and(|at| at <= as_of)
}

/// The oldest tables that `goes` lets go, and that nothing else keeps.
fn oldest(manifest: &Manifest, most: usize, goes: impl Fn(&TableEntry) -> bool) -> Vec<Arc<TableEntry>> {
    let mode = &manifest.compaction;
    let mut left = manifest.tables().count() as u64;
    let windows: BTreeSet<i64> = manifest.tables().map(|t| mode.window(t.max_time)).collect();
    // A window counts until its last table goes; the oldest that stays in any case, and all after it, are not touched.
    let kept = (1..=windows.len()).find(|n| mode.keeps_enough(u64::MAX, *n as u64)).unwrap_or(windows.len());
    let first_kept = match mode.window_end(Timestamp(0)) {
        Some(_) => windows.iter().rev().nth(kept.saturating_sub(1)).copied(),
        None => None,
    };
    let mut gone = Vec::new();
    for run in manifest.runs.iter().rev() {
        let mut tables: Vec<_> = run.tables.iter().collect();
        tables.sort_by_key(|t| t.max_seq);
        let mut all = true;
        for t in tables {
            let free = manifest.holder_of(t).is_none()
                && mode.keeps_enough(left - 1, u64::MAX)
                && first_kept.is_none_or(|w| mode.window(t.max_time) < w);
            if free && goes(t) && gone.len() < most {
                gone.push(Arc::clone(t));
                left -= 1;
            } else {
                all = false;
            }
        }
        if !all {
            break;
        }
    }
    gone
}
