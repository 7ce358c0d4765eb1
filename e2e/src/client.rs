//! The calls that scenarios make, typed; each to one program.

use std::time::Duration;

use http::{HeaderName, Method, header};
use hyper::body::Incoming;
use isle_service::client::{BaseUrl, CallError, Client, ClientError, ClientSettings};
use isle_service::error::ErrorCode;
use isle_service::wire::headers::{SEQ, VIEW_SEQ};
use isle_service::wire::{LineReader, base64, escape_key};
use serde_json::Value;

use crate::dataset::Rows;

/// Rows asked for at once by a scan over everything.
const PAGE: usize = 10_000;

/// A tail is given up when nothing, not even a heartbeat, comes for so long.
const TAIL_IDLE: Duration = Duration::from_secs(60);

/// How long the body of an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest answer read whole.
const MAX_ANSWER: usize = 256 << 20;

/// Calls to one program.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
    base: BaseUrl,
}

/// Where a mutation was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The first number.
    pub first: u64,
    /// The last number; the same for a single mutation.
    pub last: u64,
    /// The epoch that wrote it.
    pub epoch: u64,
    /// `<epoch>.<last>`.
    pub position: String,
}

/// One value as a reader gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The value.
    pub value: Vec<u8>,
    /// The number of the row.
    pub seq: u64,
    /// The number of the view it was read from.
    pub view_seq: u64,
}

/// One change as a tailer gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its number.
    pub seq: u64,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value; `None` for a delete.
    pub value: Option<Vec<u8>>,
    /// The position after it.
    pub cursor: String,
}

/// What a tail says.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A change.
    Change(Change),
    /// Where it stands.
    Heartbeat(Value),
    /// The tailer stops; the position to go on from.
    Closing(String),
}

