//! Histories of a correct model pass, whatever their order; one change to them is found.
//!
//! The model is a list of records. Writes and reads are under way for a while: they are asked for, take effect at one
//! moment, and are answered later, or never.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::event::{Name, Query, ReadAnswer, SeenRow, Span, Start, Want};
use crate::log::Op;
use crate::model::{Expected, Model};

/// A small generator of numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.roll(n) == 0
    }
}

/// A write or read that was asked for and not answered.
enum Pending {
    Write(OpId, Vec<Mutation>),
    Read(OpId, Query, u64),
}

/// A consumer: where it is, and its cursor as last kept.
struct Consumer {
    name: Name,
    at: u64,
    kept: u64,
}

struct Run {
    dice: Dice,
    recorder: Recorder,
    records: Vec<Record>,
    model: Model,
    pending: Vec<Pending>,
    /// The view of each reader.
    readers: [u64; 2],
    consumers: Vec<Consumer>,
    /// The highest number acknowledged.
    acknowledged: u64,
    values: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let consumers = (0..2).map(|n| Consumer { name: format!("consumer-{n}").into(), at: 0, kept: 0 });
        Self {
            dice: Dice(seed),
            recorder: Recorder::new(),
            records: Vec::new(),
            model: Model::default(),
            pending: Vec::new(),
            readers: [0; 2],
            consumers: consumers.collect(),
            acknowledged: 0,
            values: 0,
        }
    }

    fn through(&self) -> u64 {
        self.records.len() as u64
    }

    fn now(&self) -> i64 {
        1000 * self.through() as i64
    }

    fn key(&mut self) -> Key {
        key(&format!("k{}", self.dice.roll(12)))
    }

    fn mutation(&mut self) -> Mutation {
        self.values += 1;
        let value = format!("v{}", self.values);
        match self.dice.roll(8) {
            0 | 1 => Mutation::delete(self.key()),
            2 => Mutation::event(key("stream"), value.as_bytes()),
            3 => Mutation::put(self.key(), value.as_bytes()).expiring(1000 * self.dice.roll(30) as i64 + 1),
            _ => Mutation::put(self.key(), value.as_bytes()),
        }
    }

    fn step(&mut self) {
        match self.dice.roll(7) {
            0 | 1 => {
                let count = 1 + self.dice.roll(3);
                let mutations: Vec<Mutation> = (0..count).map(|_| self.mutation()).collect();
                let op = self.recorder.write_invoked(&client(), mutations.clone());
                self.pending.push(Pending::Write(op, mutations));
            }
            2 => self.ask(),
            3 | 4 if !self.pending.is_empty() => {
                let at = self.dice.roll(self.pending.len());
                match self.pending.swap_remove(at) {
                    Pending::Write(op, mutations) => self.end_write(op, mutations),
                    Pending::Read(op, query, floor) => self.end_read(op, &query, floor),
                }
            }
            5 => {
                let reader = self.dice.roll(2);
                let ahead = self.through() - self.readers[reader];
                self.readers[reader] += self.dice.roll(ahead as usize + 1) as u64;
                let version = self.readers[reader] + 7;
                self.recorder.view_reported(
                    &format!("reader-{reader}").into(),
                    None,
                    version,
                    self.readers[reader],
                );
            }
            _ => self.consume(),
        }
    }

    fn ask(&mut self) {
        let want = if self.dice.one_in(2) {
            Want::Keys((0..1 + self.dice.roll(3)).map(|_| self.key()).collect())
        } else {
            let (a, b) = (self.key(), self.key());
            Want::Range {
                start: a.clone().min(b.clone()),
                end: self.dice.one_in(2).then(|| a.max(b)),
                limit: self.dice.one_in(2).then(|| 1 + self.dice.roll(4) as u64),
                reverse: self.dice.one_in(2),
            }
        };
        let query = Query { min_seq: self.dice.one_in(3).then_some(self.acknowledged), ..Query::of(want) };
        let floor = query.min_seq.unwrap_or(0);
        let reader: Name = "reader-0".into();
        let op = self.recorder.read_invoked(&client(), Some(&reader), Some(&client()), query.clone());
        self.pending.push(Pending::Read(op, query, floor));
    }

    fn end_write(&mut self, op: OpId, mutations: Vec<Mutation>) {
        let fate = self.dice.roll(8);
        let first_seq = self.through() + 1;
        if fate > 1 {
            for mutation in &mutations {
                let seq = self.through() + 1;
                let time = 1000 * seq as i64;
                let expires = mutation.ttl.map(|ttl| time + ttl);
                let key = mutation.target.key_at(seq);
                let record = Record { seq, time, expires, epoch: Some(1), key, op: mutation.op };
                self.model.apply(&record);
                self.records.push(record);
            }
        }
        let last_seq = self.through();
        match fate {
            0 => self.recorder.write_answered(op, WriteOutcome::Refused { code: "overloaded".into() }),
            1 | 2 if self.dice.one_in(2) => self.recorder.write_answered(op, unknown()),
            1 | 2 => {}
            _ => {
                self.acknowledged = last_seq;
                let ack = Ack::Bucket;
                self.recorder
                    .write_answered(op, WriteOutcome::Acknowledged { epoch: 1, first_seq, last_seq, ack });
            }
        }
    }

    fn end_read(&mut self, op: OpId, query: &Query, floor: u64) {
        if self.dice.one_in(8) {
            return self.recorder.read_failed(op, "view_behind");
        }
        // Reader 0 answers everything: its view moves as far as asked, or further.
        self.readers[0] = self.readers[0].max(floor);
        let view_seq = self.readers[0];
        let now = self.now() + self.dice.roll(1000) as i64;
        let at = Some(Span { from: now, to: now });
        let row = |key: &Key, expected| match expected {
            Expected::Row(v) => {
                let Op::Put(value) = v.op else { return None };
                Some(SeenRow { key: key.clone(), seq: Some(v.seq), value: Some(value) })
            }
            _ => None,
        };
        let rows: Vec<SeenRow> = match &query.want {
            Want::Keys(keys) => {
                keys.iter().filter_map(|k| row(k, self.model.at(k, view_seq, at, 0))).collect()
            }
            Want::Range { start, end, limit, reverse } => self
                .model
                .range(start, end.as_ref(), *reverse, view_seq, at, 0)
                .filter_map(|(k, expected)| row(k, expected))
                .take(limit.unwrap_or(u64::MAX) as usize)
                .collect(),
        };
        let judged = Some(Span { from: now - 300, to: now + 300 });
        self.recorder.read_answered(op, ReadAnswer { rows, view_seq, more: false, judged });
    }

    fn consume(&mut self) {
        let who = self.dice.roll(2);
        let Consumer { name, at, kept } = &mut self.consumers[who];
        if self.dice.one_in(5) {
            // Killed: it resumes after the cursor it kept.
            *at = *kept;
            return self.recorder.consumer_started(name, Start::After(*at), None);
        }
        if *at == 0 {
            self.recorder.consumer_started(name, Start::Earliest, None);
        }
        for record in self.records.iter().skip(*at as usize).take(4) {
            self.recorder.delivered(name, record.clone());
            *at = record.seq;
        }
        *kept = *at;
        self.recorder.advanced(name, *at);
    }

    /// The history of a whole run.
    fn history(seed: u64) -> (Vec<Stamped>, Vec<Record>) {
        let mut run = Self::new(seed);
        let steps = 40 + run.dice.roll(120);
        (0..steps).for_each(|_| run.step());
        (run.recorder.events(), run.records)
    }
}

