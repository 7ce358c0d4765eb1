//! The sequencer: under one short lock a mutation gets its number and its time, and is copied once, into the open
//! batch. No allocation of its own, no sorting, no I/O.
//!
//! Only the leader has one. Numbers are given at acceptance and never taken back: not by a caller that goes away, not
//! by back-pressure, not by a failed upload.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use isle_storage::ids::{Epoch, SeqNo, Timestamp};
use isle_storage::log::{Batch, Push, SealedBatch};
use isle_storage::row::BlobPointer;
use tokio::time::Instant;

use super::{Accepted, Ack, Completion, Event, Mutation, NEVER, Numbers, charge};
use crate::blobs::POINTER_BYTES;
use crate::snapshots::{Ask, MAX_ASKS};

/// When a batch is full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SealRules {
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    pub(crate) block_bytes: usize,
}

/// Gives numbers to mutations for one epoch.
#[derive(Debug)]
pub(crate) struct Sequencer {
    epoch: Epoch,
    rules: SealRules,
    next: SeqNo,
    last_time: Timestamp,
    /// How long a put lives that says nothing of it.
    default_ttl: Option<Duration>,
    open: Open,
    sealed: VecDeque<Sealed>,
    /// The newest batch that was sealed, for those who wait for everything accepted.
    newest: Option<Arc<Completion>>,
    /// Requests about snapshots, in order, for the pipeline.
    asks: Vec<Ask>,
    key: Vec<u8>,
    /// The pipeline is woken when this many callers wait for the open batch.
    company: u64,
}

/// The batch that is being filled.
#[derive(Debug)]
struct Open {
    batch: Batch,
    first: SeqNo,
    charge: u64,
    /// When its first record came.
    since: Option<Instant>,
    /// Callers that wait for its commit.
    waiters: u64,
    completion: Arc<Completion>,
}

/// A closed batch on its way to the pipeline.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) batch: SealedBatch,
    /// Bytes of admission it holds.
    pub(crate) charge: u64,
    /// When its first record came.
    pub(crate) since: Instant,
    /// When it was closed.
    pub(crate) sealed: Instant,
    pub(crate) completion: Arc<Completion>,
    /// Callers that wait for it.
    pub(crate) waiters: u64,
}

/// What the pipeline needs to know to decide about the open batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenState {
    pub(crate) since: Instant,
    pub(crate) waiters: u64,
}

/// What came of one call: its numbers, and whether the pipeline must look.
#[derive(Debug)]
pub(crate) struct Taken<T> {
    pub(crate) answer: T,
    pub(crate) wake: bool,
}

impl Open {
    fn new(first: SeqNo, rules: &SealRules) -> Self {
        Self {
            batch: Batch::new(first, rules.block_bytes),
            first,
            charge: 0,
            since: None,
            waiters: 0,
            completion: Arc::default(),
        }
    }
}

impl Sequencer {
    /// Continues after `last` for `epoch`; no time stamp will be before `last_time`.
    pub(crate) fn new(epoch: Epoch, last: SeqNo, last_time: Timestamp, rules: SealRules) -> Self {
        let next = last.next();
        let open = Open::new(next, &rules);
        Self {
            epoch,
            rules,
            next,
            last_time,
            default_ttl: None,
            open,
            sealed: VecDeque::new(),
            newest: None,
            asks: Vec::new(),
            key: Vec::new(),
            company: 0,
        }
    }

    /// One mutation that nobody will wait for.
    pub(crate) fn one(&mut self, m: &Mutation<'_>, now: Timestamp) -> Taken<Numbers> {
        let time = self.stamp(now);
        let first = self.open.since.is_none();
        let seq = self.push(m, time);
        let wake = self.seal_if_full() || first;
        Taken { answer: Numbers { epoch: self.epoch, first_seq: seq, last_seq: seq }, wake }
    }

