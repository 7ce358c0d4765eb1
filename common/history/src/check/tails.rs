//! Every consumer sees exactly the commit order from where it started: no gap, no repeat.

use std::collections::{HashMap, VecDeque};

use super::findings::{Findings, Rule};
use super::truth::Truth;
use crate::event::{Event, Name, Stamped, Start};
use crate::key::Key;
use crate::log::Record;

/// What the consumers were given, judged as far as the log is known.
#[derive(Debug, Default)]
pub(super) struct Tails {
    consumers: HashMap<Name, Consumer>,
}

#[derive(Debug, Default)]
struct Consumer {
    /// Events the log does not reach yet, and whatever came after them.
    waiting: VecDeque<Stamped>,
    /// Everything up to here was delivered; unknown before the first change of a consumer that started anywhere.
    position: Option<u64>,
    prefix: Option<Key>,
    /// The event that set the position.
    last: Option<Stamped>,
}

impl Tails {
    /// An event of a consumer.
    pub(super) fn take(&mut self, consumer: &Name, event: Stamped) {
        self.consumers.entry(consumer.clone()).or_default().waiting.push_back(event);
    }

    /// How many events wait for the log.
    pub(super) fn waiting(&self) -> usize {
        self.consumers.values().map(|c| c.waiting.len()).sum()
    }

    /// Judges what the log reaches; at the end, everything.
    pub(super) fn settle(&mut self, truth: &Truth, findings: &mut Findings, end: bool) {
        let mut names: Vec<&Name> =
            self.consumers.iter().filter(|(_, c)| !c.waiting.is_empty()).map(|(n, _)| n).collect();
        names.sort();
        let names: Vec<Name> = names.into_iter().cloned().collect();
        for name in names {
            if let Some(consumer) = self.consumers.get_mut(&name) {
                consumer.settle(truth, findings, end);
            }
        }
    }
}

impl Consumer {
    fn settle(&mut self, truth: &Truth, findings: &mut Findings, end: bool) {
        while let Some(next) = self.waiting.front() {
            if !end && reaches(&next.event).is_some_and(|seq| seq > truth.through) {
                return;
            }
            if let Some(event) = self.waiting.pop_front() {
                self.judge(event, truth, findings);
            }
        }
    }

    fn judge(&mut self, event: Stamped, truth: &Truth, findings: &mut Findings) {
        match &*event.event {
            Event::ConsumerStarted { from, prefix, .. } => {
                self.prefix.clone_from(prefix);
                self.position = match from {
                    Start::After(seq) => Some(*seq),
                    Start::Earliest if truth.model.began() == 0 => Some(0),
                    Start::Earliest | Start::Anywhere => None,
                };
            }
            Event::Delivered { consumer, record } => {
                findings.report.counts.deliveries += 1;
                self.delivered(consumer, record, &event, truth, findings);
                self.position = Some(self.position.map_or(record.seq, |p| p.max(record.seq)));
            }
            Event::Advanced { consumer, through } => {
                self.advanced(consumer, *through, &event, truth, findings);
                self.position = Some(self.position.map_or(*through, |p| p.max(*through)));
            }
            _ => return,
        }
        self.last = Some(event);
    }

    fn delivered(
        &self,
        consumer: &Name,
        record: &Record,
        event: &Stamped,
        truth: &Truth,
        findings: &mut Findings,
    ) {
        let proof: Vec<&Stamped> = self.last.iter().chain([event]).collect();
        if let Some(position) = self.position.filter(|p| record.seq <= *p) {
            let message = format!("consumer {consumer} has had {position} and gets {}", record.seq);
            findings.violation(Rule::TailNeverRepeats, message, &proof, &[]);
            return;
        }
        if record.seq <= truth.kept_after {
            findings.report.counts.unjudged += 1;
            return;
        }
        let Some(position) = self.position else {
            return self.content(consumer, record, event, truth, findings);
        };
        let next = truth.next_after(position.max(truth.kept_after), record.seq, self.prefix());
        if let Some(missed) = next.filter(|next| next.seq < record.seq) {
            let message =
                format!("consumer {consumer} had {position}, misses {} and gets {}", missed.seq, record.seq);
            findings.violation(Rule::TailHasNoGap, message, &proof, &[missed]);
        }
        self.content(consumer, record, event, truth, findings);
    }

    fn content(
        &self,
        consumer: &Name,
        record: &Record,
        event: &Stamped,
        truth: &Truth,
        findings: &mut Findings,
    ) {
        let wanted = record.key.as_bytes().starts_with(self.prefix());
        match truth.get(record.seq) {
            Some(committed) if committed.agrees(record) && wanted => {}
            Some(committed) if committed.agrees(record) => {
                let message = format!("consumer {consumer} gets a key without its prefix");
                findings.violation(Rule::TailIsTheLog, message, &[event], &[committed]);
            }
            Some(committed) => {
                let message = format!("consumer {consumer} gets {} otherwise than committed", record.seq);
                findings.violation(Rule::TailIsTheLog, message, &[event], &[committed]);
            }
            None => {
                let message = format!("consumer {consumer} gets {}, which the log does not hold", record.seq);
                findings.violation(Rule::TailIsTheLog, message, &[event], &[]);
            }
        }
    }

    fn advanced(
        &self,
        consumer: &Name,
        through: u64,
        event: &Stamped,
        truth: &Truth,
        findings: &mut Findings,
    ) {
        let Some(position) = self.position else { return };
        let proof: Vec<&Stamped> = self.last.iter().chain([event]).collect();
        if through < position {
            let message = format!("consumer {consumer} has had {position} and is told it has {through}");
            findings.violation(Rule::TailNeverRepeats, message, &proof, &[]);
        }
        if through > truth.through {
            let message = format!(
                "consumer {consumer} is told it has everything to {through}, the log ends at {}",
                truth.through
            );
            findings.violation(Rule::TailIsTheLog, message, &proof, &[]);
        }
        if let Some(missed) = truth.next_after(position.max(truth.kept_after), through, self.prefix()) {
            let message = format!(
                "consumer {consumer} had {position}, misses {} and is told it has {through}",
                missed.seq
            );
            findings.violation(Rule::TailHasNoGap, message, &proof, &[missed]);
        }
    }

    fn prefix(&self) -> &[u8] {
        self.prefix.as_ref().map_or(&[], Key::as_bytes)
    }
}

/// The number the log must reach before this event can be judged.
fn reaches(event: &Event) -> Option<u64> {
    match event {
        Event::Delivered { record, .. } => Some(record.seq),
        Event::Advanced { through, .. } => Some(*through),
        _ => None,
    }
}
