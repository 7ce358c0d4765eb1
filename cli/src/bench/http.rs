//! The same workloads against running nodes: the engines with their sockets, as a client sees them.
//!
//! Requests to the store and the nodes' memory are theirs and not seen from here; processor time is this client's.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::CONTENT_TYPE;
use hyper::body::Incoming;
use isle_service::client::{BaseUrl, Client, ClientSettings};
use isle_service::wire::{Format, FrameReader, Kind, base64, frame, key_target};
use serde_json::Value;

use super::data::{Random, Values, key, spread};
use super::drive::{self, Done, Mixed, Worker};
use super::report::{Report, Usage, cpu_time};
use super::{GETS_PER_PUT, SCAN_ROWS};
use crate::args::{BenchArgs, Workload};

/// Records in one request while preparing.
const PREPARE_TOGETHER: u64 = 1000;

/// Longest answer that is no row, in bytes.
const ANSWER_BYTES: usize = 1 << 20;

/// Runs the workload.
pub(super) async fn run(args: &BenchArgs) -> Result<Vec<Report>, String> {
    let nodes = Nodes::new(args)?;
    if args.workload != Workload::Put {
        nodes.prepare(args).await?;
    }
    let values = Values::new(args.value_bytes, 1);
    let tasks = 0..args.tasks;
    match args.workload {
        Workload::Put => {
            measure(args, tasks.map(|t| Putter::new(args, &nodes, &values, t)).collect(), &["put"]).await
        }
        Workload::Get => measure(args, tasks.map(|t| Getter::new(args, &nodes, t)).collect(), &["get"]).await,
        Workload::Scan => {
            let scanner =
                |t| Scanner { nodes: nodes.clone(), key_bytes: args.key_bytes, random: Random::of_task(t) };
            measure(args, tasks.map(scanner).collect(), &["scan"]).await
        }
        Workload::Mixed => {
            let mixer = |t| Mixed {
                rare: Putter::new(args, &nodes, &values, t),
                common: Getter::new(args, &nodes, t),
                every: GETS_PER_PUT + 1,
                turn: 0,
            };
            measure(args, tasks.map(mixer).collect(), &["mixed: put", "mixed: get"]).await
        }
        Workload::Tail => {
            let mut workers = Vec::with_capacity(args.tasks);
            for _ in tasks {
                workers.push(TailReader::open(&nodes).await?);
            }
            measure(args, workers, &["tail"]).await
        }
    }
}

async fn measure<W: Worker>(
    args: &BenchArgs,
    workers: Vec<W>,
    lanes: &[&str],
) -> Result<Vec<Report>, String> {
    let before = cpu_time();
    let measured = drive::run(workers, Duration::from_secs(args.seconds)).await?;
    let cpu = cpu_time().saturating_sub(before);
    Ok(Report::of_lanes(lanes, "http", args.tasks, &measured, &Usage { cpu, ..Usage::default() }))
}

/// The nodes that are driven, over one pool of connections.
#[derive(Clone)]
struct Nodes {
    client: Client,
    writer: BaseUrl,
    reader: BaseUrl,
    tailer: BaseUrl,
}

impl Nodes {
    fn new(args: &BenchArgs) -> Result<Self, String> {
        let first = |urls: &[String], what: &str| {
            let url = urls.first().ok_or_else(|| format!("no {what} is given"))?;
            url.parse::<BaseUrl>().map_err(|e| e.to_string())
        };
        let defaults = ClientSettings::default();
        let idle_per_host = defaults.idle_per_host.max(args.tasks);
        Ok(Self {
            client: Client::new(ClientSettings { idle_per_host, ..defaults }),
            writer: first(&args.nodes.writers, "writer")?,
            reader: first(&args.nodes.readers, "reader")?,
            tailer: first(&args.nodes.tailers, "tailer")?,
        })
    }

    async fn json(&self, method: Method, base: &BaseUrl, target: &str) -> Result<Value, String> {
        let answer = self.client.request(method, base, target).send().await.map_err(|e| e.to_string())?;
        answer.ok().await.map_err(|e| e.to_string())?.json().await.map_err(|e| e.to_string())
    }

    /// Puts the records that are going to be read, and waits until the reader sees them.
    async fn prepare(&self, args: &BenchArgs) -> Result<(), String> {
        let (values, mut random) = (Values::new(args.value_bytes, 2), Random::new(3));
        let mut next = 0;
        while next < args.records {
            let mut body = Vec::new();
            let end = (next + PREPARE_TOGETHER).min(args.records);
            for n in next..end {
                frame::encode(
                    &mut body,
                    Kind::Put,
                    0,
                    0,
                    0,
                    &key(n, args.key_bytes),
                    values.pick(&mut random),
                );
            }
            let call = self.client.request(Method::POST, &self.writer, "/v1/ingest?ack=memory");
            let call = call.header(CONTENT_TYPE, Format::Frames.media_type()).body(body);
            let answer = call.send().await.map_err(|e| e.to_string())?;
            answer
                .ok()
                .await
                .map_err(|e| e.to_string())?
                .bytes(ANSWER_BYTES)
                .await
                .map_err(|e| e.to_string())?;
            next = end;
        }
        let flushed = self.json(Method::POST, &self.writer, "/v1/flush").await?;
        let position =
            flushed["position"].as_str().ok_or("the writer's flush answered without a position")?;
        let target = format!("/v1/scan?limit=1&wait=60s&min_seq={position}");
        let answer = self.client.request(Method::GET, &self.reader, &target).send().await;
        let answer = answer.map_err(|e| e.to_string())?.ok().await.map_err(|e| e.to_string())?;
        answer.bytes(usize::MAX).await.map(drop).map_err(|e| e.to_string())
    }
}

