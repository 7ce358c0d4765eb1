//! The consumers: each follows the log from its beginning over one form of the tail, is cut off by faults and by its own
//! whim, and goes on by its cursor at whichever tailer answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use hyper::body::Incoming;
use isle_history::{Digest, Key, Name, Op, Record, Recorder, Start};
use isle_service::wire::{LineReader, escape_key};
use serde_json::Value;

use super::clients::Shared;
use super::rng::Rng;
use crate::client::{Api, bytes};

/// A stream that is silent for so long is given up; heartbeats come every second.
const IDLE: Duration = Duration::from_secs(4);

/// The form a consumer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Ndjson,
    Sse,
    /// `GET /v1/changes`, page by page.
    Changes,
}

/// A consumer and where it stands.
pub(super) struct Consumer {
    pub(super) shared: Shared,
    pub(super) tailers: Vec<(String, Api)>,
    pub(super) name: Name,
    pub(super) form: Form,
    pub(super) prefix: Option<Key>,
    pub(super) rng: Rng,
    /// What it has been told so far, for those who wait for it.
    pub(super) through: Arc<AtomicU64>,
    pub(super) cursor: Option<String>,
}

/// Why a stream was left.
enum Left {
    /// It broke, ended, or was left on a whim.
    Resume,
    /// The tailer said something no tailer may say.
    Wrong(String),
}

impl Consumer {
    /// Runs until all is stopped; what no fault excuses, if there was such a thing.
    pub(super) async fn run(mut self) -> Result<(), String> {
        let mut at = self.rng.below(self.tailers.len());
        while !self.shared.stopped() {
            let api = self.tailers[at % self.tailers.len()].1.clone();
            let from = self.cursor.as_deref().map_or(Start::Earliest, |c| Start::After(seq_of(c)));
            self.recorder().consumer_started(&self.name, from, self.prefix.clone());
            let left = match self.form {
                Form::Changes => self.pages(&api).await,
                Form::Ndjson | Form::Sse => self.stream(&api).await,
            };
            if let Left::Wrong(what) = left {
                return Err(format!("consumer {}: {what}", self.name));
            }
            at += 1;
            tokio::time::sleep(Duration::from_millis(self.rng.within(10..200))).await;
        }
        Ok(())
    }

    fn recorder(&self) -> &Recorder {
        &self.shared.recorder
    }

    fn query(&self) -> String {
        let from = self.cursor.as_deref().unwrap_or("earliest");
        let prefix = self.prefix.as_ref().map(|p| format!("&prefix={}", escape_key(p.as_bytes())));
        format!("from={from}{}", prefix.unwrap_or_default())
    }

    async fn stream(&mut self, api: &Api) -> Left {
        let format = if self.form == Form::Sse { "sse" } else { "ndjson" };
        let target = format!("/v1/tail?format={format}&{}", self.query());
        let Ok(mut lines) = api.stream(&target, IDLE).await else { return Left::Resume };
        let stay = self.rng.within(500..20_000);
        let whim = tokio::time::sleep(Duration::from_millis(stay));
        tokio::pin!(whim);
        loop {
            if self.shared.stopped() {
                return Left::Resume;
            }
            let said = tokio::select! {
                () = &mut whim => return Left::Resume,
                said = next(&mut lines, self.form) => said,
            };
            match said {
                Ok(Some((cursor, line))) => {
                    if let Err(left) = self.take(&line, cursor) {
                        return left;
                    }
                }
                Ok(None) => return Left::Resume,
                Err(wrong) => return Left::Wrong(wrong),
            }
        }
    }

