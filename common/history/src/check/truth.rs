//! The committed log as far as it is known, and the model filled from it.

use std::collections::{BTreeMap, VecDeque};

use super::findings::{Findings, Rule};
use crate::log::{LogPiece, Record};
use crate::model::Model;

/// The log and the model.
#[derive(Debug, Default)]
pub(super) struct Truth {
    pub(super) model: Model,
    /// The last number known.
    pub(super) through: u64,
    /// Records at or below this are not remembered (any more).
    pub(super) kept_after: u64,
    records: VecDeque<Record>,
    /// Records that no write has been found for yet.
    pub(super) unclaimed: BTreeMap<u64, Record>,
    /// Whether the log holds only a part of the numbers (one prefix of the keys).
    sparse: bool,
    started: bool,
}

impl Truth {
    pub(super) fn new(sparse: bool) -> Self {
        Self { sparse, ..Self::default() }
    }

    /// Appends a piece of the log and judges it by itself.
    pub(super) fn extend(&mut self, piece: LogPiece, findings: &mut Findings) {
        if !self.started {
            self.started = true;
            (self.through, self.kept_after) = (piece.after, piece.after);
            self.model = Model::new(piece.after);
        } else if piece.after != self.through {
            let message = format!(
                "the log was known through {}, its next piece begins after {}",
                self.through, piece.after
            );
            findings.violation(Rule::HistoryIsSound, message, &[], &[]);
        }
        for record in piece.records {
            self.append(record, findings);
        }
        let end = self.through.max(piece.through);
        if !self.sparse && end != self.through {
            let message = format!("the log goes to {end}, its last record is {}", self.through);
            findings.violation(Rule::NumbersAreDense, message, &[], &[]);
        }
        self.through = end;
    }

    fn append(&mut self, record: Record, findings: &mut Findings) {
        findings.report.counts.records += 1;
        let last = self.records.back();
        let beside: Vec<&Record> = last.into_iter().chain([&record]).collect();
        let dense = record.seq == self.through + 1 || self.sparse && record.seq > self.through;
        if !dense {
            let message = format!("after {} comes {}", self.through, record.seq);
            findings.violation(Rule::NumbersAreDense, message, &[], &beside);
        }
        if last.is_some_and(|l| l.time > record.time) {
            let message = format!("the write time of {} is before its predecessor's", record.seq);
            findings.violation(Rule::TimesNeverDecrease, message, &[], &beside);
        }
        if last.is_some_and(|l| l.epoch > record.epoch && record.epoch.is_some()) {
            let message = format!("the epoch of {} is below its predecessor's", record.seq);
            findings.violation(Rule::EpochsNeverDecrease, message, &[], &beside);
        }
        if record.seq <= self.through {
            return;
        }
        self.through = record.seq;
        self.model.apply(&record);
        self.unclaimed.insert(record.seq, record.clone());
        self.records.push_back(record);
    }

    /// The record of this number.
    pub(super) fn get(&self, seq: u64) -> Option<&Record> {
        let at = self.records.partition_point(|r| r.seq < seq);
        self.records.get(at).filter(|r| r.seq == seq)
    }

    /// The first remembered record above `seq` and at most `through` whose key starts with `prefix`.
    pub(super) fn next_after(&self, seq: u64, through: u64, prefix: &[u8]) -> Option<&Record> {
        let at = self.records.partition_point(|r| r.seq <= seq);
        let rest = self.records.range(at..).take_while(|r| r.seq <= through);
        rest.into_iter().find(|r| r.key.as_bytes().starts_with(prefix))
    }

    /// Forgets what lies more than `keep` numbers back.
    pub(super) fn prune(&mut self, keep: u64) {
        let floor = self.through.saturating_sub(keep);
        while self.records.front().is_some_and(|r| r.seq <= floor) {
            self.records.pop_front();
        }
        self.kept_after = self.kept_after.max(floor);
        self.model.prune(floor);
    }
}
