//! The clients that write and those that read. Every value is written once in a run, so that a row tells which write it
//! came from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use isle_history::{Ack, Key, Mutation, Name, Recorder, WriteOutcome};
use isle_service::client::{CallError, RemoteError};
use isle_service::error::ErrorCode;
use isle_service::wire::escape_key;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::read::{AtLeast, Scan, Session};
use super::rng::Rng;
use crate::client::{Api, Plain};

/// Keys in use: few, so that every one has many versions and many writers.
const KEYS: usize = 300;

/// Longest value that lies among rows.
const VALUE: usize = 1_500;

/// Values above this length lie in blob files.
pub(super) const BLOB_THRESHOLD: usize = 4 << 10;

/// Longest value that lies in a blob file.
const LARGE: usize = 48 << 10;

/// Rows of a page.
pub(super) const PAGE: u64 = 40;

/// How long a `ttl` is, where a put has one.
const TTL_SECONDS: i64 = 4;

/// What all clients share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) recorder: Recorder,
    pub(super) writers: Vec<(String, Api)>,
    pub(super) readers: Vec<(String, Api)>,
    pub(super) stop: Arc<AtomicBool>,
    /// The newest acknowledged position of anybody.
    pub(super) newest: Arc<Mutex<AtLeast>>,
    /// Pause between two operations of one client.
    pub(super) pause: Duration,
    pub(super) scans: Arc<AtomicU64>,
}

impl Shared {
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn session(&self, client: &Name, reader: usize) -> Session {
        let (name, api) = &self.readers[reader];
        Session {
            recorder: self.recorder.clone(),
            client: client.clone(),
            session: format!("{client}@{name}").into(),
            api: api.clone(),
            held: None,
        }
    }

    fn newest(&self) -> AtLeast {
        self.newest.lock().clone()
    }

    fn acknowledged(&self, position: &AtLeast) {
        let mut newest = self.newest.lock();
        if position.seq > newest.seq {
            *newest = position.clone();
        }
    }

    pub(super) fn scan_name(&self) -> Name {
        format!("scan-{}", self.scans.fetch_add(1, Ordering::Relaxed)).into()
    }
}

pub(super) fn key(rng: &mut Rng) -> Key {
    // Some keys are written much more often than others.
    let n = if rng.percent(30) { rng.below(10) } else { rng.below(KEYS) };
    Key::new(format!("k/{n:04}").as_bytes())
}

/// A client that writes until it is told to stop, and now and then reads what it has just written.
pub(super) struct Writing {
    shared: Shared,
    name: Name,
    rng: Rng,
    writer: usize,
    written: u64,
}

/// One write: what is recorded, and the request that asks for it.
struct Write {
    mutations: Vec<Mutation>,
    method: Method,
    target: String,
    body: Vec<u8>,
}

impl Writing {
    pub(super) fn new(shared: Shared, n: usize, rng: Rng) -> Self {
        Self { shared, name: format!("writing-{n}").into(), rng, writer: n, written: 0 }
    }

    pub(super) async fn run(mut self) {
        while !self.shared.stopped() {
            let write = self.choose();
            let read = write.mutations.first().cloned();
            if let Some(position) = self.send(write).await
                && self.rng.percent(30)
                && let Some(mutation) = read
            {
                self.read_own(&mutation, &position).await;
            }
            tokio::time::sleep(self.shared.pause).await;
        }
    }

    fn value(&mut self) -> String {
        let len = self.rng.below(VALUE);
        self.value_of(len)
    }

    /// A value of that length and a few bytes.
    fn value_of(&mut self, len: usize) -> String {
        self.written += 1;
        let mut value = format!("{}#{}:", self.name, self.written);
        let len = value.len() + len;
        while value.len() < len {
            value.push_str(&format!("{:016x}", self.rng.next()));
        }
        value
    }

    fn choose(&mut self) -> Write {
        match self.rng.below(100) {
            0..55 => self.put(),
            55..70 => {
                let key = key(&mut self.rng);
                let target = format!("/v1/kv/{}", escape_key(key.as_bytes()));
                let mutations = vec![Mutation::delete(key)];
                Write { mutations, method: Method::DELETE, target, body: Vec::new() }
            }
            70..80 => {
                let (stream, value) = (Key::new(b"events/s"), self.value());
                let target = format!("/v1/events/{stream}");
                let mutations = vec![Mutation::event(stream, value.as_bytes())];
                // One line of NDJSON is one event.
                let body = json!({"value": value}).to_string().into_bytes();
                Write { mutations, method: Method::POST, target, body }
            }
            _ => self.batch(),
        }
    }

    fn put(&mut self) -> Write {
        let key = key(&mut self.rng);
        let value = match self.rng.percent(8) {
            true => {
                let len = BLOB_THRESHOLD + self.rng.below(LARGE - BLOB_THRESHOLD);
                self.value_of(len)
            }
            false => self.value(),
        };
        let mut target = format!("/v1/kv/{}", escape_key(key.as_bytes()));
        let mut mutation = Mutation::put(key, value.as_bytes());
        if self.rng.percent(10) {
            target.push_str(&format!("?ttl={TTL_SECONDS}s"));
            mutation = mutation.expiring(TTL_SECONDS * 1_000_000);
        }
        Write { mutations: vec![mutation], method: Method::PUT, target, body: value.into_bytes() }
    }

