//! How long a database is without a writer: measured by clients that do nothing but write, as a real client does, to
//! any of the writers, and to the other one when the first does not take it.
//!
//! The time is from the signal (SIGKILL, SIGTERM) to the first acknowledgement under a new epoch. Between two of them the
//! writer that went comes back as the standby. Everything written is recorded and judged at the end: nothing is lost.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use isle_history::{Key, Limits, LogPiece, Mutation, Name, Recorder, WriteOutcome};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::chaos::{log_of, outcome};
use crate::client::Api;
use crate::cluster::Cluster;
use crate::node::{Node, Role};
use crate::servers::{Etcd, S3};
use crate::wait::until;

/// Clients that write at once.
const CLIENTS: usize = 4;

/// A client's pause after an acknowledgement, and after a refusal.
const PAUSE: Duration = Duration::from_millis(5);

/// How long a takeover is waited for beyond the lease.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is to be measured.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The lease.
    pub lease: Duration,
    /// Writers killed.
    pub crashes: usize,
    /// Writers told to stop.
    pub handovers: usize,
}

/// What came out.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// From SIGKILL to the first acknowledgement of the next epoch.
    pub crashes: Times,
    /// The same from SIGTERM.
    pub handovers: Times,
    /// Writes acknowledged in all.
    pub acknowledged: u64,
    /// Writes whose outcome no client was told.
    pub unknown: u64,
    /// What was lost, or should not be there.
    pub violations: Vec<String>,
}

/// Several measurements of one thing.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    /// The shortest, the median and the longest; `None` where nothing was measured.
    #[must_use]
    pub fn summary(&self) -> Option<[Duration; 3]> {
        let mut sorted = self.0.clone();
        sorted.sort();
        Some([*sorted.first()?, *sorted.get(sorted.len() / 2)?, *sorted.last()?])
    }

    /// The longest; nothing where nothing was measured.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.summary().map_or(Duration::ZERO, |[_, _, longest]| longest)
    }

    fn to_json(&self) -> Value {
        let ms = |d: Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
        let all: Vec<_> = self.0.iter().map(|d| ms(*d)).collect();
        match self.summary() {
            None => json!({"count": 0}),
            Some([least, median, most]) => {
                json!({"count": all.len(), "min_ms": ms(least), "median_ms": ms(median), "max_ms": ms(most), "all_ms": all})
            }
        }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.summary() {
            None => f.write_str("none"),
            Some([least, median, most]) => write!(
                f,
                "{} times: min {:.3} s, median {:.3} s, max {:.3} s",
                self.0.len(),
                least.as_secs_f64(),
                median.as_secs_f64(),
                most.as_secs_f64()
            ),
        }
    }
}

impl Measured {
    /// The same for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "crashes": self.crashes.to_json(),
            "handovers": self.handovers.to_json(),
            "acknowledged": self.acknowledged,
            "unknown": self.unknown,
            "violations": self.violations,
        })
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "crashed:     {}", self.crashes)?;
        writeln!(f, "handed over: {}", self.handovers)?;
        writeln!(f, "writes: {} acknowledged, {} unknown", self.acknowledged, self.unknown)?;
        writeln!(f, "violations: {}", self.violations.len())?;
        self.violations.iter().take(20).try_for_each(|v| writeln!(f, "- {v}"))
    }
}

/// How a writer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goes {
    Crashed,
    Stopped,
}

/// Two writers over three etcd members, one of them killed or stopped again and again.
///
/// # Panics
/// If something does not come up, or a takeover does not come.
pub async fn measure(asked: Asked, say: fn(&str)) -> Measured {
    let (etcd, s3) = (Etcd::cluster().await, S3::start().await);
    let mut cluster = Cluster::over(s3.url("db"), etcd.url("isle"), s3.env());
    cluster.set("coordination.lease_ttl_seconds", &asked.lease.as_secs().to_string());
    let mut writers = vec![cluster.start(Role::Writer).await];
    writers[0].leads().await;
    writers.push(cluster.start(Role::Writer).await);
    let tailer = cluster.start(Role::Tailer).await;
    let writing = Writing::start(&writers);
    let mut measured = Measured::default();
    // Alternating, so that neither is measured only on a fresh cluster.
    let (mut crashes, mut handovers) = (asked.crashes, asked.handovers);
    while crashes + handovers > 0 {
        let goes = if handovers > crashes { Goes::Stopped } else { Goes::Crashed };
        let took = one(&mut writers, &writing, goes, asked.lease).await;
        say(&format!("{goes:?}: {:.3} s", took.as_secs_f64()));
        match goes {
            Goes::Crashed => {
                crashes -= 1;
                measured.crashes.0.push(took);
            }
            Goes::Stopped => {
                handovers -= 1;
                measured.handovers.0.push(took);
            }
        }
    }
    let recorder = writing.finish().await;
    match log_of(&tailer.api()).await {
        Ok(log) => {
            let report = isle_history::check(&recorder.drain(), LogPiece::whole(log), Limits::default());
            measured.acknowledged = report.counts.acknowledged;
            measured.unknown = report.counts.unknown;
            measured.violations.extend(report.violations.iter().map(ToString::to_string));
        }
        Err(e) => measured.violations.push(format!("the log cannot be read: {e}")),
    }
    measured
}

