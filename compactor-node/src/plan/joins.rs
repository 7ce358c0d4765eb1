//! Modes `fifo` and `time_window`: small neighbours are joined, each row once.
//!
//! Here a run is a slice of time, and retention takes it away as a whole: rewriting rows again and again, as a growing
//! tree must, buys nothing. But a flush may be tiny, and a year of them would be millions of tables. So flushed runs are
//! gathered, and joined **once**:
//!
//! * when they make a run of the wanted size: `table_bytes`, or a 256th of the database where that is more;
//! * when their slice of time is over: the window, or, in `fifo`, a [`SLICES`]th of the retention. Nothing is ever joined
//!   across: a run's newest row decides when all of it goes, so a slice is how much too long its oldest row stays;
//! * when as many have gathered as there are other runs (at least `l0_trigger`, at most `join_width`). With *n* flushes
//!   in the retention that settles at about √n joined runs and at most as many waiting ones: the best that is possible where
//!   each row is written no more than twice, flush included.
//!
//! ```text
//!   newest                                                                     oldest
//!   [f][f][f][f] [   16   ][   16   ][    17    ] …  [      40      ][ large flush ] ──▶ retention
//!   └─ gather ─┘ └── joined once, and left alone ───────────────────┘
//! ```
//! Beyond `max_slices` runs the number binds: the cheapest joined neighbours are joined once more, and rows are
//! written a third time.
//!
//! # Rows at a window's edge
//! The writer ends its generation at the first segment that begins in another window, and a run belongs to the window of
//! its **newest** row. So only what one segment carries across the edge, milliseconds of writes, lies in the next window
//! and lives one window longer. Splitting such a segment's rows into two runs would need two runs in one flush, and win
//! nothing: nobody may rely on rows vanishing early.

use std::ops::Range;
use std::sync::Arc;

use isle_storage::ids::Timestamp;
use isle_storage::manifest::{CompactionMode, Run};

use super::{MergePlan, Stretch, percent};
use crate::settings::CompactorSettings;

/// A retention is cut into at least this many runs by time in `fifo`: its rows live at most this part too long.
const SLICES: i64 = 32;

/// A run is large enough at this part of the whole database.
const PART_OF_ALL: u64 = 256;

pub(super) fn join(stretch: Stretch<'_>, settings: &CompactorSettings, now: Timestamp) -> Option<MergePlan> {
    let slices = Slices::new(stretch, settings);
    let due = slices.groups().into_iter().rev().find_map(|g| {
        let (reason, score) = slices.due(&g, now)?;
        Some((g.at, reason, score))
    });
    let (at, reason, score) = due.or_else(|| slices.crowded())?;
    Some(stretch.plan(at.start, at.end, reason, score))
}

/// When the newest group's window closes, if it gathers anything.
pub(super) fn next_close(
    stretch: Stretch<'_>,
    settings: &CompactorSettings,
    now: Timestamp,
) -> Option<Timestamp> {
    let mode = &stretch.manifest.compaction;
    mode.retention_us()?;
    let newest = Slices::new(stretch, settings).groups().into_iter().next()?;
    let run = stretch.runs.first().filter(|_| newest.at.start == 0 && newest.at.len() > 1)?;
    mode.window_end(run.max_time()).filter(|end| *end > now)
}

/// Neighbours that were never joined, in one slice of time.
struct Group {
    /// Their places.
    at: Range<usize>,
    bytes: u64,
    /// No newer run can come to it any more.
    closed: bool,
}

struct Slices<'a> {
    runs: &'a [Arc<Run>],
    mode: &'a CompactionMode,
    settings: &'a CompactorSettings,
    /// A run of this size is left alone from half of it on.
    wanted: u64,
}

impl<'a> Slices<'a> {
    fn new(stretch: Stretch<'a>, settings: &'a CompactorSettings) -> Self {
        let all: u64 = stretch.runs.iter().map(|r| r.len_bytes()).sum();
        let wanted = settings.table_bytes.max(all / PART_OF_ALL);
        Self { runs: stretch.runs, mode: &stretch.manifest.compaction, settings, wanted }
    }

    fn is_small(&self, run: &Run) -> bool {
        run.len_bytes() < self.wanted / 2
    }

    /// Whether runs whose oldest row is of `from` and whose newest of `to` lie in one slice of time.
    fn is_one_slice(&self, from: Timestamp, newest_of_oldest: Timestamp, to: Timestamp) -> bool {
        match self.mode {
            CompactionMode::Fifo { retention_us, .. } => {
                to.0.saturating_sub(from.0) <= *retention_us / SLICES
            }
            mode => mode.window(newest_of_oldest) == mode.window(to),
        }
    }

    /// The groups, newest first.
    fn groups(&self) -> Vec<Group> {
        let mut groups = Vec::new();
        let mut open: Option<(Group, Timestamp, Timestamp)> = None;
        // From the oldest run to the newest.
        for (at, run) in self.runs.iter().enumerate().rev() {
            let (from, to, bytes) = (run.min_time(), run.max_time(), run.len_bytes());
            let fits = run.l0 && self.is_small(run);
            if let Some((group, oldest, newest_of_oldest)) = &mut open {
                let full = group.bytes >= self.wanted || group.at.len() >= self.settings.join_width;
                if fits && !full && self.is_one_slice(*oldest, *newest_of_oldest, to) {
                    group.at.start = at;
                    group.bytes += bytes;
                    continue;
                }
                group.closed = true;
                groups.extend(open.take().map(|(g, ..)| g));
            }
            open = fits.then(|| (Group { at: at..at + 1, bytes, closed: false }, from, to));
        }
        groups.extend(open.map(|(g, ..)| g));
        groups.reverse();
        groups
    }

    fn due(&self, group: &Group, now: Timestamp) -> Option<(&'static str, u32)> {
        let width = group.at.len();
        if width < 2 {
            return None;
        }
        if group.bytes >= self.wanted || width >= self.settings.join_width {
            return Some(("full", 100));
        }
        let newest = self.runs[group.at.start].max_time();
        let is_over = self.mode.window_end(newest).is_some_and(|end| end <= now);
        if group.closed || is_over {
            return Some(("slice_over", 100));
        }
        let others = self.runs.len() - width;
        let most = others.clamp(self.settings.l0_trigger.max(2), self.settings.join_width);
        (width >= most).then(|| ("gathered", percent(width as u64, most as u64)))
    }

    /// Beyond the bound any small neighbours of one slice are joined, cheapest first.
    fn crowded(&self) -> Option<(Range<usize>, &'static str, u32)> {
        if self.runs.len() <= self.settings.max_slices {
            return None;
        }
        let mut best: Option<(u64, Range<usize>)> = None;
        for (from, run) in self.runs.iter().enumerate() {
            let (mut bytes, to_time) = (0u64, run.max_time());
            for (at, older) in self.runs.iter().enumerate().skip(from).take(self.settings.join_width) {
                bytes += older.len_bytes();
                let small = self.is_small(older) && bytes <= self.wanted;
                if !small || !self.is_one_slice(older.min_time(), older.max_time(), to_time) {
                    break;
                }
                let width = (at + 1 - from) as u64;
                if width > 1 && best.as_ref().is_none_or(|(c, _)| bytes / (width - 1) < *c) {
                    best = Some((bytes / (width - 1), from..at + 1));
                }
            }
        }
        let score = percent(self.runs.len() as u64, self.settings.max_slices as u64);
        best.map(|(_, at)| (at, "too_many_runs", score))
    }
}
