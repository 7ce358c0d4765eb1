//! Random valid histories: each next edit is chosen among what the manifest admits.

use std::sync::Arc;

use isle_storage::ids::{Epoch, JobId, SeqNo, Timestamp};
use isle_storage::manifest::{
    BlobUse, Change, CompactionMode, Edit, Expiring, GroupCursor, Held, JobClaim, JudgedExpiry, Key,
    LogEntry, Manifest, MaxLag, Pause, Snapshot, StagedPart, TableEntry,
};
use isle_storage::names;
use serde_json::json;

use super::build;

/// A history growing from genesis.
pub(crate) struct Grower {
    pub(crate) m: Manifest,
    random: u64,
    made: u64,
}

impl Grower {
    pub(crate) fn new(seed: u64) -> Self {
        Self { m: build::genesis(), random: seed | 1, made: 0 }
    }

    /// Makes the next edit and takes it.
    pub(crate) fn step(&mut self) -> Edit {
        let mut edit = loop {
            if let Some(edit) = self.propose() {
                break edit;
            }
        };
        edit.commit.0 = self.next();
        if self.one_in(8) {
            edit.extra.insert("from_the_future".into(), json!({"n": self.below(100)}));
        }
        if self.one_in(20) {
            edit.required_features.push("snapshots".into());
        }
        let next = self.m.apply(&edit);
        self.m = next.unwrap_or_else(|e| panic!("{e}\n{}", isle_storage::manifest::text::print(&self.m)));
        edit
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }

    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn name(&mut self) -> String {
        self.made += 1;
        format!("{:x}-{}", self.random >> 40, self.made)
    }

    fn propose(&mut self) -> Option<Edit> {
        if self.m.epoch == Epoch::ZERO {
            return Some(self.takeover());
        }
        let changes = match self.below(33) {
            0 => return Some(self.takeover()),
            1..=9 => self.append(),
            10..=13 => self.flush()?,
            14..=16 => self.merge()?,
            17 => vec![Change::TrimLog { trimmed_seq: self.trimmable()? }],
            18 => vec![self.collected()?],
            19 => vec![self.take_snapshot()?],
            20 => vec![Change::DropSnapshot { name: self.m.snapshots.keys().next()?.clone() }],
            21 => vec![self.mode()],
            22 => self.claims(),
            23 => vec![self.begin_merge()?],
            24..=29 => vec![self.stage_part()?],
            30 => vec![Change::AbandonMerge { merge: *self.m.staged.keys().next()? }],
            31 => vec![self.pause()],
            _ => self.group(),
        };
        Some(build::edit(&self.m, changes))
    }

    /// Sometimes rolls segments forward, of the newest epoch and of one whose adoption was lost.
    fn takeover(&mut self) -> Edit {
        let epoch = self.m.epoch.0 + 1 + self.below(3);
        let mut rolled = Vec::new();
        let mut last = self.m.last_seq.0;
        let mut segment_of = |epoch: u64, count: u64| {
            rolled.push(self.m_segment(epoch, last + 1, last + count));
            last += count;
        };
        if self.m.epoch > Epoch::ZERO && self.m.version.0.is_multiple_of(3) {
            segment_of(self.m.epoch.0, 2);
        }
        if epoch > self.m.epoch.0 + 1 && self.m.version.0.is_multiple_of(2) {
            segment_of(epoch - 1, 3);
        }
        build::edit(&self.m, vec![build::adopt(epoch, rolled)])
    }

    /// A segment whose times follow the manifest's.
    fn m_segment(&self, epoch: u64, first: u64, last: u64) -> LogEntry {
        let base = self.m.last_write_time.0.max(first as i64);
        LogEntry {
            first_time: Timestamp(base),
            last_time: Timestamp(base),
            starts_generation: first.is_multiple_of(5),
            ..build::segment(epoch, first, last)
        }
    }

