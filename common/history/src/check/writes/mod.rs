//! Writes against the log: what was acknowledged is there, what was refused is not, and nobody else wrote.
//!
//! Every record of the log has to be claimed by one write. Acknowledged writes claim by number. What is left belongs to
//! writes that nobody was told the outcome of; they are found by content, and claim whole or not at all. A record that
//! could belong to a write still under way waits for its answer.

mod acknowledged;
mod unknown;

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

/// What was known committed when the write was invoked has lower numbers.
fn in_real_time(write: &Write, first: u64, findings: &mut Findings) {
    if first <= write.floor.seq {
        let message = format!("{first} was asked for when {} was known to be committed", write.floor.seq);
        findings.violation(Rule::RealTimeOrder, message, &write.floor.with(&write.proof()), &[]);
    }
}