fn change_event(events: &mut [Stamped], at: usize, change: impl FnOnce(&mut Event)) {
    let mut event = (*events[at].event).clone();
    change(&mut event);
    events[at].event = Arc::new(event);
}

/// The indices of the events of one kind.
fn of(events: &[Stamped], wanted: impl Fn(&Event) -> bool) -> Vec<usize> {
    events.iter().enumerate().filter(|(_, e)| wanted(&e.event)).map(|(i, _)| i).collect()
}

/// Whether the write of this record was acknowledged.
fn is_acknowledged(events: &[Stamped], seq: u64) -> bool {
    events.iter().any(|e| match &*e.event {
        Event::WriteAnswered { outcome: WriteOutcome::Acknowledged { first_seq, last_seq, .. }, .. } => {
            (*first_seq..=*last_seq).contains(&seq)
        }
        _ => false,
    })
}

fn renumber(records: &mut [Record]) {
    for (seq, record) in (1..).zip(records) {
        record.seq = seq;
    }
}

/// One way to break a history for certain. False: this history offers no place for it.
fn spoil(kind: usize, dice: &mut Dice, events: &mut Vec<Stamped>, records: &mut Vec<Record>) -> bool {
    let pick = |dice: &mut Dice, from: Vec<usize>| (!from.is_empty()).then(|| from[dice.roll(from.len())]);
    let firm: Vec<usize> = (0..records.len()).filter(|i| is_acknowledged(events, *i as u64 + 1)).collect();
    let delivered = |e: &Event| matches!(e, Event::Delivered { .. });
    let rows = |e: &Event| matches!(e, Event::ReadAnswered { answer, .. } if !answer.rows.is_empty());
    let acknowledged =
        |e: &Event| matches!(e, Event::WriteAnswered { outcome: WriteOutcome::Acknowledged { .. }, .. });
    match kind {
        // The log loses, doubles, swaps, alters an acknowledged record.
        0 => {
            let Some(at) = pick(dice, firm) else { return false };
            records.remove(at);
            renumber(records);
        }
        1 => {
            let puts = firm.into_iter().filter(|i| records[*i].op != Op::Delete).collect();
            let Some(at) = pick(dice, puts) else { return false };
            records.insert(at, records[at].clone());
            renumber(records);
        }
        2 => {
            let pairs = firm.iter().copied().filter(|i| {
                firm.contains(&(i + 1))
                    && (&records[*i].key, records[*i].op) != (&records[i + 1].key, records[i + 1].op)
            });
            let Some(at) = pick(dice, pairs.collect()) else { return false };
            records.swap(at, at + 1);
            renumber(records);
        }
        3 => {
            let Some(at) = pick(dice, firm) else { return false };
            records[at].op = match records[at].op {
                Op::Delete => record(1, "x", "y").op,
                Op::Put(_) => Op::Delete,
            };
        }
        // A read loses, gains, alters a row, or comes from a view that never was.
        4..=7 => {
            let Some(at) = pick(dice, of(events, rows)) else { return false };
            let n = dice.roll(9);
            change_event(events, at, |e| {
                let Event::ReadAnswered { answer, .. } = e else { return };
                let row = n % answer.rows.len();
                match kind {
                    4 => {
                        let mut odd = answer.rows[row].clone();
                        odd.key = key("not there");
                        answer.rows[row] = odd;
                    }
                    5 => answer.rows.insert(row, answer.rows[row].clone()),
                    6 => answer.rows[row].value = Some(crate::key::Digest::of(b"altered")),
                    _ => answer.view_seq = 1_000_000,
                }
            });
        }
        // A consumer misses, repeats, or gets another record.
        8 => {
            // Not the last before a restart: nobody misses what was never said to be delivered.
            let next_too = of(events, delivered).into_iter().filter(|i| {
                matches!(
                    (&*events[*i].event, events.get(i + 1).map(|e| &*e.event)),
                    (Event::Delivered { .. }, Some(Event::Delivered { .. } | Event::Advanced { .. }))
                )
            });
            let Some(at) = pick(dice, next_too.collect()) else { return false };
            events.remove(at);
        }
        9 => {
            let Some(at) = pick(dice, of(events, delivered)) else { return false };
            events.insert(at, events[at].clone());
        }
        10 => {
            let Some(at) = pick(dice, of(events, delivered)) else { return false };
            change_event(events, at, |e| {
                let Event::Delivered { record, .. } = e else { return };
                record.key = key("altered");
            });
        }
        // A client is told other numbers, or that what is committed was refused.
        11 | 12 => {
            // A delete may also be that of a write whose outcome nobody knows.
            let with_put = |e: &Event| match e {
                Event::WriteAnswered {
                    outcome: WriteOutcome::Acknowledged { first_seq, last_seq, .. },
                    ..
                } => (*first_seq..=*last_seq).any(|seq| records[seq as usize - 1].op != Op::Delete),
                _ => false,
            };
            let Some(at) = pick(dice, of(events, with_put)) else { return false };
            change_event(events, at, |e| {
                let Event::WriteAnswered { outcome, .. } = e else { return };
                match outcome {
                    WriteOutcome::Acknowledged { first_seq, last_seq, .. } if kind == 11 => {
                        (*first_seq, *last_seq) = (*first_seq + 1, *last_seq + 1);
                    }
                    _ => *outcome = WriteOutcome::Refused { code: "not_leader".into() },
                }
            });
        }
        // A client is answered twice.
        _ => {
            let Some(at) = pick(dice, of(events, acknowledged)) else { return false };
            events.insert(at + 1, events[at].clone());
        }
    }
    true
}