    fn append(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut segments = Vec::new();
        let mut last = self.m.last_seq.0;
        for _ in 0..=self.below(3) {
            let count = 1 + self.below(20);
            let mut s = self.m_segment(self.m.epoch.0, last + 1, last + count);
            if self.one_in(6) {
                let blob = self.name();
                changes.push(Change::AddBlobs { blobs: [(blob.clone(), 100 + self.below(50))].into() });
                s.blobs.push(blob);
            }
            if self.one_in(6) {
                s.extra.insert("codec \"x\"".into(), json!([1, null, {"a b": "c=d"}]));
            }
            last += count;
            segments.push(s);
        }
        changes.push(build::append(segments));
        changes
    }

    fn flush(&mut self) -> Option<Vec<Change>> {
        let open: Vec<LogEntry> = self.m.unflushed().iter().map(|e| LogEntry::clone(e)).collect();
        let upto = open.len().checked_sub(1)? as u64;
        let taken = &open[..=self.below(upto + 1) as usize];
        let (first, last) = (taken[0].id.first_seq.0, taken[taken.len() - 1].last_seq.0);
        let mut blobs: Vec<String> = taken.iter().flat_map(|e| e.blobs.clone()).collect();
        blobs.sort();
        let times = (taken[0].first_time, taken[taken.len() - 1].last_time);
        let mut tables = self.tables(first, last, last + 1 - first, times);
        if let Some(t) = tables.first_mut() {
            t.blobs = blobs.clone();
            t.blob_use = self.used(blobs.len());
        }
        let chunk = (!self.one_in(3)).then(|| LogEntry {
            first_time: times.0,
            last_time: times.1,
            blobs,
            ..build::chunk(self.m.epoch.0, first, last)
        });
        Some(vec![build::flush(last, tables, chunk)])
    }

    /// Up to three disjoint tables with `rows` rows among them, with keys of any bytes.
    fn tables(&mut self, first: u64, last: u64, rows: u64, times: (Timestamp, Timestamp)) -> Vec<TableEntry> {
        let count = self.below(4).min(rows);
        (0..count)
            .map(|i| TableEntry {
                smallest: Key(vec![i as u8, 0xff, b' '].into()),
                largest: Key(vec![i as u8, 0xff, b'"', b'z'].into()),
                min_time: times.0,
                max_time: times.1,
                rows: (rows / count).max(1),
                deletes: self.below(rows / count + 1),
                min_expires: self.one_in(3).then_some(Timestamp(-5)),
                expiring: self.one_in(3).then_some(Expiring { rows: 2, last: Timestamp(99) }),
                ..build::table(&self.name(), "", "", first, last)
            })
            .collect()
    }

    /// What a table points at in so many files; nothing, where an older program wrote it.
    fn used(&mut self, files: usize) -> Vec<BlobUse> {
        let count = if self.one_in(3) { 0 } else { files };
        (0..count).map(|_| BlobUse { bytes: self.below(100), values: 1 + self.below(3) }).collect()
    }

    /// Neighbouring runs that no merge in parts holds, and where they stand.
    fn free_neighbours(&mut self) -> Option<(usize, usize)> {
        let runs = &self.m.runs;
        let len = runs.len();
        let at = self.below(len.checked_sub(1)? as u64 + 1) as usize;
        let count = 1 + self.below((len - at).min(4) as u64) as usize;
        let free = self.m.runs[at..at + count].iter().all(|r| self.m.held_by(r.id).is_none());
        free.then_some((at, count))
    }

    fn begin_merge(&mut self) -> Option<Change> {
        let (at, count) = self.free_neighbours()?;
        let expiry = self.expiry();
        let runs = &self.m.runs;
        (self.m.staged.len() < 16).then(|| Change::BeginMerge {
            inputs: runs[at..at + count].iter().map(|r| r.id).collect(),
            splits: [0u8, 1].map(|i| Key(vec![i, 0xff, b'z'].into())).into(),
            snapshots: self.m.snapshots.values().map(|s| s.seq).collect(),
            planned_mode: self.m.compaction.clone(),
            bottom: at + count == runs.len(),
            expiry,
            at: Timestamp(self.m.version.0 as i64),
        })
    }

