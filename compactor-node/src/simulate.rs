//! What a mode costs, without any data: the planner and the manifest, driven by flushes that are only numbers.
//!
//! Sequence numbers count rows, so a run that covers `w` of them holds, where rows overwrite each other at random over
//! `K` keys, about `K (1 - e^(-w/K))` rows, and that is what a merge makes of its inputs. Plans are the planner's own, and
//! what they change goes through [`Manifest::apply`] like anything that is ever committed; only flushes are put in
//! directly, since an edit costs as much as there are runs, and a year of one-second flushes has 31 million.
//!
//! ```
//! use compactor_node::CompactorSettings;
//! use compactor_node::simulate::{Load, Simulation};
//! use isle_storage::manifest::CompactionMode;
//!
//! let load = Load { rows_per_flush: 1000, row_bytes: 100, seconds_between: 60.0, keys: Some(50_000) };
//! let mut simulation = Simulation::new(CompactionMode::Merge, CompactorSettings::default(), load);
//! simulation.flush(500)?;
//! let shape = simulation.shape();
//! assert!(shape.write_amplification < 5.0 && shape.runs < 20);
//! # Ok::<(), String>(())
//! ```

use std::sync::Arc;

use isle_storage::ids::{
    CommitId, DatabaseId, Epoch, Incarnation, JobId, Lineage, RunId, SeqNo, Timestamp, Version,
};
use isle_storage::manifest::{Author, Change, CompactionMode, Edit, Key, LogTail, Manifest, Run, TableEntry};
use isle_storage::names::LogId;

use crate::plan::{self, MergePlan, Plan};
use crate::settings::CompactorSettings;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Rows in one flush.
    pub rows_per_flush: u64,
    /// Stored bytes of a row.
    pub row_bytes: u64,
    /// Seconds from one flush to the next.
    pub seconds_between: f64,
    /// How many keys there are, written at random; `None`: every row has a key of its own.
    pub keys: Option<u64>,
}

/// What the tree is like, and what it has cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shape {
    /// Flushes so far.
    pub flushes: u64,
    /// Runs: what a read has to look into.
    pub runs: usize,
    /// Tables.
    pub tables: usize,
    /// Stored bytes.
    pub bytes: u64,
    /// Bytes written to tables, flushes included, for every byte flushed.
    pub write_amplification: f64,
    /// Stored bytes for every byte that is alive.
    pub space_amplification: f64,
}

/// A database made of numbers.
#[derive(Debug)]
pub struct Simulation {
    manifest: Manifest,
    settings: CompactorSettings,
    load: Load,
    flushes: u64,
    merged_bytes: u64,
    names: u64,
    worst: Shape,
    largest_merge: u64,
}

impl Simulation {
    /// An empty database in `mode`.
    #[must_use]
    pub fn new(mode: CompactionMode, settings: CompactorSettings, load: Load) -> Self {
        let manifest = Manifest::genesis(DatabaseId(1), Lineage(1), mode);
        Self {
            manifest,
            settings,
            load,
            flushes: 0,
            merged_bytes: 0,
            names: 0,
            worst: Shape::default(),
            largest_merge: 0,
        }
    }

    /// Flushes `count` times, then lets the planner do all it wants: a compactor that looks once in `count` flushes.
    ///
    /// # Errors
    /// The manifest refused what the planner planned, or the planner does not come to an end: defects.
    pub fn flush(&mut self, count: u64) -> Result<(), String> {
        let first = self.flushes;
        self.flushes += count;
        let runs: Vec<Arc<Run>> = (first..self.flushes).rev().map(|n| self.flushed(n)).collect();
        self.manifest.runs.splice(0..0, runs);
        let last = SeqNo(self.flushes * self.load.rows_per_flush);
        let m = &mut self.manifest;
        m.version = Version(m.version.0 + count);
        (m.last_seq, m.flushed_seq, m.trimmed_seq) = (last, last, last);
        m.last_write_time = self.load.time(self.flushes);
        let id = LogId { epoch: Epoch::ZERO, incarnation: Incarnation(0), first_seq: last };
        m.tail = Some(LogTail { id, last_seq: last });
        self.note();
        let mut steps = 0;
        while let Some(planned) = plan::all(&self.manifest, &self.settings, self.now()).into_iter().next() {
            self.carry_out(planned)?;
            steps += 1;
            if steps > 10_000 {
                return Err("the planner does not come to an end".to_owned());
            }
        }
        self.note();
        Ok(())
    }