/// A stream of changes.
#[derive(Debug)]
pub struct Tail(LineReader<Incoming>);

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Plain {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: http::HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl Plain {
    /// Its body as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {} {text:?}", self.status))
    }

    /// The code of the error it is, or an empty text.
    #[must_use]
    pub fn code(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Api {
    /// Calls to the program at `url`.
    ///
    /// # Panics
    /// If that is no URL.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self { client: Client::default(), base: url.parse().unwrap() }
    }

    /// The same with a client that gives up within seconds, for programs that may be frozen or cut off.
    ///
    /// # Panics
    /// If that is no URL.
    #[must_use]
    pub fn impatient(url: &str) -> Self {
        let settings = ClientSettings {
            connect_timeout: Duration::from_secs(1),
            head_timeout: Some(Duration::from_secs(4)),
            ..ClientSettings::default()
        };
        Self { client: Client::new(settings), base: url.parse().unwrap() }
    }

    /// Puts one value.
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<Written, CallError> {
        self.put_with(key, value, "").await
    }

    /// Puts one value; `query` is `?ack=…` or empty.
    pub async fn put_with(&self, key: &[u8], value: &[u8], query: &str) -> Result<Written, CallError> {
        let target = format!("/v1/kv/{}{query}", escape_key(key));
        let call = self.client.request(Method::PUT, &self.base, &target).body(value.to_vec());
        Ok(written(&call.send().await?.ok().await?.json().await?))
    }

    /// Deletes one key.
    pub async fn delete(&self, key: &[u8]) -> Result<Written, CallError> {
        let target = format!("/v1/kv/{}", escape_key(key));
        let call = self.client.request(Method::DELETE, &self.base, &target);
        Ok(written(&call.send().await?.ok().await?.json().await?))
    }

    /// Applies lines all or none.
    pub async fn batch(&self, lines: Vec<u8>) -> Result<Written, CallError> {
        let call = self.client.request(Method::POST, &self.base, "/v1/batch").body(lines);
        let call = call.header(header::CONTENT_TYPE, "application/x-ndjson");
        Ok(written(&call.send().await?.ok().await?.json().await?))
    }

    /// Applies a stream of lines; the summary.
    pub async fn ingest(&self, lines: Vec<u8>) -> Result<Value, CallError> {
        let call = self.client.request(Method::POST, &self.base, "/v1/ingest").body(lines);
        let call = call.header(header::CONTENT_TYPE, "application/x-ndjson").head_timeout(None);
        call.send().await?.ok().await?.json().await
    }

    /// One value, or `None`.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Found>, CallError> {
        self.get_at(key, "").await
    }

    /// One value; `query` is `?min_seq=…` or empty.
    pub async fn get_at(&self, key: &[u8], query: &str) -> Result<Option<Found>, CallError> {
        let target = format!("/v1/kv/{}{query}", escape_key(key));
        let answer = self.client.request(Method::GET, &self.base, &target).send().await?.ok().await;
        let answer = match answer {
            Err(CallError::Remote(e)) if e.code == Some(ErrorCode::NotFound) => return Ok(None),
            other => other?,
        };
        let number = |name: &HeaderName| answer.header(name).and_then(|v| v.parse().ok()).unwrap_or(0);
        let (seq, view_seq) = (number(&SEQ), number(&VIEW_SEQ));
        let value = answer.bytes(MAX_ANSWER).await?.to_vec();
        Ok(Some(Found { value, seq, view_seq }))
    }

    /// Every row whose key begins with `prefix`, over all pages.
    ///
    /// # Panics
    /// If a page is incomplete, or its rows are not in order.
    pub async fn scan(&self, prefix: &str) -> Result<Rows, CallError> {
        self.scan_at(prefix, None).await
    }

    /// The same, from a view that holds at least `min_seq`.
    ///
    /// # Panics
    /// If a page is incomplete, or its rows are not in order.
    pub async fn scan_at(&self, prefix: &str, min_seq: Option<u64>) -> Result<Rows, CallError> {
        let mut rows = Rows::new();
        let mut page: Option<String> = None;
        loop {
            let mut target = format!("/v1/scan?limit={PAGE}&prefix={}", escape_key(prefix.as_bytes()));
            if let Some(min_seq) = min_seq {
                target.push_str(&format!("&min_seq={min_seq}"));
            }
            if let Some(page) = &page {
                target.push_str(&format!("&page={page}"));
            }
            let answer = self.client.request(Method::GET, &self.base, &target).send().await?.ok().await?;
            let body = answer.bytes(MAX_ANSWER).await?;
            let mut lines: Vec<&[u8]> = body.split(|b| *b == b'\n').filter(|l| !l.is_empty()).collect();
            let last = lines.pop().map(json).unwrap_or_default();
            for line in lines {
                let row = json(line);
                let key = bytes(&row, "key").unwrap();
                assert!(rows.last_key_value().is_none_or(|(k, _)| *k < key), "rows out of order at {row}");
                rows.insert(key, bytes(&row, "value").unwrap());
            }
            if last.get("error").is_some() {
                let e = isle_service::client::RemoteError::parse(
                    http::StatusCode::OK,
                    last.to_string().as_bytes(),
                );
                return Err(e.into());
            }
            let next = last.get("next_page").unwrap_or_else(|| panic!("a page ends with {last}, no trailer"));
            match next.as_str() {
                Some(next) => page = Some(next.to_owned()),
                None => return Ok(rows),
            }
        }
    }

    /// A stream of changes from `earliest`, `latest`, a cursor, …
    pub async fn tail(&self, from: &str) -> Result<Tail, CallError> {
        let target = format!("/v1/tail?format=ndjson&from={from}");
        let answer = self.client.request(Method::GET, &self.base, &target).send().await?.ok().await?;
        Ok(Tail(answer.lines(Some(TAIL_IDLE))))
    }

    /// One page of changes, as JSON.
    pub async fn changes(&self, query: &str) -> Result<Value, CallError> {
        self.json(Method::GET, &format!("/v1/changes?{query}")).await
    }

    /// `/v1/status`.
    pub async fn status(&self) -> Result<Value, CallError> {
        self.json(Method::GET, "/v1/status").await
    }

    /// A request without a body, and its JSON.
    pub async fn json(&self, method: Method, target: &str) -> Result<Value, CallError> {
        self.client.request(method, &self.base, target).send().await?.ok().await?.json().await
    }

    /// `/readyz?verbose`: the status and the JSON.
    pub async fn readyz(&self) -> Result<(u16, Value), ClientError> {
        let plain = self.plain(Method::GET, "/readyz?verbose", Vec::new()).await?;
        Ok((plain.status, serde_json::from_slice(&plain.body).unwrap_or_default()))
    }

    /// The sum of a counter over all its labels; 0 where it does not stand.
    pub async fn metric(&self, name: &str) -> Result<f64, CallError> {
        let call = self.client.request(Method::GET, &self.base, "/metrics");
        let body = call.send().await?.ok().await?.bytes(MAX_ANSWER).await?;
        let text = String::from_utf8_lossy(&body);
        let of = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, _) = series.split_once('{').unwrap_or((series, ""));
            (found == name).then(|| value.parse::<f64>().ok()).flatten()
        };
        Ok(text.lines().filter_map(of).sum())
    }

    /// Any request and its whole answer, whatever its status; one that breaks off is an error.
    pub async fn whole(&self, method: Method, target: &str, body: Vec<u8>) -> Result<Plain, CallError> {
        let mut call = self.client.request(method, &self.base, target);
        if !body.is_empty() {
            call = call.body(body).header(header::CONTENT_TYPE, "application/x-ndjson");
        }
        let answer = call.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = tokio::time::timeout(ANSWER_TIMEOUT, answer.bytes(MAX_ANSWER)).await;
        let body =
            body.map_err(|_| CallError::Answer(format!("it did not end within {ANSWER_TIMEOUT:?}")))?;
        Ok(Plain { status, headers, body: body?.to_vec() })
    }

    /// The lines of a stream that speaks at least every `idle`.
    pub async fn stream(&self, target: &str, idle: Duration) -> Result<LineReader<Incoming>, CallError> {
        let answer = self.client.request(Method::GET, &self.base, target).send().await?.ok().await?;
        Ok(answer.lines(Some(idle)))
    }

    /// Any request, its target sent byte for byte; the answer as it came.
    pub async fn plain(&self, method: Method, target: &str, body: Vec<u8>) -> Result<Plain, ClientError> {
        let mut call = self.client.request(method, &self.base, target);
        if !body.is_empty() {
            call = call.body(body).header(header::CONTENT_TYPE, "application/x-ndjson");
        }
        let answer = call.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.bytes(MAX_ANSWER).await.map(|b| b.to_vec()).unwrap_or_default();
        Ok(Plain { status, headers, body })
    }
}

