//! What all tasks of a run share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use isle_history::{Key, Recorder};
use isle_service::client::{BaseUrl, Client, ClientError, ClientSettings};
use isle_service::wire::escape_key;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::args::Nodes;
use crate::output::Failure;

/// Longest wait for the head of an answer.
const ANSWER: Duration = Duration::from_secs(15);

/// Pause before something refused is tried again.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// Longest answer read whole.
pub(super) const MAX_ANSWER: usize = 64 << 20;

/// What was done, counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) puts: AtomicU64,
    pub(super) deletes: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) ingests: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) gets: AtomicU64,
    pub(super) mgets: AtomicU64,
    pub(super) scans: AtomicU64,
    pub(super) restarts: AtomicU64,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The nodes, the prefix, and what has happened so far.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) client: Client,
    pub(super) writers: Vec<BaseUrl>,
    pub(super) readers: Vec<BaseUrl>,
    pub(super) tailers: Vec<BaseUrl>,
    pub(super) prefix: String,
    pub(super) keys: u64,
    pub(super) recorder: Recorder,
    pub(super) tally: Tally,
    /// The highest number acknowledged as committed.
    acknowledged: AtomicU64,
    stop: CancellationToken,
    slow: AtomicBool,
}

impl Ground {
    pub(super) fn new(nodes: &Nodes, prefix: &str, keys: u64) -> Result<Self, Failure> {
        let all = |name: &str, urls: &[String]| -> Result<Vec<BaseUrl>, Failure> {
            if urls.is_empty() {
                return Err(Failure::usage(format!("no --{name} is given")));
            }
            let parsed = urls.iter().map(|url| url.parse());
            parsed.collect::<Result<_, ClientError>>().map_err(|e| Failure::usage(format!("--{name}: {e}")))
        };
        let settings = ClientSettings { head_timeout: Some(ANSWER), ..ClientSettings::default() };
        Ok(Self {
            client: Client::new(settings),
            writers: all("writer", &nodes.writers)?,
            readers: all("reader", &nodes.readers)?,
            tailers: all("tailer", &nodes.tailers)?,
            prefix: prefix.to_owned(),
            keys,
            recorder: Recorder::new(),
            tally: Tally::default(),
            acknowledged: AtomicU64::new(0),
            stop: CancellationToken::new(),
            slow: AtomicBool::new(false),
        })
    }

    /// A key of the run, as text.
    pub(super) fn key(&self, n: u64) -> String {
        format!("{}k{n:07}", self.prefix)
    }

    /// The prefix as a key.
    pub(super) fn prefix_key(&self) -> Key {
        Key::new(self.prefix.as_bytes())
    }

    /// The first key beyond the prefix: it ends in a slash, whose successor is `0`.
    pub(super) fn end_key(&self) -> Key {
        let mut end = self.prefix.clone().into_bytes();
        end.pop();
        end.push(b'0');
        Key::new(&end)
    }

    pub(super) fn acknowledged(&self, seq: u64) {
        self.acknowledged.fetch_max(seq, Ordering::Relaxed);
    }

    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    pub(super) fn slow_down(&self, yes: bool) {
        self.slow.store(yes, Ordering::Relaxed);
    }

    /// Waits while the judge cannot keep up.
    pub(super) async fn turn(&self) {
        while self.slow.load(Ordering::Relaxed) && !self.is_stopped() {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A request without a body, and its JSON; the reason where there is none.
    pub(super) async fn json(&self, method: Method, base: &BaseUrl, target: &str) -> Result<Value, String> {
        let answer = self.client.request(method, base, target).send().await.map_err(|e| e.to_string())?;
        answer.ok().await.map_err(|e| e.to_string())?.json().await.map_err(|e| e.to_string())
    }

    /// Makes sure that every role answers, and gives the cursor at which the run begins.
    pub(super) async fn reachable(&self, patience: Duration) -> Result<String, Failure> {
        let deadline = Instant::now() + patience;
        let usage = |role: &str, why: String| Failure::usage(format!("no {role} answers: {why}"));
        let flush = |n: usize| self.json(Method::POST, &self.writers[n % self.writers.len()], "/v1/flush");
        until(deadline, flush).await.map_err(|e| usage("writer", e))?;
        for reader in &self.readers {
            let status = |_| self.json(Method::GET, reader, "/v1/status");
            until(deadline, status).await.map_err(|e| usage("reader", e))?;
        }
        let target = format!("/v1/changes?from=latest&wait=0&prefix={}", escape_key(self.prefix.as_bytes()));
        let changes = |n: usize| {
            let base = &self.tailers[n % self.tailers.len()];
            let target = &target;
            async move {
                let page = self.json(Method::GET, base, target).await?;
                page["next"]
                    .as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| format!("{base} gives no cursor: {page}"))
            }
        };
        until(deadline, changes).await.map_err(|e| usage("tailer", e))
    }

    /// Everything accepted is committed; the last number.
    pub(super) async fn flush(&self, patience: Duration) -> Result<u64, Failure> {
        let flush = |n: usize| async move {
            let flushed = self.json(Method::POST, &self.writers[n % self.writers.len()], "/v1/flush").await?;
            let seq = flushed["position"].as_str().and_then(|p| p.split_once('.')?.1.parse::<u64>().ok());
            seq.ok_or_else(|| format!("the writer's flush answered {flushed}"))
        };
        let flushed = until(Instant::now() + patience, flush).await;
        flushed.map(|seq| seq.max(self.acknowledged.load(Ordering::Relaxed))).map_err(|e| {
            Failure::new(format!("the run could not be brought to rest, so not all is judged: {e}"))
        })
    }
}

/// Tries until it works or the deadline passes; the last reason.
pub(super) async fn until<T, F>(deadline: Instant, mut attempt: impl FnMut(usize) -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let mut n = 0;
    loop {
        match attempt(n).await {
            Ok(done) => return Ok(done),
            Err(why) if Instant::now() >= deadline => return Err(why),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
        n += 1;
    }
}

/// This machine's time, in microseconds since 1970.
pub(super) fn now() -> i64 {
    use isle_storage::environment::{Clock as _, SystemClock};
    SystemClock.now().0
}
