//! A writer that is frozen until everything it believes in is gone: its lease, its role, its segments, its tables. It
//! wakes up in the middle of what it was doing. It must acknowledge nothing that is not so, disturb nobody, and stand by
//! again without a restart. (`e2e-chaos` freezes writers for a minute; here conditions are waited for instead.)

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::chaos::{log_of, outcome};
use e2e::client::Api;
use e2e::cluster::Cluster;
use e2e::node::{Node, Role};
use e2e::wait::until;
use http::Method;
use isle_history::{Key, Limits, LogPiece, Mutation, Name, Recorder, WriteOutcome, check};
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(60);

/// Writes until told to stop, to one address only; the epochs that acknowledged.
#[derive(Clone)]
struct Client {
    name: Name,
    api: Api,
    recorder: Recorder,
    stop: Arc<AtomicBool>,
}

impl Client {
    async fn run(self) -> Vec<WriteOutcome> {
        let mut outcomes = Vec::new();
        for n in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            outcomes.push(self.put(n).await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        outcomes
    }

    async fn put(&self, n: u64) -> WriteOutcome {
        let (key, value) = (format!("k/{}", n % 7), format!("{}#{n}", self.name));
        let mutation = Mutation::put(Key::new(key.as_bytes()), value.as_bytes());
        let op = self.recorder.write_invoked(&self.name, vec![mutation]);
        let answer = self.api.whole(Method::PUT, &format!("/v1/kv/{key}"), value.into_bytes()).await;
        let (outcome, _) = outcome(&answer);
        self.recorder.write_answered(op, outcome.clone());
        outcome
    }
}

struct Clients {
    recorder: Recorder,
    stop: Arc<AtomicBool>,
    running: JoinSet<Vec<WriteOutcome>>,
}

impl Clients {
    /// Several clients that talk to this writer and to no other.
    fn of(recorder: &Recorder, name: &str, writer: &Node, count: usize) -> Self {
        let (recorder, stop) = (recorder.clone(), Arc::<AtomicBool>::default());
        let mut running = JoinSet::new();
        for n in 0..count {
            let (api, name) = (Api::impatient(&writer.url()), format!("{name}-{n}").into());
            let client = Client { name, api, recorder: recorder.clone(), stop: Arc::clone(&stop) };
            running.spawn(client.run());
        }
        Self { recorder, stop, running }
    }

    async fn stopped(self) -> Vec<WriteOutcome> {
        self.stop.store(true, Ordering::SeqCst);
        self.running.join_all().await.into_iter().flatten().collect()
    }

