//! Violations, with the events that prove them and what was going on around.

use std::collections::VecDeque;
use std::fmt;

use serde::Serialize;

use crate::event::Stamped;
use crate::log::Record;

/// A promise that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// An acknowledged write stands in the log at exactly the numbers it was answered with.
    AcknowledgedIsThere,
    /// … and with exactly that content: keys, values, expiries, epoch, an atomic batch whole.
    AcknowledgedIsUnaltered,
    /// A refused write appears nowhere.
    RefusedIsNowhere,
    /// A write whose outcome nobody was told appears whole or not at all.
    UnknownIsWhole,
    /// Nothing appears twice.
    AtMostOnce,
    /// Nothing appears that nobody wrote.
    SomebodyWroteIt,
    /// Sequence numbers are dense.
    NumbersAreDense,
    /// Write times never decrease.
    TimesNeverDecrease,
    /// Epochs never decrease with sequence numbers.
    EpochsNeverDecrease,
    /// A write gets a higher number than everything known committed before it was asked for.
    RealTimeOrder,
    /// A read with `min_seq` answers from a view that holds it.
    MinSeqIsHeld,
    /// No view goes beyond what is ever committed.
    ViewsAreCommitted,
    /// An answer is what an ordered map shows at that view.
    ReadsMatchTheModel,
    /// A scan's rows are in order, inside the range, within the limit.
    ScansAreOrdered,
    /// One read judges every expiry at one instant.
    OneInstant,
    /// The views of one process, or of one session, never go back.
    ViewsNeverGoBack,
    /// The pages of a consistent scan are of one view.
    PagesAreOneView,
    /// A snapshot always shows the same number.
    SnapshotsStandStill,
    /// A consumer misses nothing.
    TailHasNoGap,
    /// A consumer gets nothing twice.
    TailNeverRepeats,
    /// A consumer gets what was committed.
    TailIsTheLog,
    /// No request is answered with damage or with a defect.
    NoBrokenAnswers,
    /// The history itself makes sense: one answer for every invocation.
    HistoryIsSound,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A broken promise.
#[derive(Debug, Clone, Serialize)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// What happened instead.
    pub message: String,
    /// The events that prove it.
    pub events: Vec<Stamped>,
    /// The records of the log that prove it.
    pub records: Vec<Record>,
    /// What was remarked in the meantime.
    pub remarks: Vec<Stamped>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.message)?;
        let mut lines: Vec<&Stamped> = self.events.iter().chain(&self.remarks).collect();
        lines.sort_by_key(|e| e.index);
        lines.dedup_by_key(|e| e.index);
        for event in lines {
            write!(f, "\n    {event}")?;
        }
        for record in &self.records {
            write!(f, "\n    log: {record}")?;
        }
        Ok(())
    }
}

/// How much was judged, so that an empty list of violations can be weighed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Records of the committed log.
    pub records: u64,
    /// Writes that were acknowledged and are in the log as answered.
    pub acknowledged: u64,
    /// Writes that were refused.
    pub refused: u64,
    /// Writes whose outcome the client was not told.
    pub unknown: u64,
    /// … of which are in the log.
    pub unknown_applied: u64,
    /// Reads compared with the model.
    pub reads: u64,
    /// … and the rows they showed.
    pub rows: u64,
    /// Reads that failed with an error.
    pub failed_reads: u64,
    /// Changes delivered to consumers and compared with the log.
    pub deliveries: u64,
    /// Answers, or parts of answers, that lie below what is known of the log.
    pub unjudged: u64,
}

/// What a checker found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The violations, in the order they were found, up to a limit.
    pub violations: Vec<Violation>,
    /// All of them, counted.
    pub total: u64,
    /// How much was judged.
    pub counts: Counts,
}

impl Report {
    /// Whether nothing was violated.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.total == 0
    }

    /// Whether `rule` was violated.
    #[must_use]
    pub fn breaks(&self, rule: Rule) -> bool {
        self.violations.iter().any(|v| v.rule == rule)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.counts;
        write!(
            f,
            "{} violations; judged {} records, {} acknowledged, {} refused and {} unknown writes ({} applied), \
             {} reads with {} rows, {} deliveries; {} failed reads, {} unjudged",
            self.total,
            c.records,
            c.acknowledged,
            c.refused,
            c.unknown,
            c.unknown_applied,
            c.reads,
            c.rows,
            c.deliveries,
            c.failed_reads,
            c.unjudged
        )?;
        for violation in &self.violations {
            write!(f, "\n{violation}")?;
        }
        Ok(())
    }
}

/// Remarks remembered, so that a violation found later can print those of its time.
const REMARKS: usize = 1024;

/// Remarks printed before a violation's first event, and in all.
const BEFORE: usize = 3;
const SHOWN: usize = 24;

/// Where the rules put what they find.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) report: Report,
    limit: usize,
    remarks: VecDeque<Stamped>,
}

impl Findings {
    pub(super) fn new(limit: usize) -> Self {
        Self { report: Report::default(), limit, remarks: VecDeque::new() }
    }

    pub(super) fn remark(&mut self, event: Stamped) {
        if self.remarks.len() == REMARKS {
            self.remarks.pop_front();
        }
        self.remarks.push_back(event);
    }

    pub(super) fn violation(
        &mut self,
        rule: Rule,
        message: String,
        events: &[&Stamped],
        records: &[&Record],
    ) {
        self.report.total += 1;
        // At the limit violations are counted and no longer kept: the first ones are the cause of the others.
        if self.report.violations.len() >= self.limit {
            return;
        }
        let events: Vec<Stamped> = events.iter().map(|e| (*e).clone()).collect();
        let remarks = self.around(&events);
        let records = records.iter().map(|r| (*r).clone()).collect();
        self.report.violations.push(Violation { rule, message, events, records, remarks });
    }

    /// The remarks between the first and the last of `events`, and the last few before.
    fn around(&self, events: &[Stamped]) -> Vec<Stamped> {
        let (Some(first), Some(last)) =
            (events.iter().map(|e| e.index).min(), events.iter().map(|e| e.index).max())
        else {
            return Vec::new();
        };
        let from = self.remarks.partition_point(|r| r.index < first).saturating_sub(BEFORE);
        let to = self.remarks.partition_point(|r| r.index <= last);
        self.remarks.range(from..to.max(from)).take(SHOWN).cloned().collect()
    }
}
