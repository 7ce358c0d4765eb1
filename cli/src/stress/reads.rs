//! Reads: asked, answered, recorded.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, header};
use isle_history::event::Want;
use isle_history::{Digest, Key, Name, Page, Query, ReadAnswer, SeenRow, Span};
use isle_service::ErrorCode;
use isle_service::client::{Answer, CallError, RemoteError};
use isle_service::wire::headers::{SEQ, VIEW_SEQ};
use isle_service::wire::{Format, Kind, base64, key_target};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::call;
use super::client::Worker;
use super::ground::{Ground, MAX_ANSWER, count, now};
use super::writes::CONTENT_TYPE;
use crate::output::Failure;

/// How long a reader may take to reach what is asked for.
const WAIT: &str = "wait=10s";

/// Pages of one scan followed at most.
const PAGES: usize = 50;

/// Rows of a page of the last look.
const LAST_PAGE: u64 = 5000;

/// What a read brought.
struct Seen {
    rows: Vec<SeenRow>,
    view_seq: u64,
    next_page: Option<String>,
}

/// Who reads, and from where.
struct Reading<'a> {
    ground: &'a Ground,
    client: &'a Name,
    reader: usize,
}

impl Worker {
    fn reading(&self) -> Reading<'_> {
        Reading { ground: &self.ground, client: &self.name, reader: self.reader }
    }

    /// What the next read asks for: the client's own newest write, or nothing.
    fn floor(&mut self) -> Option<u64> {
        (self.newest > 0 && self.random.one_in(2)).then_some(self.newest)
    }
}

impl Reading<'_> {
    /// Records a read around `ask`; what it brought, unless it failed.
    async fn record<F>(&self, query: Query, ask: F) -> Result<Seen, String>
    where
        F: Future<Output = Result<Seen, CallError>>,
    {
        let base = &self.ground.readers[self.reader % self.ground.readers.len()];
        let reader: Name = format!("reader {base}").into();
        let op = self.ground.recorder.read_invoked(self.client, Some(&reader), None, query);
        let from = now();
        let answered = ask.await;
        let judged = Some(Span { from, to: now() });
        match answered {
            Ok(seen) => {
                let answer = ReadAnswer {
                    rows: seen.rows.clone(),
                    view_seq: seen.view_seq,
                    more: seen.next_page.is_some(),
                    judged,
                };
                self.ground.recorder.read_answered(op, answer);
                Ok(seen)
            }
            Err(error) => {
                self.ground.recorder.read_failed(op, &call::code(&error));
                Err(error.to_string())
            }
        }
    }

    fn call(&self, method: Method, target: &str) -> isle_service::client::Call {
        let base = &self.ground.readers[self.reader % self.ground.readers.len()];
        self.ground.client.request(method, base, target)
    }

    /// One page of a range. Every page is asked for with the bounds of the whole; what it must hold is the query's
    /// range, which starts where the page before has ended.
    async fn range(
        &self,
        query: Query,
        whole: &(Key, Option<Key>),
        extra: &str,
        page: Option<&str>,
    ) -> Result<Seen, String> {
        let Want::Range { limit, reverse, .. } = &query.want else { return Err(String::new()) };
        let start = base64::encode_url(whole.0.as_bytes());
        let mut target = format!("/v1/scan?{WAIT}{extra}&reverse={reverse}&start_b64={start}");
        if let Some(end) = &whole.1 {
            target.push_str(&format!("&end_b64={}", base64::encode_url(end.as_bytes())));
        }
        if let Some(page) = page {
            target.push_str(&format!("&page={page}"));
        }
        if let Some(limit) = limit {
            target.push_str(&format!("&limit={limit}"));
        }
        if let Some(min_seq) = query.min_seq {
            target.push_str(&format!("&min_seq={min_seq}"));
        }
        let call = self.call(Method::GET, &target).header(header::ACCEPT, Format::Frames.media_type());
        self.record(query, async { rows(call.send().await?.ok().await?).await }).await
    }
}

/// Reads a frames answer to its trailer.
async fn rows(answer: Answer) -> Result<Seen, CallError> {
    let mut frames = answer.frames(Some(Duration::from_secs(15)));
    let mut rows = Vec::new();
    while let Some(frame) = frames.next().await? {
        match frame.kind {
            Kind::Put | Kind::Key => rows.push(SeenRow {
                key: Key::new(&frame.key),
                seq: Some(frame.seq),
                value: (frame.kind == Kind::Put).then(|| Digest::of(&frame.value)),
            }),
            Kind::Absent => {}
            Kind::Trailer => {
                let trailer: Value = serde_json::from_slice(&frame.value).unwrap_or_default();
                let view_seq = trailer["view_seq"].as_u64();
                let view_seq = view_seq
                    .ok_or_else(|| CallError::Answer(format!("a trailer without a view: {trailer}")))?;
                return Ok(Seen {
                    rows,
                    view_seq,
                    next_page: trailer["next_page"].as_str().map(str::to_owned),
                });
            }
            Kind::Error => return Err(RemoteError::parse(StatusCode::OK, &frame.value).into()),
            _ => return Err(CallError::Answer(format!("a read was answered with a frame {:?}", frame.kind))),
        }
    }
    Err(CallError::Answer("an answer ended without its trailer".to_owned()))
}

