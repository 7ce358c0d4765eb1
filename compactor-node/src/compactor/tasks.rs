//! What to work on next: a manifest and what others work on in, a task out. Pure but for the instants.
//!
//! Every worker of every process chooses by the same rules and then claims. Who comes second goes on with something
//! else: he leaves what is claimed alone for a moment and plans around it.
//!
//! 1. Retention, which reads nothing, or a merge of flushed runs alone: it is small, and reads get slower with every run
//!    that waits. And what has waited so long that it is [`URGENT`].
//! 2. A part of a merge that has been begun: nothing of it is gained before its last part.
//! 3. Whatever else the planner wants of the runs that nobody works on, the most due first.
//!
//! A person's request comes before all but the parts, and a pause lets nothing pass but retention.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use isle_storage::ids::{JobId, RunId, Timestamp, Version};
use isle_storage::manifest::{CompactionMode, Manifest};
use isle_storage::row::BlobId;
use tokio::time::Instant;

use super::damage::Damage;
use crate::parts::part_job;
use crate::plan::{self, MergePlan, Plan, Stretch};
use crate::settings::CompactorSettings;

/// For how long what another process has claimed is left alone. A dead one's claim is found to be gone this late.
const LEFT_ALONE: Duration = Duration::from_secs(2);

/// What is more than so due, in percent, goes before the parts of a merge that has been begun: those may take hours, and
/// twice what starts a merge has gathered by then.
const URGENT: u32 = 200;

/// A piece of work that one worker does under one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// A merge from its beginning: in one go, or cut into parts.
    Merge(MergePlan),
    /// A part of a merge that has been begun.
    Part(Version, u32),
    /// Tables whose retention has ended go.
    Expire,
}

impl From<Plan> for Task {
    fn from(plan: Plan) -> Self {
        match plan {
            Plan::Merge(planned) => Self::Merge(planned),
            Plan::Expire(_) => Self::Expire,
        }
    }
}

impl Task {
    /// The id under which it is claimed.
    pub(crate) fn job(&self) -> JobId {
        match self {
            Self::Merge(planned) => planned.job(),
            Self::Part(merge, part) => part_job(*merge, *part),
            Self::Expire => plan::job_named("retention"),
        }
    }

    /// Bytes to read, about.
    pub(crate) fn bytes(&self, manifest: &Manifest) -> u64 {
        match self {
            Self::Merge(planned) => planned.bytes,
            Self::Part(merge, _) => manifest.staged.get(merge).map_or(0, |m| {
                let inputs = manifest.runs.iter().filter(|r| m.inputs.contains(&r.id));
                inputs.map(|r| r.len_bytes()).sum::<u64>() / u64::from(m.part_count())
            }),
            Self::Expire => 0,
        }
    }

    fn inputs(&self) -> Vec<RunId> {
        match self {
            Self::Merge(planned) => planned.inputs.clone(),
            // A part's are held by the manifest itself; retention takes whatever is over.
            Self::Part(..) | Self::Expire => Vec::new(),
        }
    }
}

/// What may be worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Whatever is due.
    All,
    /// A person has asked for this.
    Request(MergePlan),
    /// Merges are paused. Retention is a promise about the data, and a pause is about load.
    Retention,
}

/// What is worked on, by this process and as far as it knows by others, and what nobody should work on now.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    jobs: BTreeMap<JobId, Held>,
    pub(super) damage: Damage,
    /// Blob files with a value that could not be read: values are not moved out of them as long as this process lives.
    unreadable: BTreeSet<BlobId>,
}

#[derive(Debug)]
struct Held {
    inputs: Vec<RunId>,
    by: By,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// A worker of this process, or nobody any more for as long as it lives: it has failed.
    Us,
    /// Another process, as was seen, or nobody, after a failure; not to be tried again before that.
    Other(Instant),
    /// Nobody: it is larger than this process may read. What is smaller may take its inputs.
    Size,
}

impl Busy {
    /// A worker of this process begins `task`.
    pub(crate) fn begin(&mut self, task: &Task) {
        self.jobs.insert(task.job(), Held { inputs: task.inputs(), by: By::Us });
    }

    /// It has failed and is not tried again.
    pub(crate) fn leave_out(&mut self, task: &Task) {
        self.begin(task);
    }

    /// It is too large for this process.
    pub(crate) fn too_large(&mut self, task: &Task) {
        self.jobs.insert(task.job(), Held { inputs: task.inputs(), by: By::Size });
    }

