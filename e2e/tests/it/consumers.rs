//! Consumers of the log over real processes: cut off at any point, left behind by retention, and idle.

use std::time::{Duration, Instant};

use e2e::client::{Api, Event};
use e2e::cluster::Cluster;
use e2e::dataset::records;
use e2e::load::{Load, check_log};
use e2e::node::Role;
use e2e::proxy::{Fault, Protocol, Proxy};
use e2e::servers::{Etcd, S3};
use e2e::wait::until;
use http::Method;

const SOON: Duration = Duration::from_secs(60);

/// A consumer that is killed after any number of changes, again and again, and goes on by the cursor it has, sees every
/// change exactly once; also where the tailer is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_killed_at_any_point_resumes_without_gap_or_repeat() {
    let cluster = Cluster::etcd().await;
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let mut tailer = cluster.start(Role::Tailer).await;
    let load = Load::start(&[writer.api()], &records(4_000), 7, 2);
    let mut seen = Vec::new();
    let (mut cursor, mut lives) = ("earliest".to_owned(), 0_usize);
    while seen.len() < 4_000 {
        lives += 1;
        if lives.is_multiple_of(40) {
            tailer.kill();
            tailer.restart();
            tailer.ready().await;
        }
        let mut tail = tailer.api().tail(&cursor).await.unwrap();
        // 1, 14, 27, …: over page, segment and batch boundaries of every kind.
        let allowed = 1 + (lives * 13) % 97;
        for _ in 0..allowed {
            if seen.len() >= 4_000 {
                break;
            }
            match tail.next().await {
                Some(Event::Change(change)) => {
                    cursor.clone_from(&change.cursor);
                    seen.push(change);
                }
                Some(Event::Heartbeat(at)) => at["next"].as_str().unwrap().clone_into(&mut cursor),
                _ => break,
            }
        }
    }
    assert!(lives > 60, "the consumer lived only {lives} times");
    check_log(&seen, &load.finished().await);
}

/// Tailers are not equally far. A cursor of one that is ahead is not a mistake where another is behind: that one catches
/// up, or asks to come again while it cannot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_of_a_tailer_that_is_ahead_is_no_mistake() {
    let (mut etcd, s3) = (Etcd::single().await, S3::start().await);
    let proxy = Proxy::to(etcd.member(0).address(), Protocol::Tcp).await;
    let direct = Cluster::over(s3.url("db"), etcd.url("isle"), s3.env());
    let proxied = Cluster::over(s3.url("db"), format!("etcd://{}/isle", proxy.address()), s3.env());
    let mut writer = direct.start(Role::Writer).await;
    writer.leads().await;
    writer.api().put(b"k", b"1").await.unwrap();
    let (ahead, behind) = (direct.start(Role::Tailer).await, proxied.start(Role::Tailer).await);
    proxy.set(Fault::Stall);
    let last = writer.api().put(b"k", b"2").await.unwrap().last;
    let told = ahead.api().tail("earliest").await.unwrap().until(last, SOON).await;
    let cursor = &told.last().unwrap().cursor;
    let target = format!("/v1/changes?from={cursor}&wait=100ms");
    let page = behind.api().plain(Method::GET, &target, Vec::new()).await.unwrap();
    assert_eq!((page.status, page.code().as_str()), (503, "not_ready"), "{}", page.json());
    proxy.heal();
    let caught_up = || async {
        let page = behind.api().plain(Method::GET, &target, Vec::new()).await.unwrap();
        assert!(matches!(page.status, 200 | 503), "{}", page.json());
        (page.status == 200).then(|| page.json())
    };
    let page = until("the tailer catching up", SOON, caught_up).await;
    assert_eq!(
        (page["changes"].as_array().unwrap().len(), page["next"].as_str()),
        (0, Some(cursor.as_str()))
    );
    // One that nobody can have been given is one.
    let (history, _) = cursor.rsplit_once('.').unwrap();
    let target = format!("/v1/changes?from={history}.{}", last + 1);
    let beyond = behind.api().plain(Method::GET, &target, Vec::new()).await.unwrap();
    assert_eq!(beyond.code(), "invalid_request", "{}", beyond.json());
}

