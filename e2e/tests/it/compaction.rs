//! Compaction in processes of its own: runs of cron that overlap, and long merges.

use std::process::Output;
use std::time::{Duration, Instant};

use e2e::cluster::Cluster;
use e2e::dataset::{ndjson, records};
use e2e::node::Role;
use e2e::proxy::{Fault, Protocol, Proxy};
use e2e::servers::{Etcd, S3};
use e2e::wait::until;
use http::Method;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

fn summary(output: &Output) -> (Option<i32>, Value) {
    let said = serde_json::from_slice(&output.stdout);
    let said = said.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), said)
}

/// A database with several runs to merge.
async fn with_runs(cluster: &Cluster, runs: usize) {
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    for n in 0..runs {
        writer.api().ingest(ndjson(&records(500))).await.unwrap();
        let flushed = || async {
            let status = writer.api().status().await.ok()?;
            (status["flushed_seq"].as_u64()? >= 500 * (n as u64 + 1)).then_some(())
        };
        until("a run", SOON, flushed).await;
    }
    assert_eq!(writer.stopped().await, 0);
}

/// Two runs of cron at the same time: the second sees that the work is taken, says so with its exit code and does not
/// wait; the first finishes; the third finds nothing left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overlapping_runs_of_cron_say_what_they_did_and_halt_nobody() {
    let (etcd, s3) = (Etcd::single().await, S3::start().await);
    let bucket = Proxy::to(s3.address(), Protocol::Http).await;
    let set = |mut cluster: Cluster| {
        cluster.set("writer.generation_age_ms", "200");
        cluster.set("compactor.l0_trigger", "4");
        cluster
    };
    let direct = set(Cluster::over(s3.url("db"), etcd.url("isle"), s3.env()));
    let slow = set(Cluster::over(s3.url_by(bucket.address(), "db"), etcd.url("isle"), s3.env()));
    with_runs(&direct, 4).await;

    bucket.set(Fault::Throttle(20_000));
    let first = tokio::spawn(async move { slow.run(Role::Compactor, &["--once"]).await });
    let claimed = || {
        let jobs = etcd.etcdctl(&["get", "/isle/default/jobs/", "--prefix", "--keys-only"]);
        std::future::ready((!jobs.trim().is_empty()).then_some(()))
    };
    until("the first run's claim", SOON, claimed).await;
    let asked = Instant::now();
    let (code, said) = summary(&direct.run(Role::Compactor, &["--once"]).await);
    assert_eq!((code, said["outcome"].as_str()), (Some(4), Some("claimed_elsewhere")), "{said}");
    assert!(asked.elapsed() < Duration::from_secs(20), "it waited {:?}", asked.elapsed());
    let (code, said) = summary(&direct.run(Role::Compactor, &["--once", "--lenient"]).await);
    assert_eq!((code, said["outcome"].as_str()), (Some(0), Some("claimed_elsewhere")), "{said}");
    bucket.heal();
    let (code, said) = summary(&first.await.unwrap());
    assert_eq!((code, said["outcome"].as_str()), (Some(0), Some("done")), "{said}");
    // And when both are as fast as each other, whatever each of them gets to do, nothing is left undone.
    let (a, b) =
        tokio::join!(direct.run(Role::Compactor, &["--once"]), direct.run(Role::Compactor, &["--once"]));
    for (code, said) in [summary(&a), summary(&b)] {
        assert!(matches!(code, Some(0 | 3 | 4)), "{code:?} {said}");
    }
    let rest = || async {
        let (code, said) = summary(&direct.run(Role::Compactor, &["--once"]).await);
        assert_eq!(code, Some(0), "{said}");
        (said["outcome"] == "nothing_to_do").then_some(())
    };
    until("nothing being left to do", SOON, rest).await;
}

/// A scheduler that takes every exit code for a failure is told of none where only a limit was reached; the summary says it
/// all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lenient_run_that_leaves_work_ends_well() {
    let mut cluster = Cluster::embedded();
    cluster.set("writer.generation_age_ms", "200");
    cluster.set("compactor.l0_trigger", "4");
    with_runs(&cluster, 4).await;
    for (flags, expected) in
        [(&["--once", "--max-bytes", "1"][..], 3), (&["--once", "--max-bytes", "1", "--lenient"], 0)]
    {
        let (code, said) = summary(&cluster.run(Role::Compactor, flags).await);
        assert_eq!((code, said["outcome"].as_str()), (Some(expected), Some("work_left")), "{said}");
    }
    let (code, said) = summary(&cluster.run(Role::Compactor, &["--once", "--lenient"]).await);
    assert_eq!((code, said["outcome"].as_str()), (Some(0), Some("done")), "{said}");
}

/// A merge of everything there is runs beside health, claims and commits, not in front of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_merge_starves_neither_health_nor_its_own_claim() {
    let mut cluster = Cluster::etcd().await;
    cluster.set("coordination.lease_ttl_seconds", "2");
    cluster.set("writer.generation_age_ms", "1000");
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let mut compactor = cluster.start(Role::Compactor).await;
    let api = compactor.api();
    for _ in 0..2 {
        writer.api().ingest(ndjson(&records(30_000))).await.unwrap();
    }
    let flushed = || async {
        let status = writer.api().status().await.ok()?;
        (status["flushed_seq"].as_u64()? >= 60_000).then_some(())
    };
    until("everything in tables", SOON, flushed).await;
    let merges = || async { api.status().await.unwrap()["merges"].as_u64().unwrap() };
    let before = merges().await;
    let asked = api.plain(Method::POST, "/v1/compact", Vec::new()).await.unwrap();
    assert_eq!(asked.status, 202, "{}", String::from_utf8_lossy(&asked.body));
    let (mut slowest, mut during) = (Duration::ZERO, 0);
    while merges().await == before {
        let asked = Instant::now();
        let live = api.plain(Method::GET, "/livez", Vec::new()).await.unwrap();
        assert_eq!(live.status, 200);
        slowest = slowest.max(asked.elapsed());
        during += 1;
        assert!(compactor.daemon().is_running());
    }
    assert!(during > 3, "the merge was over before it could be watched");
    assert!(slowest < Duration::from_secs(1), "/livez took {slowest:?} during a merge");
    assert!(!compactor.log().contains("the claim of job"), "the claim was lost: {}", compactor.log());
}
