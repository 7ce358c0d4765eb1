//! What to work on next: a manifest and what others work on in, a task out. Pure but for the instants.
//!
//! Every worker of every process chooses by the same rules and then claims. Who comes second goes on with something
//! else: he leaves what is claimed alone for a moment and plans around it.
//!
//! 1. Retention, which reads nothing, or a merge of flushed runs alone: it is small, and reads get slower with every run
//!    that waits.
//! 2. A part of a merge that has been begun: nothing of it is gained before its last part.
//! 3. Whatever else the planner wants of the runs that nobody works on, the most due first.

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
    /// `None` while a worker of this process is at it.
    until: Option<Instant>,
}

impl Busy {
    /// A worker of this process begins `task`.
    pub(crate) fn begin(&mut self, task: &Task) {
        self.jobs.insert(task.job(), Held { inputs: task.inputs(), until: None });
    }

    /// It has ended.
    pub(crate) fn end(&mut self, task: &Task) {
        self.jobs.remove(&task.job());
    }

    /// Another process has claimed it.
    pub(crate) fn elsewhere(&mut self, task: &Task, now: Instant) {
        self.jobs.insert(task.job(), Held { inputs: task.inputs(), until: Some(now + LEFT_ALONE) });
    }

    /// When something that others work on, or that was damaged, may be looked at again.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.jobs.values().filter_map(|held| held.until).chain(self.damage.next_look()).min()
    }

    /// Forgets what others worked on a moment ago.
    pub(crate) fn look_again(&mut self, now: Instant) {
        self.damage.look_again(now);
        self.jobs.retain(|_, held| held.until.is_none_or(|until| now < until));
    }

    /// It turned out to be a dead one's claim.
    pub(crate) fn freed(&mut self, job: JobId) {
        self.jobs.remove(&job);
    }

    /// Whether nothing is worked on, as far as is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
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

    fn runs(&self) -> BTreeSet<RunId> {
        self.jobs.values().flat_map(|held| held.inputs.iter().copied()).collect()
    }
}

/// The next task that nobody is known to work on. `full` asks for everything in one run first.
pub(crate) fn next(
    manifest: &Manifest,
    settings: &CompactorSettings,
    now: Timestamp,
    busy: &Busy,
    full: bool,
) -> Option<Task> {
    let damaged = busy.damage.runs(manifest);
    let mut taken = busy.runs();
    taken.extend(manifest.staged.values().flat_map(|m| m.inputs.iter().copied()));
    taken.extend(&damaged);
    let is_free = |task: &Task| !busy.has(task.job()) && task.inputs().iter().all(|run| !taken.contains(run));
    let planned = match full.then(|| plan::full(manifest, settings)).flatten() {
        Some(everything) => Some(Task::Merge(everything)).filter(is_free),
        None => plan::all_but(manifest, settings, now, busy.unreadable())
            .into_iter()
            .map(Task::from)
            .find(is_free)
            .or_else(|| between(manifest, settings, now, &taken).filter(is_free)),
    };
    if let Some(first) = planned.as_ref().filter(|task| !full && goes_first(task, manifest)) {
        return Some(first.clone());
    }
    let whole = manifest.staged.iter().filter(|(_, m)| m.inputs.iter().all(|run| !damaged.contains(run)));
    let mut parts = whole.flat_map(|(id, m)| m.missing().map(|part| Task::Part(*id, part)));
    parts.find(is_free).or(planned)
}

/// Retention, which reads nothing, and merges of flushed runs alone.
fn goes_first(task: &Task, manifest: &Manifest) -> bool {
    let l0 = |id: &RunId| manifest.runs.iter().any(|r| r.id == *id && r.l0);
    match task {
        Task::Merge(planned) => planned.inputs.iter().all(l0),
        Task::Expire => true,
        Task::Part(..) => false,
    }
}

