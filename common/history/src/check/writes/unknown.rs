//! Writes nobody was told the outcome of: found by content among the records that no acknowledgement claims.

use super::{Write, Writes, becomes, in_real_time};
use crate::check::findings::{Findings, Rule};
use crate::check::truth::Truth;
use crate::event::{Mutation, OpId};
use crate::key::Key;
use crate::log::{Op, Record};

impl Writes {
    /// What is left of the log belongs to writes that nobody was told the outcome of, or to nobody.
    pub(super) fn claim_the_rest(&mut self, truth: &mut Truth, findings: &mut Findings, end: bool) {
        let mut next = truth.unclaimed.first_key_value().map(|(seq, _)| *seq);
        while let Some(seq) = next {
            if let Some(record) = truth.unclaimed.get(&seq).cloned() {
                self.find_owner(&record, truth, findings, end);
            }
            next = truth.unclaimed.range(seq + 1..).next().map(|(seq, _)| *seq);
        }
    }

    fn find_owner(&mut self, record: &Record, truth: &mut Truth, findings: &mut Findings, end: bool) {
        let mut candidates: Vec<OpId> =
            origins(record).iter().filter_map(|o| self.content.get(o)).flatten().copied().collect();
        // Whose answer is still to come may claim it by number.
        let awaited = |op: &OpId| self.open.contains_key(op) || self.waiting.iter().any(|w| w.op == *op);
        if candidates.iter().any(awaited) {
            return;
        }
        // In real time first; then the longest: a batch that begins with a delete is told from that delete alone by
        // what follows.
        let order = |w: &Write| (w.floor.seq >= record.seq, usize::MAX - w.mutations().len());
        candidates.sort_by_key(|op| (self.unknown.get(op).map(order), *op));
        let mut torn = None;
        for op in &candidates {
            let Some(write) = self.unknown.get(op) else { continue };
            match fits(write, record, truth) {
                Fit::Whole(first, count) => return self.claim_unknown(*op, first, count, truth, findings),
                Fit::NotYet if !end => return,
                Fit::NotYet | Fit::Torn => torn = torn.or(Some(*op)),
                Fit::Not => {}
            }
        }
        truth.unclaimed.remove(&record.seq);
        self.nobody(record, torn, &candidates, truth, findings);
    }

    fn claim_unknown(
        &mut self,
        op: OpId,
        first: u64,
        count: usize,
        truth: &mut Truth,
        findings: &mut Findings,
    ) {
        for seq in (first..).take(count) {
            truth.unclaimed.remove(&seq);
        }
        let Some(mut write) = self.unknown.remove(&op) else { return };
        in_real_time(&write, first, findings);
        findings.report.counts.unknown_applied += u64::from(write.next_line == 0);
        write.next_line += count;
        if write.lines && write.next_line < write.mutations().len() {
            self.unknown.insert(op, write);
        } else {
            self.forget(&write);
        }
    }

    /// Names the reason why nobody may have written `record`.
    fn nobody(
        &self,
        record: &Record,
        torn: Option<OpId>,
        candidates: &[OpId],
        truth: &Truth,
        findings: &mut Findings,
    ) {
        let seq = record.seq;
        if let Some(write) = torn.and_then(|op| self.unknown.get(&op)) {
            let message = format!("{seq} is a part of a write that is not there as a whole");
            return findings.violation(Rule::UnknownIsWhole, message, &write.proof(), &[record]);
        }
        let refused = self.refused.iter().find(|w| candidates.contains(&w.op));
        if let Some(write) = refused.filter(|w| w.mutations().iter().any(|m| becomes(m, record))) {
            let message = format!("{seq} is a write that was certainly not applied");
            return findings.violation(Rule::RefusedIsNowhere, message, &write.proof(), &[record]);
        }
        let twin = truth.model.versions(&record.key).iter().find(|v| v.seq != seq && v.op == record.op);
        if let Some(twin) = twin.filter(|v| v.op != Op::Delete) {
            let message = format!("{} and {seq} are one and the same write", twin.seq);
            let first: Vec<&Record> = truth.get(twin.seq).into_iter().chain([record]).collect();
            return findings.violation(Rule::AtMostOnce, message, &[], &first);
        }
        findings.violation(Rule::SomebodyWroteIt, format!("nobody wrote {seq}"), &[], &[record]);
    }
}

/// The contents a record could come from: its key, or the stream its key names.
fn origins(record: &Record) -> Vec<(Key, Op)> {
    let mut found = vec![(record.key.clone(), record.op)];
    let suffix = format!("/{:016x}", record.seq);
    if let Some(stream) = record.key.as_bytes().strip_suffix(suffix.as_bytes()) {
        found.push((Key::new(stream), record.op));
    }
    found
}

/// How a record fits a write of unknown outcome.
enum Fit {
    /// From this number on so many records are the whole write (or the next line of an ingest).
    Whole(u64, usize),
    /// They may be; the log does not reach far enough.
    NotYet,
    /// A part of the write is there, and not the whole.
    Torn,
    /// It is no part of it.
    Not,
}

fn fits(write: &Write, record: &Record, truth: &Truth) -> Fit {
    let mutations = write.mutations();
    if write.lines {
        let rest = mutations.get(write.next_line..).unwrap_or_default();
        return match rest.iter().position(|m| becomes(m, record)) {
            Some(0) => Fit::Whole(record.seq, 1),
            Some(_) => Fit::Torn,
            None => Fit::Not,
        };
    }
    let places = mutations.iter().enumerate().filter(|(_, m)| becomes(m, record));
    let fits = places.map(|(place, _)| fits_at(mutations, record.seq.checked_sub(place as u64), truth));
    fits.min_by_key(|fit| match fit {
        Fit::Whole(..) => 0,
        Fit::NotYet => 1,
        Fit::Torn => 2,
        Fit::Not => 3,
    })
    .unwrap_or(Fit::Not)
}

fn fits_at(mutations: &[Mutation], first: Option<u64>, truth: &Truth) -> Fit {
    let Some(first) = first else { return Fit::Torn };
    for (seq, mutation) in (first..).zip(mutations) {
        match truth.unclaimed.get(&seq) {
            Some(r) if becomes(mutation, r) => {}
            None if seq > truth.through => return Fit::NotYet,
            _ => return Fit::Torn,
        }
    }
    Fit::Whole(first, mutations.len())
}
