//! The planner: a manifest and an instant in, the next piece of work out, with its reason and its score. Pure.
//!
//! # What a run is, in each mode
//! Runs stand newest first, and a run's sequence numbers lie wholly above the next one's. Only neighbours merge, and the
//! result takes exactly their place, so newer never loses to older, whatever the mode. A read looks into the runs newest
//! first, and stops where it finds the key: so the number of runs is what a read pays, and every policy bounds it.
//!
//! | mode | runs | who bounds them |
//! | --- | --- | --- |
//! | `merge`, tiered | of similar size merge: few large ones, some small ones | [`tiered`] |
//! | `merge`, leveled | one is one level, each many times larger than the one above | [`leveled`] |
//! | `fifo`, `time_window` | slices of time, one beside the other; each row is written twice, not log(size) times | [`joins`], and [`retention`] at the old end |
//!
//! # Turns
//! Every policy says how due its work is, in percent: 100 is due. The highest goes first, and what waits grows: L0 runs
//! that gather, runs that pile up. Nothing is planned for ever before something else. Retention costs no I/O and goes
//! first; a run full of tombstones or of expired rows ([`waste`]) is work of its own, or it would lie beneath until
//! something large enough comes down on it. So are blob files of which little is alive ([`blobs`]).
//!
//! # Time
//! Retention and expiry make work without any commit. [`Outlook::look_again`] is the next instant at which they may, and
//! whoever has nothing to do, or finds all that is due in others' hands, sleeps until then. Instants are judged `max_clock_skew` late: what is
//! over here is over on every clock.

mod blobs;
mod joins;
mod leveled;
mod retention;
mod tiered;
mod waste;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use isle_storage::ids::{JobId, RunId, SeqNo, Timestamp};
use isle_storage::manifest::{Change, CompactionMode, Manifest, Run};
use isle_storage::row::BlobId;

use crate::settings::CompactorSettings;

pub use blobs::{Moving, due as due_blobs};
pub use retention::{expire, next_end, over};

/// Why the merge is planned that a person has asked for, and one without which there are too many runs for it.
const REQUESTED: &str = "requested";
const ON_THE_WAY: &str = "requested_first";

/// The next piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Neighbouring runs become one.
    Merge(MergePlan),
    /// The oldest tables go: their retention has ended.
    Expire(ExpirePlan),
}

/// A merge of neighbouring runs into one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergePlan {
    /// The inputs, newest first.
    pub inputs: Vec<RunId>,
    /// Whether nothing lies beneath them: deletes and expired rows may go.
    pub bottom: bool,
    /// Bytes to read.
    pub bytes: u64,
    /// Where it is about nothing but values that move out of blob files: which.
    pub moving: Option<Moving>,
    /// Every snapshot's sequence number at planning time.
    pub snapshots: Vec<SeqNo>,
    /// The mode it was planned in.
    pub mode: CompactionMode,
    /// Why, for people.
    pub reason: &'static str,
    /// How due it is, in percent.
    pub score: u32,
}

/// Tables whose retention has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpirePlan {
    /// Their names: whole runs from the oldest on, and of the next one any.
    pub tables: Vec<String>,
    /// Rows in them.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The instant it was judged at.
    pub as_of: Timestamp,
    /// The mode it was planned in.
    pub mode: CompactionMode,
    /// Why, for people.
    pub reason: &'static str,
    /// How due it is, in percent.
    pub score: u32,
}

/// Neighbouring runs for which merges are planned: all of them, or those between others that somebody works on.
#[derive(Debug, Clone, Copy)]
pub struct Stretch<'a> {
    manifest: &'a Manifest,
    /// Newest first.
    runs: &'a [Arc<Run>],
}

/// What there is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// The most due work.
    pub plan: Option<Plan>,
    /// The next instant at which time alone may make work, or other work. A new manifest always may.
    pub look_again: Option<Timestamp>,
}

impl Plan {
    /// The id under which it is claimed.
    #[must_use]
    pub fn job(&self) -> JobId {
        match self {
            Self::Merge(plan) => plan.job(),
            Self::Expire(_) => job_named("retention"),
        }
    }

