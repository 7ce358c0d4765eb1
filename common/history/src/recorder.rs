//! The append-only list of events that many threads share.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::event::{Event, Mutation, Name, OpId, Query, ReadAnswer, Stamped, Start, WriteOutcome};
use crate::key::Key;
use crate::log::Record;

/// Takes events in; each gets the next index. Clones share one list.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    list: Arc<Mutex<List>>,
}

#[derive(Debug, Default)]
struct List {
    /// Events taken out already.
    drained: u64,
    events: Vec<Arc<Event>>,
}

impl Recorder {
    /// An empty history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an event and returns its index.
    pub fn record(&self, event: Event) -> u64 {
        let event = Arc::new(event);
        let mut list = self.list.lock();
        list.events.push(event);
        list.drained + list.events.len() as u64 - 1
    }

    /// A client is about to send a write.
    pub fn write_invoked(&self, client: &Name, mutations: Vec<Mutation>) -> OpId {
        OpId(self.record(Event::WriteInvoked { client: client.clone(), mutations }))
    }

    /// A write ended.
    pub fn write_answered(&self, op: OpId, outcome: WriteOutcome) {
        self.record(Event::WriteAnswered { op, outcome });
    }

    /// A client is about to send a read.
    pub fn read_invoked(
        &self,
        client: &Name,
        reader: Option<&Name>,
        session: Option<&Name>,
        query: Query,
    ) -> OpId {
        OpId(self.record(Event::ReadInvoked {
            client: client.clone(),
            reader: reader.cloned(),
            session: session.cloned(),
            query,
        }))
    }

    /// A read was answered.
    pub fn read_answered(&self, op: OpId, answer: ReadAnswer) {
        self.record(Event::ReadAnswered { op, answer });
    }

    /// A read failed.
    pub fn read_failed(&self, op: OpId, code: &str) {
        self.record(Event::ReadFailed { op, code: code.to_owned() });
    }

    /// A process told which view it holds.
    pub fn view_reported(&self, process: &Name, lineage: Option<&Name>, version: u64, seq: u64) {
        self.record(Event::ViewReported {
            process: process.clone(),
            lineage: lineage.cloned(),
            version,
            seq,
        });
    }

    /// A consumer started, or started again.
    pub fn consumer_started(&self, consumer: &Name, from: Start, prefix: Option<Key>) {
        self.record(Event::ConsumerStarted { consumer: consumer.clone(), from, prefix });
    }

    /// A change was delivered.
    pub fn delivered(&self, consumer: &Name, record: Record) {
        self.record(Event::Delivered { consumer: consumer.clone(), record });
    }

    /// A consumer was told that everything up to `through` has been delivered.
    pub fn advanced(&self, consumer: &Name, through: u64) {
        self.record(Event::Advanced { consumer: consumer.clone(), through });
    }

    /// Something that explains.
    pub fn remark(&self, text: impl Into<String>) {
        self.record(Event::Remark { text: text.into() });
    }

    /// Events recorded so far, those taken out included.
    #[must_use]
    pub fn len(&self) -> u64 {
        let list = self.list.lock();
        list.drained + list.events.len() as u64
    }

    /// Whether nothing was recorded yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of the events not taken out yet.
    #[must_use]
    pub fn events(&self) -> Vec<Stamped> {
        let list = self.list.lock();
        stamp(list.drained, &list.events)
    }

    /// Takes the events out; indices go on counting.
    #[must_use]
    pub fn drain(&self) -> Vec<Stamped> {
        let (first, events) = {
            let mut list = self.list.lock();
            let first = list.drained;
            list.drained += list.events.len() as u64;
            (first, std::mem::take(&mut list.events))
        };
        stamp(first, &events)
    }
}

fn stamp(first: u64, events: &[Arc<Event>]) -> Vec<Stamped> {
    (first..).zip(events).map(|(index, event)| Stamped { index, event: event.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_dense_whoever_records_and_whatever_was_taken_out() {
        let recorder = Recorder::new();
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| (0..250).for_each(|i| recorder.remark(i.to_string())));
            }
        });
        let first = recorder.drain();
        recorder.remark("after");
        let all: Vec<u64> = first.iter().chain(&recorder.events()).map(|e| e.index).collect();
        assert_eq!(all, (0..1001).collect::<Vec<u64>>());
    }
}