fn target_of(key: &[u8]) -> Result<String, String> {
    key_target("/v1/kv", key).ok_or_else(|| format!("a key of {} bytes fits no URL", key.len()))
}

struct Putter {
    nodes: Nodes,
    values: Values,
    random: Random,
    key: Vec<u8>,
    ack: String,
}

impl Putter {
    fn new(args: &BenchArgs, nodes: &Nodes, values: &Values, task: usize) -> Self {
        Self {
            nodes: nodes.clone(),
            values: values.clone(),
            random: Random::of_task(task),
            key: vec![0; args.key_bytes],
            ack: args.ack.clone(),
        }
    }
}

impl Worker for Putter {
    async fn step(&mut self) -> Result<Option<Done>, String> {
        spread(&mut self.random, &mut self.key);
        let value = Bytes::copy_from_slice(self.values.pick(&mut self.random));
        let bytes = (self.key.len() + value.len()) as u64;
        let mut target = target_of(&self.key)?;
        target.push(if target.contains('?') { '&' } else { '?' });
        target.push_str("ack=");
        target.push_str(&self.ack);
        let call = self.nodes.client.request(Method::PUT, &self.nodes.writer, &target).body(value);
        let answer = call.send().await.map_err(|e| e.to_string())?.ok().await.map_err(|e| e.to_string())?;
        answer.bytes(ANSWER_BYTES).await.map_err(|e| e.to_string())?;
        Ok(Some(Done::new(1, bytes)))
    }
}

struct Getter {
    nodes: Nodes,
    random: Random,
    records: u64,
    key: Vec<u8>,
    value_bytes: usize,
}

impl Getter {
    fn new(args: &BenchArgs, nodes: &Nodes, task: usize) -> Self {
        Self {
            nodes: nodes.clone(),
            random: Random::of_task(task),
            records: args.records,
            key: vec![0; args.key_bytes],
            value_bytes: args.value_bytes,
        }
    }
}

impl Worker for Getter {
    async fn step(&mut self) -> Result<Option<Done>, String> {
        let n = self.random.below(self.records);
        spread(&mut Random::of_record(n), &mut self.key);
        let target = target_of(&self.key)?;
        let call = self.nodes.client.request(Method::GET, &self.nodes.reader, &target);
        let answer = call.send().await.map_err(|e| e.to_string())?.ok().await.map_err(|e| e.to_string())?;
        let value = answer.bytes(self.value_bytes).await.map_err(|e| e.to_string())?;
        Ok(Some(Done::new(1, (self.key.len() + value.len()) as u64)))
    }
}

struct Scanner {
    nodes: Nodes,
    key_bytes: usize,
    random: Random,
}

impl Worker for Scanner {
    async fn step(&mut self) -> Result<Option<Done>, String> {
        let start = base64::encode_url(&key(self.random.next(), self.key_bytes));
        let target = format!("/v1/scan?start_b64={start}&limit={SCAN_ROWS}");
        let mut rows = self.nodes.frames(&self.nodes.reader, &target).await?;
        let mut done = Done::new(0, 0);
        while let Some(frame) = rows.next().await.map_err(|e| e.to_string())? {
            match frame.kind {
                Kind::Trailer => return Ok(Some(done)),
                Kind::Error => return Err(String::from_utf8_lossy(&frame.value).into_owned()),
                _ => count(&mut done, &frame),
            }
        }
        Err("a scan ended without its trailer".to_owned())
    }
}

/// Reads the log up to where its head was when the reading began.
struct TailReader {
    frames: FrameReader<Incoming>,
    head: u64,
    seen: u64,
}

/// How many rows of a stream are one operation, at most: those that have arrived together.
const TAIL_ROWS: u64 = 1000;

impl TailReader {
    async fn open(nodes: &Nodes) -> Result<Self, String> {
        let status = nodes.json(Method::GET, &nodes.tailer, "/v1/status").await?;
        let head = status["head"].as_u64().ok_or("the tailer's status names no head")?;
        let frames = nodes.frames(&nodes.tailer, "/v1/tail?from=earliest&format=frames").await?;
        Ok(Self { frames, head, seen: 0 })
    }
}

impl Worker for TailReader {
    async fn step(&mut self) -> Result<Option<Done>, String> {
        let mut done = Done::new(0, 0);
        while self.seen < self.head && done.records < TAIL_ROWS {
            let frame = match self.frames.buffered().map_err(|e| e.to_string())? {
                Some(frame) => frame,
                None if done.records > 0 => break,
                None => self.frames.next().await.map_err(|e| e.to_string())?.ok_or("the tail has ended")?,
            };
            match frame.kind {
                Kind::Put | Kind::Delete => count(&mut done, &frame),
                Kind::Error => return Err(String::from_utf8_lossy(&frame.value).into_owned()),
                _ => {}
            }
            self.seen = self.seen.max(frame.seq);
        }
        Ok((done.records > 0).then_some(done))
    }
}

impl Nodes {
    async fn frames(&self, base: &BaseUrl, target: &str) -> Result<FrameReader<Incoming>, String> {
        let call = self.client.request(Method::GET, base, target);
        let call = call.header(http::header::ACCEPT, Format::Frames.media_type());
        let answer = call.send().await.map_err(|e| e.to_string())?.ok().await.map_err(|e| e.to_string())?;
        Ok(answer.frames(None))
    }
}

fn count(done: &mut Done, frame: &isle_service::wire::Frame) {
    done.records += 1;
    done.bytes += (frame.key.len() + frame.value.len()) as u64;
}
