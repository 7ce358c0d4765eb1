//! Writes: asked, answered, recorded.

use bytes::Bytes;
use http::{HeaderName, Method, header};
use isle_history::{Ack, Key, Mutation, WriteOutcome};
use isle_service::client::{BaseUrl, CallError};
use isle_service::wire::key_target;
use serde_json::{Value, json};

use super::call;
use super::client::Worker;
use super::ground::count;

const NDJSON: &str = "application/x-ndjson";

/// A request to a writer.
struct Write {
    method: Method,
    target: String,
    content_type: Option<&'static str>,
    body: Bytes,
    ack: Ack,
}

fn key(text: &str) -> Key {
    Key::new(text.as_bytes())
}

/// A path for a key of ours, all of which fit one.
fn path(resource: &str, key: &str) -> String {
    key_target(resource, key.as_bytes()).unwrap_or_default()
}

pub(super) async fn put(worker: &mut Worker) -> bool {
    count(&worker.ground.tally.puts);
    let (name, value) = (worker.key(), worker.value());
    let mut mutation = Mutation::put(key(&name), value.as_bytes());
    let mut target = path("/v1/kv", &name);
    let mut ack = Ack::Bucket;
    match worker.random.below(12) {
        0 => {
            let seconds = 1 + worker.random.below(8);
            mutation = mutation.expiring(seconds as i64 * 1_000_000);
            target.push_str(&format!("?ttl={seconds}s"));
        }
        1 => {
            ack = Ack::Provisional;
            target.push_str("?ack=memory");
        }
        _ => {}
    }
    let write = Write { method: Method::PUT, target, content_type: None, body: value.into(), ack };
    send(worker, write, vec![mutation]).await
}

pub(super) async fn delete(worker: &mut Worker) -> bool {
    count(&worker.ground.tally.deletes);
    let name = worker.key();
    let target = path("/v1/kv", &name);
    let write =
        Write { method: Method::DELETE, target, content_type: None, body: Bytes::new(), ack: Ack::Bucket };
    send(worker, write, vec![Mutation::delete(key(&name))]).await
}

/// Lines for a batch or an ingest; the first is a put, so that it can be told from every other.
fn lines(worker: &mut Worker, count: u64) -> (Vec<Mutation>, Bytes) {
    let (mut mutations, mut body) = (Vec::new(), String::new());
    for n in 0..count {
        let name = worker.key();
        let line = if n > 0 && worker.random.one_in(5) {
            mutations.push(Mutation::delete(key(&name)));
            json!({"op": "delete", "key": name})
        } else {
            let value = worker.value();
            mutations.push(Mutation::put(key(&name), value.as_bytes()));
            json!({"op": "put", "key": name, "value": value})
        };
        body.push_str(&line.to_string());
        body.push('\n');
    }
    (mutations, body.into())
}

pub(super) async fn batch(worker: &mut Worker) -> bool {
    count(&worker.ground.tally.batches);
    let many = 1 + worker.random.below(10);
    let (mutations, body) = lines(worker, many);
    let write = Write {
        method: Method::POST,
        target: "/v1/batch".to_owned(),
        content_type: Some(NDJSON),
        body,
        ack: Ack::Bucket,
    };
    send(worker, write, mutations).await
}

pub(super) async fn events(worker: &mut Worker) -> bool {
    count(&worker.ground.tally.events);
    let stream = format!("{}e/{}", worker.ground.prefix, worker.random.below(4));
    let target = path("/v1/events", &stream);
    let many = if worker.random.one_in(2) { 1 } else { 1 + worker.random.below(5) };
    let values: Vec<String> = (0..many).map(|_| worker.value()).collect();
    let mutations = values.iter().map(|v| Mutation::event(key(&stream), v.as_bytes())).collect();
    let (content_type, body) = match values.as_slice() {
        [one] => ("application/octet-stream", one.clone()),
        all => (NDJSON, all.iter().map(|v| format!("{}\n", json!({"value": v}))).collect()),
    };
    let write = Write {
        method: Method::POST,
        target,
        content_type: Some(content_type),
        body: body.into(),
        ack: Ack::Bucket,
    };
    send(worker, write, mutations).await
}

/// Sends an atomic write and records how it ended.
async fn send(worker: &mut Worker, write: Write, mutations: Vec<Mutation>) -> bool {
    let ground = worker.ground.clone();
    let base = &ground.writers[worker.writer % ground.writers.len()];
    let op = ground.recorder.write_invoked(&worker.name, mutations);
    let ack = write.ack;
    let answered = exchange(worker, base, write).await.and_then(|answer| {
        let number = |name: &str| answer[name].as_u64();
        let numbers = number("first_seq").zip(number("last_seq")).or(number("seq").map(|seq| (seq, seq)));
        numbers
            .zip(number("epoch"))
            .ok_or_else(|| CallError::Answer(format!("a write was answered with {answer}")))
    });
    let outcome = match answered {
        Ok(((first_seq, last_seq), epoch)) => {
            if ack == Ack::Bucket {
                ground.acknowledged(last_seq);
                worker.newest = worker.newest.max(last_seq);
            }
            WriteOutcome::Acknowledged { epoch, first_seq, last_seq, ack }
        }
        Err(error) => call::outcome(&error),
    };
    let done = matches!(outcome, WriteOutcome::Acknowledged { .. });
    ground.recorder.write_answered(op, outcome);
    done
}

async fn exchange(worker: &Worker, base: &BaseUrl, write: Write) -> Result<Value, CallError> {
    let mut call = worker.ground.client.request(write.method, base, &write.target).body(write.body);
    if let Some(content_type) = write.content_type {
        call = call.header(header::CONTENT_TYPE, content_type);
    }
    call.send().await?.ok().await?.json().await
}

/// A stream of lines, committed in pieces.
pub(super) async fn ingest(worker: &mut Worker) -> bool {
    count(&worker.ground.tally.ingests);
    let many = 5 + worker.random.below(40);
    let (mutations, body) = lines(worker, many);
    let ground = worker.ground.clone();
    let base = &ground.writers[worker.writer % ground.writers.len()];
    let op = ground.recorder.write_invoked(&worker.name, mutations);
    let write = Write {
        method: Method::POST,
        target: "/v1/ingest".to_owned(),
        content_type: Some(NDJSON),
        body,
        ack: Ack::Bucket,
    };
    let answered = exchange(worker, base, write).await;
    let outcome = match &answered {
        Ok(answer) => {
            let number = |name: &str| answer[name].as_u64().unwrap_or(0);
            let (lines, last_seq) = (number("committed_lines"), number("last_seq"));
            ground.acknowledged(last_seq);
            worker.newest = worker.newest.max(last_seq);
            // A summary that counts fewer lines than were sent would be a defect: the rest is held against it.
            WriteOutcome::Streamed { lines, last_seq, rest_unknown: lines < many }
        }
        Err(error) => call::ingest_outcome(error),
    };
    ground.recorder.write_answered(op, outcome);
    answered.is_ok()
}

/// The header that carries a bulk request's type.
pub(super) const CONTENT_TYPE: (HeaderName, &str) = (header::CONTENT_TYPE, NDJSON);
