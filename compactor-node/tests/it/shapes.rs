//! Any history, in any mode: what the tables show equals an ordered map.
//!
//! Writes, flushes, merges, retention, snapshots and changes of mode in any order, through the real planner, the real
//! merge and its rewriting, the real tables' entries and the real manifest. A merge may begin, and be committed only after
//! other things have happened, or be refused. After every step a read that stops at the first run in which it finds the
//! key, as readers do, must show what the model does: nothing stale, nothing back from the dead, nothing lost but what
//! retention took, and that only when its time had come.
//!
//! Some values lie in blob files, which go as soon as the manifest retires them: whatever a row of a table points at must be
//! there, and be what was written. Values move where the planner, or a merge in passing, moves them.
//!
//! Merges are also done in parts, by workers of different speed, and snapshots are also taken by a clock that is far behind:
//! what they show at that instant must not be gone, now or later.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use compactor_node::CompactorSettings;
use compactor_node::plan::{self, MergePlan, Plan};
use isle_storage::ids::{CommitId, DatabaseId, Epoch, Incarnation, Lineage, RunId, SeqNo, Timestamp};
use isle_storage::manifest::{
    Author, Change, CompactionMode, Edit, EditError, JudgedExpiry, Key, KeyRange, LogEntry, Manifest,
    Snapshot, StagedPart, TableEntry,
};
use isle_storage::merge::{Direction, Feed, Merge, Relocation, Rewrite, Step};
use isle_storage::names::{LogId, LogKind};
use isle_storage::row::{BlobId, BlobPointer, Row, Value};
use isle_storage::sst::{TableBuilder, TableOptions};
use proptest::prelude::*;

use crate::files::Files;

const SECOND: i64 = 1_000_000;
const SKEW: i64 = 2 * SECOND;

/// A planner that does nothing any more within so many steps never will.
const MOST_STEPS: usize = 200;

#[derive(Debug, Clone)]
enum Op {
    /// Keys, and for each what is written: 0 a delete, 1 a row that expires after so many seconds, 2 and 3 a value in the
    /// blob file that all such values of these keys share, otherwise a put.
    Write(Vec<(u8, u8, u8)>),
    Flush,
    /// The log lets go of what is flushed.
    Trim,
    Wait(u16),
    /// The planner's next choice, if there is one.
    Work,
    /// All there is to do, one after the other.
    Drain,
    /// The planner's merge is carried out, and not committed yet.
    Begin,
    /// The same with any neighbours, whatever a planner would say.
    BeginAny(u8, u8),
    Commit,
    /// Any neighbours are begun in two parts, which meet at this key.
    BeginParts(u8, u8, u8),
    /// A worker does the part that nobody has done, and has not committed it yet.
    WorkPart,
    /// Whoever did a part first commits it.
    StagePart,
    /// A person asks for everything in one run.
    Full,
    /// By a clock that is so many seconds behind.
    Snapshot(u8, u8),
    Drop(u8),
    Mode(CompactionMode),
}

fn any_mode() -> impl Strategy<Value = CompactionMode> {
    let fifo = (20i64..200, 0u64..4)
        .prop_map(|(s, retention_count)| CompactionMode::Fifo { retention_us: s * SECOND, retention_count });
    let windows = (5i64..40, 1i64..6, 0u64..30).prop_map(|(s, n, retention_count)| {
        CompactionMode::TimeWindow { segment_us: s * SECOND, retention_us: s * n * SECOND, retention_count }
    });
    prop_oneof![Just(CompactionMode::Merge), Just(CompactionMode::Leveled), fifo, windows]
}

fn any_op() -> impl Strategy<Value = Op> {
    let entries = proptest::collection::vec((0u8..12, 0u8..5, 1u8..90), 1..8);
    prop_oneof![
        6 => entries.prop_map(Op::Write),
        6 => Just(Op::Flush),
        2 => Just(Op::Trim),
        4 => (1u16..60).prop_map(Op::Wait),
        5 => Just(Op::Work),
        2 => Just(Op::Drain),
        2 => Just(Op::Begin),
        3 => any::<(u8, u8)>().prop_map(|(at, width)| Op::BeginAny(at, width)),
        4 => Just(Op::Commit),
        2 => any::<(u8, u8, u8)>().prop_map(|(at, width, key)| Op::BeginParts(at, width, key % 12)),
        4 => Just(Op::WorkPart),
        4 => Just(Op::StagePart),
        1 => Just(Op::Full),
        2 => (any::<u8>(), prop_oneof![Just(0u8), 0u8..100]).prop_map(|(n, behind)| Op::Snapshot(n, behind)),
        2 => any::<u8>().prop_map(Op::Drop),
        1 => any_mode().prop_map(Op::Mode),
    ]
}