impl Tail {
    /// The next event; `None` where the stream ends without a closing word.
    ///
    /// # Panics
    /// If the stream ends with an error, or stands still for longer than heartbeats allow.
    pub async fn next(&mut self) -> Option<Event> {
        let line = match self.0.next().await {
            Ok(line) => line?,
            // A connection cut by a kill; a consumer goes on from its last cursor.
            Err(_) => return None,
        };
        let line = json(&line.bytes);
        if line.get("heartbeat").is_some() {
            return Some(Event::Heartbeat(line));
        }
        if line.get("closing").is_some() {
            return Some(Event::Closing(line["next"].as_str().unwrap().to_owned()));
        }
        assert!(line.get("error").is_none(), "the tail says {line}");
        Some(Event::Change(Change {
            seq: line["seq"].as_u64().unwrap(),
            key: bytes(&line, "key").unwrap(),
            value: bytes(&line, "value"),
            cursor: line["cursor"].as_str().unwrap().to_owned(),
        }))
    }

    /// Changes up to number `last`, which must come.
    ///
    /// # Panics
    /// If the stream ends before, or `limit` passes.
    pub async fn until(&mut self, last: u64, limit: Duration) -> Vec<Change> {
        let mut changes = Vec::new();
        let all = async {
            while changes.last().is_none_or(|c: &Change| c.seq < last) {
                match self.next().await {
                    Some(Event::Change(change)) => changes.push(change),
                    Some(Event::Heartbeat(_)) => {}
                    other => panic!("the tail ended with {other:?} before {last}"),
                }
            }
        };
        let in_time = tokio::time::timeout(limit, all).await.is_ok();
        assert!(
            in_time,
            "the tail stood at {:?} after {limit:?}, not at {last}",
            changes.last().map(|c| c.seq)
        );
        changes
    }
}

fn written(answer: &Value) -> Written {
    let number = |names: &[&str]| names.iter().find_map(|n| answer[*n].as_u64());
    Written {
        first: number(&["seq", "first_seq"]).unwrap_or_else(|| panic!("no number in {answer}")),
        last: number(&["seq", "last_seq"]).unwrap(),
        epoch: number(&["epoch"]).unwrap(),
        position: answer["position"].as_str().unwrap().to_owned(),
    }
}

fn json(line: &[u8]) -> Value {
    serde_json::from_slice(line).unwrap_or_else(|e| panic!("{e} in {:?}", String::from_utf8_lossy(line)))
}

/// A field in whichever of its two forms it came.
///
/// # Panics
/// If it is no base64 where that is its form.
#[must_use]
pub fn bytes(row: &Value, name: &str) -> Option<Vec<u8>> {
    if let Some(text) = row[name].as_str() {
        return Some(text.as_bytes().to_vec());
    }
    row[format!("{name}_b64")].as_str().map(|text| base64::decode(text.as_bytes()).unwrap())
}
