//! A scan's answer against the model's range, row by row, both ways.

use super::findings::{Findings, Rule};
use super::reads::{Judged, row};
use super::truth::Truth;
use crate::event::{SeenRow, Want};
use crate::key::Key;
use crate::model::{Expected, Version};

/// The one instant at which a read judged every expiry, as far as its rows tell.
#[derive(Debug, Default)]
pub(super) struct Instant {
    /// The earliest expiry among rows shown.
    shown: Option<i64>,
    /// The latest expiry among rows left out.
    hidden: Option<i64>,
}

impl Instant {
    pub(super) fn shown(&mut self, version: Version) {
        self.shown = self.shown.into_iter().chain(version.expires).min();
    }

    pub(super) fn hidden(&mut self, version: Version) {
        self.hidden = self.hidden.into_iter().chain(version.expires).max();
    }

    /// No row may be shown that expires before one that is left out as expired.
    pub(super) fn judge(&self, read: &Judged<'_>, findings: &mut Findings) {
        if let (Some(shown), Some(hidden)) = (self.shown, self.hidden)
            && shown <= hidden
        {
            let message = format!(
                "a row that expires at {shown} is shown, and one that expires at {hidden} is left out"
            );
            findings.violation(Rule::OneInstant, message, &read.proof, &[]);
        }
    }
}

/// Judges a range read.
pub(super) fn judge(read: &Judged<'_>, truth: &Truth, findings: &mut Findings) {
    let Want::Range { start, end, limit, reverse } = &read.query.want else { return };
    let answer = read.answer;
    let rows = &answer.rows;
    if let Some(wrong) = disorder(rows, start, end.as_ref(), *limit, *reverse) {
        return findings.violation(Rule::ScansAreOrdered, wrong, &read.proof, &[]);
    }
    let mut instant = Instant::default();
    let mut shown = rows.iter().peekable();
    let expected =
        truth.model.range(start, end.as_ref(), *reverse, answer.view_seq, answer.judged, read.tolerance);
    // Beyond the last row of a page nothing was said.
    let open_ended = answer.more || limit.is_some_and(|n| rows.len() as u64 >= n);
    for (key, expected) in expected {
        while let Some(extra) = shown.next_if(|r| if *reverse { r.key > *key } else { r.key < *key }) {
            unheard(read, extra, &mut instant, truth, findings);
        }
        if open_ended && shown.peek().is_none() {
            break;
        }
        let here = shown.next_if(|r| r.key == *key);
        row(read, key.as_bytes(), expected, here, &mut instant, truth, findings);
    }
    for extra in shown {
        unheard(read, extra, &mut instant, truth, findings);
    }
    instant.judge(read, findings);
}

/// A row whose key the model has never heard of.
fn unheard(
    read: &Judged<'_>,
    extra: &SeenRow,
    instant: &mut Instant,
    truth: &Truth,
    findings: &mut Findings,
) {
    let known = truth.model.began() == 0 && read.answer.view_seq >= truth.model.floor();
    let expected = if known { Expected::Absent } else { Expected::Unknown };
    row(read, extra.key.as_bytes(), expected, Some(extra), instant, truth, findings);
}

fn disorder(
    rows: &[SeenRow],
    start: &Key,
    end: Option<&Key>,
    limit: Option<u64>,
    reverse: bool,
) -> Option<String> {
    if let Some(limit) = limit.filter(|n| rows.len() as u64 > *n) {
        return Some(format!("{} rows where at most {limit} were asked for", rows.len()));
    }
    if let Some(out) = rows.iter().find(|r| r.key < *start || end.is_some_and(|end| r.key >= *end)) {
        return Some(format!("{out} lies outside the range"));
    }
    let falls = |pair: &&[SeenRow]| match pair {
        [a, b] if reverse => a.key <= b.key,
        [a, b] => a.key >= b.key,
        _ => false,
    };
    rows.windows(2).find(falls).map(|pair| {
        format!("rows out of order: {}", pair.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    })
}