fn settings() -> CompactorSettings {
    CompactorSettings {
        l0_trigger: 2,
        tier_width: 3,
        max_runs: 4,
        max_merge_width: 8,
        level_fanout: 3,
        join_width: 4,
        max_slices: 12,
        table_bytes: 4000,
        blob_garbage_percent: 30,
        blob_file_bytes: 1500,
        part_bytes: 900,
        max_clock_skew_seconds: (SKEW / SECOND) as u64,
        ..CompactorSettings::default()
    }
}

/// What a read shows: of each key the version and the value.
type Seen = BTreeMap<Vec<u8>, Version>;

type Version = (SeqNo, Vec<u8>);

/// A table's entry and its rows.
type Made = (TableEntry, Vec<Row>);

struct Held {
    seq: SeqNo,
    created: Timestamp,
    shows: Seen,
}

struct World {
    m: Manifest,
    settings: CompactorSettings,
    now: Timestamp,
    /// Every mutation.
    history: Vec<Row>,
    /// The rows of every live table.
    tables: HashMap<String, Vec<Row>>,
    /// What retention took, as `(key, seq)`.
    gone: BTreeSet<(Vec<u8>, SeqNo)>,
    held: BTreeMap<String, Held>,
    begun: Option<(Change, Vec<Made>)>,
    /// Parts that were done and are not committed, the oldest first.
    worked: VecDeque<(Change, Vec<Made>)>,
    named: u64,
    files: Files,
    /// Every blob file that was ever named.
    known: BTreeSet<BlobId>,
}

impl World {
    fn new(mode: CompactionMode) -> Self {
        let mut world = Self {
            m: Manifest::genesis(DatabaseId(1), Lineage(1), mode),
            settings: settings(),
            now: Timestamp(1000 * SECOND),
            history: Vec::new(),
            tables: HashMap::new(),
            gone: BTreeSet::new(),
            held: BTreeMap::new(),
            begun: None,
            worked: VecDeque::new(),
            named: 0,
            files: Files::default(),
            known: BTreeSet::new(),
        };
        let adopt = Change::Adopt {
            epoch: Epoch(1),
            incarnation: Incarnation(1),
            node: "w".to_owned(),
            rolled: Vec::new(),
        };
        world.commit(vec![adopt]).unwrap();
        world
    }

