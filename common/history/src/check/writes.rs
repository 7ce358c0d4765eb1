//! Writes against the log: what was acknowledged is there, what was refused is not, and nobody else wrote.
//!
//! Every record of the log has to be claimed by one write. Acknowledged writes claim by number. What is left belongs to
//! writes that nobody was told the outcome of; they are found by content, and claim whole or not at all. A record that
//! could belong to a write still under way waits for its answer.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::findings::{Findings, Rule};
use super::mark::Mark;
use super::truth::Truth;
use crate::event::{Ack, Event, Mutation, OpId, Stamped, Target, WriteOutcome};
use crate::key::Key;
use crate::log::{Op, Record};

/// Refused writes remembered, to name one that appears after all. Beyond the limit the oldest is forgotten, and its
/// appearance is reported as a record that nobody wrote.
const REFUSED: usize = 65_536;

/// Acknowledgements remembered below the end of the log, to compare their epochs and numbers with later ones.
const ACKNOWLEDGED: usize = 4096;

/// Every write that is not settled.
#[derive(Debug, Default)]
pub(super) struct Writes {
    open: HashMap<OpId, Write>,
    /// Answered with numbers the log does not reach yet.
    waiting: Vec<Write>,
    /// Nobody was told; in the order of their invocation.
    unknown: BTreeMap<OpId, Write>,
    refused: VecDeque<Write>,
    /// Where content could come from: every mutation that may still appear.
    content: HashMap<(Key, Op), Vec<OpId>>,
    /// Acknowledged numbers: the last of each write, by the first.
    acknowledged: BTreeMap<u64, Acknowledged>,
}

#[derive(Debug, Clone)]
struct Acknowledged {
    last: u64,
    epoch: u64,
    answer: Stamped,
}

/// One write.
#[derive(Debug, Clone)]
struct Write {
    op: OpId,
    invoked: Stamped,
    answer: Option<Stamped>,
    /// What was known committed when it was invoked.
    floor: Mark,
    /// Of the lines of an ingest, those before this one are settled; only the next may appear.
    next_line: usize,
    /// Whether the mutations are lines of an ingest and not an atomic batch.
    lines: bool,
}

impl Write {
    fn mutations(&self) -> &[Mutation] {
        match &*self.invoked.event {
            Event::WriteInvoked { mutations, .. } => mutations,
            _ => &[],
        }
    }

    fn proof(&self) -> Vec<&Stamped> {
        [&self.invoked].into_iter().chain(&self.answer).collect()
    }

    fn outcome(&self) -> Option<&WriteOutcome> {
        match self.answer.as_ref().map(|a| &*a.event) {
            Some(Event::WriteAnswered { outcome, .. }) => Some(outcome),
            _ => None,
        }
    }
}