/// Who falls below the retained log is told so and where it begins now; before that, every page continues exactly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_below_the_retained_log_is_told_and_never_shown_a_gap() {
    let mut cluster = Cluster::etcd().await;
    cluster.set("writer.generation_age_ms", "300");
    cluster.set("compactor.log_retention_bytes", "20000");
    cluster.set("compactor.grace_seconds", "0");
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let tailer = cluster.start(Role::Tailer).await;
    let _compactor = cluster.start(Role::Compactor).await;
    let api = tailer.api();
    let first = writer.api().put(b"first", b"v").await.unwrap().last;
    let told = api.tail("earliest").await.unwrap().until(first, SOON).await;
    let slow = told.last().unwrap().cursor.clone();
    let load = Load::start(&[writer.api()], &records(60_000), 50, 1);
    let expired = || async {
        let target = format!("/v1/changes?from={slow}&limit=3");
        let page = api.plain(Method::GET, &target, Vec::new()).await.unwrap();
        if page.status == 200 {
            let page = page.json();
            let next = page["changes"].as_array().unwrap().first().map(|c| c["seq"].as_u64().unwrap());
            assert!(next.is_none_or(|seq| seq == first + 1), "a silent gap: {first} and then {next:?}");
            return None;
        }
        assert_eq!((page.status, page.code().as_str()), (410, "cursor_expired"));
        Some(page.json()["error"]["earliest"].as_str().unwrap().to_owned())
    };
    let earliest = until("the log being trimmed", SOON, expired).await;
    load.enough();
    load.finished().await;
    // A stream is told the same.
    assert!(api.tail(&slow).await.is_err_and(|e| e.to_string().contains("cursor_expired")));
    // What it is told to begin with works, or has been trimmed in turn; `earliest` always does.
    let seq: u64 = earliest.rsplit('.').next().unwrap().parse().unwrap();
    let page =
        api.plain(Method::GET, &format!("/v1/changes?from={earliest}&limit=1"), Vec::new()).await.unwrap();
    match page.status {
        200 => assert_eq!(page.json()["changes"][0]["seq"], seq + 1),
        status => assert_eq!((status, page.code().as_str()), (410, "cursor_expired")),
    }
    assert_eq!(api.changes("from=earliest&limit=1").await.unwrap()["changes"].as_array().unwrap().len(), 1);
}

/// An idle stream lives for as long as its consumer wants, and knows that nothing is missing; a page that waits gives
/// up when it said, however much passes that is not for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_keep_streams_alive_and_never_lengthen_a_wait() {
    let mut cluster = Cluster::etcd().await;
    cluster.set("tailer.heartbeat_seconds", "1");
    // A connection without requests is closed after this; a stream is none.
    cluster.set("server.header_timeout", "2s");
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let tailer = cluster.start(Role::Tailer).await;
    let mut tail = tailer.api().tail("earliest").await.unwrap();
    for _ in 0..4 {
        let Some(Event::Heartbeat(beat)) = tail.next().await else { panic!("an idle stream ended") };
        assert_eq!(beat["caught_up"], true, "{beat}");
    }
    let last = writer.api().put(b"k", b"v").await.unwrap().last;
    assert_eq!(tail.until(last, SOON).await.len(), 1);

    let load = Load::start(&[writer.api()], &records(60_000), 1, 1);
    let asked = Instant::now();
    let page = waiting(&tailer.api()).await;
    let took = asked.elapsed();
    load.enough();
    load.finished().await;
    assert_eq!(page["changes"].as_array().unwrap().len(), 0);
    let next: u64 = page["next"].as_str().unwrap().rsplit('.').next().unwrap().parse().unwrap();
    assert!(next > last, "a page that passes over what is not for it advances: {page}");
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(5), "a wait of 2 s took {took:?}");
}

async fn waiting(tailer: &Api) -> serde_json::Value {
    tailer.changes("from=latest&prefix=nobody/writes/this&wait=2s").await.unwrap()
}