    /// Why, for people.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Merge(plan) => plan.reason,
            Self::Expire(plan) => plan.reason,
        }
    }

    /// How due it is, in percent.
    #[must_use]
    pub fn score(&self) -> u32 {
        match self {
            Self::Merge(plan) => plan.score,
            Self::Expire(plan) => plan.score,
        }
    }

    /// Bytes it reads.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Merge(plan) => plan.bytes,
            Self::Expire(_) => 0,
        }
    }
}

impl MergePlan {
    /// The id under which the merge is claimed: the same for everybody who plans the same inputs.
    #[must_use]
    pub fn job(&self) -> JobId {
        let mut text = String::from("merge");
        for id in &self.inputs {
            text.push('/');
            text.push_str(&id.to_string());
        }
        job_named(&text)
    }

    /// Whether it is all of what a person has asked for ([`full`]), and not only on the way there.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.reason == REQUESTED
    }
}

impl ExpirePlan {
    /// What to commit.
    #[must_use]
    pub fn change(&self) -> Change {
        Change::Expire { tables: self.tables.clone(), planned_mode: self.mode.clone(), as_of: self.as_of }
    }
}

/// The id of a kind of work that only one process does at a time.
#[must_use]
pub fn job_named(name: &str) -> JobId {
    // FNV-1a, 64 bits: stable for ever, and ids only have to differ.
    let hash =
        name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    JobId(hash)
}

/// The most due work at `now`, and when to look again where nobody can be found to do it, or it is done by others.
#[must_use]
pub fn next(manifest: &Manifest, settings: &CompactorSettings, now: Timestamp) -> Outlook {
    let plan = all(manifest, settings, now).into_iter().next();
    Outlook { plan, look_again: look_again(manifest, settings, now) }
}

/// All that is due at `now`, the most due first: whoever finds the first claimed may take another that shares no input.
#[must_use]
pub fn all(manifest: &Manifest, settings: &CompactorSettings, now: Timestamp) -> Vec<Plan> {
    all_but(manifest, settings, now, &BTreeSet::new())
}

/// The same, but for moving values out of blob files that cannot be read.
#[must_use]
pub fn all_but(
    manifest: &Manifest,
    settings: &CompactorSettings,
    now: Timestamp,
    unreadable: &BTreeSet<BlobId>,
) -> Vec<Plan> {
    let judged = certain(now, settings);
    let mut plans: Vec<Plan> = retention::plan(manifest, judged).map(Plan::Expire).into_iter().collect();
    plans.extend(merges(Stretch::whole(manifest), settings, now).into_iter().map(Plan::Merge));
    plans.extend(blobs::plans(manifest, settings, judged, unreadable).into_iter().map(Plan::Merge));
    // Stable: of two that are equally due the first stays first.
    plans.sort_by_key(|p| std::cmp::Reverse(p.score()));
    plans
}

/// The merges of `stretch` that are due at `now`, the most due first.
#[must_use]
pub fn merges(stretch: Stretch<'_>, settings: &CompactorSettings, now: Timestamp) -> Vec<MergePlan> {
    let now = certain(now, settings);
    let shape = match stretch.manifest.compaction {
        CompactionMode::Merge => [tiered::l0(stretch, settings), tiered::tier(stretch, settings)],
        CompactionMode::Leveled => [leveled::l0(stretch, settings), leveled::level(stretch, settings)],
        CompactionMode::Fifo { .. } | CompactionMode::TimeWindow { .. } => {
            [joins::join(stretch, settings, now), None]
        }
    };
    let mut plans: Vec<MergePlan> =
        shape.into_iter().chain([waste::plan(stretch, settings, now)]).flatten().collect();
    plans.sort_by_key(|p| std::cmp::Reverse(p.score));
    plans
}

/// The merge that the shape of the tree alone asks for, whatever the time is.
#[must_use]
pub fn merge(manifest: &Manifest, settings: &CompactorSettings) -> Option<MergePlan> {
    merges(Stretch::whole(manifest), settings, Timestamp(i64::MIN)).into_iter().next()
}