    fn commit(&mut self, changes: Vec<Change>) -> Result<(), EditError> {
        let required = changes.iter().filter_map(Change::required_feature).map(str::to_owned);
        let edit = Edit {
            version: self.m.version.next(),
            lineage: self.m.lineage,
            epoch: Epoch(1),
            commit: CommitId(self.m.version.0),
            author: Author::Writer,
            required_features: required.collect(),
            changes,
            extra: BTreeMap::new(),
        };
        self.m = self.m.apply(&edit)?;
        self.known.extend(self.m.blobs.keys().cloned());
        let (m, known) = (&self.m, &self.known);
        self.files.retain(|name| m.blobs.contains_key(name) || !known.contains(name));
        Ok(())
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Write(entries) => self.write(entries),
            Op::Flush => self.flush(),
            Op::Trim => self.trim(),
            Op::Wait(seconds) => self.now = self.now.plus(Duration::from_secs(u64::from(*seconds))),
            Op::Work => drop(self.work()),
            Op::Drain => self.drain(),
            Op::Begin => {
                if let Some(plan) = plan::merge(&self.m, &self.settings) {
                    self.begun = Some(self.merge(&plan));
                }
            }
            Op::BeginAny(at, width) => {
                if let Some(plan) = self.any_neighbours(*at, *width) {
                    self.begun = Some(self.merge(&plan));
                }
            }
            Op::Commit => {
                if let Some((change, made)) = self.begun.take() {
                    // Refused where something has happened that it did not reckon with.
                    let _refused = self.commit_merge(change, made);
                }
            }
            Op::BeginParts(at, width, key) => self.begin_parts(*at, *width, *key),
            Op::WorkPart => self.work_part(),
            Op::StagePart => {
                if let Some((change, made)) = self.worked.pop_front() {
                    let _refused = self.commit_merge(change, made);
                }
            }
            Op::Full => {
                self.give_up_parts();
                if let Some(plan) = plan::full(&self.m, &self.settings, self.now, SeqNo(u64::MAX)) {
                    let (change, made) = self.merge(&plan);
                    self.commit_merge(change, made).unwrap();
                }
            }
            Op::Snapshot(n, behind) => self.snapshot(*n, *behind),
            Op::Drop(n) => self.drop_snapshot(*n),
            Op::Mode(mode) => {
                self.commit(vec![Change::SetCompaction { compaction: mode.clone() }]).unwrap();
            }
        }
    }

    fn write(&mut self, entries: &[(u8, u8, u8)]) {
        let first = self.m.last_seq.next();
        let time = self.now.max(self.m.last_write_time);
        let blob = format!("w-{first}");
        let large = entries.iter().enumerate().filter(|(_, (_, kind, _))| is_large(*kind));
        let large: Vec<Vec<u8>> = large.map(|(i, (.., n))| large_value(first.0 + i as u64, *n)).collect();
        let (mut changes, mut blobs) = (Vec::new(), Vec::new());
        let mut places = Vec::new().into_iter();
        if !large.is_empty() {
            places = self.files.write(&blob, large).into_iter();
            let added = [(blob.clone(), self.files.len(&blob))].into();
            changes.push(Change::AddBlobs { blobs: added });
            blobs.push(blob);
        }
        for (i, (key, kind, n)) in entries.iter().enumerate() {
            let seq = SeqNo(first.0 + i as u64);
            let value = match kind {
                0 => Value::Delete,
                kind if is_large(*kind) => Value::Blob(places.next().unwrap()),
                _ => Value::Put(format!("{seq} {}", "x".repeat(usize::from(*n))).into()),
            };
            let expires = (*kind == 1).then(|| time.plus(Duration::from_secs(u64::from(*n))));
            self.history.push(Row { key: vec![b'k', *key].into(), seq, time, expires, value });
        }
        let last_seq = SeqNo(self.m.last_seq.0 + entries.len() as u64);
        let segment = LogEntry {
            kind: LogKind::Segment,
            id: LogId { epoch: Epoch(1), incarnation: Incarnation(1), first_seq: first },
            last_seq,
            len: 100,
            index_offset: 50,
            crc: 1,
            first_time: time,
            last_time: time,
            raw_bytes: 100,
            starts_generation: false,
            blobs,
            extra: BTreeMap::new(),
        };
        changes.push(Change::AppendLog { segments: vec![Arc::new(segment)] });
        self.commit(changes).unwrap();
    }

    fn trim(&mut self) {
        let trimmed_seq = self.m.flushed_seq;
        if trimmed_seq > self.m.trimmed_seq {
            self.commit(vec![Change::TrimLog { trimmed_seq }]).unwrap();
        }
    }

    fn unflushed(&self) -> &[Row] {
        &self.history[self.m.flushed_seq.0 as usize..]
    }

    fn flush(&mut self) {
        let mut rows = self.unflushed().to_vec();
        if rows.is_empty() {
            return;
        }
        rows.sort_by(|a, b| a.key.cmp(&b.key).then(b.seq.cmp(&a.seq)));
        let made = self.build(rows);
        let tables = made.iter().map(|(entry, _)| Arc::new(entry.clone())).collect();
        self.commit(vec![Change::Flush { flushed_seq: self.m.last_seq, tables, chunk: None }]).unwrap();
        self.install(made);
    }

    /// Tables of a few keys each.
    fn build(&mut self, rows: Vec<Row>) -> Vec<Made> {
        let mut made: Vec<Made> = Vec::new();
        let mut open: Vec<Row> = Vec::new();
        let mut keys = 0;
        for row in rows {
            if open.last().is_some_and(|r| r.key != row.key) {
                keys += 1;
                if keys == 4 {
                    made.push(self.table(std::mem::take(&mut open)));
                    keys = 0;
                }
            }
            open.push(row);
        }
        if !open.is_empty() {
            made.push(self.table(open));
        }
        made
    }

    fn table(&mut self, rows: Vec<Row>) -> Made {
        self.named += 1;
        let mut builder = TableBuilder::new(TableOptions::default());
        rows.iter().for_each(|row| builder.push(row.as_ref()));
        (builder.finish(&format!("t-{}", self.named)).entry, rows)
    }

    fn install(&mut self, made: Vec<Made>) {
        for row in made.iter().flat_map(|(_, rows)| rows) {
            if let Value::Blob(p) = &row.value {
                assert_eq!(self.files.value(p), self.written(row), "{row:?}");
            }
        }
        self.tables.extend(made.into_iter().map(|(entry, rows)| (entry.name, rows)));
        let live: BTreeSet<&str> = self.m.named_tables().map(|t| t.name.as_str()).collect();
        self.tables.retain(|name, _| live.contains(name.as_str()));
    }

    /// Carries out the planner's choice; whether there was one.
    fn work(&mut self) -> bool {
        let outlook = plan::next(&self.m, &self.settings, self.now);
        match outlook.plan {
            None => {
                assert!(
                    outlook.look_again.is_none_or(|at| at > self.now),
                    "it would have to look again at once"
                );
                false
            }
            Some(Plan::Merge(plan)) => {
                if plan.inputs.iter().any(|id| self.m.held_by(*id).is_some()) {
                    return false;
                }
                let (change, made) = self.merge(&plan);
                self.commit_merge(change, made).unwrap();
                true
            }
            Some(Plan::Expire(plan)) => {
                self.expire(&plan.tables);
                self.commit(vec![plan.change()]).unwrap();
                self.install(Vec::new());
                true
            }
        }
    }

    fn drain(&mut self) {
        self.give_up_parts();
        let steps = (0..MOST_STEPS).take_while(|_| self.work()).count();
        assert!(steps < MOST_STEPS, "the planner never comes to its end");
        self.check_shape();
    }

    /// What retention may take, judged by the model: rows whose time has come, and none that a snapshot shows.
    fn expire(&mut self, names: &[String]) {
        let retention = self.m.compaction.retention_us().unwrap();
        for name in names {
            for row in &self.tables[name] {
                assert!(row.time.0 + retention + SKEW <= self.now.0, "{row:?} goes before its time");
                assert!(self.held.values().all(|s| s.seq < row.seq), "a snapshot sees {row:?}");
                self.gone.insert((row.key.to_vec(), row.seq));
            }
        }
    }

    fn merge(&mut self, plan: &MergePlan) -> (Change, Vec<Made>) {
        let horizon = plan::certain(self.now, &self.settings);
        let rewrite = Rewrite::new(&self.snapshots(), plan.bottom, Some(horizon));
        let due = plan::due_blobs(&self.m, &self.settings, &BTreeSet::new());
        let (files, only) = match &plan.moving {
            Some(moving) => (due.intersection(&moving.files).cloned().collect(), Some(&moving.tables)),
            None => (due, None),
        };
        let (rewrite, newest, made, kept) =
            self.rewrite(&plan.inputs, &KeyRange::all(), rewrite, files, only);
        let mut tables: Vec<_> = made.iter().map(|(entry, _)| Arc::new(entry.clone())).chain(kept).collect();
        tables.sort_by(|a, b| a.smallest.cmp(&b.smallest));
        let change = Change::Merge {
            inputs: plan.inputs.clone(),
            tables,
            snapshots: plan.snapshots.clone(),
            planned_mode: plan.mode.clone(),
            dropped: rewrite.dropped(),
            judged: if untouched(&rewrite) { SeqNo::ZERO } else { newest },
            expiry: Some(JudgedExpiry::new(rewrite.expired_by(), &self.snapshots())),
        };
        (change, made)
    }

    /// Rewrites the keys of `range`, of all tables or `only` some, and moves values out of `files`; with the inputs' newest
    /// number, and the tables that are kept.
    fn rewrite(
        &mut self,
        inputs: &[RunId],
        range: &KeyRange,
        mut rewrite: Rewrite,
        files: BTreeSet<BlobId>,
        only: Option<&BTreeSet<String>>,
    ) -> (Rewrite, SeqNo, Vec<Made>, Vec<Arc<TableEntry>>) {
        self.named += 1;
        let mut places = Relocation::new(Arc::new(files), &format!("j-{}", self.named), 1500, 2 * 900);
        let find = |id| self.m.runs.iter().find(|r| r.id == id).unwrap();
        let runs: Vec<_> = inputs.iter().map(|id| Arc::clone(find(*id))).collect();
        let rows = |t: &Arc<TableEntry>| -> Vec<Row> {
            self.tables[&t.name].iter().filter(|row| range.holds(&row.key)).cloned().collect()
        };
        let (again, kept): (Vec<_>, Vec<_>) = runs
            .iter()
            .flat_map(|r| &r.tables)
            .cloned()
            .partition(|t| only.is_none_or(|only| only.contains(&t.name)));
        let mut feeds: Vec<_> = runs
            .iter()
            .map(|r| r.tables.iter().filter(|t| again.contains(t)).map(rows).collect::<Vec<_>>().into_iter())
            .collect();
        let mut tree = Merge::new(runs.len(), Direction::Forward);
        let mut written: Vec<Row> = Vec::new();
        loop {
            match tree.step() {
                Step::Need(i) => tree.feed(i, feeds[i].next().map_or(Feed::End, Feed::Rows)),
                Step::Row => {
                    let row = tree.row().and_then(|row| rewrite.judge(row));
                    written.extend(row.map(|row| places.place(row).to_row()));
                    tree.pop();
                }
                Step::Done => break,
            }
        }
        let newest = runs.iter().map(|r| r.max_seq()).max().unwrap();
        self.files.copy(&places.take_moves());
        // What stays stands between: a table must not be built across it.
        let mut made = Vec::new();
        for table in &kept {
            let (before, after): (Vec<Row>, Vec<Row>) =
                written.into_iter().partition(|row| row.key < table.smallest.0);
            written = after;
            made.extend(self.build(before));
        }
        made.extend(self.build(written));
        (rewrite, newest, made, kept)
    }

    fn begin_parts(&mut self, at: u8, width: u8, key: u8) {
        let Some(plan) = self.any_neighbours(at, width) else { return };
        let by = plan::certain(self.now, &self.settings);
        let begin = Change::BeginMerge {
            inputs: plan.inputs,
            splits: vec![Key(vec![b'k', key].into())],
            snapshots: plan.snapshots,
            planned_mode: plan.mode,
            bottom: plan.bottom,
            expiry: Some(JudgedExpiry::new(Some(by), &self.snapshots())),
            at: self.now,
        };
        // Refused where another merge in parts holds an input.
        let _refused = self.commit(vec![begin]);
    }

    /// As a worker does: planned with the snapshots that stand, and those of the beginning.
    fn work_part(&mut self) {
        let done = |merge, part| {
            self.worked.iter().any(
                |(c, _)| matches!(c, Change::StagePart { merge: m, part: p, .. } if (*m, *p) == (merge, part)),
            )
        };
        let mut missing =
            self.m.staged.iter().flat_map(|(id, m)| m.missing().map(|part| (*id, Arc::clone(m), part)));
        let Some((merge, staged, part)) = missing.find(|(id, _, part)| !done(*id, *part)) else { return };
        drop(missing);
        let snapshots = [staged.planned_with(), self.snapshots()].concat();
        let rewrite = Rewrite::new(&snapshots, staged.bottom, staged.expiry.as_ref().and_then(|e| e.by));
        let due = plan::due_blobs(&self.m, &self.settings, &BTreeSet::new());
        let (rewrite, newest, made, _) =
            self.rewrite(&staged.inputs, &staged.range(part), rewrite, due, None);
        let part_made = StagedPart {
            tables: made.iter().map(|(entry, _)| Arc::new(entry.clone())).collect(),
            dropped: rewrite.dropped(),
            judged: if untouched(&rewrite) { SeqNo::ZERO } else { newest },
            expired_by: rewrite.expired_by(),
        };
        self.worked.push_back((Change::StagePart { merge, part, made: part_made, at: self.now }, made));
    }

    fn give_up_parts(&mut self) {
        for merge in self.m.staged.keys().copied().collect::<Vec<_>>() {
            self.commit(vec![Change::AbandonMerge { merge }]).unwrap();
        }
        self.install(Vec::new());
    }

    fn any_neighbours(&self, at: u8, width: u8) -> Option<MergePlan> {
        let runs = self.m.runs.len();
        let at = usize::from(at).checked_rem(runs)?;
        // Mostly down to the bottom, where there is most to go wrong.
        let to = if width < 128 { runs } else { at + 1 + usize::from(width) % (runs - at) };
        Some(MergePlan {
            inputs: self.m.runs[at..to].iter().map(|r| r.id).collect(),
            bottom: to == runs,
            bytes: 0,
            moving: None,
            snapshots: self.m.snapshots.values().map(|s| s.seq).collect(),
            mode: self.m.compaction.clone(),
            reason: "any",
            score: 0,
        })
    }

    fn snapshots(&self) -> Vec<isle_storage::merge::Held> {
        self.m.snapshots.values().map(Into::into).collect()
    }

    fn commit_merge(&mut self, change: Change, made: Vec<Made>) -> Result<(), EditError> {
        let pointed = made.iter().flat_map(|(entry, _)| &entry.blobs);
        let blobs: BTreeMap<_, _> = pointed
            .filter(|name| !self.known.contains(*name))
            .map(|name| (name.clone(), self.files.len(name)))
            .collect();
        let added = (!blobs.is_empty()).then_some(Change::AddBlobs { blobs });
        self.commit(added.into_iter().chain([change]).collect())?;
        self.install(made);
        Ok(())
    }

    fn snapshot(&mut self, n: u8, behind: u8) {
        let (from, to) = (self.m.history_floor.0, self.m.last_seq.0);
        // Mostly of the present, sometimes of a number before.
        let seq = SeqNo(if n.is_multiple_of(3) { from + u64::from(n) % (to - from + 1) } else { to });
        let name = format!("s{}", n % 5);
        if self.held.contains_key(&name) {
            return;
        }
        let slow = self.now.minus(Duration::from_secs(u64::from(behind)));
        // A clock that is not slow is never behind the floor.
        assert!(self.m.expiry_floor.is_none_or(|floor| floor <= self.now));
        for created in [Some(slow), self.m.expiry_floor].into_iter().flatten() {
            let snapshot = Snapshot { seq, created, expires: None, holds_log: false, extra: BTreeMap::new() };
            let taken = self.commit(vec![Change::TakeSnapshot { name: name.clone(), snapshot }]);
            self.install(Vec::new());
            if taken.is_ok() {
                let shows = self.model(seq, created);
                self.held.insert(name, Held { seq, created, shows });
                return;
            }
            assert!(self.m.expiry_floor.is_some_and(|floor| created < floor), "{taken:?}");
        }
    }

    fn drop_snapshot(&mut self, n: u8) {
        let name = format!("s{}", n % 5);
        if self.held.remove(&name).is_some() {
            self.commit(vec![Change::DropSnapshot { name }]).unwrap();
        }
    }

    /// What must be seen: of each key the newest version, unless it is a delete, has expired, or retention took it.
    fn model(&self, at: SeqNo, now: Timestamp) -> Seen {
        let newest: BTreeMap<&[u8], &Row> =
            self.history.iter().take_while(|r| r.seq <= at).map(|r| (&r.key[..], r)).collect();
        let left = newest.into_values().filter(|r| !self.gone.contains(&(r.key.to_vec(), r.seq)));
        left.filter_map(|r| shown(r, now, |_| self.written(r))).collect()
    }

    /// What was once written as the value of a row that points into a blob file.
    fn written(&self, row: &Row) -> Vec<u8> {
        let Value::Blob(p) = &self.history[row.seq.0 as usize - 1].value else { panic!("{row:?}") };
        large_value(row.seq.0, (p.len % 256) as u8)
    }

    /// What a reader sees: the log's rows, then the runs, newest first, up to the first that has the key.
    fn read(&self, at: SeqNo, now: Timestamp) -> Seen {
        let mut found: BTreeMap<&[u8], &Row> = BTreeMap::new();
        let runs = self
            .m
            .runs
            .iter()
            .map(|run| run.tables.iter().flat_map(|t| &self.tables[&t.name]).collect::<Vec<&Row>>());
        for source in std::iter::once(self.unflushed().iter().collect()).chain(runs) {
            let mut here: BTreeMap<&[u8], &Row> = BTreeMap::new();
            for row in source.into_iter().filter(|r| r.seq <= at) {
                let slot = here.entry(&row.key).or_insert(row);
                if row.seq > slot.seq {
                    *slot = row;
                }
            }
            for (key, row) in here {
                found.entry(key).or_insert(row);
            }
        }
        found.into_values().filter_map(|r| shown(r, now, |p| self.files.value(p).to_vec())).collect()
    }

    fn check(&self) {
        let logged = self.m.log.iter().flat_map(|e| &e.blobs);
        let pointed: BTreeSet<_> = self.m.named_tables().flat_map(|t| &t.blobs).chain(logged).collect();
        assert!(
            self.m.blobs.keys().all(|b| pointed.contains(b)),
            "nothing points at one of {:?}",
            self.m.blobs
        );
        assert!(pointed.iter().all(|b| self.files.has(b)), "one of {pointed:?} is gone");
        assert_eq!(
            self.read(self.m.last_seq, self.now),
            self.model(self.m.last_seq, self.now),
            "the present"
        );
        for (name, s) in &self.held {
            assert_eq!(self.read(s.seq, s.created), s.shows, "snapshot {name} at {}", s.seq);
        }
    }

    /// With nothing left to do the tree is in the shape that its mode promises.
    fn check_shape(&self) {
        let (runs, s) = (self.m.runs.len(), &self.settings);
        match &self.m.compaction {
            CompactionMode::Merge => assert!(runs < s.max_runs + s.l0_trigger + 1, "{runs} runs"),
            CompactionMode::Leveled => {
                let sizes: Vec<u64> =
                    self.m.runs.iter().skip_while(|r| r.l0).map(|r| r.len_bytes()).collect();
                assert!(sizes.windows(2).all(|p| p[1] > p[0] * s.level_fanout), "levels {sizes:?}");
            }
            mode => {
                let oldest = self.m.runs.last().into_iter().flat_map(|r| &r.tables);
                let over = oldest.clone().any(|t| mode.over_at(t.max_time).unwrap().0 + SKEW <= self.now.0);
                let (all, windows) = (
                    self.m.tables().count() as u64,
                    self.m.tables().map(|t| mode.window(t.max_time)).collect::<BTreeSet<_>>().len() as u64,
                );
                let spare = mode.keeps_enough(all.saturating_sub(1), windows.saturating_sub(1));
                let held = oldest.clone().any(|t| self.held.values().any(|s| s.seq >= t.min_seq));
                assert!(!over || !spare || held, "what is over is still there");
            }
        }
    }
}

