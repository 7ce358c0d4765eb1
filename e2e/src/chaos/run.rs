//! One run, from an empty bucket to a verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use isle_history::{Event, Key, Limits, LogPiece, Mutation, Recorder, WriteOutcome};
use serde_json::Value;
use tokio::task::JoinSet;

use super::clients::{Reading, Shared, Writing, outcome};
use super::cluster::{ChaosCluster, Tuning};
use super::hold::Holding;
use super::nemesis::Nemesis;
use super::plan::Plan;
use super::read::{AtLeast, Scan, Session};
use super::report::Report;
use super::rng::Rng;
use super::tail::{Consumer, Form, record};
use crate::client::Api;
use crate::node::{Role, command};

/// How long the cluster may take to come to rest after the last fault.
const REST: Duration = Duration::from_secs(90);

/// How long `isle verify` may take.
const VERIFY: Duration = Duration::from_secs(300);

/// Changes of a page when the whole log is read.
const LOG_PAGE: usize = 1_000;

/// Clients that hold snapshots.
const HOLDING: usize = 2;

/// How often readers are asked which view they hold.
const LOOK: Duration = Duration::from_millis(300);

/// What a run is like.
#[derive(Debug, Clone)]
pub struct Chaos {
    /// What the plan is made from, and what clients choose by.
    pub seed: u64,
    /// How long faults are done.
    pub length: Duration,
    /// How fast the cluster lives.
    pub tuning: Tuning,
    /// Clients that write.
    pub writing: usize,
    /// Clients that read.
    pub reading: usize,
    /// A client's pause between two operations.
    pub pause: Duration,
    /// Keep the programs' logs even if nothing was found.
    pub keep_logs: bool,
    /// Told of every fault as it is done.
    pub say: fn(&str),
}

impl Chaos {
    /// The usual run of a seed.
    #[must_use]
    pub fn new(seed: u64, length: Duration) -> Self {
        Self {
            seed,
            length,
            tuning: Tuning::default(),
            writing: 4,
            reading: 3,
            pause: Duration::from_millis(25),
            keep_logs: false,
            say: |_| {},
        }
    }

    /// What will be done.
    #[must_use]
    pub fn plan(&self) -> Plan {
        Plan::new(self.seed, self.length, &self.tuning)
    }
}

/// A run.
///
/// # Panics
/// If the servers it needs do not come up.
pub async fn run(chaos: &Chaos) -> Report {
    let mut cluster = ChaosCluster::start(chaos.tuning).await;
    let mut load = Load::start(chaos, &cluster);
    let recorder = load.shared.recorder.clone();
    let mut nemesis = Nemesis::new(&mut cluster, recorder, chaos.say);
    nemesis.run(&chaos.plan()).await;
    let (faults, skipped) = (std::mem::take(&mut nemesis.done), nemesis.skipped);
    let mut violations = std::mem::take(&mut nemesis.violations);
    (chaos.say)("faults are over; coming to rest");

    violations.extend(come_to_rest(&mut cluster).await);
    let log = load.finish(&cluster, &mut violations).await;
    let collected = status_sum(&cluster, Role::Compactor, "deleted").await;
    violations.extend(stop_all(&mut cluster).await);
    violations.extend(verify(&cluster).await);

    let events = load.shared.recorder.drain();
    let report = isle_history::check(&events, LogPiece::whole(log), Limits::default());
    violations.extend(report.violations.iter().map(ToString::to_string));
    if report.total > report.violations.len() as u64 {
        violations.push(format!("{} violations of the history in all", report.total));
    }
    let tally = Tally::of(&events);
    if chaos.keep_logs || !violations.is_empty() {
        (chaos.say)(&format!("the programs' logs are in {}", cluster.keep_logs().display()));
    }
    Report {
        seed: chaos.seed,
        length: chaos.length,
        namespaces: cluster.has_namespaces(),
        faults,
        skipped,
        counts: report.counts,
        refusals: tally.refusals,
        failed_reads: tally.failed_reads,
        epochs: tally.epochs.len() as u64,
        snapshots: tally.snapshots,
        collected,
        proxied: cluster.proxied(),
        violations,
    }
}