/// Every run that holds a row up to `upto` into one, whatever their sizes: what a person asks for. Where they are more
/// than one merge takes, as many as are too many first, where it costs least. `None` where they are one run already and
/// nothing in it could be dropped now, and where runs are slices of time that must stay apart.
#[must_use]
pub fn full(
    manifest: &Manifest,
    settings: &CompactorSettings,
    now: Timestamp,
    upto: SeqNo,
) -> Option<MergePlan> {
    if manifest.compaction.retention_us().is_some() {
        return None;
    }
    let whole = Stretch::whole(manifest);
    let (from, end) = (manifest.runs.iter().position(|r| r.min_seq() <= upto)?, manifest.runs.len());
    let worth = match &manifest.runs[from..] {
        [one] => one.l0 || waste::has_any(manifest, one, certain(now, settings)),
        _ => true,
    };
    let surplus = (end - from).saturating_sub(settings.max_merge_width);
    if !worth || surplus == 0 {
        return worth.then(|| whole.plan(from, end, REQUESTED, 100));
    }
    let width = (surplus + 1).min(settings.max_merge_width);
    let bytes = |at: &usize| manifest.runs[*at..at + width].iter().map(|r| r.len_bytes()).sum::<u64>();
    let at = (from..=end - width).min_by_key(bytes)?;
    Some(whole.plan(at, at + width, ON_THE_WAY, 100))
}

/// Bytes that the rules would have merged by now: how far compaction is behind.
#[must_use]
pub fn debt_bytes(manifest: &Manifest, settings: &CompactorSettings) -> u64 {
    merge(manifest, settings).map_or(0, |p| p.bytes)
}

/// The next instant at which time alone makes work, on the clock of whoever asks.
fn look_again(manifest: &Manifest, settings: &CompactorSettings, now: Timestamp) -> Option<Timestamp> {
    let certain = certain(now, settings);
    let instants = [
        retention::end_after(manifest, certain),
        joins::next_close(Stretch::whole(manifest), settings, certain),
        waste::next_waste(Stretch::whole(manifest), settings, certain),
    ];
    let next = instants.into_iter().flatten().min()?;
    Some(next.plus(Duration::from_secs(settings.max_clock_skew_seconds)))
}

/// The newest instant that has passed on every clock. What is planned as expired and what a merge takes for expired are
/// judged by it alike, or the same merge would be planned again and again.
#[must_use]
pub fn certain(now: Timestamp, settings: &CompactorSettings) -> Timestamp {
    now.minus(Duration::from_secs(settings.max_clock_skew_seconds))
}

/// `part` of `whole` in percent.
fn percent(part: u64, whole: u64) -> u32 {
    u32::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(u32::MAX)
}

impl<'a> Stretch<'a> {
    /// All runs.
    #[must_use]
    pub fn whole(manifest: &'a Manifest) -> Self {
        Self { manifest, runs: &manifest.runs }
    }

    /// The stretches between the runs that are `taken`, newest first: only neighbours merge, so the taken ones are walls.
    pub fn between(manifest: &'a Manifest, taken: &'a BTreeSet<RunId>) -> impl Iterator<Item = Self> {
        manifest.runs.split(|run| taken.contains(&run.id)).map(move |runs| Self { manifest, runs })
    }

    /// Whether nothing lies beneath it: only there deletes and expired rows may go.
    fn is_at_the_bottom(&self) -> bool {
        self.runs.last().map(|r| r.id) == self.manifest.runs.last().map(|r| r.id)
    }

    /// A merge of the runs `from..to` of it.
    fn plan(&self, from: usize, to: usize, reason: &'static str, score: u32) -> MergePlan {
        let inputs = &self.runs[from..to];
        let mut snapshots: Vec<SeqNo> = self.manifest.snapshots.values().map(|s| s.seq).collect();
        snapshots.sort_unstable();
        snapshots.dedup();
        MergePlan {
            inputs: inputs.iter().map(|r| r.id).collect(),
            bottom: to == self.runs.len() && self.is_at_the_bottom(),
            bytes: inputs.iter().map(|r| r.len_bytes()).sum(),
            moving: None,
            snapshots,
            mode: self.manifest.compaction.clone(),
            reason,
            score,
        }
    }

    /// How many runs at its new end no merge has touched.
    fn l0_runs(&self) -> usize {
        self.runs.iter().take_while(|r| r.l0).count()
    }
}