    /// What the tree is like now.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let flushed = self.flushes * self.load.rows_per_flush * self.load.row_bytes;
        let bytes: u64 = self.manifest.runs.iter().map(|r| r.len_bytes()).sum();
        Shape {
            flushes: self.flushes,
            runs: self.manifest.runs.len(),
            tables: self.manifest.tables().count(),
            bytes,
            write_amplification: ratio(flushed + self.merged_bytes, flushed),
            space_amplification: ratio(bytes, self.live_bytes()),
        }
    }

    /// The highest of every figure at any instant so far.
    #[must_use]
    pub fn worst(&self) -> Shape {
        self.worst
    }

    /// The most bytes that one merge has written.
    #[must_use]
    pub fn largest_merge(&self) -> u64 {
        self.largest_merge
    }

    fn note(&mut self) {
        let now = self.shape();
        let w = &mut self.worst;
        w.flushes = now.flushes;
        w.runs = w.runs.max(now.runs);
        w.tables = w.tables.max(now.tables);
        w.bytes = w.bytes.max(now.bytes);
        w.write_amplification = w.write_amplification.max(now.write_amplification);
        w.space_amplification = w.space_amplification.max(now.space_amplification);
    }

    fn now(&self) -> Timestamp {
        self.load.time(self.flushes)
    }

    /// What a reader can see: every key once; or, by age, the rows whose retention has not ended.
    fn live_bytes(&self) -> u64 {
        let mut rows = self.flushes * self.load.rows_per_flush;
        if let Some(us) = self.manifest.compaction.retention_us() {
            let flushes = us as f64 / 1e6 / self.load.seconds_between;
            rows = rows.min((flushes * self.load.rows_per_flush as f64) as u64);
        }
        self.load.distinct(rows) * self.load.row_bytes
    }

    fn flushed(&mut self, n: u64) -> Arc<Run> {
        let (first, last) = (n * self.load.rows_per_flush + 1, (n + 1) * self.load.rows_per_flush);
        let (seq, time) = ((SeqNo(first), SeqNo(last)), (self.load.time(n), self.load.time(n + 1)));
        // As if each flush had been an edit of its own: unique, and no newer than the version after them.
        let before = self.manifest.flushed_seq.0 / self.load.rows_per_flush.max(1);
        let id = RunId(self.manifest.version.0 + 1 + n - before);
        Arc::new(Run { id, l0: true, tables: self.tables(seq, time) })
    }

    /// The tables of a run over these rows.
    fn tables(&mut self, seq: (SeqNo, SeqNo), time: (Timestamp, Timestamp)) -> Vec<Arc<TableEntry>> {
        let rows = self.load.distinct(seq.1.0 - seq.0.0 + 1).max(1);
        let count = (rows * self.load.row_bytes).div_ceil(self.settings.table_bytes * 5 / 4).clamp(1, rows);
        let key = |n: u64| Key(n.to_be_bytes().to_vec().into());
        (0..count)
            .map(|i| {
                self.names += 1;
                let here = rows * (i + 1) / count - rows * i / count;
                let len = here * self.load.row_bytes;
                Arc::new(TableEntry {
                    name: format!("s-{}", self.names),
                    len,
                    meta_offset: len.saturating_sub(1),
                    crc: 0,
                    smallest: key(2 * i),
                    largest: key(2 * i + 1),
                    min_seq: seq.0,
                    max_seq: seq.1,
                    min_time: time.0,
                    max_time: time.1,
                    rows: here,
                    deletes: 0,
                    min_expires: None,
                    expiring: None,
                    raw_bytes: len,
                    blobs: Vec::new(),
                    blob_use: Vec::new(),
                    extra: Default::default(),
                })
            })
            .collect()
    }

    fn carry_out(&mut self, planned: Plan) -> Result<(), String> {
        let change = match planned {
            Plan::Merge(merge) => self.merge(&merge)?,
            Plan::Expire(expire) => expire.change(),
        };
        let edit = Edit {
            version: self.manifest.version.next(),
            lineage: self.manifest.lineage,
            epoch: Epoch::ZERO,
            commit: CommitId(self.manifest.version.0),
            author: Author::Job(JobId(1)),
            changes: vec![change],
            required_features: Vec::new(),
            extra: Default::default(),
        };
        self.manifest = self.manifest.apply(&edit).map_err(|e| e.to_string())?;
        self.manifest.retired.clear();
        Ok(())
    }

    fn merge(&mut self, merge: &MergePlan) -> Result<Change, String> {
        let at = self.manifest.runs.iter().position(|r| Some(&r.id) == merge.inputs.first());
        let at = at.ok_or("a plan names a run that is not there")?;
        let inputs: Vec<Arc<Run>> = self.manifest.runs[at..at + merge.inputs.len()].to_vec();
        let (newest, oldest) = (&inputs[0], &inputs[inputs.len() - 1]);
        let seq = (oldest.min_seq(), newest.max_seq());
        let tables = self.tables(seq, (oldest.min_time(), newest.max_time()));
        let written: u64 = tables.iter().map(|t| t.len).sum();
        self.merged_bytes += written;
        self.largest_merge = self.largest_merge.max(written);
        Ok(Change::Merge {
            inputs: merge.inputs.clone(),
            tables,
            snapshots: merge.snapshots.clone(),
            planned_mode: merge.mode.clone(),
            dropped: false,
            judged: seq.1,
            expiry: None,
        })
    }
}

impl Load {
    /// The instant of flush `n`.
    fn time(&self, n: u64) -> Timestamp {
        Timestamp((n as f64 * self.seconds_between * 1e6) as i64)
    }

    /// How many different keys `rows` rows have, about.
    fn distinct(&self, rows: u64) -> u64 {
        match self.keys {
            None => rows,
            Some(keys) => (keys as f64 * -(-(rows as f64) / keys as f64).exp_m1()).round() as u64,
        }
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}
