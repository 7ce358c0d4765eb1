//! What a cluster depends on goes away for a while, is not there yet, is wiped, or comes back older than it was.

use std::time::{Duration, Instant};

use e2e::client::Event;
use e2e::cluster::Cluster;
use e2e::dataset::{assert_same, records, rows};
use e2e::load::{Load, check_log};
use e2e::node::{Node, Role};
use e2e::servers::{Env, Etcd, S3, free_port};
use e2e::wait::until;

const SOON: Duration = Duration::from_secs(60);

/// etcd answers nothing for longer than a lease lasts: reads and tails go on from what is known, writes wait or are
/// refused with a reason, and everything resumes by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_tails_go_on_while_etcd_is_frozen_and_writes_resume_after() {
    const AWAY: Duration = Duration::from_secs(20);
    let cluster = Cluster::etcd().await;
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let (mut reader, mut tailer) = (cluster.start(Role::Reader).await, cluster.start(Role::Tailer).await);
    let mut all = records(3_000);
    let later = all.split_off(2_000);
    let mut batches = Load::start(&[writer.api()], &all, 100, 2).finished().await;
    let last = batches.iter().map(|b| b.written.last).max().unwrap();
    let expected = rows(&all);
    assert_same("before", &reader.api().scan_at("", Some(last)).await.unwrap(), &expected);
    let mut open_tail = tailer.api().tail("earliest").await.unwrap();
    let mut told = open_tail.until(last, SOON).await;

    let etcd = cluster.etcd.as_ref().unwrap();
    etcd.stop();
    let frozen = Instant::now();
    let (reading, tailing) = (reader.api(), tailer.api());
    let load = Load::start(&[writer.api()], &later, 100, 2);
    while frozen.elapsed() < AWAY {
        let found = tokio::time::timeout(Duration::from_secs(5), reading.scan("")).await;
        assert_same("while etcd is away", &found.expect("a scan waited for etcd").unwrap(), &expected);
        let page = tokio::time::timeout(Duration::from_secs(5), tailing.changes("from=earliest&limit=7"));
        let page = page.await.expect("a tailer waited for etcd").unwrap();
        assert_eq!(page["changes"].as_array().unwrap().len(), 7);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(load.acknowledged(), 0, "nothing is acknowledged that is not committed");
    let refusing = writer.readiness("not ready", |status, _| status == 503).await;
    assert!(!refusing["reasons"].as_array().unwrap().is_empty(), "{refusing}");
    for node in [&mut reader, &mut tailer] {
        let says = node.readiness("degraded", |_, body| body.to_string().contains("degraded")).await;
        assert_eq!(node.api().readyz().await.unwrap().0, 200, "{says}");
    }
    etcd.cont();
    batches.extend(load.finished().await);
    let last = batches.iter().map(|b| b.written.last).max().unwrap();
    told.extend(open_tail.until(last, SOON).await);
    check_log(&told, &batches);
    let mut expected = expected;
    expected.extend(rows(&later));
    assert_same("after", &reader.api().scan_at("", Some(last)).await.unwrap(), &expected);
    for node in [&mut writer, &mut reader, &mut tailer] {
        node.readiness("in order again", |status, body| {
            status == 200 && !body.to_string().contains("degraded")
        })
        .await;
        assert_eq!(node.stopped().await, 0);
    }
}

/// The bucket answers 503 for a while: views are served, writes wait, nothing dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_away_for_seconds_delays_writes_and_kills_nothing() {
    let cluster = Cluster::etcd().await;
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let tailer = cluster.start(Role::Tailer).await;
    let reader = cluster.start(Role::Reader).await;
    let load = Load::start(&[writer.api()], &records(5_000), 50, 4);
    load.goes_on(5).await;
    let s3 = cluster.s3.as_ref().unwrap();
    s3.outage(Some(503));
    let refused = s3.requests();
    until("requests that were refused", SOON, || {
        std::future::ready((s3.requests() > refused + 20).then_some(()))
    })
    .await;
    s3.outage(None);
    load.goes_on(5).await;
    let batches = load.finished().await;
    let last = batches.iter().map(|b| b.written.last).max().unwrap();
    check_log(&tailer.api().tail("earliest").await.unwrap().until(last, SOON).await, &batches);
    assert_eq!(reader.api().scan_at("", Some(last)).await.unwrap().len(), 5_000);
}

/// Programs started before what they need: they listen, are live, say what they wait for, and come up when it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_started_before_etcd_and_the_bucket_come_up_when_these_do() {
    let mut etcd = Etcd::single().await;
    let mut s3 = S3::start().await;
    etcd.kill();
    s3.stop();
    let cluster = Cluster::over(s3.url("db"), etcd.url("isle"), s3.env());
    let mut nodes: Vec<Node> = Role::ALL.iter().map(|role| cluster.spawn(*role)).collect();
    for node in &mut nodes {
        let says = node
            .readiness("not ready", |status, body| status == 503 && body.to_string().contains("start"))
            .await;
        assert!(!says["reasons"].as_array().unwrap().is_empty(), "{says}");
        let live = node.api().plain(http::Method::GET, "/livez", Vec::new()).await.unwrap();
        assert_eq!(live.status, 200);
        let refused = node.api().plain(http::Method::GET, "/v1/status", Vec::new()).await.unwrap();
        assert_eq!((refused.status, refused.code().as_str()), (503, "not_ready"));
    }
    s3.restart().await;
    // One of the two is not enough.
    nodes[0]
        .readiness("waiting for coordination", |status, body| {
            status == 503 && body.to_string().contains("coordination is unavailable")
        })
        .await;
    etcd.restart().await;
    for node in &mut nodes {
        node.ready().await;
    }
    nodes[0].leads().await;
    let last = nodes[0].api().put(b"k", b"v").await.unwrap().last;
    let found = nodes[1].api().get_at(b"k", &format!("?min_seq={last}")).await.unwrap();
    assert_eq!(found.unwrap().value, b"v");
}