    fn batch(&mut self) -> Write {
        let (mut mutations, mut lines) = (Vec::new(), Vec::new());
        for _ in 0..2 + self.rng.below(7) {
            let key = key(&mut self.rng);
            if self.rng.percent(20) {
                lines.push(json!({"op": "delete", "key": key.to_string()}).to_string());
                mutations.push(Mutation::delete(key));
            } else {
                let value = self.value();
                lines.push(json!({"op": "put", "key": key.to_string(), "value": value}).to_string());
                mutations.push(Mutation::put(key, value.as_bytes()));
            }
        }
        let (method, target) = (Method::POST, "/v1/batch".to_owned());
        Write { mutations, method, target, body: lines.join("\n").into_bytes() }
    }

    /// Sends it once; where it was acknowledged.
    async fn send(&mut self, write: Write) -> Option<AtLeast> {
        let (_, api) = self.shared.writers[self.writer % self.shared.writers.len()].clone();
        let op = self.shared.recorder.write_invoked(&self.name, write.mutations);
        let answer = api.whole(write.method, &write.target, write.body).await;
        let (outcome, position) = outcome(&answer);
        if position.is_none() {
            // The other one next time, as a real client does.
            self.writer += 1;
            tokio::time::sleep(Duration::from_millis(self.rng.within(20..100))).await;
        }
        self.shared.recorder.write_answered(op, outcome);
        let position = position?;
        self.shared.acknowledged(&position);
        Some(position)
    }

    async fn read_own(&mut self, mutation: &Mutation, position: &AtLeast) {
        let mut position = position.clone();
        if self.rng.percent(50) {
            position.text = position.seq.to_string();
        }
        let reader = self.rng.below(self.shared.readers.len());
        let session = self.shared.session(&self.name, reader);
        let _code = session.get(&mutation.target.key_at(position.seq), Some(&position)).await;
    }
}

/// What a client was told of its write, and where it stands if it was acknowledged.
pub fn outcome(answer: &Result<Plain, CallError>) -> (WriteOutcome, Option<AtLeast>) {
    let unknown = |why: String| (WriteOutcome::Unknown { why }, None);
    let refused = |code: &str| (WriteOutcome::Refused { code: code.to_owned() }, None);
    let plain = match answer {
        Ok(plain) => plain,
        Err(CallError::Client(e)) if e.surely_not_sent() => return refused("unreachable"),
        Err(e) => return unknown(e.to_string()),
    };
    let status = http::StatusCode::from_u16(plain.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    if !status.is_success() {
        let error = RemoteError::parse(status, &plain.body);
        return match error.code {
            Some(ErrorCode::OutcomeUnknown) => unknown(error.to_string()),
            // The API's promise: these are certainly not applied.
            Some(code) if status.is_client_error() || plain.status == 503 => refused(code.as_str()),
            _ => unknown(format!("{status}: {error}")),
        };
    }
    match acknowledged(&plain.body) {
        Some(found) => found,
        None => unknown(format!("not an answer: {}", String::from_utf8_lossy(&plain.body))),
    }
}

fn acknowledged(body: &[u8]) -> Option<(WriteOutcome, Option<AtLeast>)> {
    let json: Value = serde_json::from_slice(body).ok()?;
    let first_seq = json["seq"].as_u64().or(json["first_seq"].as_u64())?;
    let last_seq = json["seq"].as_u64().or(json["last_seq"].as_u64())?;
    let (epoch, text) = (json["epoch"].as_u64()?, json["position"].as_str()?.to_owned());
    let outcome = WriteOutcome::Acknowledged { epoch, first_seq, last_seq, ack: Ack::Bucket };
    Some((outcome, Some(AtLeast { seq: last_seq, text })))
}

/// A client that reads until it is told to stop.
pub(super) struct Reading {
    shared: Shared,
    name: Name,
    rng: Rng,
}

impl Reading {
    pub(super) fn new(shared: Shared, n: usize, rng: Rng) -> Self {
        Self { shared, name: format!("reading-{n}").into(), rng }
    }

    pub(super) async fn run(mut self) {
        while !self.shared.stopped() {
            let reader = self.rng.below(self.shared.readers.len());
            let session = self.shared.session(&self.name, reader);
            let newest = self.shared.newest();
            let at_least = (newest.seq > 0 && self.rng.percent(30)).then_some(newest);
            match self.rng.below(100) {
                0..60 => drop(session.get(&key(&mut self.rng), at_least.as_ref()).await),
                60..75 => {
                    let keys: Vec<_> = (0..5).map(|_| key(&mut self.rng)).collect();
                    session.mget(&keys, at_least.as_ref()).await;
                }
                _ => {
                    let mut ends = [key(&mut self.rng), key(&mut self.rng)];
                    ends.sort();
                    let [start, end] = ends;
                    let reverse = self.rng.percent(40);
                    let name = self.shared.scan_name();
                    let scan = Scan { name, start, end: Some(end), limit: PAGE, reverse, at_least };
                    let _rows = session.scan(scan).await;
                }
            }
            tokio::time::sleep(self.shared.pause).await;
        }
    }
}