/// One writer goes; how long until another one acknowledges.
async fn one(writers: &mut [Node], writing: &Writing, goes: Goes, lease: Duration) -> Duration {
    let leads = match writers[0].api().status().await {
        Ok(status) if status["leader"] == true => 0,
        _ => 1,
    };
    writers[leads].leads().await;
    // Some writes under it, so that the epoch that follows is told from it.
    let epoch = writing.acknowledged_after(Instant::now(), 0, PATIENCE).await.epoch;
    let began = Instant::now();
    match goes {
        Goes::Crashed => writers[leads].kill(),
        Goes::Stopped => writers[leads].terminate(),
    }
    let first = writing.acknowledged_after(began, epoch, lease + PATIENCE).await;
    if goes == Goes::Stopped {
        let code = writers[leads].ended().await.code();
        assert_eq!(code, Some(0), "the writer ended with {code:?} after SIGTERM");
    }
    writers[leads].restart();
    writers[leads].ready().await;
    writers[1 - leads].leads().await;
    first.at.saturating_duration_since(began)
}

/// An acknowledgement.
#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Instant,
    epoch: u64,
}

/// Clients at work.
struct Writing {
    recorder: Recorder,
    /// The first acknowledgement of the newest epoch, and the newest of all.
    seen: Arc<Mutex<Option<(Seen, Seen)>>>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Writing {
    fn start(writers: &[Node]) -> Self {
        let (seen, stop) = (Arc::default(), Arc::default());
        let mut writing = Self { recorder: Recorder::new(), seen, stop, clients: JoinSet::new() };
        let apis: Vec<_> = writers.iter().map(|n| Api::impatient(&n.url())).collect();
        for n in 0..CLIENTS {
            let client = One {
                name: format!("client-{n}").into(),
                apis: apis.clone(),
                recorder: writing.recorder.clone(),
                seen: Arc::clone(&writing.seen),
                stop: Arc::clone(&writing.stop),
            };
            writing.clients.spawn(client.run());
        }
        writing
    }

    /// The first acknowledgement that came after `then` from an epoch above `epoch`.
    async fn acknowledged_after(&self, then: Instant, epoch: u64, limit: Duration) -> Seen {
        let found = || {
            let seen = *self.seen.lock();
            let of_epoch = seen.and_then(|(first, newest)| {
                if epoch == 0 {
                    (newest.at > then).then_some(newest)
                } else {
                    (first.epoch > epoch).then_some(first)
                }
            });
            std::future::ready(of_epoch)
        };
        until("an acknowledgement", limit, found).await
    }

    async fn finish(mut self) -> Recorder {
        self.stop.store(true, Ordering::SeqCst);
        while self.clients.join_next().await.is_some() {}
        self.recorder
    }
}

struct One {
    name: Name,
    apis: Vec<Api>,
    recorder: Recorder,
    seen: Arc<Mutex<Option<(Seen, Seen)>>>,
    stop: Arc<AtomicBool>,
}

impl One {
    async fn run(self) {
        let mut at = 0;
        for n in 0_u64.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let (key, value) = (format!("{}/{}", self.name, n % 50), format!("{}#{n}", self.name));
            let mutation = Mutation::put(Key::new(key.as_bytes()), value.as_bytes());
            let op = self.recorder.write_invoked(&self.name, vec![mutation]);
            let answer = self.apis[at].whole(Method::PUT, &format!("/v1/kv/{key}"), value.into_bytes()).await;
            let (outcome, _) = outcome(&answer);
            match &outcome {
                WriteOutcome::Acknowledged { epoch, .. } => self.note(*epoch),
                // The other one, as a real client does.
                _ => at = (at + 1) % self.apis.len(),
            }
            self.recorder.write_answered(op, outcome);
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn note(&self, epoch: u64) {
        let now = Seen { at: Instant::now(), epoch };
        let mut seen = self.seen.lock();
        let first = match *seen {
            Some((first, _)) if first.epoch >= epoch => first,
            _ => now,
        };
        *seen = Some((first, now));
    }
}
