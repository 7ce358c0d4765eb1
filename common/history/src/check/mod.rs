//! The rules: what a database that keeps its promises could have answered.
//!
//! The checker is fed events in their order and the committed log in pieces, in any interleaving. Whatever talks of
//! numbers the log does not reach yet waits; so a long run can be judged while it goes on, with the memory of what is
//! not settled and of the last [`Limits::keep`] numbers. [`check`] is the short form for a finished run.
//!
//! Everything is near-linear: an event is looked at once, a record is claimed once, a read costs its rows and a binary
//! search per key. A scan costs the keys of its range that exist at any version.
//!
//! What is *not* asked for: that a read without `min_seq` sees the newest acknowledged write. Readers follow the
//! writer at a distance; what they promise is a true view, and never an older one than before.

mod findings;
mod mark;
mod reads;
mod scans;
mod tails;
mod truth;
mod views;
mod writes;

#[cfg(test)]
mod tests;

pub use findings::{Counts, Report, Rule, Violation};

use findings::Findings;
use mark::Mark;
use reads::Reads;
use tails::Tails;
use truth::Truth;
use views::Views;
use writes::Writes;

use crate::event::{Event, OpId, Stamped};
use crate::log::LogPiece;

/// How much is remembered, and how strictly is judged.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Violations kept with their evidence; beyond, they are counted.
    pub violations: usize,
    /// Numbers below the end of the log for which versions and records are remembered. Views and deliveries below are
    /// counted as unjudged. `None` remembers everything.
    pub keep: Option<u64>,
    /// Whether the log holds only some of the numbers: the keys of one prefix, beside other writers.
    pub sparse: bool,
    /// Microseconds by which the clocks that wrote expiries and judged them may differ.
    pub clock_tolerance: i64,
    /// Error codes that no read may be answered with.
    pub broken_codes: Vec<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            violations: 100,
            keep: None,
            sparse: false,
            clock_tolerance: 0,
            broken_codes: ["damaged", "internal"].map(str::to_owned).into(),
        }
    }
}

/// Judges a history as it is fed.
#[derive(Debug)]
pub struct Checker {
    limits: Limits,
    truth: Truth,
    writes: Writes,
    reads: Reads,
    views: Views,
    tails: Tails,
    /// What is known committed.
    mark: Mark,
    findings: Findings,
}

/// Judges a finished run: its events, and the whole committed log as read after everything came to rest.
#[must_use]
pub fn check(events: &[Stamped], log: LogPiece, limits: Limits) -> Report {
    let mut checker = Checker::new(limits);
    checker.log(log);
    checker.events(events);
    checker.finish()
}

impl Checker {
    /// A checker that has seen nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            truth: Truth::new(limits.sparse),
            findings: Findings::new(limits.violations),
            limits,
            writes: Writes::default(),
            reads: Reads::default(),
            views: Views::default(),
            tails: Tails::default(),
            mark: Mark::default(),
        }
    }

    /// Takes the next piece of the committed log.
    pub fn log(&mut self, piece: LogPiece) {
        self.truth.extend(piece, &mut self.findings);
    }

    /// Takes the next events.
    pub fn events(&mut self, events: &[Stamped]) {
        for event in events {
            self.event(event);
        }
    }

    /// Judges everything the log reaches by now, and forgets what lies too far back.
    ///
    /// Every event recorded before the log was read must have been taken in: a record whose write is not known to
    /// have been asked for was written by nobody. So read the log, then drain the recorder, then settle.
    pub fn settle(&mut self) -> &Report {
        self.judge(false);
        if let Some(keep) = self.limits.keep {
            self.truth.prune(keep);
        }
        &self.findings.report
    }

    /// No more events and no more log will come: judges everything that is left.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.judge(true);
        self.findings.report
    }

    /// Answers, records and changes that wait for each other: what a driver watches to slow down.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.writes.waiting() + self.truth.unclaimed.len() + self.reads.waiting() + self.tails.waiting()
    }

    /// What was found so far.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.findings.report
    }

    fn judge(&mut self, end: bool) {
        if let Some(proof) = self.mark.proof.as_ref().filter(|_| end && self.mark.seq > self.truth.through) {
            let message = format!(
                "{} was known to be committed, the log ends at {}",
                self.mark.seq, self.truth.through
            );
            self.findings.violation(Rule::ViewsAreCommitted, message, &[proof], &[]);
        }
        self.writes.settle(&mut self.truth, &mut self.findings, end);
        self.reads.settle(&self.truth, self.limits.clock_tolerance, &mut self.findings, end);
        self.tails.settle(&self.truth, &mut self.findings, end);
    }

    fn event(&mut self, stamped: &Stamped) {
        let findings = &mut self.findings;
        match &*stamped.event {
            Event::WriteInvoked { mutations, .. } => self.writes.invoked(stamped, mutations, &self.mark),
            Event::WriteAnswered { op, outcome } => {
                self.writes.answered(*op, outcome, stamped, &mut self.mark, findings);
            }
            Event::ReadInvoked { reader, session, .. } => {
                self.reads.invoked(stamped, reader.as_ref(), session.as_ref(), &self.views);
            }
            Event::ReadAnswered { op, answer } => {
                self.reads.answered(*op, answer, stamped, &mut self.views, findings);
                self.mark.raise(answer.view_seq, stamped);
            }
            Event::ReadFailed { op, code } => self.failed(*op, code, stamped),
            Event::ViewReported { process, lineage, version, seq } => {
                self.views.report(process, lineage.as_ref(), *version, *seq, stamped, findings);
                self.mark.raise(*seq, stamped);
            }
            Event::SnapshotTaken { name, seq } => self.reads.snapshot(name, *seq, stamped, findings),
            Event::ConsumerStarted { consumer, .. } => self.tails.take(consumer, stamped.clone()),
            Event::Delivered { consumer, record } => {
                self.mark.raise(record.seq, stamped);
                self.tails.take(consumer, stamped.clone());
            }
            Event::Advanced { consumer, through } => {
                self.mark.raise(*through, stamped);
                self.tails.take(consumer, stamped.clone());
            }
            Event::Remark { .. } => findings.remark(stamped.clone()),
        }
    }

    /// A read failed: some failures are never right.
    fn failed(&mut self, op: OpId, code: &str, stamped: &Stamped) {
        let Some(invoked) = self.reads.failed(op, stamped, &mut self.findings) else { return };
        if self.limits.broken_codes.iter().any(|broken| broken == code) {
            let message = format!("a read was answered with {code}");
            self.findings.violation(Rule::NoBrokenAnswers, message, &[&invoked, stamped], &[]);
        }
        let Event::ReadInvoked { query, .. } = &*invoked.event else { return };
        let asked = query.min_seq.filter(|_| code == "write_lost");
        if let Some((seq, ack)) = asked.and_then(|seq| Some((seq, self.writes.acknowledgement(seq)?))) {
            let message = format!("{seq} was acknowledged as committed and is answered as lost");
            self.findings.violation(Rule::AcknowledgedIsThere, message, &[ack, &invoked, stamped], &[]);
        }
    }
}
