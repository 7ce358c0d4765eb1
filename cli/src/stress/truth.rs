//! The committed log of the run's prefix, read page by page: what everything else is judged against.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use isle_history::{Digest, Key, LogPiece, Op, Record};
use isle_service::client::CallError;
use isle_service::wire::escape_key;
use isle_service::wire::time::parse_rfc3339;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::ground::{Ground, PAUSE};
use crate::output::Failure;

/// What has been read and not been taken.
#[derive(Debug, Default)]
struct Read {
    records: Vec<Record>,
    after: u64,
    through: u64,
    broken: Option<String>,
}

/// Follows the log in a task of its own.
pub(super) struct Truth {
    read: watch::Sender<Read>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Truth {
    /// Follows the log from `cursor` on.
    pub(super) fn follow(ground: Arc<Ground>, cursor: String) -> Self {
        let (read, stop) = (watch::Sender::new(Read::default()), CancellationToken::new());
        let task = tokio::spawn(follow(ground, cursor, read.clone(), stop.clone()));
        Self { read, stop, task }
    }

    /// What was read since the last time.
    pub(super) fn take(&self) -> LogPiece {
        let mut piece = LogPiece::default();
        self.read.send_if_modified(|read| {
            piece = LogPiece {
                after: read.after,
                through: read.through,
                records: std::mem::take(&mut read.records),
            };
            read.after = read.through;
            false
        });
        piece
    }

    /// Why the log can be read no further, if so.
    pub(super) fn broken(&self) -> Option<String> {
        self.read.borrow().broken.clone()
    }

    /// Waits until the log has been read up to `seq`.
    pub(super) async fn reaches(&self, seq: u64, patience: Duration) -> Result<(), Failure> {
        let mut read = self.read.subscribe();
        let there = read.wait_for(|read| read.through >= seq || read.broken.is_some());
        match tokio::time::timeout(patience, there).await {
            Ok(Ok(read)) => match &read.broken {
                Some(why) => {
                    Err(Failure::new(format!("the log cannot be read, so not all is judged: {why}")))
                }
                None => Ok(()),
            },
            _ => Err(Failure::new(format!(
                "the log was not read up to {seq} within {patience:?}, so not all is judged"
            ))),
        }
    }

    pub(super) async fn end(self) {
        self.stop.cancel();
        let _ended = self.task.await;
    }
}

async fn follow(ground: Arc<Ground>, mut cursor: String, read: watch::Sender<Read>, stop: CancellationToken) {
    let mut tailer = 0;
    while !stop.is_cancelled() {
        let target = format!(
            "/v1/changes?from={cursor}&limit=1000&wait=1s&prefix={}",
            escape_key(ground.prefix.as_bytes())
        );
        let base = &ground.tailers[tailer % ground.tailers.len()];
        let page = async {
            let call = ground.client.request(Method::GET, base, &target);
            call.send().await?.ok().await?.json::<Value>().await
        };
        let page = tokio::select! {
            () = stop.cancelled() => return,
            page = page => page.and_then(|page| parse(&page).map_err(CallError::Answer)),
        };
        match page {
            Ok((records, next, through)) => {
                cursor = next;
                read.send_modify(|read| {
                    read.records.extend(records);
                    read.through = read.through.max(through);
                });
            }
            Err(e) if refused(&e) => {
                return read.send_modify(|read| read.broken = Some(e.to_string()));
            }
            Err(_) => {
                tailer += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Whether asking again will not help: the log was trimmed, the answer makes no sense.
fn refused(e: &CallError) -> bool {
    match e {
        CallError::Remote(e) => (400..500).contains(&e.status.as_u16()) && e.status.as_u16() != 429,
        CallError::Answer(_) => true,
        CallError::Client(_) | CallError::Read(_) => false,
    }
}

/// A page's records, the next cursor, and the number up to which the log is covered.
fn parse(page: &Value) -> Result<(Vec<Record>, String, u64), String> {
    let next = page["next"].as_str().ok_or_else(|| format!("a page without a cursor: {page}"))?;
    let through = position(next)?;
    let changes = page["changes"].as_array().ok_or_else(|| format!("a page without changes: {page}"))?;
    let records = changes.iter().map(record).collect::<Result<_, _>>()?;
    Ok((records, next.to_owned(), through))
}

/// The number in a cursor.
pub(super) fn position(cursor: &str) -> Result<u64, String> {
    let parsed: Result<tailer_node::Cursor, _> = cursor.parse();
    parsed.map(|c| c.seq.0).map_err(|e| e.to_string())
}

/// One change as JSON.
pub(super) fn record(change: &Value) -> Result<Record, String> {
    let parse = || {
        let time = |name: &str| change[name].as_str().and_then(|t| parse_rfc3339(t).ok());
        Some(Record {
            seq: change["seq"].as_u64()?,
            time: time("time")?,
            expires: time("expires"),
            epoch: None,
            key: Key::new(change["key"].as_str()?.as_bytes()),
            op: match change["op"].as_str()? {
                "put" => Op::Put(Digest::of(change["value"].as_str()?.as_bytes())),
                "delete" => Op::Delete,
                _ => return None,
            },
        })
    };
    parse().ok_or_else(|| format!("no change of ours: {change}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_and_nonsense_is_refused() {
        let change = serde_json::json!({
            "op": "put", "key": "a", "value": "1", "seq": 7,
            "time": "1970-01-01T00:00:01.000000Z", "expires": null,
        });
        let record = record(&change).unwrap();
        assert_eq!((record.seq, record.time, record.expires), (7, 1_000_000, None));
        assert_eq!(record.op, Op::Put(Digest::of(b"1")));
        for field in ["op", "key", "value", "seq", "time"] {
            let mut bad = change.clone();
            bad.as_object_mut().unwrap().remove(field);
            assert!(super::record(&bad).is_err(), "without {field}");
        }
        assert!(parse(&serde_json::json!({"changes": []})).is_err());
        assert!(position("nonsense").is_err());
    }
}
