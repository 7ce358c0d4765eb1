//! Writers that die, are stopped, or are driven out, with a load running: nothing acknowledged is lost, the log has no
//! gap, and nothing stands in it twice but what had to be sent again without knowing.

use std::time::{Duration, Instant};

use e2e::client::Api;
use e2e::cluster::Cluster;
use e2e::dataset::{Rows, assert_same, records, rows};
use e2e::load::{Batch, Load, check_log};
use e2e::node::{Node, Role};
use e2e::wait::until;

const SOON: Duration = Duration::from_secs(60);

/// Everything acknowledged stands in the log and is read, whatever happened meanwhile.
async fn check(batches: &[Batch], reader: &Api, tailer: &Api) {
    let last = batches.iter().map(|b| b.written.last).max().unwrap();
    let mut expected = Rows::new();
    for batch in batches {
        expected.extend(rows(&batch.records));
    }
    let found = reader.scan_at("", Some(last)).await.unwrap();
    assert_same("after the load", &found, &expected);
    let head = tailer.changes("from=latest&wait=0").await.unwrap()["head"].as_u64().unwrap().max(last);
    let changes = tailer.tail("earliest").await.unwrap().until(head, SOON).await;
    check_log(&changes, batches);
}

fn apis(nodes: &[&Node]) -> Vec<Api> {
    nodes.iter().map(|n| n.api()).collect()
}

/// The writer is killed in the middle of a load with a standby beside it (etcd: the standby waits for the lease).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_goes_on_through_the_standby_when_the_writer_is_killed() {
    let cluster = Cluster::etcd().await;
    let mut first = cluster.start(Role::Writer).await;
    first.leads().await;
    let mut standby = cluster.start(Role::Writer).await;
    let (reader, tailer) = (cluster.start(Role::Reader).await, cluster.start(Role::Tailer).await);
    let load = Load::start(&apis(&[&first, &standby]), &records(20_000), 50, 8);
    load.goes_on(40).await;
    first.kill();
    load.goes_on(40).await;
    standby.leads().await;
    let batches = load.finished().await;
    let epochs: std::collections::BTreeSet<_> = batches.iter().map(|b| b.written.epoch).collect();
    assert!(epochs.len() >= 2, "the load was over before the kill: epochs {epochs:?}");
    check(&batches, &reader.api(), &tailer.api()).await;
}

/// SIGTERM under load: everything accepted is committed, the lease is given back, and the standby takes over at once
/// rather than after the lease has run out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_writer_loses_nothing_and_hands_over_within_seconds() {
    let mut cluster = Cluster::etcd().await;
    cluster.set("coordination.lease_ttl_seconds", "20");
    let mut first = cluster.start(Role::Writer).await;
    first.leads().await;
    let mut standby = cluster.start(Role::Writer).await;
    let (reader, tailer) = (cluster.start(Role::Reader).await, cluster.start(Role::Tailer).await);
    let load = Load::start(&apis(&[&first, &standby]), &records(20_000), 50, 8);
    load.goes_on(40).await;
    let asked = Instant::now();
    first.terminate();
    standby.leads().await;
    let took = asked.elapsed();
    assert_eq!(first.ended().await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(20), "the stop took {:?}", asked.elapsed());
    assert!(took < Duration::from_secs(5), "the standby led {took:?} after the SIGTERM");
    load.goes_on(40).await;
    check(&load.finished().await, &reader.api(), &tailer.api()).await;
}

/// A single writer is stopped under load and started again; on both backends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_writer_stopped_under_load_has_committed_all_it_acknowledged() {
    let cluster = Cluster::embedded();
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let (reader, tailer) = (cluster.start(Role::Reader).await, cluster.start(Role::Tailer).await);
    let load = Load::start(&apis(&[&writer]), &records(10_000), 50, 8);
    for _ in 0..2 {
        load.goes_on(30).await;
        let asked = Instant::now();
        assert_eq!(writer.stopped().await, 0);
        assert!(asked.elapsed() < Duration::from_secs(20), "the stop took {:?}", asked.elapsed());
        writer.restart();
        writer.leads().await;
    }
    check(&load.finished().await, &reader.api(), &tailer.api()).await;
}

/// The same, killed: what was acknowledged is there, because an acknowledgement follows the commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_writer_killed_under_load_has_committed_all_it_acknowledged() {
    let cluster = Cluster::embedded();
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let (reader, tailer) = (cluster.start(Role::Reader).await, cluster.start(Role::Tailer).await);
    let load = Load::start(&apis(&[&writer]), &records(10_000), 50, 8);
    for _ in 0..3 {
        load.goes_on(20).await;
        writer.kill();
        writer.restart();
        writer.leads().await;
    }
    check(&load.finished().await, &reader.api(), &tailer.api()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_program_restarts_in_turn_under_load_on_the_embedded_default() {
    every_program_restarts_in_turn(&Cluster::embedded()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_program_restarts_in_turn_under_load_with_etcd() {
    every_program_restarts_in_turn(&Cluster::etcd().await).await;
}

async fn every_program_restarts_in_turn(cluster: &Cluster) {
    let mut nodes = Vec::new();
    for role in Role::ALL {
        nodes.push(cluster.start(role).await);
    }
    let load = Load::start(&apis(&[&nodes[0]]), &records(30_000), 50, 4);
    load.goes_on(10).await;
    for node in &mut nodes {
        let asked = Instant::now();
        assert_eq!(node.stopped().await, 0, "{:?}", node.role());
        assert!(asked.elapsed() < Duration::from_secs(20), "{:?} took {:?}", node.role(), asked.elapsed());
        node.restart();
        node.ready().await;
        load.goes_on(10).await;
    }
    load.enough();
    check(&load.finished().await, &nodes[1].api(), &nodes[2].api()).await;
}

/// Coordination in the bucket has no lease: who starts last leads, and the other must never write again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_writer_on_the_embedded_default_fences_the_first_for_good() {
    let cluster = Cluster::embedded();
    let mut first = cluster.start(Role::Writer).await;
    first.leads().await;
    first.api().put(b"k", b"first").await.unwrap();
    let mut second = cluster.start(Role::Writer).await;
    second.leads().await;
    second.api().put(b"k", b"second").await.unwrap();

    let refused = || async {
        let answer = first.api().plain(http::Method::PUT, "/v1/kv/k", b"late".to_vec()).await.unwrap();
        (answer.status == 503).then_some(answer)
    };
    let answer = until("the first writer refusing", SOON, refused).await;
    assert_eq!(answer.code(), "fenced", "{}", String::from_utf8_lossy(&answer.body));
    let body = first.readiness("not ready", |status, _| status == 503).await;
    assert!(body.to_string().contains("fenced"), "{body}");

    let reader = cluster.start(Role::Reader).await;
    let last = second.api().put(b"other", b"x").await.unwrap().last;
    let found = reader.api().get_at(b"k", &format!("?min_seq={last}")).await.unwrap().unwrap();
    assert_eq!(found.value, b"second");
    let status = first.api().status().await.unwrap();
    assert_eq!((status["leader"].as_bool(), status["role"].as_str()), (Some(false), Some("fenced")));
    assert_eq!(last, 3, "nothing of the first writer came in between");
    assert_eq!(first.stopped().await, 0);
}
