//! Mode `merge`, tiered: runs of similar size merge.
//!
//! 1. **L0**: when `l0_trigger` flushed runs have gathered, all of them (at most `max_merge_width`, the oldest first)
//!    become one run.
//! 2. **Tiers**: among the merged runs, `tier_width` neighbours of which none dwarfs the others become one. Where the
//!    number of runs passes `max_runs`, any neighbours do. Of several candidates the one that reads the fewest bytes
//!    for every run it saves wins: small runs pay little and are merged often, large ones rarely, so every row is
//!    rewritten about log(size) times.
//!
//! ```text
//!   newest                                             oldest
//!   [L0][L0][L0][L0] [ 64M ][ 60M ][ 70M ][ 61M ] [    1G    ]
//!   └── rule 1 ────┘ └────────── rule 2 ────────┘
//! ```
//!
//! What is stored twice lies in the runs above the largest one. A run is similar to what lies above it from
//! [`SIMILAR_PERCENT`] of its size on, not from the whole: so the runs above are merged into the largest one before they
//! hold as much again, and twice the live data is the most that is ever stored.

use std::sync::Arc;

use isle_storage::manifest::Run;

use super::{MergePlan, Stretch, percent};
use crate::settings::CompactorSettings;

/// The others together are at least this part of the largest run of a merge, in percent of it.
const SIMILAR_PERCENT: u64 = 85;

pub(super) fn l0(stretch: Stretch<'_>, settings: &CompactorSettings) -> Option<MergePlan> {
    let l0 = stretch.l0_runs();
    if l0 < settings.l0_trigger {
        return None;
    }
    let from = l0.saturating_sub(settings.max_merge_width);
    Some(stretch.plan(from, l0, "l0", percent(l0 as u64, settings.l0_trigger as u64)))
}

pub(super) fn tier(stretch: Stretch<'_>, settings: &CompactorSettings) -> Option<MergePlan> {
    let l0 = stretch.l0_runs();
    let merged = &stretch.runs[l0..];
    let crowded = merged.len() > settings.max_runs;
    let (from, to) = cheapest(merged, settings, crowded)?;
    let (reason, score) = match crowded {
        true => ("too_many_runs", percent(merged.len() as u64, settings.max_runs as u64)),
        false => ("tier", percent((to - from) as u64, settings.tier_width as u64)),
    };
    Some(stretch.plan(l0 + from, l0 + to, reason, score))
}

/// The cheapest admissible window of neighbours.
fn cheapest(runs: &[Arc<Run>], settings: &CompactorSettings, crowded: bool) -> Option<(usize, usize)> {
    let sizes: Vec<u64> = runs.iter().map(|r| r.len_bytes()).collect();
    let least = if crowded { 2 } else { settings.tier_width };
    let mut best: Option<(u64, usize, usize)> = None;
    for from in 0..sizes.len() {
        let (mut sum, mut largest) = (0u64, 0u64);
        for (to, size) in sizes.iter().enumerate().skip(from).take(settings.max_merge_width) {
            sum = sum.saturating_add(*size);
            largest = largest.max(*size);
            let width = to + 1 - from;
            let similar = percent(sum - largest, largest) as u64 >= SIMILAR_PERCENT;
            if width >= least && (similar || crowded) {
                let cost = sum / (width as u64 - 1);
                if best.is_none_or(|(c, ..)| cost < c) {
                    best = Some((cost, from, to + 1));
                }
            }
        }
    }
    best.map(|(_, from, to)| (from, to))
}
