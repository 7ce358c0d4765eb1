//! Consumer groups over real processes: resumed exactly, held by the log and let go by it, and there again after etcd was
//! lost.

use std::time::Duration;

use e2e::client::Api;
use e2e::cluster::Cluster;
use e2e::dataset::records;
use e2e::load::Load;
use e2e::node::{Role, run};
use e2e::wait::until;
use http::Method;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

async fn ok(api: &Api, method: Method, target: &str, body: &str) -> Value {
    let answer = api.plain(method, target, body.as_bytes().to_vec()).await.unwrap();
    assert_eq!(answer.status, 200, "{target}: {}", answer.json());
    answer.json()
}

/// A consumer of a group, which is killed before some of its commits.
struct Consumer {
    group: &'static str,
    /// The last change of which the commit was answered.
    committed: u64,
    lives: usize,
}

impl Consumer {
    /// Takes a page, which goes on exactly where the last answered commit left off, and commits it unless it dies first.
    /// Whether there was anything.
    async fn page(&mut self, api: &Api) -> bool {
        let page = api.changes(&format!("from=group:{}&limit=83", self.group)).await.unwrap();
        let seqs = page["changes"].as_array().unwrap().iter().map(|c| c["seq"].as_u64().unwrap());
        let seqs: Vec<u64> = seqs.collect();
        let expected: Vec<u64> = (self.committed + 1..).take(seqs.len()).collect();
        assert_eq!(seqs, expected, "{} after {}", self.group, self.committed);
        self.lives += 1;
        if let Some(last) = seqs.last()
            && !self.lives.is_multiple_of(4)
        {
            let cursor = page["next"].as_str().unwrap();
            let target = format!("/v1/groups/{}/commit", self.group);
            let stored = ok(api, Method::POST, &target, &format!(r#"{{"cursor":"{cursor}"}}"#)).await;
            assert_eq!(stored["cursor"].as_str(), Some(cursor));
            self.committed = *last;
        }
        !seqs.is_empty()
    }

    async fn consume(&mut self, api: &Api, last: u64) {
        while self.committed < last {
            self.page(api).await;
        }
    }
}

/// The slow group holds the log and is never shown a gap, however its consumer, a tailer or etcd end; the dead one holds
/// nothing beyond its lag and is told where the log begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_resume_exactly_hold_the_log_and_outlive_etcd() {
    let mut cluster = Cluster::etcd().await;
    cluster.set("writer.generation_age_ms", "300");
    // The log goes in whole objects: small ones, so that some end before the slow group.
    cluster.set("writer.generation_segments", "4");
    cluster.set("writer.fold_edits", "40");
    cluster.set("compactor.log_retention_bytes", "20000");
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let mut tailer = cluster.start(Role::Tailer).await;
    let mut compactor = cluster.start(Role::Compactor).await;
    let api = tailer.api();
    for (group, body) in [("slow", "{}"), ("dead", r#"{"max_lag":{"records":100}}"#)] {
        let made = ok(&api, Method::PUT, &format!("/v1/groups/{group}"), body).await;
        assert_eq!(made["created"], true);
    }
    Load::start(&[writer.api()], &records(4_000), 50, 2).finished().await;
    let mut slow = Consumer { group: "slow", committed: 0, lives: 0 };
    slow.consume(&api, 1_000).await;

    // The head moves once more, which wakes whoever keeps house.
    writer.api().put(b"wake", b"v").await.unwrap();
    // The log is let go up to the slow group and not beyond; the dead one is passed over.
    let passed = async || {
        let earliest = api.status().await.unwrap()["earliest"].as_u64().unwrap();
        assert!(earliest <= slow.committed + 1, "{earliest}: the slow group is at {}", slow.committed);
        (earliest > 1).then_some(earliest)
    };
    until("the log being trimmed", SOON, passed).await;
    let gone = api.plain(Method::GET, "/v1/changes?from=group:dead", Vec::new()).await.unwrap();
    assert_eq!((gone.status, gone.code().as_str()), (410, "cursor_expired"), "{}", gone.json());
    assert_eq!(ok(&api, Method::GET, "/v1/groups/dead", "").await["expired"], true);

    tailer.kill();
    tailer.restart();
    tailer.ready().await;
    let api = tailer.api();
    slow.consume(&api, 3_000).await;
    let lag = ok(&api, Method::GET, "/v1/groups/slow", "").await["lag"]["records"].as_u64().unwrap();
    assert_eq!(lag, 4_001 - slow.committed);

    // A checkpoint takes the groups with it; then all of etcd is lost.
    let checkpoints = || {
        let listed = cluster.objects("manifest").into_iter();
        listed.filter(|p| p.to_string_lossy().contains("/checkpoint-")).max()
    };
    let (before, mut last) = (checkpoints(), 0);
    while checkpoints() == before {
        last = writer.api().put(b"more", b"v").await.unwrap().last;
    }
    let old = ok(&api, Method::GET, "/v1/groups/slow", "").await;
    let old = old["cursor"].as_str().unwrap().to_owned();
    cluster.etcd.as_mut().unwrap().wipe().await;
    let flags = cluster.flags();
    let mut args = vec!["recover", "--old-coordination-is-stopped"];
    args.extend(flags.iter().map(String::as_str));
    let recovered = run("isle", &args, cluster.env()).await;
    assert!(recovered.status.success(), "{}", String::from_utf8_lossy(&recovered.stderr));
    tailer.readiness("in order again", |status, _| status == 200).await;
    let found = async || {
        let answer = api.plain(Method::GET, "/v1/groups/slow", Vec::new()).await.unwrap();
        let now = (answer.status == 200).then(|| answer.json()["cursor"].as_str().unwrap().to_owned());
        // Until it has noticed, the tailer shows the history it knows.
        now.filter(|now| *now != old)
    };
    let now = until("the group", SOON, found).await;
    let seq = |cursor: &str| -> u64 { cursor.rsplit('.').next().unwrap().parse().unwrap() };
    assert!(seq(&now) <= slow.committed, "{old} has become {now}");
    slow.committed = seq(&now);
    slow.consume(&api, last).await;
    // A cursor of the old history is no cursor of this one, and says so.
    let body = format!(r#"{{"cursor":"{old}"}}"#);
    let refused = api.plain(Method::POST, "/v1/groups/slow/commit", body.into_bytes()).await.unwrap();
    assert_eq!(refused.code(), "invalid_request", "{}", refused.json());
    for node in [&mut writer, &mut tailer, &mut compactor] {
        assert_eq!(node.stopped().await, 0, "{}", node.log());
    }
}