    async fn pages(&mut self, api: &Api) -> Left {
        for _ in 0..self.rng.within(5..60) {
            if self.shared.stopped() {
                return Left::Resume;
            }
            let limit = self.rng.within(1..200);
            let target = format!("/v1/changes?{}&limit={limit}&wait=1s", self.query());
            let Ok(plain) = api.whole(Method::GET, &target, Vec::new()).await else { return Left::Resume };
            let Ok(page) = serde_json::from_slice::<Value>(&plain.body) else {
                return Left::Wrong(format!(
                    "a page that is no JSON: {}",
                    String::from_utf8_lossy(&plain.body)
                ));
            };
            if plain.status != 200 {
                return judge(&page);
            }
            let Some(changes) = page["changes"].as_array() else {
                return Left::Wrong(format!("a page without changes: {page}"));
            };
            for change in changes {
                if let Err(left) = self.deliver(change) {
                    return left;
                }
            }
            let next = page["next"].as_str().unwrap_or_default().to_owned();
            self.advance(next);
        }
        Left::Resume
    }

    /// A line of a stream, with the cursor that goes with it.
    fn take(&mut self, line: &Value, cursor: Option<String>) -> Result<(), Left> {
        if line.get("error").is_some() {
            return Err(judge(line));
        }
        if let Some(next) = line["next"].as_str() {
            self.advance(cursor.unwrap_or_else(|| next.to_owned()));
            return Ok(());
        }
        self.deliver(line)?;
        let cursor = cursor.or_else(|| line["cursor"].as_str().map(str::to_owned));
        let cursor = cursor.ok_or_else(|| Left::Wrong(format!("a change without a cursor: {line}")))?;
        self.through.store(seq_of(&cursor), Ordering::SeqCst);
        self.cursor = Some(cursor);
        Ok(())
    }

    fn deliver(&self, change: &Value) -> Result<(), Left> {
        let record = record(change).ok_or_else(|| Left::Wrong(format!("not a change: {change}")))?;
        self.recorder().delivered(&self.name, record);
        Ok(())
    }

    fn advance(&mut self, cursor: String) {
        let seq = seq_of(&cursor);
        self.recorder().advanced(&self.name, seq);
        self.through.store(seq, Ordering::SeqCst);
        self.cursor = Some(cursor);
    }
}

/// The next thing that a stream says. A stream that breaks off has nothing more to say.
async fn next(
    lines: &mut LineReader<Incoming>,
    form: Form,
) -> Result<Option<(Option<String>, Value)>, String> {
    let mut cursor = None;
    loop {
        let Ok(Some(line)) = lines.next().await else { return Ok(None) };
        let text = String::from_utf8_lossy(&line.bytes).into_owned();
        let json = match form {
            Form::Sse => match text.split_once(": ") {
                Some(("id", id)) => {
                    cursor = Some(id.to_owned());
                    continue;
                }
                Some(("data", data)) => data.to_owned(),
                _ => continue,
            },
            _ => text,
        };
        return match serde_json::from_str(&json) {
            Ok(json) => Ok(Some((cursor, json))),
            // Its last line may be cut in two with its connection.
            Err(_) if matches!(lines.next().await, Ok(None) | Err(_)) => Ok(None),
            Err(e) => Err(format!("{e} in {json:?}")),
        };
    }
}

/// An error as an answer: some are a reason to come again, others are never right here.
fn judge(line: &Value) -> Left {
    match line["error"]["code"].as_str() {
        Some(code @ ("damaged" | "internal" | "cursor_expired" | "invalid_request")) => {
            Left::Wrong(format!("{code}: {line}"))
        }
        _ => Left::Resume,
    }
}

/// The number in a cursor: `<database>.<lineage>.<seq>`.
pub(super) fn seq_of(cursor: &str) -> u64 {
    cursor.rsplit('.').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// A change as the log's record.
pub(super) fn record(change: &Value) -> Option<Record> {
    let micros = |name: &str| {
        let text = change[name].as_str()?;
        Some(text.parse::<jiff::Timestamp>().ok()?.as_microsecond())
    };
    let op = match change["op"].as_str()? {
        "put" => Op::Put(Digest::of(&bytes(change, "value")?)),
        "delete" => Op::Delete,
        _ => return None,
    };
    Some(Record {
        seq: change["seq"].as_u64()?,
        time: micros("time")?,
        expires: micros("expires"),
        epoch: None,
        key: Key::new(&bytes(change, "key")?),
        op,
    })
}