    /// Several mutations in a row; with `atomic` all of them in one batch (they fit one: the caller has checked).
    pub(crate) fn many(
        &mut self,
        ms: &[Mutation<'_>],
        now: Timestamp,
        atomic: bool,
        ack: Ack,
    ) -> Taken<Accepted> {
        let total: usize = ms.iter().map(Mutation::charge).sum();
        self.run(ms.len(), total, now, atomic, ack, |s, i, time| s.push(&ms[i], time))
    }

    /// Several mutations in one batch, of which those with a place have their value there.
    pub(crate) fn stored(
        &mut self,
        ms: &[Mutation<'_>],
        places: &[Option<BlobPointer>],
        now: Timestamp,
        ack: Ack,
    ) -> Taken<Accepted> {
        let at = |i: usize| places.get(i).and_then(Option::as_ref);
        let charged = |i: usize| match at(i) {
            Some(_) => charge(ms[i].key().len(), POINTER_BYTES),
            None => ms[i].charge(),
        };
        let total: usize = (0..ms.len()).map(charged).sum();
        self.run(ms.len(), total, now, true, ack, |s, i, time| match (&ms[i], at(i)) {
            (Mutation::Put { key, ttl, .. }, Some(place)) => {
                let expires = s.expiry(*ttl, time);
                s.record(key, time, expires, Push::Blob(place.as_ref()), charged(i))
            }
            (m, _) => s.push(m, time),
        })
    }

    /// The same for events of one stream.
    pub(crate) fn stored_events(
        &mut self,
        stream: &[u8],
        events: &[Event<'_>],
        places: &[Option<BlobPointer>],
        now: Timestamp,
        ack: Ack,
    ) -> Taken<Accepted> {
        let key_len = stream.len() + super::EVENT_SUFFIX;
        let at = |i: usize| places.get(i).and_then(Option::as_ref);
        let charged = |i: usize| charge(key_len, at(i).map_or(events[i].value.len(), |_| POINTER_BYTES));
        let total: usize = (0..events.len()).map(charged).sum();
        self.run(events.len(), total, now, true, ack, |s, i, time| {
            let Some(place) = at(i) else { return s.push_event(stream, &events[i], time) };
            let mut key = std::mem::take(&mut s.key);
            event_key_into(&mut key, stream, s.next);
            let expires = s.expiry(events[i].ttl, time);
            let seq = s.record(&key, time, expires, Push::Blob(place.as_ref()), charged(i));
            s.key = key;
            seq
        })
    }

    /// Several events of one stream, in one batch. Their keys hold their numbers, so they are made here.
    pub(crate) fn events(
        &mut self,
        stream: &[u8],
        events: &[Event<'_>],
        now: Timestamp,
        ack: Ack,
    ) -> Taken<Accepted> {
        let key_len = stream.len() + super::EVENT_SUFFIX;
        let total: usize = events.iter().map(|e| charge(key_len, e.value.len())).sum();
        self.run(events.len(), total, now, true, ack, |s, i, time| s.push_event(stream, &events[i], time))
    }

    fn run(
        &mut self,
        count: usize,
        total: usize,
        now: Timestamp,
        atomic: bool,
        ack: Ack,
        mut push: impl FnMut(&mut Self, usize, Timestamp) -> SeqNo,
    ) -> Taken<Accepted> {
        let time = self.stamp(now);
        let mut wake = false;
        if atomic && self.open.since.is_some() && self.open.charge + total as u64 > self.rules.bytes {
            self.seal();
            wake = true;
        }
        let first_seq = self.next;
        let mut pieces = Vec::new();
        let mut in_batch = 0;
        for i in 0..count {
            wake |= self.open.since.is_none();
            let seq = push(self, i, time);
            in_batch += 1;
            if (!atomic || i + 1 == count) && self.is_full() {
                self.note(ack, seq, &mut pieces);
                self.seal();
                (wake, in_batch) = (true, 0);
            }
        }
        let last_seq = SeqNo(self.next.0 - 1);
        if in_batch > 0 {
            wake |= self.note(ack, last_seq, &mut pieces);
        }
        let numbers = Numbers { epoch: self.epoch, first_seq, last_seq };
        Taken { answer: Accepted::new(numbers, pieces), wake }
    }

    /// Notes that the caller waits for the open batch. True where that makes the batch due, or may.
    fn note(&mut self, ack: Ack, seq: SeqNo, pieces: &mut Vec<(SeqNo, Arc<Completion>)>) -> bool {
        if ack == Ack::Memory {
            return false;
        }
        pieces.push((seq, Arc::clone(&self.open.completion)));
        self.open.waiters += 1;
        self.open.waiters == 1 || self.open.waiters == self.company
    }

    /// Time never goes back, whatever the clock does.
    fn stamp(&mut self, now: Timestamp) -> Timestamp {
        self.last_time = self.last_time.max(now);
        self.last_time
    }

    /// From now on a put that says nothing of it lives so long.
    pub(crate) fn set_default_ttl(&mut self, ttl: Option<Duration>) {
        self.default_ttl = ttl;
    }

    fn expiry(&self, ttl: Option<Duration>, time: Timestamp) -> Option<Timestamp> {
        ttl.or(self.default_ttl).filter(|ttl| *ttl != NEVER).map(|ttl| time.plus(ttl))
    }

    fn push(&mut self, m: &Mutation<'_>, time: Timestamp) -> SeqNo {
        match m {
            Mutation::Put { key, value, ttl } => {
                self.record(key, time, self.expiry(*ttl, time), Push::Put(value), m.charge())
            }
            Mutation::Delete { key } => self.record(key, time, None, Push::Delete, m.charge()),
        }
    }

    fn push_event(&mut self, stream: &[u8], event: &Event<'_>, time: Timestamp) -> SeqNo {
        let mut key = std::mem::take(&mut self.key);
        event_key_into(&mut key, stream, self.next);
        let charge = charge(key.len(), event.value.len());
        let expires = self.expiry(event.ttl, time);
        let seq = self.record(&key, time, expires, Push::Put(event.value), charge);
        self.key = key;
        seq
    }

    fn record(
        &mut self,
        key: &[u8],
        time: Timestamp,
        expires: Option<Timestamp>,
        value: Push<'_>,
        charge: usize,
    ) -> SeqNo {
        if self.open.since.is_none() {
            self.open.since = Some(Instant::now());
        }
        let seq = self.open.batch.push(key, time, expires, value);
        debug_assert_eq!(seq, self.next, "the batch counts as the sequencer does");
        self.open.charge += charge as u64;
        self.next = seq.next();
        seq
    }

    fn is_full(&self) -> bool {
        self.open.charge >= self.rules.bytes || self.next.0 - self.open.first.0 >= self.rules.records
    }

    fn seal_if_full(&mut self) -> bool {
        let full = self.is_full();
        if full {
            self.seal();
        }
        full
    }

    /// Closes the open batch, if there is anything in it.
    pub(crate) fn seal(&mut self) {
        let fresh = Open::new(self.next, &self.rules);
        let open = std::mem::replace(&mut self.open, fresh);
        let (Some(since), Some(batch)) = (open.since, open.batch.seal()) else { return };
        self.newest = Some(Arc::clone(&open.completion));
        let sealed = Sealed {
            batch,
            charge: open.charge,
            since,
            sealed: Instant::now(),
            completion: open.completion,
            waiters: open.waiters,
        };
        self.sealed.push_back(sealed);
    }

    /// Asks to wake the pipeline when so many callers wait for the open batch.
    pub(crate) fn expect(&mut self, company: u64) {
        self.company = company;
    }

    /// The open batch as it stands; `None` where it is empty.
    pub(crate) fn open(&self) -> Option<OpenState> {
        self.open.since.map(|since| OpenState { since, waiters: self.open.waiters })
    }

    /// Closed batches, in order, for the pipeline.
    pub(crate) fn take_sealed(&mut self) -> VecDeque<Sealed> {
        std::mem::take(&mut self.sealed)
    }

    /// Closes the open batch, and returns what ends last of everything accepted so far.
    pub(crate) fn seal_all(&mut self) -> Option<Arc<Completion>> {
        if self.open.since.is_some() {
            self.seal();
        }
        self.newest.clone()
    }

    /// Takes a request about snapshots, and closes the open batch: what was accepted before it is to be committed without
    /// further ado. `false` where too many are waiting.
    pub(crate) fn ask(&mut self, ask: Ask) -> bool {
        if self.asks.len() >= MAX_ASKS {
            return false;
        }
        self.seal_all();
        self.asks.push(ask);
        true
    }

    /// Requests about snapshots, in order, at most so many.
    pub(crate) fn take_asks(&mut self, at_most: usize) -> Vec<Ask> {
        self.asks.drain(..at_most.min(self.asks.len())).collect()
    }

    /// The newest number given.
    pub(crate) fn accepted(&self) -> SeqNo {
        SeqNo(self.next.0 - 1)
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// The key of the event with this number: `stream`, a slash, 16 hexadecimal digits.
pub(crate) fn event_key_into(key: &mut Vec<u8>, stream: &[u8], seq: SeqNo) {
    key.clear();
    key.extend_from_slice(stream);
    key.push(b'/');
    for shift in (0..16).rev() {
        key.push(b"0123456789abcdef"[(seq.0 >> (shift * 4) & 15) as usize]);
    }
}