    /// Waits until so much more was recorded.
    async fn go_on(&self, events: u64) {
        let goal = self.recorder.len() + events;
        let reached = || std::future::ready((self.recorder.len() >= goal).then_some(()));
        until("clients going on", SOON, reached).await;
    }
}

fn epochs(outcomes: &[WriteOutcome]) -> Vec<u64> {
    let of = |o: &WriteOutcome| match o {
        WriteOutcome::Acknowledged { epoch, .. } => Some(*epoch),
        _ => None,
    };
    let mut epochs: Vec<u64> = outcomes.iter().filter_map(of).collect();
    epochs.sort_unstable();
    epochs.dedup();
    epochs
}

/// The segments and tables in the bucket. (Chunks are the log that tailers keep: they stay.)
fn segments_and_tables(cluster: &Cluster) -> Vec<PathBuf> {
    let mut found = cluster.objects("log");
    found.retain(|path| path.extension().is_some_and(|e| e == "seg"));
    found.extend(cluster.objects("table"));
    found
}

async fn hasty_cluster() -> Cluster {
    let mut cluster = Cluster::etcd().await;
    for (setting, value) in [
        ("coordination.lease_ttl_seconds", "2"),
        ("writer.generation_age_ms", "400"),
        ("writer.generation_segments", "16"),
        ("writer.standby_poll_ms", "1000"),
        ("compactor.l0_trigger", "2"),
        ("compactor.tier_width", "2"),
        ("compactor.max_runs", "2"),
        ("compactor.fold_edits", "2000"),
        ("compactor.grace_seconds", "1"),
    ] {
        cluster.set(setting, value);
    }
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_writer_wakes_up_long_after_and_neither_lies_nor_disturbs() {
    let cluster = hasty_cluster().await;
    let mut first = cluster.start(Role::Writer).await;
    first.leads().await;
    let mut second = cluster.start(Role::Writer).await;
    let _compactor = cluster.start(Role::Compactor).await;
    let (reader, tailer) = (cluster.start(Role::Reader).await, cluster.start(Role::Tailer).await);
    let recorder = Recorder::new();

    // Frozen in the middle of its work, with tables and segments of its own.
    let before = Clients::of(&recorder, "before", &first, 4);
    let tables = || std::future::ready((!cluster.objects("table").is_empty()).then_some(()));
    until("a table", SOON, tables).await;
    before.go_on(100).await;
    let pid = first.daemon().pid();
    first.daemon().stop();
    let known = segments_and_tables(&cluster);
    assert!(!known.is_empty());

    // The other takes over, and goes on until nothing is left of what the first one knew.
    second.leads().await;
    let status = second.api().status().await.unwrap();
    let epoch = status["epoch"].as_u64().unwrap();
    let successor = Clients::of(&recorder, "successor", &second, 2);
    let left = || {
        let left = known.iter().filter(|path| path.exists()).count();
        std::future::ready((left == 0).then_some(()))
    };
    until("the garbage of all that it knew", SOON, left).await;

    // It wakes up to clients that were waiting and to new ones.
    let woken = Clients::of(&recorder, "woken", &first, 2);
    first.daemon().cont();
    let stands_by = || async {
        let status = first.api().status().await.ok()?;
        (status["role"] == "standby").then_some(())
    };
    until("the woken writer standing by", SOON, stands_by).await;
    woken.go_on(50).await;
    let (before, woken) = (before.stopped().await, woken.stopped().await);
    let successor = successor.stopped().await;

    // It told nobody that something was committed that it had not committed while it led.
    assert!(epochs(&before).iter().all(|e| *e == epoch - 1 || *e == epoch), "{:?}", epochs(&before));
    assert!(epochs(&woken).iter().all(|e| *e == epoch), "acknowledged by itself: {:?}", epochs(&woken));
    assert!(epochs(&woken).contains(&epoch), "it sends on what it is asked, as a standby does");
    // Nobody was disturbed: the same leader in the same epoch, which refused nothing and doubted nothing.
    let status = second.api().status().await.unwrap();
    assert_eq!((status["leader"].as_bool(), status["epoch"].as_u64()), (Some(true), Some(epoch)));
    let refused: Vec<_> =
        successor.iter().filter(|o| !matches!(o, WriteOutcome::Acknowledged { .. })).collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(epochs(&successor), [epoch]);
    // The same process, ready to lead again.
    assert_eq!(first.daemon().pid(), pid);
    first.ready().await;
    assert_eq!(second.stopped().await, 0);
    first.leads().await;
    let again =
        Client { name: "again".into(), api: first.api(), recorder: recorder.clone(), stop: Arc::default() };
    let WriteOutcome::Acknowledged { epoch: next, last_seq, .. } = again.put(0).await else {
        panic!("the woken writer leads and takes nothing");
    };
    assert!(next > epoch);

    // And everybody's answers agree with the one log.
    let found = reader.api().get_at(b"k/0", &format!("?min_seq={last_seq}")).await.unwrap().unwrap();
    assert_eq!(found.value, b"again#0");
    let log = log_of(&tailer.api()).await.unwrap();
    let report = check(&recorder.drain(), LogPiece::whole(log), Limits::default());
    assert!(report.violations.is_empty(), "{}", report.violations[0]);
    assert!(report.counts.acknowledged > 100, "{:?}", report.counts);
}