    /// One table in the part, or an input's table as it is, or nothing.
    fn stage_part(&mut self) -> Option<Change> {
        let (merge, staged) = self.m.staged.iter().next_back().map(|(id, m)| (*id, Arc::clone(m)))?;
        let part = staged.missing().next()?;
        let old: Vec<Arc<TableEntry>> = {
            let inputs = self.m.runs.iter().filter(|r| staged.inputs.contains(&r.id));
            inputs.flat_map(|r| r.tables.clone()).collect()
        };
        let first = old.iter().map(|t| t.min_seq).min()?;
        let last = old.iter().map(|t| t.max_seq).max()?;
        let times = (old.iter().map(|t| t.min_time).min()?, old.iter().map(|t| t.max_time).max()?);
        let tables = match self.below(3) {
            0 => Vec::new(),
            1 => old.iter().filter(|t| staged.range(part).holds_all(t)).take(1).cloned().collect(),
            _ => vec![Arc::new(TableEntry {
                smallest: Key(vec![part as u8, 0xff, b'z'].into()),
                largest: Key(vec![part as u8, 0xff, b'z', 0].into()),
                min_time: times.0,
                max_time: times.1,
                rows: 1,
                blobs: old.iter().flat_map(|t| t.blobs.clone()).collect(),
                ..build::table(&self.name(), "", "", first.0, last.0)
            })],
        };
        // The range of part `i` begins at the split before it.
        let rows = |tables: &[Arc<TableEntry>]| tables.iter().map(|t| t.rows).sum::<u64>();
        let staged_rows: u64 = staged.tables().map(|t| t.rows).sum();
        let room = rows(&old) - staged_rows;
        let tables: Vec<_> = tables.into_iter().filter(|t| staged.range(part).holds_all(t)).collect();
        let tables = if rows(&tables) <= room { tables } else { Vec::new() };
        let dropped = staged.bottom && self.one_in(2);
        let expired_by = staged.expiry.as_ref().and_then(|e| e.by).filter(|_| self.one_in(2));
        let made = StagedPart { tables, dropped, judged: last, expired_by };
        Some(Change::StagePart { merge, part, made, at: Timestamp(self.m.version.0 as i64) })
    }

    fn pause(&mut self) -> Change {
        let until = self.one_in(2).then_some(Timestamp(99));
        let pause = Pause { by: "somebody \"else\"".to_owned(), since: Timestamp(1), until };
        Change::SetPause { pause: (!self.one_in(3)).then_some(pause) }
    }

    fn merge(&mut self) -> Option<Vec<Change>> {
        let (at, count) = self.free_neighbours()?;
        let runs = self.m.runs.clone();
        let inputs = &runs[at..at + count];
        let old: Vec<&Arc<TableEntry>> = inputs.iter().flat_map(|r| &r.tables).collect();
        let (first, last) = (inputs[count - 1].min_seq(), inputs[0].max_seq());
        let rows: u64 = old.iter().map(|t| t.rows).sum();
        let times =
            (old.iter().map(|t| t.min_time).min().unwrap(), old.iter().map(|t| t.max_time).max().unwrap());
        let (mut tables, mut changes) = (self.tables(first.0, last.0, rows, times), Vec::new());
        if count == 1 && self.one_in(2) {
            tables = old.iter().map(|t| TableEntry::clone(t)).collect();
        } else if let Some(t) = tables.first_mut() {
            t.blobs = old.iter().flat_map(|t| t.blobs.clone()).collect();
            // Values of all the files, or of some, have moved into a new one.
            if !t.blobs.is_empty() && self.one_in(2) {
                t.blobs.truncate(self.below(t.blobs.len() as u64) as usize);
                let blob = self.name();
                t.blobs.push(blob.clone());
                changes.push(Change::AddBlobs { blobs: [(blob, 100 + self.below(50))].into() });
            }
            t.blob_use = self.used(t.blobs.len());
        }
        changes.push(Change::Merge {
            inputs: inputs.iter().map(|r| r.id).collect(),
            tables: tables.into_iter().map(Arc::new).collect(),
            snapshots: self.m.snapshots.values().map(|s| s.seq).collect(),
            planned_mode: self.m.compaction.clone(),
            dropped: at + count == runs.len() && self.one_in(2),
            judged: last,
            expiry: self.expiry(),
        });
        Some(changes)
    }

