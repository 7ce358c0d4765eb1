//! Acknowledged writes: their numbers by themselves, and what stands in the log at them.

use super::{Acknowledged, Write, Writes, becomes, in_real_time};
use crate::check::findings::{Findings, Rule};
use crate::check::truth::Truth;
use crate::event::{Ack, Mutation, WriteOutcome};

impl Writes {
    /// Judges the numbers of an acknowledgement by themselves.
    pub(super) fn acknowledged(
        &mut self,
        write: &Write,
        first: u64,
        now: Acknowledged,
        ack: Ack,
        findings: &mut Findings,
    ) {
        let count = write.mutations().len() as u64;
        if now.last.checked_sub(first).is_none_or(|d| d + 1 != count) {
            let message = format!("{count} mutations were acknowledged as {first} to {}", now.last);
            return findings.violation(Rule::AcknowledgedIsUnaltered, message, &write.proof(), &[]);
        }
        in_real_time(write, first, findings);
        if ack != Ack::Bucket {
            return;
        }
        if let Some((_, before)) = self.acknowledged.range(..=first).next_back() {
            let events = [&before.answer, &now.answer];
            if before.last >= first {
                let message = format!("{first} was acknowledged twice");
                findings.violation(Rule::AtMostOnce, message, &events, &[]);
            }
            if before.epoch > now.epoch {
                let message = format!(
                    "{first} is of epoch {}, and {} before it of {}",
                    now.epoch, before.last, before.epoch
                );
                findings.violation(Rule::EpochsNeverDecrease, message, &events, &[]);
            }
        }
        if let Some((after, next)) = self.acknowledged.range(first + 1..).next() {
            let events = [&next.answer, &now.answer];
            if *after <= now.last {
                let message = format!("{after} was acknowledged twice");
                findings.violation(Rule::AtMostOnce, message, &events, &[]);
            }
            if next.epoch < now.epoch {
                let message =
                    format!("{first} is of epoch {}, and {after} after it of {}", now.epoch, next.epoch);
                findings.violation(Rule::EpochsNeverDecrease, message, &events, &[]);
            }
        }
        self.acknowledged.insert(first, now);
    }

    /// An acknowledged batch takes its numbers.
    pub(super) fn claim(&mut self, write: Write, truth: &mut Truth, findings: &mut Findings) {
        let Some(WriteOutcome::Acknowledged { epoch, first_seq, ack, last_seq }) = write.outcome() else {
            return;
        };
        let (epoch, first, last, ack) = (*epoch, *first_seq, *last_seq, *ack);
        let stands = |seq: u64, mutation: &Mutation, truth: &Truth| {
            truth
                .unclaimed
                .get(&seq)
                .is_some_and(|r| becomes(mutation, r) && r.epoch.is_none_or(|e| e == epoch))
        };
        if ack == Ack::Provisional {
            let there = (first..=last).zip(write.mutations()).all(|(seq, m)| stands(seq, m, truth));
            if there {
                (first..=last).for_each(|seq| drop(truth.unclaimed.remove(&seq)));
                findings.report.counts.acknowledged += 1;
                self.forget(&write);
            } else {
                self.refuse(write);
            }
            return;
        }
        self.forget(&write);
        let before = findings.report.total;
        for (seq, mutation) in (first..=last).zip(write.mutations()) {
            if stands(seq, mutation, truth) {
                truth.unclaimed.remove(&seq);
            } else if seq <= truth.kept_after {
                findings.report.counts.unjudged += 1;
            } else {
                missing(seq, mutation, &write, truth, findings);
            }
        }
        findings.report.counts.acknowledged += u64::from(findings.report.total == before);
    }

    /// The committed lines of an ingest take the next records of their content; the rest goes where its outcome says.
    pub(super) fn claim_lines(&mut self, mut write: Write, truth: &mut Truth, findings: &mut Findings) {
        let Some(WriteOutcome::Streamed { lines, last_seq, rest_unknown }) = write.outcome() else { return };
        let (lines, last, rest_unknown) = (*lines as usize, *last_seq, *rest_unknown);
        let mut at = write.floor.seq;
        let in_full = truth.model.began() <= at;
        for (i, mutation) in write.mutations().iter().take(lines).enumerate() {
            let range = if i + 1 == lines { last..=last } else { at + 1..=last };
            let mut records = (!range.is_empty()).then(|| truth.unclaimed.range(range)).into_iter().flatten();
            let found = records.find(|(seq, r)| **seq > at && becomes(mutation, r)).map(|(seq, _)| *seq);
            match found {
                Some(seq) => {
                    truth.unclaimed.remove(&seq);
                    at = seq;
                }
                None if !in_full => findings.report.counts.unjudged += 1,
                None => {
                    let message =
                        format!("line {} of an ingest is not where it was said to be: {mutation}", i + 1);
                    findings.violation(Rule::AcknowledgedIsThere, message, &write.proof(), &[]);
                    break;
                }
            }
        }
        findings.report.counts.acknowledged += 1;
        write.next_line = lines.min(write.mutations().len());
        if write.next_line == write.mutations().len() {
            self.forget(&write);
        } else if rest_unknown {
            write.floor.seq = write.floor.seq.max(at);
            self.unknown.insert(write.op, write);
        } else {
            self.refuse(write);
        }
    }
}

/// Says what stands where an acknowledged mutation should.
fn missing(seq: u64, mutation: &Mutation, write: &Write, truth: &Truth, findings: &mut Findings) {
    let proof = write.proof();
    match truth.get(seq) {
        None => {
            let message = format!(
                "{seq} was acknowledged, and the log (through {}) does not hold it: {mutation}",
                truth.through
            );
            findings.violation(Rule::AcknowledgedIsThere, message, &proof, &[]);
        }
        Some(record) if becomes(mutation, record) && truth.unclaimed.contains_key(&seq) => {
            let message = format!("{seq} was acknowledged by another epoch than wrote it");
            findings.violation(Rule::AcknowledgedIsUnaltered, message, &proof, &[record]);
        }
        Some(record) if becomes(mutation, record) => {
            let message = format!("{seq} was acknowledged to two writes");
            findings.violation(Rule::AtMostOnce, message, &proof, &[record]);
        }
        Some(record) => {
            let message = format!("{seq} was acknowledged with other content: {mutation}");
            findings.violation(Rule::AcknowledgedIsUnaltered, message, &proof, &[record]);
        }
    }
}
