//! Changes of the log: append, take over, flush, trim.

use std::sync::Arc;

use crate::ids::{Epoch, Incarnation, RunId, SeqNo, Version};
use crate::manifest::state::{EpochStart, LogEntry, LogTail, MAX_EPOCHS, Manifest, Run, TableEntry};
use crate::names::LogKind;
use crate::sabotage::{Rule, broken};

impl Manifest {
    /// A writer names only segments of its own epoch and incarnation.
    pub(super) fn append_log(&mut self, segments: &[Arc<LogEntry>]) -> Result<(), String> {
        for s in segments {
            let own = |e: &EpochStart| (e.epoch, e.incarnation) == (s.id.epoch, s.id.incarnation);
            if !self.epochs.last().is_some_and(own) {
                return Err(format!("segment {} is not of the newest epoch, {}", s.id, self.epoch));
            }
            self.append(s)?;
        }
        Ok(())
    }

    /// Epoch `epoch` begins after what it rolled forward: segments of the newest epoch here, or of later ones whose own
    /// adoption this history has lost. Those of older epochs are void for ever.
    pub(super) fn adopt(
        &mut self,
        epoch: Epoch,
        incarnation: Incarnation,
        rolled: &[Arc<LogEntry>],
    ) -> Result<(), String> {
        for s in rolled {
            if s.id.epoch >= epoch {
                return Err(format!(
                    "segment {} is rolled forward by epoch {epoch}, which it is not older than",
                    s.id
                ));
            }
            self.enter_epoch_of(s)?;
            self.append(s)?;
        }
        self.epoch = epoch;
        self.epochs.push(EpochStart { epoch, incarnation, cut: self.tail });
        let surplus = self.epochs.len().saturating_sub(MAX_EPOCHS);
        self.epochs.drain(..surplus);
        Ok(())
    }

    /// A rolled-forward segment of an epoch unknown so far shows where that epoch began: at the tail it continues.
    fn enter_epoch_of(&mut self, s: &LogEntry) -> Result<(), String> {
        let LogEntry { id, .. } = s;
        match self.epochs.last() {
            Some(e) if e.epoch == id.epoch && e.incarnation == id.incarnation => Ok(()),
            Some(e) if e.epoch >= id.epoch => {
                Err(format!("segment {id} is void: epoch {} began without it", e.epoch))
            }
            _ => {
                let start = EpochStart { epoch: id.epoch, incarnation: id.incarnation, cut: self.tail };
                self.epochs.push(start);
                Ok(())
            }
        }
    }

    fn append(&mut self, s: &Arc<LogEntry>) -> Result<(), String> {
        if s.kind != LogKind::Segment {
            return Err(format!("log object {} is appended but is no segment", s.id));
        }
        if s.id.first_seq != self.last_seq.next() {
            return Err(format!("segment {} does not follow sequence number {}", s.id, self.last_seq));
        }
        if s.last_seq < s.id.first_seq {
            return Err(format!("segment {} is empty", s.id));
        }
        if s.first_time < self.last_write_time || s.last_time < s.first_time {
            return Err(format!("in segment {} write time goes back", s.id));
        }
        self.last_seq = s.last_seq;
        self.last_write_time = s.last_time;
        self.tail = Some(LogTail { id: s.id, last_seq: s.last_seq });
        self.log.push(Arc::clone(s));
        Ok(())
    }

    /// A table must never be readable before its log is committed: so a flush ends at or below the newest committed
    /// number, on a segment's boundary, and extends the flush before it.
    pub(super) fn flush(
        &mut self,
        version: Version,
        flushed_seq: SeqNo,
        tables: &[Arc<TableEntry>],
        chunk: Option<&Arc<LogEntry>>,
    ) -> Result<(), String> {
        if flushed_seq > self.last_seq && broken(Rule::FlushAfterCommit) {
            let run = Run { id: RunId(version.0), l0: true, tables: tables.to_vec() };
            self.runs.insert(0, Arc::new(run));
            self.flushed_seq = flushed_seq;
            return Ok(());
        }
        if flushed_seq <= self.flushed_seq || flushed_seq > self.last_seq {
            return Err(format!(
                "a flush to {flushed_seq} does not lie between {} (flushed) and {} (committed)",
                self.flushed_seq, self.last_seq
            ));
        }
        let from = self.log.partition_point(|e| e.last_seq <= self.flushed_seq);
        let to = self.log.partition_point(|e| e.last_seq <= flushed_seq);
        if to == from || self.log[to - 1].last_seq != flushed_seq {
            return Err(format!("a flush to {flushed_seq} does not end on a segment's boundary"));
        }
        let first = self.flushed_seq.next();
        if let Some(t) = tables.iter().find(|t| t.min_seq < first || t.max_seq > flushed_seq) {
            return Err(format!(
                "table {} holds {}..={}, outside the flushed {first}..={flushed_seq}",
                t.name, t.min_seq, t.max_seq
            ));
        }
        self.names_are_new(tables)?;
        if let Some(chunk) = chunk {
            let covers = (chunk.id.first_seq, chunk.last_seq) == (first, flushed_seq);
            if chunk.kind != LogKind::Chunk || !covers {
                return Err(format!("chunk {} does not cover exactly the flushed generation", chunk.id));
            }
            let old: Vec<_> = self.log.splice(from..to, [Arc::clone(chunk)]).collect();
            self.retire(version, old.iter().map(|e| (e.path(), e.len, e.blobs.as_slice())), tables);
        }
        self.flushed_seq = flushed_seq;
        if !tables.is_empty() {
            let run = Run { id: RunId(version.0), l0: true, tables: tables.to_vec() };
            self.runs.insert(0, Arc::new(run));
        }
        Ok(())
    }

    /// What tailers may still need of the log ends where a snapshot holds it.
    pub(super) fn trim_log(&mut self, version: Version, trimmed_seq: SeqNo) -> Result<(), String> {
        let to = self.log.partition_point(|e| e.last_seq <= trimmed_seq);
        if trimmed_seq > self.flushed_seq || to == 0 || self.log[to - 1].last_seq != trimmed_seq {
            return Err(format!(
                "the log cannot be trimmed to {trimmed_seq}: not the end of a log object at or below {}",
                self.flushed_seq
            ));
        }
        if let Some((name, s)) = self.snapshots.iter().find(|(_, s)| s.holds_log && s.seq < trimmed_seq) {
            return Err(format!("snapshot {name:?} holds the log after {}", s.seq));
        }
        let old: Vec<_> = self.log.drain(..to).collect();
        self.retire(version, old.iter().map(|e| (e.path(), e.len, e.blobs.as_slice())), &[]);
        self.trimmed_seq = trimmed_seq;
        Ok(())
    }
}