pub(super) async fn get(worker: &mut Worker) -> bool {
    count(&worker.ground.tally.gets);
    let (name, floor) = (worker.key(), worker.floor());
    let key = Key::new(name.as_bytes());
    let mut target = format!("{}?{WAIT}", key_target("/v1/kv", name.as_bytes()).unwrap_or_default());
    let mut query = Query::keys([key.clone()]);
    if let Some(floor) = floor {
        target.push_str(&format!("&min_seq={floor}"));
        query = query.at_least(floor);
    }
    let reading = worker.reading();
    let call = reading.call(Method::GET, &target);
    let ask = async {
        let answer = call.send().await?;
        let number = |name| answer.header(name).and_then(|v| v.parse::<u64>().ok());
        let (seq, view) = (number(SEQ), number(VIEW_SEQ));
        let view_seq = view.ok_or_else(|| CallError::Answer("a get was answered without a view".to_owned()));
        match answer.ok().await {
            Ok(answer) => {
                let value = Some(Digest::of(&answer.bytes(MAX_ANSWER).await?));
                Ok(Seen { rows: vec![SeenRow { key, seq, value }], view_seq: view_seq?, next_page: None })
            }
            Err(CallError::Remote(e)) if e.code == Some(ErrorCode::NotFound) => {
                Ok(Seen { rows: Vec::new(), view_seq: view_seq?, next_page: None })
            }
            Err(e) => Err(e),
        }
    };
    reading.record(query, ask).await.is_ok()
}

pub(super) async fn mget(worker: &mut Worker) -> bool {
    count(&worker.ground.tally.mgets);
    let many = 1 + worker.random.below(20);
    let names: Vec<String> = (0..many).map(|_| worker.key()).collect();
    let body: String = names.iter().map(|name| format!("{}\n", json!({"key": name}))).collect();
    let mut query = Query::keys(names.iter().map(|name| Key::new(name.as_bytes())));
    let mut target = format!("/v1/mget?{WAIT}");
    if let Some(floor) = worker.floor() {
        target.push_str(&format!("&min_seq={floor}"));
        query = query.at_least(floor);
    }
    let reading = worker.reading();
    let call = reading.call(Method::POST, &target).body(body).header(CONTENT_TYPE.0, CONTENT_TYPE.1);
    let call = call.header(header::ACCEPT, Format::Frames.media_type());
    reading.record(query, async { rows(call.send().await?.ok().await?).await }).await.is_ok()
}

/// A stretch of the run's keys, or all of them.
fn stretch(worker: &mut Worker) -> (Key, Option<Key>) {
    if worker.random.one_in(8) {
        return (worker.ground.prefix_key(), Some(worker.ground.end_key()));
    }
    let keys = worker.ground.keys;
    let start = worker.random.below(keys);
    let many = 1 + worker.random.below(300);
    (
        Key::new(worker.ground.key(start).as_bytes()),
        Some(Key::new(worker.ground.key(start.saturating_add(many).min(keys)).as_bytes())),
    )
}

pub(super) async fn scan(worker: &mut Worker) -> bool {
    count(&worker.ground.tally.scans);
    let (start, end) = stretch(worker);
    let limit = Some(1 + worker.random.below(500));
    let reverse = worker.random.one_in(2);
    let keys_only = if worker.random.one_in(5) { "&keys_only=true" } else { "" };
    let whole = (start.clone(), end.clone());
    let query = Query { min_seq: worker.floor(), ..Query::of(Want::Range { start, end, limit, reverse }) };
    worker.reading().range(query, &whole, keys_only, None).await.is_ok()
}

/// A scan in pages, some of which must all be of one view.
pub(super) async fn pages(worker: &mut Worker) -> bool {
    count(&worker.ground.tally.scans);
    let (start, end) = stretch(worker);
    let consistent = worker.random.one_in(2);
    let extra = if consistent { "&consistent=true" } else { "" };
    let scan = Scan {
        start,
        end,
        limit: 5 + worker.random.below(60),
        reverse: worker.random.one_in(2),
        min_seq: worker.floor(),
        consistent,
    };
    scan.follow(&worker.reading(), extra, PAGES).await.is_ok()
}

/// A range read in pages.
struct Scan {
    start: Key,
    end: Option<Key>,
    limit: u64,
    reverse: bool,
    min_seq: Option<u64>,
    consistent: bool,
}

impl Scan {
    /// Reads pages until there are no more, or `most` were read.
    async fn follow(mut self, reading: &Reading<'_>, extra: &str, most: usize) -> Result<(), String> {
        let mut token: Option<String> = None;
        let whole = (self.start.clone(), self.end.clone());
        for n in 0..most {
            let page = Page {
                scan: format!("scan of {}", reading.client).into(),
                first: n == 0,
                consistent: self.consistent,
            };
            let want = Want::Range {
                start: self.start.clone(),
                end: self.end.clone(),
                limit: Some(self.limit),
                reverse: self.reverse,
            };
            let query = Query { min_seq: self.min_seq, page: Some(page), ..Query::of(want) };
            let seen = reading.range(query, &whole, extra, token.as_deref()).await?;
            match seen.rows.last() {
                Some(last) if self.reverse => self.end = Some(last.key.clone()),
                Some(last) => self.start = last.key.successor(),
                None => {}
            }
            match seen.next_page {
                Some(next) => token = Some(next),
                None => return Ok(()),
            }
        }
        Ok(())
    }
}

/// One reader shows everything there is, at the end.
pub(super) async fn everything(
    ground: &Arc<Ground>,
    reader: usize,
    position: u64,
    patience: Duration,
) -> Result<(), Failure> {
    let client: Name = format!("last look at reader {reader}").into();
    let reading = Reading { ground, client: &client, reader };
    let deadline = Instant::now() + patience;
    let look = |_| {
        let scan = Scan {
            start: ground.prefix_key(),
            end: Some(ground.end_key()),
            limit: LAST_PAGE,
            reverse: false,
            min_seq: Some(position),
            consistent: false,
        };
        scan.follow(&reading, "", usize::MAX)
    };
    super::ground::until(deadline, look)
        .await
        .map_err(|e| Failure::new(format!("{} does not show what is committed: {e}", ground.readers[reader])))
}