/// Where a mutation's record would be found by content.
fn content(target: &Target, op: Op) -> (Key, Op) {
    match target {
        Target::Key(key) | Target::Stream(key) => (key.clone(), op),
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

/// Whether `record` is what `mutation` becomes.
fn becomes(mutation: &Mutation, record: &Record) -> bool {
    mutation.op == record.op
        && record.expires == mutation.ttl.map(|ttl| record.time.saturating_add(ttl))
        && mutation.target.key_at(record.seq) == record.key
}

impl Writes {
    pub(super) fn invoked(&mut self, event: &Stamped, mutations: &[Mutation], floor: &Mark) {
        let op = OpId(event.index);
        for mutation in mutations {
            let from = self.content.entry(content(&mutation.target, mutation.op)).or_default();
            if !from.contains(&op) {
                from.push(op);
            }
        }
        let write = Write {
            op,
            invoked: event.clone(),
            answer: None,
            floor: floor.clone(),
            next_line: 0,
            lines: false,
        };
        self.open.insert(op, write);
    }

    /// Takes an answer; what it says about committed numbers raises `mark`.
    pub(super) fn answered(
        &mut self,
        op: OpId,
        outcome: &WriteOutcome,
        event: &Stamped,
        mark: &mut Mark,
        findings: &mut Findings,
    ) {
        let Some(mut write) = self.open.remove(&op) else {
            let message = format!("write {} was answered, and was not under way", op.0);
            return findings.violation(Rule::HistoryIsSound, message, &[event], &[]);
        };
        write.answer = Some(event.clone());
        match outcome {
            WriteOutcome::Acknowledged { epoch, first_seq, last_seq, ack } => {
                let numbers = Acknowledged { last: *last_seq, epoch: *epoch, answer: event.clone() };
                self.acknowledged(&write, *first_seq, numbers, *ack, findings);
                if *ack == Ack::Bucket {
                    mark.raise(*last_seq, event);
                }
                self.waiting.push(write);
            }
            WriteOutcome::Streamed { lines, last_seq, .. } => {
                write.lines = true;
                if *lines > 0 {
                    mark.raise(*last_seq, event);
                }
                self.waiting.push(write);
            }
            WriteOutcome::Refused { .. } => {
                findings.report.counts.refused += 1;
                self.refuse(write);
            }
            WriteOutcome::Unknown { .. } => {
                findings.report.counts.unknown += 1;
                self.unknown.insert(op, write);
            }
        }
    }

    /// Judges the numbers of an acknowledgement by themselves.
    fn acknowledged(
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

    /// The acknowledgement that covers `seq`.
    pub(super) fn acknowledgement(&self, seq: u64) -> Option<&Stamped> {
        let (_, found) = self.acknowledged.range(..=seq).next_back()?;
        (found.last >= seq).then_some(&found.answer)
    }

    /// Judges what the log reaches; at the end, everything.
    pub(super) fn settle(&mut self, truth: &mut Truth, findings: &mut Findings, end: bool) {
        if end {
            self.end(findings);
        }
        let reached = |w: &Write| match w.outcome() {
            Some(WriteOutcome::Acknowledged { last_seq, .. }) => *last_seq <= truth.through,
            Some(WriteOutcome::Streamed { last_seq, lines, .. }) => *lines == 0 || *last_seq <= truth.through,
            _ => true,
        };
        let (ready, waiting): (Vec<Write>, Vec<Write>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|w| end || reached(w));
        self.waiting = waiting;
        // Exact numbers first: what is left for the lines of an ingest must not be somebody else's.
        let (streams, exact): (Vec<Write>, Vec<Write>) = ready.into_iter().partition(|w| w.lines);
        for write in exact {
            self.claim(write, truth, findings);
        }
        for write in streams {
            self.claim_lines(write, truth, findings);
        }
        self.claim_the_rest(truth, findings, end);
        if let Some(surplus) = self.acknowledged.len().checked_sub(ACKNOWLEDGED) {
            let below: Vec<u64> =
                self.acknowledged.range(..=truth.kept_after).take(surplus).map(|(first, _)| *first).collect();
            below.iter().for_each(|first| drop(self.acknowledged.remove(first)));
        }
    }

    /// How many answers wait for the log.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// No more answers will come.
    fn end(&mut self, findings: &mut Findings) {
        for (op, write) in self.open.drain() {
            findings.report.counts.unknown += 1;
            self.unknown.insert(op, write);
        }
    }

    /// An acknowledged batch takes its numbers.
    fn claim(&mut self, write: Write, truth: &mut Truth, findings: &mut Findings) {
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
    fn claim_lines(&mut self, mut write: Write, truth: &mut Truth, findings: &mut Findings) {
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

    /// What is left of the log belongs to writes that nobody was told the outcome of, or to nobody.
    fn claim_the_rest(&mut self, truth: &mut Truth, findings: &mut Findings, end: bool) {
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

    fn refuse(&mut self, write: Write) {
        if self.refused.len() >= REFUSED
            && let Some(oldest) = self.refused.pop_front()
        {
            self.forget(&oldest);
        }
        self.refused.push_back(write);
    }

    /// The write can appear no more.
    fn forget(&mut self, write: &Write) {
        for mutation in write.mutations() {
            let content = content(&mutation.target, mutation.op);
            if let Some(from) = self.content.get_mut(&content) {
                from.retain(|op| *op != write.op);
                if from.is_empty() {
                    self.content.remove(&content);
                }
            }
        }
    }
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

/// What was known committed when the write was invoked has lower numbers.
fn in_real_time(write: &Write, first: u64, findings: &mut Findings) {
    if first <= write.floor.seq {
        let message = format!("{first} was asked for when {} was known to be committed", write.floor.seq);
        findings.violation(Rule::RealTimeOrder, message, &write.floor.with(&write.proof()), &[]);
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