    /// It has ended.
    pub(crate) fn end(&mut self, task: &Task) {
        self.jobs.remove(&task.job());
    }

    /// Another process has claimed it.
    pub(crate) fn elsewhere(&mut self, task: &Task, now: Instant) {
        self.jobs.insert(task.job(), Held { inputs: task.inputs(), by: By::Other(now + LEFT_ALONE) });
    }

    /// It has failed, and something else is to be tried first.
    pub(crate) fn aside(&mut self, task: &Task, until: Instant) {
        self.jobs.insert(task.job(), Held { inputs: task.inputs(), by: By::Other(until) });
    }

    /// When something that others work on, or that was damaged, may be looked at again.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        let until = |held: &Held| if let By::Other(until) = held.by { Some(until) } else { None };
        self.jobs.values().filter_map(until).chain(self.damage.next_look()).min()
    }

    /// Forgets what others worked on a moment ago.
    pub(crate) fn look_again(&mut self, now: Instant) {
        self.damage.look_again(now);
        self.jobs.retain(|_, held| !matches!(held.by, By::Other(until) if until <= now));
    }

    /// It turned out to be a dead one's claim.
    pub(crate) fn freed(&mut self, job: JobId) {
        self.jobs.remove(&job);
    }

    /// Values of this blob file cannot be moved.
    pub(crate) fn give_up(&mut self, blob: BlobId) {
        self.unreadable.insert(blob);
    }

    /// Blob files whose values cannot be moved.
    pub(crate) fn unreadable(&self) -> &BTreeSet<BlobId> {
        &self.unreadable
    }

    fn has(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job)
    }

    /// The runs that are worked on.
    fn runs(&self) -> BTreeSet<RunId> {
        self.inputs(|by| by != By::Size)
    }

    fn inputs(&self, counts: impl Fn(By) -> bool) -> BTreeSet<RunId> {
        let held = self.jobs.values().filter(|held| counts(held.by));
        held.flat_map(|held| held.inputs.iter().copied()).collect()
    }
}

/// The next task in `scope` that nobody is known to work on.
pub(crate) fn next(
    manifest: &Manifest,
    settings: &CompactorSettings,
    now: Timestamp,
    busy: &Busy,
    scope: Scope,
) -> Option<Task> {
    let damaged = busy.damage.runs(manifest);
    let mut apart = damaged.clone();
    apart.extend(manifest.staged.values().flat_map(|m| m.inputs.iter().copied()));
    let taken = &busy.runs() | &apart;
    let is_free = |task: &Task| !busy.has(task.job()) && task.inputs().iter().all(|run| !taken.contains(run));
    let due = || -> Vec<Task> {
        let walls = &busy.inputs(|_| true) | &apart;
        let all = plan::all_but(manifest, settings, now, busy.unreadable()).into_iter().map(Task::from);
        all.chain(between(manifest, settings, now, &walls)).filter(is_free).collect()
    };
    let first = |due: &[Task]| due.iter().find(|task| goes_first(task, manifest)).cloned();
    let (before_parts, after_parts) = match scope {
        Scope::Retention => {
            return plan::expire(manifest, settings, now).map(|_| Task::Expire).filter(is_free);
        }
        // One that is blocked for hours holds up no more than what would end before it.
        Scope::Request(planned) if planned.inputs.iter().any(|run| apart.contains(run)) => {
            (first(&due()), None)
        }
        Scope::Request(planned) => (None, Some(Task::Merge(planned)).filter(is_free)),
        Scope::All => {
            let due = due();
            (first(&due), due.into_iter().next())
        }
    };
    if before_parts.is_some() {
        return before_parts;
    }
    let whole = manifest.staged.iter().filter(|(_, m)| m.inputs.iter().all(|run| !damaged.contains(run)));
    let mut parts = whole.flat_map(|(id, m)| m.missing().map(|part| Task::Part(*id, part)));
    parts.find(is_free).or(after_parts)
}

/// Retention, which reads nothing, merges of flushed runs alone, and whatever is urgent.
fn goes_first(task: &Task, manifest: &Manifest) -> bool {
    match task {
        Task::Merge(planned) => {
            planned.score > URGENT || planned.inputs.iter().all(|id| is_l0(manifest, *id))
        }
        Task::Expire => true,
        Task::Part(..) => false,
    }
}