/// What the planner wants of the runs between those that are taken. Only where runs of any place are alike, which levels
/// and slices of time are not.
fn between(
    manifest: &Manifest,
    settings: &CompactorSettings,
    now: Timestamp,
    taken: &BTreeSet<RunId>,
) -> Option<Task> {
    if taken.is_empty() || manifest.compaction != CompactionMode::Merge {
        return None;
    }
    Stretch::between(manifest, taken)
        .find_map(|stretch| plan::merges(stretch, settings, now).into_iter().next())
        .map(Task::Merge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isle_storage::ids::{DatabaseId, Lineage, SeqNo};
    use isle_storage::manifest::{Key, Run, StagedMerge, TableEntry};
    use std::sync::Arc;

    const M: u64 = 1 << 20;

    /// Runs newest first, as `(is L0, bytes)`; ids count down to 1.
    fn manifest(runs: &[(bool, u64)]) -> Manifest {
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

    fn begin(m: &mut Manifest, inputs: &[u64]) -> Version {
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

    #[test]
    fn workers_find_different_work_until_there_is_none() {
        let s = CompactorSettings { tier_width: 4, ..CompactorSettings::default() };
        let big = [(false, 90 * M), (false, 80 * M), (false, 85 * M), (false, 81 * M)];
        let mut m = manifest(&[&[(true, M); 4][..], &big].concat());
        let mut busy = Busy::default();
        let now = Instant::now();
        // L0 first, then the tier beneath it.
        let first = next(&m, &s, Timestamp(0), &busy, false);
        assert_eq!(inputs(first.clone()), [8, 7, 6, 5]);
        busy.elsewhere(&first.unwrap(), now);
        let second = next(&m, &s, Timestamp(0), &busy, false);
        assert_eq!(inputs(second.clone()), [4, 3, 2, 1]);
        // It was large, and is begun in parts; two workers take them, a third finds nothing.
        let merge = begin(&mut m, &[4, 3, 2, 1]);
        for part in [0, 1] {
            let task = next(&m, &s, Timestamp(0), &busy, false).unwrap();
            assert_eq!(task, Task::Part(merge, part));
            busy.begin(&task);
        }
        assert_eq!(next(&m, &s, Timestamp(0), &busy, false), None);
        // What was claimed elsewhere a while ago may be free again; what this process does is not.
        busy.look_again(now + LEFT_ALONE);
        assert_eq!(inputs(next(&m, &s, Timestamp(0), &busy, false)), [8, 7, 6, 5]);
        assert_eq!(next(&m, &s, Timestamp(0), &busy, true), None, "everything has to wait for the others");
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
        assert!(inputs(next(&m, &s, Timestamp(0), &Busy::default(), false)).ends_with(&[2, 1]));
        let mut busy = Busy::default();
        let mut beneath = plan::full(&m, &s).unwrap();
        beneath.inputs = vec![RunId(1)];
        busy.begin(&Task::Merge(beneath));
        assert_eq!(next(&m, &s, Timestamp(0), &busy, false), None);
    }

    /// The damaged run is a wall, and its merge in parts is nobody's work; above and beneath it work goes on.
    #[test]
    fn a_damaged_run_stands_in_nobodys_way() {
        let s = CompactorSettings { tier_width: 2, ..CompactorSettings::default() };
        let mut m = manifest(&[(false, 10 * M); 5]);
        let (mut busy, now) = (Busy::default(), Instant::now());
        let damaged = m.runs[2].tables[0].path().to_string();
        let pause = busy.damage.found(&damaged, "a checksum", now);
        assert_eq!(inputs(next(&m, &s, Timestamp(0), &busy, false)), [5, 4]);
        begin(&mut m, &[4, 3]);
        assert_eq!(inputs(next(&m, &s, Timestamp(0), &busy, false)), [2, 1]);
        assert_eq!(busy.next_look(), Some(now + pause));
        busy.look_again(now + pause);
        assert_eq!(next(&m, &s, Timestamp(0), &busy, false), Some(Task::Part(Version(9), 0)));
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
        let Some(Task::Merge(planned)) = next(&m, &s, Timestamp(0), &busy, false) else {
            panic!("two are free")
        };
        assert_eq!(planned.inputs, [RunId(6), RunId(5)]);
        assert!(!planned.bottom);
    }
}