/// A one-shot job gives up instead, within its bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_gives_up_when_what_it_needs_does_not_come() {
    let s3 = S3::start().await;
    let nobody = format!("etcd://127.0.0.1:{}/isle", free_port());
    let mut cluster = Cluster::over(s3.url("db"), nobody, s3.env());
    cluster.set("server.startup_timeout", "2s");
    let output = cluster.run(Role::Compactor, &["--once"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A cluster with some records in it, stopped.
async fn stopped_cluster(mut cluster: Cluster) -> (Cluster, Env) {
    cluster.set("server.startup_timeout", "3s");
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    for n in 0..20u32 {
        writer.api().put(format!("k{n}").as_bytes(), b"v").await.unwrap();
    }
    assert_eq!(writer.stopped().await, 0);
    let env = cluster.env().clone();
    (cluster, env)
}

/// Every role must end by itself with exit code 1 and say `code`.
async fn every_role_refuses(cluster: &Cluster, code: &str) {
    for role in Role::ALL {
        let mut node = cluster.spawn(role);
        let status = node.ended().await;
        let log = node.log();
        assert_eq!(status.code(), Some(1), "{role:?} says {log}");
        assert!(log.contains(code), "{role:?} says {log}");
    }
}

/// A wiped etcd looks like a fresh one. Taken for an empty database it would answer "not found" to everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_etcd_is_refused_and_not_written_to() {
    let (mut cluster, _env) = stopped_cluster(Cluster::etcd().await).await;
    cluster.etcd.as_mut().unwrap().wipe().await;
    every_role_refuses(&cluster, "coordination_lost").await;
    let left = cluster.etcd.as_ref().unwrap().etcdctl(&["get", "/isle", "--prefix", "--keys-only"]);
    assert!(!left.contains("/head"), "somebody wrote a head over the lost one: {left}");
}

/// An older copy of etcd would hide what was acknowledged since, and give its numbers out again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_restored_from_an_older_copy_is_refused() {
    let (mut cluster, _env) = stopped_cluster(Cluster::etcd().await).await;
    let old = cluster.etcd.as_ref().unwrap().backup();
    {
        // Another epoch, so that the bucket itself proves that there was more.
        let mut writer = cluster.start(Role::Writer).await;
        writer.leads().await;
        writer.api().put(b"newer", b"v").await.unwrap();
        assert_eq!(writer.stopped().await, 0);
    }
    cluster.etcd.as_mut().unwrap().restore(&old).await;
    let mut writer = cluster.spawn(Role::Writer);
    let code = refused_with(&mut writer).await;
    assert!(code.contains("coordination_regressed"), "{code}");
}

/// Programs that run while etcd is set back notice it too: nothing is overwritten, nothing wrong is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_run_while_etcd_is_set_back_notice() {
    let mut cluster = Cluster::etcd().await;
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let mut reader = cluster.start(Role::Reader).await;
    let tailer = cluster.start(Role::Tailer).await;
    writer.api().put(b"k", b"old").await.unwrap();
    let old = cluster.etcd.as_ref().unwrap().backup();
    let mut last = 0;
    for n in 0..10u32 {
        last = writer.api().put(b"k", n.to_string().as_bytes()).await.unwrap().last;
    }
    let newest = || async { reader_value(&reader, last).await };
    assert_eq!(newest().await, b"9");
    writer.kill();
    cluster.etcd.as_mut().unwrap().restore(&old).await;
    let says = reader
        .readiness("aware of the regression", |_, body| body.to_string().contains("coordination_regressed"))
        .await;
    assert!(says.to_string().contains("coordination_regressed"));
    assert_eq!(reader.api().get(b"k").await.unwrap().unwrap().value, b"9", "an older value came back");
    let mut tail = tailer.api().tail("earliest").await.unwrap();
    for seq in 1..=last {
        match tail.next().await {
            Some(Event::Change(change)) => assert_eq!(change.seq, seq),
            Some(Event::Heartbeat(_)) => break,
            other => panic!("the tail ended with {other:?}"),
        }
    }
}

async fn reader_value(reader: &Node, min_seq: u64) -> Vec<u8> {
    reader.api().get_at(b"k", &format!("?min_seq={min_seq}")).await.unwrap().unwrap().value
}

/// What a program says that refuses: at its end, or while it goes on not being ready.
async fn refused_with(node: &mut Node) -> String {
    let started = Instant::now();
    while started.elapsed() < SOON {
        if !node.daemon().is_running() {
            assert_eq!(node.ended().await.code(), Some(1), "{}", node.log());
            return node.log();
        }
        if let Ok((503, says)) = node.api().readyz().await
            && says.to_string().contains("coordination_")
        {
            return says.to_string();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the program neither ended nor said why it does not serve:\n{}", node.log());
}
