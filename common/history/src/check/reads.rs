//! Reads against the model: every answer is what an ordered map shows at the answer's view.

use std::collections::HashMap;

use super::findings::{Findings, Rule};
use super::mark::Mark;
use super::scans;
use super::truth::Truth;
use super::views::Views;
use crate::event::{Event, Name, OpId, Query, ReadAnswer, SeenRow, Stamped, Want};
use crate::log::Op;
use crate::model::{Expected, Version};

/// Every read that is not settled, and what scans and snapshots showed before.
#[derive(Debug, Default)]
pub(super) struct Reads {
    open: HashMap<OpId, Open>,
    /// Answered from views the log does not reach yet.
    waiting: Vec<(Stamped, Stamped)>,
    scans: HashMap<Name, Mark>,
    snapshots: HashMap<Name, Mark>,
}

/// A read under way, and what its view must not be below.
#[derive(Debug)]
struct Open {
    invoked: Stamped,
    floors: Vec<(Name, Mark)>,
}

/// A read under judgement.
pub(super) struct Judged<'a> {
    pub(super) query: &'a Query,
    pub(super) answer: &'a ReadAnswer,
    pub(super) proof: [&'a Stamped; 2],
    /// Microseconds by which the clocks of reader, writer and client may differ.
    pub(super) tolerance: i64,
}

impl Reads {
    pub(super) fn invoked(
        &mut self,
        event: &Stamped,
        reader: Option<&Name>,
        session: Option<&Name>,
        views: &Views,
    ) {
        let floors = [reader, session].into_iter().filter_map(|name| views.floor(name)).collect();
        self.open.insert(OpId(event.index), Open { invoked: event.clone(), floors });
    }

    /// A read failed. Some failures are never right.
    pub(super) fn failed(&mut self, op: OpId, event: &Stamped, findings: &mut Findings) -> Option<Stamped> {
        findings.report.counts.failed_reads += 1;
        let open = self.open.remove(&op);
        if open.is_none() {
            not_under_way(op, event, findings);
        }
        open.map(|o| o.invoked)
    }

    /// Takes an answer, judges its view by itself, and keeps it until the log reaches it.
    pub(super) fn answered(
        &mut self,
        op: OpId,
        answer: &ReadAnswer,
        event: &Stamped,
        views: &mut Views,
        findings: &mut Findings,
    ) {
        let Some(open) = self.open.remove(&op) else { return not_under_way(op, event, findings) };
        let invoked = open.invoked.clone();
        let Event::ReadInvoked { reader, session, query, .. } = &*invoked.event else { return };
        let (view, proof) = (answer.view_seq, [&invoked, event]);
        if let Some(asked) = query.min_seq.filter(|asked| *asked > view) {
            let message = format!("a read that asked for {asked} was answered from view {view}");
            findings.violation(Rule::MinSeqIsHeld, message, &proof, &[]);
        }
        if let Some(name) = &query.snapshot {
            stands_still(&mut self.snapshots, name, view, Rule::SnapshotsStandStill, &proof, findings);
        } else if query.page.as_ref().is_none_or(|page| page.first) {
            for (name, floor) in open.floors.iter().filter(|(_, floor)| floor.seq > view) {
                let message =
                    format!("{name} had shown view {}, and shows view {view} to a later read", floor.seq);
                findings.violation(Rule::ViewsNeverGoBack, message, &floor.with(&proof), &[]);
            }
            views.raise(reader.as_ref(), view, event);
            views.raise(session.as_ref(), view, event);
        }
        if let Some(page) = query.page.as_ref().filter(|page| page.consistent) {
            if page.first {
                self.scans.remove(&page.scan);
            }
            stands_still(&mut self.scans, &page.scan, view, Rule::PagesAreOneView, &proof, findings);
            if !answer.more {
                self.scans.remove(&page.scan);
            }
        }
        self.waiting.push((invoked, event.clone()));
    }

    /// How many answers wait for the log.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A snapshot was taken.
    pub(super) fn snapshot(&mut self, name: &Name, seq: u64, event: &Stamped, findings: &mut Findings) {
        stands_still(&mut self.snapshots, name, seq, Rule::SnapshotsStandStill, &[event], findings);
    }

