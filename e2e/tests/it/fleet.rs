//! Several compactors on one database: faster than one where the bucket is far, right where they are killed.

use std::time::{Duration, Instant};

use e2e::cluster::Cluster;
use e2e::dataset::{Rows, assert_same, ndjson, records, rows};
use e2e::node::{Node, Role, run};
use e2e::proxy::{Fault, Protocol, Proxy};
use e2e::servers::{Etcd, S3};
use e2e::wait::until;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// How often a compactor is killed; `ISLE_FLEET_KILLS` asks for more.
const KILLS: usize = 6;

/// Merges of a few hundred kibibytes already have parts.
fn small_parts(cluster: &mut Cluster) {
    for (setting, value) in [
        ("writer.generation_age_ms", "200"),
        ("compactor.l0_trigger", "4"),
        ("compactor.table_bytes", "65536"),
        ("compactor.part_bytes", "131072"),
        ("compactor.upload_bytes_in_flight", "262144"),
        ("compactor.read_ahead_bytes", "65536"),
        ("compactor.compression", "none"),
        ("compactor.merge_workers", "1"),
        ("compactor.grace_seconds", "1"),
        ("compactor.sweep_interval_seconds", "1"),
        ("compactor.orphan_age_seconds", "1"),
    ] {
        cluster.set(setting, value);
    }
}

/// Writes `count` records in `runs` generations that overlap, none of them merged.
async fn backlog(cluster: &Cluster, runs: usize, count: usize) -> Rows {
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let all = records(count);
    let mut expected = Rows::new();
    for n in 0..runs {
        let generation: Vec<_> =
            all.iter().skip(n).step_by(runs).chain(&all[..count / 10]).cloned().collect();
        expected.extend(rows(&generation));
        writer.api().ingest(ndjson(&generation)).await.unwrap();
        let flushed = || async {
            let status = writer.api().status().await.ok()?;
            (status["flushed_seq"] == status["committed_seq"]).then_some(())
        };
        until("a generation in tables", SOON, flushed).await;
    }
    assert_eq!(writer.stopped().await, 0);
    expected
}

async fn once(cluster: &Cluster) -> (Option<i32>, Value) {
    let output = cluster.run(Role::Compactor, &["--once"]).await;
    let said = serde_json::from_slice(&output.stdout);
    let said = said.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), said)
}

/// Everything merged and collected, verify clean, every row there.
async fn assert_whole(cluster: &Cluster, expected: &Rows) {
    let rest = || async {
        let (code, said) = once(cluster).await;
        assert!(matches!(code, Some(0 | 3 | 4)), "{code:?} {said}");
        let nothing = said["outcome"] == "nothing_to_do" && said["retired_objects"] == 0;
        nothing.then_some(())
    };
    until("nothing being left to merge, collect or sweep", SOON, rest).await;
    let flags = cluster.flags();
    let mut args = vec!["verify", "--json"];
    args.extend(flags.iter().map(String::as_str));
    let output = run("isle", &args, cluster.env()).await;
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{found}");
    assert_eq!((&found["damage"]["total"], &found["orphans"]["total"]), (&0.into(), &0.into()), "{found}");
    let mut reader = cluster.start(Role::Reader).await;
    assert_same("after the merges", &reader.api().scan("").await.unwrap(), expected);
    assert_eq!(reader.stopped().await, 0);
}

async fn is_merged(node: &Node) -> Option<()> {
    let status = node.api().status().await.ok()?;
    (status["runs"] == 1 && status["merges_in_parts"] == 0).then_some(())
}

/// How long a fleet takes for a backlog, in a bucket that is far away.
async fn merged_by(compactors: usize) -> Duration {
    let (etcd, s3) = (Etcd::single().await, S3::start().await);
    let bucket = Proxy::to(s3.address(), Protocol::Http).await;
    let set = |mut cluster: Cluster| {
        small_parts(&mut cluster);
        cluster
    };
    let direct = set(Cluster::over(s3.url("db"), etcd.url("isle"), s3.env()));
    let distant = set(Cluster::over(s3.url_by(bucket.address(), "db"), etcd.url("isle"), s3.env()));
    let expected = backlog(&direct, 4, 8_000).await;
    bucket.set(Fault::Delay(Duration::from_millis(40)));
    let begun = Instant::now();
    let mut fleet: Vec<Node> = (0..compactors).map(|_| distant.spawn(Role::Compactor)).collect();
    until("one run", SOON, || is_merged(&fleet[0])).await;
    let took = begun.elapsed();
    for node in &mut fleet {
        assert_eq!(node.stopped().await, 0);
    }
    bucket.heal();
    assert_whole(&direct, &expected).await;
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_compactor_and_four_leave_the_same_content_in_a_distant_bucket() {
    let one = merged_by(1).await;
    let four = merged_by(4).await;
    // How much faster is judged where time is simulated; here the machine's other work would decide.
    let ratio = one.as_secs_f64() / four.as_secs_f64();
    println!("one took {one:?}, four took {four:?}: {ratio:.2} times as fast");
}

/// Compactors are killed while they work, again and again: what is staged stays, what they left behind is swept, and
/// nobody reads anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compactors_that_are_killed_lose_nothing_and_leave_nothing() {
    let mut cluster = Cluster::etcd().await;
    small_parts(&mut cluster);
    cluster.set("compactor.max_write_bytes_per_second", "204800");
    let kills = std::env::var("ISLE_FLEET_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let expected = backlog(&cluster, 4, 8_000).await;
    let mut fleet: Vec<Node> = (0..2).map(|_| cluster.spawn(Role::Compactor)).collect();
    for n in 0..kills {
        let victim = n % fleet.len();
        let at_work = || async {
            let status = fleet[victim].api().status().await.ok()?;
            let done = status["runs"] == 1 && status["merges_in_parts"] == 0;
            (status["merging"].is_string() || done).then_some(())
        };
        until("a compactor at work", SOON, at_work).await;
        fleet[victim].kill();
        fleet[victim].restart();
    }
    until("one run", SOON, || is_merged(&fleet[0])).await;
    for node in &mut fleet {
        node.ready().await;
        assert_eq!(node.stopped().await, 0);
    }
    cluster.set("compactor.max_write_bytes_per_second", "0");
    assert_whole(&cluster, &expected).await;
}

/// A pause is kept by the database: it outlives the process that took it, and runs of cron say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_outlives_the_process_and_holds_for_runs_of_cron() {
    let mut cluster = Cluster::embedded();
    small_parts(&mut cluster);
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let mut compactor = cluster.start(Role::Compactor).await;
    let paused = compactor.api().json(http::Method::POST, "/v1/pause").await.unwrap();
    assert_eq!(paused["paused"], true);
    assert_eq!(compactor.stopped().await, 0);
    assert_eq!(writer.stopped().await, 0);
    let expected = backlog(&cluster, 4, 2_000).await;
    let (code, said) = once(&cluster).await;
    assert_eq!((code, &said["paused"], &said["merges"]), (Some(3), &true.into(), &0.into()), "{said}");
    compactor.restart();
    compactor.ready().await;
    let status = compactor.api().status().await.unwrap();
    assert_eq!((&status["paused"], &status["merges"]), (&true.into(), &0.into()), "{status}");
    compactor.api().json(http::Method::POST, "/v1/resume").await.unwrap();
    until("one run", SOON, || is_merged(&compactor)).await;
    assert_eq!(compactor.stopped().await, 0);
    assert_whole(&cluster, &expected).await;
}