/// What the planner wants of the runs between those that are taken. Only where runs of any place are alike, which slices of
/// time are not; and of levels, only that what was flushed goes down as far as it can.
fn between<'a>(
    manifest: &'a Manifest,
    settings: &'a CompactorSettings,
    now: Timestamp,
    walls: &'a BTreeSet<RunId>,
) -> impl Iterator<Item = Task> {
    let stretches = match manifest.compaction {
        _ if walls.is_empty() => 0,
        CompactionMode::Merge => usize::MAX,
        CompactionMode::Leveled => 1,
        CompactionMode::Fifo { .. } | CompactionMode::TimeWindow { .. } => 0,
    };
    let fresh = |plan: &MergePlan| plan.inputs.first().is_some_and(|id| is_l0(manifest, *id));
    let anything = manifest.compaction == CompactionMode::Merge;
    Stretch::between(manifest, walls)
        .take(stretches)
        .flat_map(move |stretch| plan::merges(stretch, settings, now))
        .filter(move |plan| anything || fresh(plan))
        .map(Task::Merge)
}

fn is_l0(manifest: &Manifest, id: RunId) -> bool {
    manifest.runs.iter().any(|r| r.id == id && r.l0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use isle_storage::ids::{DatabaseId, Lineage, SeqNo};
    use isle_storage::manifest::{Key, Run, StagedMerge, TableEntry};
    use std::sync::Arc;

    const M: u64 = 1 << 20;

    /// Runs newest first, as `(is L0, bytes)`; ids count down to 1.
    pub(in crate::compactor) fn manifest(runs: &[(bool, u64)]) -> Manifest {
        let mut m = Manifest::genesis(DatabaseId(1), Lineage(1), CompactionMode::Merge);
        for (i, (l0, len)) in runs.iter().enumerate() {
            let seq = (runs.len() - i) as u64;
            let key = Key(bytes::Bytes::from_static(b"k"));
            let table = TableEntry {
                name: format!("t{i}"),
                len: *len,
                meta_offset: len / 2,
                crc: 0,
                smallest: key.clone(),
                largest: key,
                min_seq: SeqNo(seq),
                max_seq: SeqNo(seq),
                min_time: Timestamp(0),
                max_time: Timestamp(0),
                rows: 1,
                deletes: 0,
                min_expires: None,
                expiring: None,
                raw_bytes: *len,
                blobs: Vec::new(),
                blob_use: Vec::new(),
                extra: Default::default(),
            };
            m.runs.push(Arc::new(Run { id: RunId(seq), l0: *l0, tables: vec![Arc::new(table)] }));
        }
        m
    }

    pub(in crate::compactor) fn begin(m: &mut Manifest, inputs: &[u64]) -> Version {
        let merge = StagedMerge {
            inputs: inputs.iter().map(|id| RunId(*id)).collect(),
            splits: vec![Key(bytes::Bytes::from_static(b"m"))],
            snapshots: Vec::new(),
            planned_mode: CompactionMode::Merge,
            bottom: true,
            expiry: None,
            touched: Timestamp(0),
            parts: BTreeMap::new(),
            extra: BTreeMap::new(),
        };
        m.staged.insert(Version(9), Arc::new(merge));
        Version(9)
    }

    fn inputs(task: Option<Task>) -> Vec<u64> {
        match task {
            Some(Task::Merge(p)) => p.inputs.iter().map(|r| r.0).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn everything(m: &Manifest, s: &CompactorSettings) -> MergePlan {
        plan::full(m, s, Timestamp(0), SeqNo(u64::MAX)).unwrap()
    }

    #[test]
    fn workers_find_different_work_until_there_is_none() {
        let s = CompactorSettings { tier_width: 4, ..CompactorSettings::default() };
        let big = [(false, 90 * M), (false, 80 * M), (false, 85 * M), (false, 81 * M)];
        let mut m = manifest(&[&[(true, M); 4][..], &big].concat());
        let mut busy = Busy::default();
        let now = Instant::now();
        // L0 first, then the tier beneath it.
        let first = next(&m, &s, Timestamp(0), &busy, Scope::All);
        assert_eq!(inputs(first.clone()), [8, 7, 6, 5]);
        busy.elsewhere(&first.unwrap(), now);
        let second = next(&m, &s, Timestamp(0), &busy, Scope::All);
        assert_eq!(inputs(second.clone()), [4, 3, 2, 1]);
        // It was large, and is begun in parts; two workers take them, a third finds nothing.
        let merge = begin(&mut m, &[4, 3, 2, 1]);
        for part in [0, 1] {
            let task = next(&m, &s, Timestamp(0), &busy, Scope::All).unwrap();
            assert_eq!(task, Task::Part(merge, part));
            busy.begin(&task);
        }
        assert_eq!(next(&m, &s, Timestamp(0), &busy, Scope::All), None);
        // What was claimed elsewhere a while ago may be free again; what this process does is not.
        busy.look_again(now + LEFT_ALONE);
        assert_eq!(inputs(next(&m, &s, Timestamp(0), &busy, Scope::All)), [8, 7, 6, 5]);
        busy.begin(&next(&m, &s, Timestamp(0), &busy, Scope::All).unwrap());
        let everything = Scope::Request(everything(&m, &s));
        assert_eq!(next(&m, &s, Timestamp(0), &busy, everything), None, "it has to wait for the others");
    }

    /// A run of tombstones above a merge that somebody else is at: merged alone it would be the same run of tombstones.
    #[test]
    fn waste_waits_for_the_bottom() {
        let s = CompactorSettings::default();
        let mut m = manifest(&[(false, M), (false, M), (false, 90 * M)]);
        for run in m.runs.iter_mut().take(2) {
            for table in &mut Arc::make_mut(run).tables {
                let table = Arc::make_mut(table);
                (table.rows, table.deletes) = (100, 100);
            }
        }
        assert!(inputs(next(&m, &s, Timestamp(0), &Busy::default(), Scope::All)).ends_with(&[2, 1]));
        let mut busy = Busy::default();
        let mut beneath = everything(&m, &s);
        beneath.inputs = vec![RunId(1)];
        busy.begin(&Task::Merge(beneath));
        assert_eq!(next(&m, &s, Timestamp(0), &busy, Scope::All), None);
    }

    /// The parts of one large merge take hours. What gathers meanwhile does not wait for the last of them.
    #[test]
    fn what_is_urgent_goes_before_parts() {
        let s = CompactorSettings::default();
        let task = |fresh: usize| {
            let levels = [(false, 64 * M), (false, 6_000 * M), (false, 60_000 * M)];
            let mut m = manifest(&[&vec![(true, M); fresh][..], &levels].concat());
            m.compaction = CompactionMode::Leveled;
            let merge = begin(&mut m, &[2, 1]);
            (next(&m, &s, Timestamp(0), &Busy::default(), Scope::All), merge)
        };
        let (some, merge) = task(7);
        assert_eq!(some, Some(Task::Part(merge, 0)));
        let (many, _) = task(9);
        assert_eq!(inputs(many), (3..=12).rev().collect::<Vec<_>>(), "with the level above the merge");
    }

    /// What was flushed would go down into the very levels that a merge in parts holds: it goes as far as it can.
    #[test]
    fn levels_that_are_taken_do_not_hold_up_what_was_flushed() {
        let s = CompactorSettings::default();
        let mut m = manifest(&[&[(true, M); 9][..], &[(false, 64 * M), (false, 600 * M)]].concat());
        m.compaction = CompactionMode::Leveled;
        let busy = Busy::default();
        assert_eq!(inputs(next(&m, &s, Timestamp(0), &busy, Scope::All)).len(), 11);
        begin(&mut m, &[1]);
        let Some(Task::Merge(planned)) = next(&m, &s, Timestamp(0), &busy, Scope::All) else {
            panic!("nine runs wait")
        };
        assert_eq!((planned.inputs.len(), planned.bottom), (10, false));
    }

    /// Merges of flushed runs go first also where something else is more due, and neither is urgent.
    #[test]
    fn a_merge_of_flushed_runs_goes_before_parts_whatever_else_is_due() {
        let s = CompactorSettings { tier_width: 4, ..CompactorSettings::default() };
        let mut m =
            manifest(&[&[(true, M); 4][..], &[(false, 50 * M); 6], &[(false, 9_000 * M); 2]].concat());
        let merge = begin(&mut m, &[2, 1]);
        let mut busy = Busy::default();
        let l0 = next(&m, &s, Timestamp(0), &busy, Scope::All);
        assert_eq!(inputs(l0.clone()), [12, 11, 10, 9]);
        busy.begin(&l0.unwrap());
        assert_eq!(next(&m, &s, Timestamp(0), &busy, Scope::All), Some(Task::Part(merge, 0)));
    }

    /// What failed is a wall like any other; of what is only too large the inputs are free for less.
    #[test]
    fn what_is_left_out_stands_in_the_way_of_itself_only() {
        let s = CompactorSettings { max_merge_width: 6, ..CompactorSettings::default() };
        let m = manifest(&[(true, M); 10]);
        let mut busy = Busy::default();
        let first = next(&m, &s, Timestamp(0), &busy, Scope::All);
        assert_eq!(inputs(first.clone()), [6, 5, 4, 3, 2, 1]);
        busy.leave_out(first.as_ref().unwrap());
        assert_eq!(inputs(next(&m, &s, Timestamp(0), &busy, Scope::All)), [10, 9, 8, 7]);
        busy.too_large(first.as_ref().unwrap());
        assert_eq!(inputs(next(&m, &s, Timestamp(0), &busy, Scope::All)), [10, 9, 8, 7]);
    }

    /// Everything waits for a merge of hours; what has been flushed does not.
    #[test]
    fn a_request_that_is_blocked_holds_up_no_flushed_runs() {
        let s = CompactorSettings::default();
        let mut m = manifest(&[&[(true, M); 4][..], &[(false, 50 * M); 6], &[(false, 900 * M); 2]].concat());
        let merge = begin(&mut m, &[2, 1]);
        let mut busy = Busy::default();
        let requested = || Scope::Request(everything(&m, &s));
        let l0 = next(&m, &s, Timestamp(0), &busy, requested());
        assert_eq!(inputs(l0.clone()), [12, 11, 10, 9]);
        busy.begin(&l0.unwrap());
        for part in 0..2 {
            let task = next(&m, &s, Timestamp(0), &busy, requested());
            assert_eq!(task, Some(Task::Part(merge, part)));
            busy.begin(&task.unwrap());
        }
        assert_eq!(next(&m, &s, Timestamp(0), &busy, requested()), None, "not the six");
    }

    #[test]
    fn a_pause_lets_retention_pass() {
        let s = CompactorSettings { max_clock_skew_seconds: 0, ..CompactorSettings::default() };
        let mut m = manifest(&[(true, M); 10]);
        let at = |now| next(&m, &s, Timestamp(now), &Busy::default(), Scope::Retention);
        assert_eq!(at(i64::MAX), None);
        m.compaction = CompactionMode::Fifo { retention_us: 100, retention_count: 0 };
        let at = |now| next(&m, &s, Timestamp(now), &Busy::default(), Scope::Retention);
        assert_eq!((at(99), at(100)), (None, Some(Task::Expire)));
    }

    /// The damaged run is a wall, and its merge in parts is nobody's work; above and beneath it work goes on.
    #[test]
    fn a_damaged_run_stands_in_nobodys_way() {
        let s = CompactorSettings { tier_width: 2, ..CompactorSettings::default() };
        let mut m = manifest(&[(false, 10 * M); 5]);
        let (mut busy, now) = (Busy::default(), Instant::now());
        let damaged = m.runs[2].tables[0].path().to_string();
        let pause = busy.damage.found(&damaged, "a checksum", now);
        assert_eq!(inputs(next(&m, &s, Timestamp(0), &busy, Scope::All)), [5, 4]);
        begin(&mut m, &[4, 3]);
        assert_eq!(inputs(next(&m, &s, Timestamp(0), &busy, Scope::All)), [2, 1]);
        assert_eq!(busy.next_look(), Some(now + pause));
        busy.look_again(now + pause);
        assert_eq!(next(&m, &s, Timestamp(0), &busy, Scope::All), Some(Task::Part(Version(9), 0)));
        m.staged.clear();
        m.runs.remove(2);
        busy.damage.forget_gone(&m);
        assert_eq!(busy.damage.len(), 0);
    }

    #[test]
    fn a_plan_between_walls_is_at_the_bottom_only_where_it_is() {
        let s = CompactorSettings { tier_width: 2, ..CompactorSettings::default() };
        let m = manifest(&[(false, 10 * M); 6]);
        let mut busy = Busy::default();
        let wall = |ids: &[u64]| {
            let mut planned = plan::merge(&m, &s).unwrap();
            planned.inputs = ids.iter().map(|id| RunId(*id)).collect();
            Task::Merge(planned)
        };
        busy.begin(&wall(&[4, 3]));
        busy.begin(&wall(&[1]));
        let Some(Task::Merge(planned)) = next(&m, &s, Timestamp(0), &busy, Scope::All) else {
            panic!("two are free")
        };
        assert_eq!(planned.inputs, [RunId(6), RunId(5)]);
        assert!(!planned.bottom);
    }
}
