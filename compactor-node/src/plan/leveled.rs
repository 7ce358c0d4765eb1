//! Mode `merge`, leveled: each run is a level, `level_fanout` times larger than the one above it.
//!
//! ```text
//!   newest                                     oldest
//!   [L0][L0][L0][L0] [  L1  ] [      L2      ] [                L3                ]
//!   └── merge into L1, and on down while the next level is no more than fanout × what comes down ──▶
//! ```
//! **Whole levels only.** Moving one table of a level into the next, as other stores do, would put some of the level's
//! rows beneath rows of its own that are older: the runs' sequence numbers would no longer lie one above the other, and
//! the one inequality that everything rests on would be gone. So a level goes down as a whole, and one merge takes all
//! the levels it reaches, so that nothing is written twice on the way. A table that no other input overlaps may keep its
//! object and only change its run: `Change::Merge` allows it.
//!
//! All levels above the last together hold at most about `1 / fanout` of it: little is stored twice, and a read looks into
//! `l0_trigger + log_fanout(size)` runs.

use super::{MergePlan, Stretch, percent};
use crate::settings::CompactorSettings;

/// A merge that only mends the shape never goes far before what writers wait for.
const MOST_DUE: u32 = 300;

/// Enough L0 runs have gathered: they go down.
pub(super) fn l0(stretch: Stretch<'_>, settings: &CompactorSettings) -> Option<MergePlan> {
    let l0 = stretch.l0_runs();
    if l0 < settings.l0_trigger {
        return None;
    }
    let score = percent(l0 as u64, settings.l0_trigger as u64);
    let from = l0.saturating_sub(settings.max_merge_width);
    Some(stretch.plan(from, reach(stretch, settings, from, l0), "l0", score))
}

/// Two levels are out of proportion: after a change of policy, or where much of the lower one was dropped.
pub(super) fn level(stretch: Stretch<'_>, settings: &CompactorSettings) -> Option<MergePlan> {
    let sizes: Vec<u64> = stretch.runs.iter().map(|r| r.len_bytes()).collect();
    let overdue = |at: &usize| percent(sizes[*at].saturating_mul(settings.level_fanout), sizes[*at + 1]);
    let pairs = stretch.l0_runs()..sizes.len().saturating_sub(1);
    let at = pairs.filter(|at| overdue(at) >= 100).max_by_key(overdue)?;
    let to = reach(stretch, settings, at, at + 2);
    Some(stretch.plan(at, to, "level", overdue(&at).min(MOST_DUE)))
}

/// How far down a merge that begins with the runs `from..to` goes: through every level that is no more than `fanout` times
/// what comes down on it.
fn reach(stretch: Stretch<'_>, settings: &CompactorSettings, from: usize, mut to: usize) -> usize {
    let mut bytes: u64 = stretch.runs[from..to].iter().map(|r| r.len_bytes()).sum();
    while let Some(next) = stretch.runs.get(to).map(|r| r.len_bytes())
        && next <= bytes.saturating_mul(settings.level_fanout)
        && to - from < settings.max_merge_width
    {
        bytes = bytes.saturating_add(next);
        to += 1;
    }
    to
}