/// What an event tells of the log.
fn known_through(event: &Event) -> u64 {
    match event {
        Event::WriteAnswered { outcome: WriteOutcome::Acknowledged { last_seq, .. }, .. } => *last_seq,
        Event::Delivered { record, .. } => record.seq,
        Event::ViewReported { seq, .. } => *seq,
        _ => 0,
    }
}

/// The ways to break a history.
const WAYS: usize = 14;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn correct_histories_pass_and_one_change_is_found(seed: u64) {
        let (events, records) = Run::history(seed);
        let report = check(&events, LogPiece::whole(records.clone()), Limits::default());
        prop_assert!(report.is_clean(), "{report}");
        for kind in 0..WAYS {
            let (mut events, mut records) = (events.clone(), records.clone());
            let mut dice = Dice(seed ^ kind as u64);
            if spoil(kind, &mut dice, &mut events, &mut records) {
                let report = check(&events, LogPiece::whole(records), Limits::default());
                prop_assert!(!report.is_clean(), "change {} was not found", kind);
            }
        }
    }

    #[test]
    fn judging_in_pieces_finds_the_same(seed: u64, piece in 1_usize..20) {
        let (events, records) = Run::history(seed);
        let mut checker = Checker::new(Limits { keep: Some(1000), ..Limits::default() });
        let mut through = 0;
        for events in events.chunks(piece) {
            checker.events(events);
            // The log as it was read before these events were: it holds nothing they do not know of.
            let known = events.iter().map(|e| known_through(&e.event)).max().unwrap_or(0);
            if known > through {
                let records = records[through as usize..known as usize].to_vec();
                checker.log(LogPiece { after: through, through: known, records });
                through = known;
            }
            checker.settle();
        }
        let rest = records[through as usize..].to_vec();
        checker.log(LogPiece { after: through, through: records.len() as u64, records: rest });
        let (pieces, whole) = (checker.finish(), check(&events, LogPiece::whole(records), Limits::default()));
        prop_assert!(pieces.is_clean(), "{pieces}");
        prop_assert_eq!(pieces.counts, whole.counts);
    }
}

#[test]
fn every_way_to_break_a_history_is_tried() {
    for kind in 0..WAYS {
        let tried = (0..50_u64).any(|seed| {
            let (mut events, mut records) = Run::history(seed);
            spoil(kind, &mut Dice(seed), &mut events, &mut records)
        });
        assert!(tried, "change {kind} never found a place");
    }
}

#[test]
fn many_events_are_judged_in_seconds() {
    let recorder = Recorder::new();
    let mut records = Vec::new();
    for seq in 1..=50_000_u64 {
        let (k, v) = (format!("k{}", seq % 5000), seq.to_string());
        write(&recorder, seq, vec![put(&k, &v)]);
        records.push(record(seq, &k, &v));
        read(&recorder, seq, &[&k], &[seen(seq, &k, &v)]);
    }
    let (events, started) = (recorder.events(), std::time::Instant::now());
    let report = check(&events, LogPiece::whole(records), Limits::default());
    assert!(report.is_clean() && report.counts.reads == 50_000);
    let took = started.elapsed();
    assert!(took < std::time::Duration::from_secs(30), "{} events took {took:?}", events.len());
}