fn untouched(rewrite: &Rewrite) -> bool {
    let counts = rewrite.counts();
    counts.kept == counts.judged && counts.expired_to_deletes == 0
}

fn is_large(kind: u8) -> bool {
    matches!(kind, 2 | 3)
}

/// The value of number `seq` where it lies in a blob file: its length tells `n`.
fn large_value(seq: u64, n: u8) -> Vec<u8> {
    let mut value = format!("{seq} ").into_bytes();
    value.resize(256 + usize::from(n), b'y');
    value
}

fn shown(row: &Row, now: Timestamp, large: impl Fn(&BlobPointer) -> Vec<u8>) -> Option<(Vec<u8>, Version)> {
    match &row.value {
        Value::Blob(p) if row.expires.is_none_or(|e| e > now) => {
            Some((row.key.to_vec(), (row.seq, large(p))))
        }
        Value::Put(v) if row.expires.is_none_or(|e| e > now) => {
            Some((row.key.to_vec(), (row.seq, v.to_vec())))
        }
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn any_history_in_any_mode_equals_the_model(
        mode in any_mode(),
        ops in proptest::collection::vec(any_op(), 1..80),
    ) {
        let mut world = World::new(mode);
        for op in &ops {
            world.step(op);
            world.check();
        }
        world.flush();
        world.trim();
        world.drain();
        world.check();
        // Without snapshots, long after, everything that may go goes.
        for name in world.held.keys().cloned().collect::<Vec<_>>() {
            world.held.remove(&name);
            world.commit(vec![Change::DropSnapshot { name }]).unwrap();
        }
        world.now = world.now.plus(Duration::from_secs(100_000));
        world.drain();
        world.check();
    }
}
