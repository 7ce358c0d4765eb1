//! Short words for small histories.

use super::*;
use crate::event::{Name, Query, ReadAnswer, SeenRow};
use crate::key::Digest;
use crate::log::Op;

pub(super) fn client() -> Name {
    "client".into()
}

pub(super) fn key(text: &str) -> Key {
    Key::new(text.as_bytes())
}

pub(super) fn put(k: &str, value: &str) -> Mutation {
    Mutation::put(key(k), value.as_bytes())
}

pub(super) fn del(k: &str) -> Mutation {
    Mutation::delete(key(k))
}

/// The record of a put; written at 1000 microseconds a number.
pub(super) fn record(seq: u64, k: &str, value: &str) -> Record {
    let op = Op::Put(Digest::of(value.as_bytes()));
    Record { seq, time: 1000 * seq as i64, expires: None, epoch: None, key: key(k), op }
}

pub(super) fn gone(seq: u64, k: &str) -> Record {
    Record { op: Op::Delete, ..record(seq, k, "") }
}

pub(super) fn acknowledged(first: u64, count: usize) -> WriteOutcome {
    let last_seq = first + count as u64 - 1;
    WriteOutcome::Acknowledged { epoch: 1, first_seq: first, last_seq, ack: Ack::Bucket }
}

pub(super) fn unknown() -> WriteOutcome {
    WriteOutcome::Unknown { why: "outcome_unknown".into() }
}

/// A write that was acknowledged.
pub(super) fn write(recorder: &Recorder, first: u64, mutations: Vec<Mutation>) {
    let count = mutations.len();
    write_as(recorder, mutations, acknowledged(first, count));
}

pub(super) fn write_as(recorder: &Recorder, mutations: Vec<Mutation>, outcome: WriteOutcome) {
    let op = recorder.write_invoked(&client(), mutations);
    recorder.write_answered(op, outcome);
}

pub(super) fn seen(seq: u64, k: &str, value: &str) -> SeenRow {
    SeenRow { key: key(k), seq: Some(seq), value: Some(Digest::of(value.as_bytes())) }
}

pub(super) fn answer(view_seq: u64, rows: &[SeenRow]) -> ReadAnswer {
    ReadAnswer { rows: rows.to_vec(), view_seq, more: false, judged: None }
}

/// A read of some keys.
pub(super) fn read(recorder: &Recorder, view: u64, keys: &[&str], rows: &[SeenRow]) {
    read_as(recorder, Query::keys(keys.iter().map(|k| key(k))), answer(view, rows));
}

pub(super) fn read_as(recorder: &Recorder, query: Query, answer: ReadAnswer) {
    let op = recorder.read_invoked(&client(), None, None, query);
    recorder.read_answered(op, answer);
}
