//! etcd in trouble: members that die or freeze, a watch that is silently dead or compacted away, and programs that are
//! told to stop while etcd answers nothing.

use std::time::{Duration, Instant};

use e2e::client::Api;
use e2e::cluster::Cluster;
use e2e::dataset::records;
use e2e::load::{Load, check_log};
use e2e::node::Role;
use e2e::proxy::{Fault, Protocol, Proxy};
use e2e::servers::{Etcd, S3};
use e2e::wait::until;

const SOON: Duration = Duration::from_secs(60);

/// A lease lost because a member died or froze is routine: the same process leads again, or led all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_or_frozen_etcd_member_costs_seconds_and_no_process() {
    let (mut etcd, s3) = (Etcd::cluster().await, S3::start().await);
    let cluster = Cluster::over(s3.url("db"), etcd.url("isle"), s3.env());
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let tailer = cluster.start(Role::Tailer).await;
    let pid = writer.daemon().pid();
    let load = Load::start(&[writer.api()], &records(30_000), 20, 2);
    load.goes_on(10).await;
    // The leader dies.
    let leader = etcd.leader();
    etcd.member(leader).kill();
    load.goes_on(20).await;
    etcd.member(leader).restart().await;
    // The leader freezes until the others have replaced it and work goes on, then wakes up with its old ideas.
    let leader = etcd.leader();
    etcd.member(leader).stop();
    load.goes_on(20).await;
    etcd.member(leader).cont();
    load.goes_on(20).await;
    // A follower dies.
    let follower = (etcd.leader() + 1) % etcd.len();
    etcd.member(follower).kill();
    load.goes_on(20).await;
    etcd.member(follower).restart().await;
    load.enough();
    let batches = load.finished().await;
    assert_eq!(writer.daemon().pid(), pid);
    assert!(writer.daemon().is_running());
    writer.ready().await;
    let last = batches.iter().map(|b| b.written.last).max().unwrap();
    check_log(&tailer.api().tail("earliest").await.unwrap().until(last, SOON).await, &batches);
}

/// How a follower is made to miss things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deaf {
    /// Its packets to and from etcd vanish; it holds its connections for alive.
    Network,
    /// It is frozen.
    Process,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_behind_a_silent_network_and_a_compaction_catch_up_without_a_gap() {
    followers_catch_up(Deaf::Network).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_followers_behind_a_compaction_catch_up_without_a_gap() {
    followers_catch_up(Deaf::Process).await;
}

async fn followers_catch_up(deaf: Deaf) {
    let (mut etcd, s3) = (Etcd::single().await, S3::start().await);
    let proxy = Proxy::to(etcd.member(0).address(), Protocol::Tcp).await;
    let mut direct = Cluster::over(s3.url("db"), etcd.url("isle"), s3.env());
    let mut proxied = Cluster::over(s3.url("db"), format!("etcd://{}/isle", proxy.address()), s3.env());
    // Edits are folded away soon, so that what the followers missed is no longer there as edits.
    direct.set("writer.fold_edits", "20");
    proxied.set("coordination.heartbeat_ms", "1000");
    let mut writer = direct.start(Role::Writer).await;
    writer.leads().await;
    let (mut reader, mut tailer) = (proxied.start(Role::Reader).await, proxied.start(Role::Tailer).await);
    let all = records(6_000);
    let (early, late) = all.split_at(200);
    let mut batches = Load::start(&[writer.api()], early, 20, 2).finished().await;
    let first = batches.iter().map(|b| b.written.last).max().unwrap();
    let mut tail = tailer.api().tail("earliest").await.unwrap();
    let mut told = tail.until(first, SOON).await;

    match deaf {
        Deaf::Network => proxy.set(Fault::Stall),
        Deaf::Process => [&mut reader, &mut tailer].into_iter().for_each(|n| n.daemon().stop()),
    }
    batches.extend(Load::start(&[writer.api()], late, 20, 2).finished().await);
    let last = batches.iter().map(|b| b.written.last).max().unwrap();
    etcd.compact();
    match deaf {
        // The watch is dead by now, and no heartbeat has come back for long.
        Deaf::Network => {
            let degraded = |_, body: &serde_json::Value| body.to_string().contains("degraded");
            reader.readiness("aware of its silent watch", degraded).await;
            proxy.heal();
        }
        Deaf::Process => [&mut reader, &mut tailer].into_iter().for_each(|n| n.daemon().cont()),
    }
    told.extend(tail.until(last, SOON).await);
    check_log(&told, &batches);
    let rows = reader.api().scan_at("", Some(last)).await.unwrap();
    assert_eq!(rows.len(), all.len());
}

/// SIGTERM ends a writer in time whatever it waits for: a first answer of etcd, a vacancy, its own lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_told_to_stop_while_etcd_answers_nothing_ends_in_time() {
    const AT_MOST: Duration = Duration::from_secs(5);
    let mut cluster = Cluster::etcd().await;
    cluster.set("server.shutdown_timeout", "5s");
    let mut leader = cluster.start(Role::Writer).await;
    leader.leads().await;
    let standby = cluster.start(Role::Writer).await;
    let etcd = cluster.etcd.as_ref().unwrap();
    etcd.stop();
    let mut starting = cluster.spawn(Role::Writer);
    starting.readiness("waiting for etcd", |status, _| status == 503).await;
    // One that contests: its lease has run out, and it asks for another.
    leader.readiness("without its lease", |status, _| status == 503).await;
    for mut node in [starting, leader, standby] {
        let asked = Instant::now();
        assert_eq!(node.stopped().await, 0, "{}", node.log());
        assert!(asked.elapsed() < AT_MOST + Duration::from_secs(5), "it took {:?}", asked.elapsed());
    }
    etcd.cont();
}

/// A writer that drains says so, refuses what is new, and commits what it had accepted before it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_writer_is_not_ready_and_commits_what_it_accepted() {
    let (etcd, s3) = (Etcd::single().await, S3::start().await);
    let bucket = Proxy::to(s3.address(), Protocol::Http).await;
    let cluster = Cluster::over(s3.url_by(bucket.address(), "db"), etcd.url("isle"), s3.env());
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let tailer = cluster.start(Role::Tailer).await;
    // Accepted, and not to be committed until the bucket answers again.
    bucket.set(Fault::Stall);
    let waiting: Vec<_> = (0..20).map(|n| tokio::spawn(put(writer.api(), n))).collect();
    let accepted = || async {
        let status = writer.api().status().await.ok()?;
        (status["accepted_seq"].as_u64()? >= 20).then_some(())
    };
    until("twenty writes accepted", SOON, accepted).await;
    writer.terminate();
    let says = writer.readiness("draining", |status, _| status == 503).await;
    assert!(!says["reasons"].as_array().unwrap().is_empty(), "{says}");
    let refused = writer.api().plain(http::Method::PUT, "/v1/kv/late", b"v".to_vec()).await.unwrap();
    assert_eq!(refused.status, 503, "{}", String::from_utf8_lossy(&refused.body));
    bucket.heal();
    for put in waiting {
        put.await.unwrap();
    }
    assert_eq!(writer.ended().await.code(), Some(0), "{}", writer.log());
    let log = tailer.api().tail("earliest").await.unwrap().until(20, SOON).await;
    assert_eq!(log.len(), 20);
}

async fn put(writer: Api, n: u32) {
    writer.put(format!("k/{n}").as_bytes(), b"v").await.unwrap();
}
