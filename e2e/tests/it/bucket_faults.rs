//! The bucket in trouble: away for longer than anybody retries, and slow while a cold reader is asked for everything.

use std::time::{Duration, Instant};

use e2e::cluster::Cluster;
use e2e::dataset::{assert_same, records, rows};
use e2e::load::{Load, check_log};
use e2e::node::Role;
use e2e::proxy::{Fault, Protocol, Proxy};
use e2e::servers::{Etcd, S3};
use e2e::wait::until;
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(60);

/// How long one operation is repeated here; an outage that lasts several times as long is what a minute is to the
/// default.
const BUDGET: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_away_for_longer_than_anybody_retries_kills_nobody() {
    let (etcd, s3) = (Etcd::single().await, S3::start().await);
    let bucket = Proxy::to(s3.address(), Protocol::Http).await;
    let mut cluster = Cluster::over(s3.url_by(bucket.address(), "db"), etcd.url("isle"), s3.env());
    cluster.set("store.retry_budget_seconds", "1");
    cluster.set("store.request_timeout_seconds", "1");
    cluster.set("writer.generation_age_ms", "500");
    cluster.set("compactor.l0_trigger", "2");
    let mut nodes = Vec::new();
    for role in Role::ALL {
        nodes.push(cluster.start(role).await);
    }
    nodes[0].leads().await;
    let pids: Vec<u32> = nodes.iter_mut().map(|n| n.daemon().pid()).collect();
    let all = records(60_000);
    let load = Load::start(&[nodes[0].api()], &all, 20, 2);
    load.goes_on(20).await;
    for fault in [Fault::Refuse, Fault::Reset, Fault::BlackHole] {
        bucket.set(fault);
        let began = Instant::now();
        while began.elapsed() < 4 * BUDGET {
            assert!(nodes.iter_mut().all(|n| n.daemon().is_running()), "{fault:?} ended a program");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bucket.heal();
        load.goes_on(20).await;
    }
    load.enough();
    let batches = load.finished().await;
    for (node, pid) in nodes.iter_mut().zip(pids) {
        assert_eq!(node.daemon().pid(), pid);
        node.readiness("in order again", |status, body| {
            status == 200 && !body.to_string().contains("degraded")
        })
        .await;
    }
    let last = batches.iter().map(|b| b.written.last).max().unwrap();
    check_log(&nodes[2].api().tail("earliest").await.unwrap().until(last, SOON).await, &batches);
    let mut expected = e2e::dataset::Rows::new();
    batches.iter().for_each(|b| expected.extend(rows(&b.records)));
    assert_same("after", &nodes[1].api().scan_at("", Some(last)).await.unwrap(), &expected);
}

/// Hundreds of requests at once to a reader that has nothing cached: they wait for their turn, the bucket sees few.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_reader_asks_the_bucket_for_few_things_at_once() {
    const AT_ONCE: u64 = 4;
    let (etcd, s3) = (Etcd::single().await, S3::start().await);
    let bucket = Proxy::to(s3.address(), Protocol::Http).await;
    let mut cluster = Cluster::over(s3.url("db"), etcd.url("isle"), s3.env());
    cluster.set("writer.generation_age_ms", "300");
    cluster.set("writer.table_bytes", "65536");
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let all = records(2_000);
    Load::start(&[writer.api()], &all, 500, 1).finished().await;
    let flushed = || async {
        let status = writer.api().status().await.ok()?;
        (status["flushed_seq"].as_u64()? >= 2_000).then_some(())
    };
    until("everything in tables", SOON, flushed).await;

    let mut cold = Cluster::over(s3.url_by(bucket.address(), "db"), etcd.url("isle"), s3.env());
    cold.set("reader.max_concurrent_reads", &AT_ONCE.to_string());
    let reader = cold.start(Role::Reader).await;
    // Slow enough that requests without a bound would pile up.
    bucket.set(Fault::Delay(Duration::from_millis(20)));
    let mut gets = JoinSet::new();
    for record in all.iter().step_by(10).cloned() {
        let api = reader.api();
        gets.spawn(async move {
            let found = api.get(record.key.as_bytes()).await.unwrap().expect("it was written");
            assert_eq!(found.value, record.value.as_bytes());
        });
    }
    assert_eq!(gets.join_all().await.len(), 200);
    let most = bucket.done().most_open;
    // Besides reads there are the connections of its start: the manifest, and the probe of the bucket.
    assert!(most <= AT_ONCE + 3, "{most} connections to the bucket at once");
}