/// Every program says that it is ready: a fault that has passed leaves no trace. What does not get there is told.
async fn come_to_rest(cluster: &mut ChaosCluster) -> Vec<String> {
    let mut wrong = Vec::new();
    let began = Instant::now();
    for actor in &mut cluster.actors {
        let api = actor.node.api();
        loop {
            let answer = tokio::time::timeout(Duration::from_secs(2), api.readyz()).await;
            let said = match answer {
                Ok(Ok((200, body))) if !body.to_string().contains("degraded") => break,
                Ok(Ok((status, body))) => format!("{status} {body}"),
                Ok(Err(e)) => e.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if began.elapsed() > REST {
                wrong.push(format!("{} is not well {REST:?} after the last fault: {said}", actor.name));
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    wrong
}

/// SIGTERM to everybody; who does not end in order is told.
async fn stop_all(cluster: &mut ChaosCluster) -> Vec<String> {
    let mut wrong = Vec::new();
    for actor in &mut cluster.actors {
        actor.node.terminate();
    }
    for actor in &mut cluster.actors {
        match tokio::time::timeout(Duration::from_secs(30), actor.node.ended()).await {
            Ok(status) if status.success() => {}
            Ok(status) => wrong.push(format!("{} ended with {status} when all was over", actor.name)),
            Err(_) => wrong.push(format!("{} did not stop when all was over", actor.name)),
        }
    }
    wrong
}

/// `isle verify` over what is left: every object, every checksum, every invariant.
async fn verify(cluster: &ChaosCluster) -> Option<String> {
    let flags = cluster.direct_flags();
    let args: Vec<&str> = ["verify"].into_iter().chain(flags.iter().map(String::as_str)).collect();
    let mut command = tokio::process::Command::from(command("isle", &args, &cluster.s3.env()));
    command.stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(VERIFY, command.output()).await {
        Err(_) => Some(format!("isle verify did not end within {VERIFY:?}")),
        Ok(Err(e)) => Some(format!("isle verify cannot be run: {e}")),
        Ok(Ok(output)) if output.status.success() => None,
        Ok(Ok(output)) => Some(format!(
            "isle verify ended with {}:\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

async fn status_sum(cluster: &ChaosCluster, role: Role, field: &str) -> u64 {
    let mut sum = 0;
    for (_, api) in cluster.apis(role) {
        sum += api.status().await.ok().and_then(|s| s[field].as_u64()).unwrap_or(0);
    }
    sum
}

/// The clients at work.
struct Load {
    shared: Shared,
    clients: JoinSet<()>,
    holding: JoinSet<Result<(), String>>,
    consumers: JoinSet<Result<(), String>>,
    stop_consumers: Arc<AtomicBool>,
    /// What each consumer has been told.
    told: Vec<(String, Arc<AtomicU64>)>,
}

impl Load {
    fn start(chaos: &Chaos, cluster: &ChaosCluster) -> Self {
        let shared = Shared {
            recorder: Recorder::new(),
            writers: cluster.apis(Role::Writer),
            readers: cluster.apis(Role::Reader),
            stop: Arc::default(),
            newest: Arc::default(),
            pause: chaos.pause,
            scans: Arc::default(),
        };
        let rng = Rng::new(chaos.seed);
        let mut clients = JoinSet::new();
        for n in 0..chaos.writing {
            clients.spawn(Writing::new(shared.clone(), n, rng.fork(100 + n as u64)).run());
        }
        for n in 0..chaos.reading {
            clients.spawn(Reading::new(shared.clone(), n, rng.fork(200 + n as u64)).run());
        }
        let mut holding = JoinSet::new();
        for n in 0..HOLDING {
            holding.spawn(Holding::new(shared.clone(), n, rng.fork(400 + n as u64)).run());
        }
        for (name, api) in shared.readers.clone() {
            clients.spawn(look(name, api, shared.clone()));
        }
        let (mut consumers, mut told) = (JoinSet::new(), Vec::new());
        let stop_consumers = Arc::<AtomicBool>::default();
        let forms = [Form::Sse, Form::Ndjson, Form::Changes, Form::Ndjson];
        for (n, form) in forms.into_iter().enumerate() {
            let through = Arc::<AtomicU64>::default();
            let name = format!("consumer-{n}");
            told.push((name.clone(), Arc::clone(&through)));
            let consumer = Consumer {
                shared: Shared { stop: Arc::clone(&stop_consumers), ..shared.clone() },
                tailers: cluster.apis(Role::Tailer),
                name: name.into(),
                form,
                prefix: (n == forms.len() - 1).then(|| Key::new(b"k/000")),
                rng: rng.fork(300 + n as u64),
                through,
                cursor: None,
            };
            consumers.spawn(consumer.run());
        }
        Self { shared, clients, holding, consumers, stop_consumers, told }
    }

    /// Lets the clients end, looks at everything once more, and reads the log.
    async fn finish(
        &mut self,
        cluster: &ChaosCluster,
        violations: &mut Vec<String>,
    ) -> Vec<isle_history::Record> {
        self.shared.stop.store(true, Ordering::SeqCst);
        while self.clients.join_next().await.is_some() {}
        while let Some(ended) = self.holding.join_next().await {
            violations.extend(ended.unwrap().err());
        }
        let last = match self.last_write().await {
            Some(last) => last,
            None => {
                violations.push(format!("no write is acknowledged {REST:?} after the last fault"));
                AtLeast::default()
            }
        };
        violations.extend(self.consumers_reach(last.seq).await);
        self.final_scans(&last, violations).await;
        // Last of all: no view that was ever shown lies beyond it.
        read_log(cluster, violations).await
    }

    /// A write that must be acknowledged: nothing is wrong any more.
    async fn last_write(&self) -> Option<AtLeast> {
        let began = Instant::now();
        for n in 0.. {
            let (_, api) = &self.shared.writers[n % self.shared.writers.len()];
            let value = format!("last#{n}");
            let mutation = Mutation::put(Key::new(b"k/last"), value.as_bytes());
            let op = self.shared.recorder.write_invoked(&"last".into(), vec![mutation]);
            let answer = api.whole(Method::PUT, "/v1/kv/k/last", value.into_bytes()).await;
            let (outcome, position) = outcome(&answer);
            self.shared.recorder.write_answered(op, outcome);
            if position.is_some() {
                return position;
            }
            if began.elapsed() > REST {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        None
    }

    async fn consumers_reach(&mut self, last: u64) -> Vec<String> {
        let mut wrong = Vec::new();
        let began = Instant::now();
        for (name, told) in &self.told {
            while told.load(Ordering::SeqCst) < last && began.elapsed() < REST {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let at = told.load(Ordering::SeqCst);
            if at < last {
                wrong.push(format!("{name} stands at {at} and not at {last}, {REST:?} after the last fault"));
            }
        }
        self.stop_consumers.store(true, Ordering::SeqCst);
        while let Some(ended) = self.consumers.join_next().await {
            wrong.extend(ended.unwrap().err());
        }
        wrong
    }

    /// Every reader shows everything, forwards and backwards.
    async fn final_scans(&self, last: &AtLeast, violations: &mut Vec<String>) {
        for (n, (name, _)) in self.shared.readers.iter().enumerate() {
            let session = self.shared.session(&"final".into(), n);
            for reverse in [false, true] {
                let found = self.whole_scan(&session, last, reverse).await;
                if found.is_none_or(|rows| rows == 0) {
                    violations.push(format!("{name} cannot show everything {REST:?} after the last fault"));
                }
            }
        }
    }

    /// Rows of a scan over everything. One whose view is collected under it ends in `view_expired` and is begun anew: the
    /// last merges may still be going on.
    async fn whole_scan(&self, session: &Session, last: &AtLeast, reverse: bool) -> Option<usize> {
        let began = Instant::now();
        while began.elapsed() < REST {
            let scan = Scan {
                name: self.shared.scan_name(),
                start: Key::new(b""),
                end: None,
                limit: 1_000,
                reverse,
                at_least: Some(last.clone()),
            };
            if let Ok(rows) = session.scan(scan).await {
                return Some(rows.len());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        None
    }
}

/// Asks a reader which view it holds, again and again. What it says never goes back, not even with a new process: that
/// one reads the newest head before it answers.
async fn look(name: String, api: Api, shared: Shared) {
    let process = format!("status of {name}").into();
    while !shared.stopped() {
        if let Ok(status) = api.status().await
            && let (Some(version @ 1..), Some(seq)) = (status["version"].as_u64(), status["seq"].as_u64())
        {
            shared.recorder.view_reported(&process, None, version, seq);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The log from its beginning, as every tailer tells it; they must agree.
async fn read_log(cluster: &ChaosCluster, violations: &mut Vec<String>) -> Vec<isle_history::Record> {
    let mut logs: Vec<Vec<isle_history::Record>> = Vec::new();
    for actor in cluster.actors.iter().filter(|a| a.node.role() == Role::Tailer) {
        // A patient client: it is a long log, and nothing is wrong any more.
        match log_of(&actor.node.api()).await {
            Ok(log) => logs.push(log),
            Err(e) => violations.push(format!("the log cannot be read from {}: {e}", actor.name)),
        }
    }
    // One was read a moment after the other.
    let shortest = logs.iter().map(Vec::len).min().unwrap_or(0);
    if logs.windows(2).any(|pair| pair[0][..shortest] != pair[1][..shortest]) {
        violations.push("the tailers tell different logs".to_owned());
    }
    logs.into_iter().max_by_key(Vec::len).unwrap_or_default()
}

/// The whole log as a tailer tells it.
///
/// # Errors
/// Why it cannot be read.
pub async fn log_of(api: &Api) -> Result<Vec<isle_history::Record>, String> {
    let (mut log, mut from) = (Vec::new(), "earliest".to_owned());
    loop {
        let target = format!("/v1/changes?from={from}&limit={LOG_PAGE}");
        let plain = api.whole(Method::GET, &target, Vec::new()).await.map_err(|e| e.to_string())?;
        let page: Value = serde_json::from_slice(&plain.body).map_err(|e| e.to_string())?;
        let changes = page["changes"].as_array().ok_or_else(|| page.to_string())?;
        for change in changes {
            log.push(record(change).ok_or_else(|| format!("not a change: {change}"))?);
        }
        if page["caught_up"] == true {
            return Ok(log);
        }
        from = page["next"].as_str().ok_or_else(|| page.to_string())?.to_owned();
    }
}

/// What the events say beside the verdict.
#[derive(Debug, Default)]
struct Tally {
    refusals: BTreeMap<String, u64>,
    failed_reads: BTreeMap<String, u64>,
    epochs: BTreeSet<u64>,
    snapshots: u64,
}

impl Tally {
    fn of(events: &[isle_history::Stamped]) -> Self {
        let mut tally = Self::default();
        for event in events {
            match &*event.event {
                Event::WriteAnswered { outcome: WriteOutcome::Refused { code }, .. } => {
                    *tally.refusals.entry(code.clone()).or_default() += 1;
                }
                Event::WriteAnswered { outcome: WriteOutcome::Acknowledged { epoch, .. }, .. } => {
                    tally.epochs.insert(*epoch);
                }
                Event::SnapshotTaken { .. } => tally.snapshots += 1,
                Event::ReadFailed { code, .. } => {
                    *tally.failed_reads.entry(code.clone()).or_default() += 1;
                }
                _ => {}
            }
        }
        tally
    }
}