    /// Judges what the log reaches; at the end, everything.
    pub(super) fn settle(&mut self, truth: &Truth, tolerance: i64, findings: &mut Findings, end: bool) {
        let reads = std::mem::take(&mut self.waiting);
        for (invoked, answered) in reads {
            let (Event::ReadInvoked { query, .. }, Event::ReadAnswered { answer, .. }) =
                (&*invoked.event, &*answered.event)
            else {
                continue;
            };
            if answer.view_seq > truth.through && !end {
                self.waiting.push((invoked, answered));
                continue;
            }
            let read = Judged { query, answer, proof: [&invoked, &answered], tolerance };
            judge(&read, truth, findings);
        }
    }
}

fn not_under_way(op: OpId, event: &Stamped, findings: &mut Findings) {
    let message = format!("read {} was answered, and was not under way", op.0);
    findings.violation(Rule::HistoryIsSound, message, &[event], &[]);
}

/// Whatever has this name always shows the same number.
fn stands_still(
    seen: &mut HashMap<Name, Mark>,
    name: &Name,
    view: u64,
    rule: Rule,
    proof: &[&Stamped],
    findings: &mut Findings,
) {
    let mark = seen.entry(name.clone()).or_default();
    if mark.proof.is_some() && mark.seq != view {
        let message = format!("{name} showed {} and then {view}", mark.seq);
        findings.violation(rule, message, &mark.with(proof), &[]);
    }
    if let (None, Some(first)) = (&mark.proof, proof.last()) {
        mark.raise(view, first);
    }
}

fn judge(read: &Judged<'_>, truth: &Truth, findings: &mut Findings) {
    let view = read.answer.view_seq;
    if view > truth.through {
        let message = format!("a read was answered from view {view}, the log ends at {}", truth.through);
        return findings.violation(Rule::ViewsAreCommitted, message, &read.proof, &[]);
    }
    findings.report.counts.reads += 1;
    findings.report.counts.rows += read.answer.rows.len() as u64;
    match &read.query.want {
        Want::Range { .. } => scans::judge(read, truth, findings),
        Want::Keys(keys) => {
            let mut instant = scans::Instant::default();
            let mut rows = read.answer.rows.iter().peekable();
            for key in keys {
                let expected = truth.model.at(key, view, read.answer.judged, read.tolerance);
                let shown = rows.next_if(|row| row.key == *key);
                row(read, key.as_bytes(), expected, shown, &mut instant, truth, findings);
            }
            if let Some(extra) = rows.next() {
                let message =
                    format!("the answer holds a row nobody asked for, or twice, or out of order: {extra}");
                findings.violation(Rule::ReadsMatchTheModel, message, &read.proof, &[]);
            }
            instant.judge(read, findings);
        }
    }
}

/// Judges one key: what the answer shows against what it must show.
pub(super) fn row(
    read: &Judged<'_>,
    key: &[u8],
    expected: Expected,
    shown: Option<&SeenRow>,
    instant: &mut scans::Instant,
    truth: &Truth,
    findings: &mut Findings,
) {
    let view = read.answer.view_seq;
    let wrong = |what: String, version: Option<Version>, findings: &mut Findings| {
        let record = version.and_then(|v| truth.get(v.seq));
        let records: Vec<_> = record.into_iter().collect();
        let message = format!("at view {view} key \"{}\" {what}", key.escape_ascii());
        findings.violation(Rule::ReadsMatchTheModel, message, &read.proof, &records);
    };
    match (expected, shown) {
        (Expected::Row(v) | Expected::Either(v), Some(row)) => {
            if !same(row, v) {
                wrong(format!("is seq {} {}, and the answer shows {row}", v.seq, v.op), Some(v), findings);
            }
            if matches!(expected, Expected::Either(_)) {
                instant.shown(v);
            }
        }
        (Expected::Row(v), None) => {
            wrong(format!("is seq {} {}, and the answer does not show it", v.seq, v.op), Some(v), findings);
        }
        (Expected::Either(v), None) => instant.hidden(v),
        (Expected::Absent, None) => {}
        (Expected::Absent, Some(row)) => {
            wrong(format!("is absent, and the answer shows {row}"), None, findings)
        }
        (Expected::Unknown, Some(row)) if row.seq.is_some_and(|seq| seq > truth.model.floor().min(view)) => {
            wrong(
                format!("has no version above {}, and the answer shows {row}", truth.model.floor()),
                None,
                findings,
            );
        }
        (Expected::Unknown, _) => findings.report.counts.unjudged += 1,
    }
}

fn same(row: &SeenRow, version: Version) -> bool {
    row.seq.is_none_or(|seq| seq == version.seq) && row.value.is_none_or(|value| Op::Put(value) == version.op)
}