    /// Snapshots of this growth are all of one instant, which the floor stays below.
    fn expiry(&mut self) -> Option<JudgedExpiry> {
        let by = Timestamp(self.below(77) as i64);
        let by = (!self.one_in(3)).then_some(by);
        let held: Vec<Held> = self.m.snapshots.values().map(Held::from).collect();
        (!self.one_in(3)).then_some(JudgedExpiry { by, held })
    }

    fn trimmable(&mut self) -> Option<SeqNo> {
        let held = self.m.snapshots.values().filter(|s| s.holds_log).map(|s| s.seq).min();
        let limit = self.m.flushed_seq.min(held.unwrap_or(SeqNo(u64::MAX)));
        let ends: Vec<SeqNo> = self.m.log.iter().map(|e| e.last_seq).filter(|s| *s <= limit).collect();
        let count = ends.len() as u64;
        (count > 0).then(|| ends[self.below(count) as usize])
    }

    /// All retired log objects and tables, and the blob files nothing retired points at.
    fn collected(&mut self) -> Option<Change> {
        let upto = self.below(self.m.retired.len().checked_sub(1)? as u64 + 1) as usize;
        let kept = &self.m.retired[upto + 1..];
        let held: Vec<_> = kept.iter().flat_map(|r| &r.blobs).map(|b| names::blob(b)).collect();
        let gone = self.m.retired[..=upto].iter().map(|r| r.path.clone());
        Some(Change::Collected { paths: gone.filter(|p| !held.contains(p)).collect() })
    }

    fn take_snapshot(&mut self) -> Option<Change> {
        let floor = self.m.history_floor.max(self.m.trimmed_seq);
        let seq = floor.0 + self.below(self.m.last_seq.0.checked_sub(floor.0)? + 1);
        let snapshot = Snapshot {
            expires: self.one_in(2).then_some(Timestamp(i64::MAX)),
            holds_log: self.one_in(2),
            extra: if self.one_in(3) { [("why".into(), json!("backup"))].into() } else { Default::default() },
            ..build::snapshot(seq)
        };
        Some(Change::TakeSnapshot { name: format!("snap \"{}\"\n=ä", self.name()), snapshot })
    }

    fn mode(&mut self) -> Change {
        if self.one_in(3) {
            let ttl_us = self.one_in(2).then(|| 1 + self.below(1000) as i64);
            return Change::SetDefaultTtl { ttl_us };
        }
        let compaction = match self.below(3) {
            0 => CompactionMode::Merge,
            1 => CompactionMode::Fifo { retention_us: 1 + self.below(99) as i64, retention_count: 3 },
            _ => CompactionMode::TimeWindow { segment_us: 60, retention_us: 600, retention_count: 10 },
        };
        Change::SetCompaction { compaction }
    }

    fn claims(&mut self) -> Vec<Change> {
        let job = JobId(self.below(3));
        match self.m.jobs.get(&job).cloned() {
            Some(_) if self.one_in(2) => vec![Change::EndJob { job }],
            Some(c) => {
                vec![Change::ClaimJob {
                    job,
                    claim: JobClaim { beat: c.beat + 1, at: Some(self.m.version.next()), ..c },
                }]
            }
            None => {
                vec![Change::ClaimJob { job, claim: JobClaim { node: "a node".into(), beat: 0, at: None } }]
            }
        }
    }

    fn max_lag(&mut self) -> MaxLag {
        let mut some = |most| self.one_in(2).then(|| self.below(most));
        MaxLag { records: some(9), bytes: some(900), age_us: some(9000).map(|us| us as i64) }
    }

    fn group(&mut self) -> Vec<Change> {
        let group = format!("group {}", self.below(3));
        let at = self.m.groups.get(&group).map_or(0, |c| c.seq.0);
        let seq = SeqNo(at + self.below(self.m.last_seq.0 - at + 1));
        let cursor = (!self.one_in(5)).then(|| GroupCursor {
            seq,
            max_lag: self.max_lag(),
            extra: Default::default(),
        });
        vec![Change::SetGroup { group, cursor }]
    }
}
