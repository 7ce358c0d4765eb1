//! A copy of the database and the log after it, with the programs themselves.

use std::time::Duration;

use e2e::client::{Api, bytes};
use e2e::cluster::Cluster;
use e2e::dataset::{Record, Rows, assert_same, ndjson, records, with_prefix};
use e2e::load::Load;
use e2e::node::{Role, run};
use e2e::wait::until;
use http::Method;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// Flushes, merges, collection and a log that is trimmed, all of them all the time.
fn busy(cluster: &mut Cluster) {
    for (setting, value) in [
        ("writer.generation_age_ms", "200"),
        ("compactor.l0_trigger", "2"),
        ("compactor.fold_edits", "4"),
        ("compactor.grace_seconds", "0"),
        ("compactor.max_clock_skew_seconds", "1"),
        ("compactor.log_retention_bytes", "10000"),
        ("tailer.bootstrap_read_bytes", "1048576"),
    ] {
        cluster.set(setting, value);
    }
}

/// A bootstrap that takes its time: a batch is written for every few hundred rows. Its rows, and the trailer.
async fn copied(api: &Api, prefix: &str, load: &Load, batches: usize) -> (Rows, Value) {
    let goal = load.acknowledged() + batches;
    let mut lines = api.stream(&format!("/v1/bootstrap?prefix={prefix}"), SOON).await.unwrap();
    let mut rows = Rows::new();
    while let Some(line) = lines.next().await.unwrap() {
        let line: Value = serde_json::from_slice(&line.bytes).unwrap();
        if line.get("cursor").is_some() {
            assert!(lines.next().await.unwrap().is_none(), "a trailer is the end");
            assert_eq!(line["rows"].as_u64(), Some(rows.len() as u64));
            return (rows, line);
        }
        assert!(line.get("error").is_none(), "{line}");
        let key = bytes(&line, "key").unwrap();
        assert!(rows.last_key_value().is_none_or(|(last, _)| *last < key), "out of order: {line}");
        rows.insert(key, bytes(&line, "value").unwrap());
        if rows.len().is_multiple_of(300) && load.acknowledged() < goal {
            load.goes_on(1).await;
        }
    }
    panic!("a bootstrap without a trailer");
}

/// Applies the log from `cursor` on, up to `last`.
async fn catch_up(api: &Api, rows: &mut Rows, prefix: &str, cursor: &str, last: u64) {
    let mut from = cursor.to_owned();
    let mut at: u64 = cursor.rsplit('.').next().unwrap().parse().unwrap();
    while at < last {
        let page = api.changes(&format!("from={from}&limit=2000&wait=5s")).await.unwrap();
        for change in page["changes"].as_array().unwrap() {
            assert_eq!(change["seq"].as_u64(), Some(at + 1), "a gap, or a repeat");
            at += 1;
            let key = bytes(change, "key").unwrap();
            match bytes(change, "value") {
                _ if !key.starts_with(prefix.as_bytes()) => {}
                Some(value) => drop(rows.insert(key, value)),
                None => drop(rows.remove(&key)),
            }
        }
        page["next"].as_str().unwrap().clone_into(&mut from);
    }
}

async fn no_snapshot(writer: &Api) {
    let none = || async {
        let all = writer.json(Method::GET, "/v1/snapshots").await.ok()?;
        all["snapshots"].as_array()?.is_empty().then_some(())
    };
    until("the holds being let go", SOON, none).await;
}

async fn copies_and_follows(mut cluster: Cluster) {
    busy(&mut cluster);
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let (mut tailer, reader) = (cluster.start(Role::Tailer).await, cluster.start(Role::Reader).await);
    let _compactor = cluster.start(Role::Compactor).await;
    let all = records(6_000);
    writer.api().ingest(ndjson(&all)).await.unwrap();
    let again = |r: &Record| Record { key: r.key.clone(), value: format!("again {}", r.value) };
    let overwritten: Vec<Record> = all.iter().rev().step_by(2).map(again).collect();
    let halves = overwritten.split_at(overwritten.len() / 2);
    for (prefix, half) in [("", halves.0), ("deb/games/", halves.1)] {
        let load = Load::start(&[writer.api()], half, 40, 1);
        let (mut rows, trailer) = copied(&tailer.api(), prefix, &load, 12).await;
        load.enough();
        load.finished().await;
        let gone = rows.keys().next().unwrap().clone();
        let last = writer.api().delete(&gone).await.unwrap().last;
        assert!(trailer["view_seq"].as_u64().unwrap() < last);
        catch_up(&tailer.api(), &mut rows, prefix, trailer["cursor"].as_str().unwrap(), last).await;
        assert!(!rows.contains_key(&gone));
        assert_same("copy and log", &rows, &reader.api().scan_at(prefix, Some(last)).await.unwrap());
    }
    // Everything, now that nobody writes; and by the command, which prints the same.
    let quiet = Load::start(&[writer.api()], &[], 1, 1);
    let (rows, _) = copied(&tailer.api(), "", &quiet, 0).await;
    let seq = writer.api().status().await.unwrap()["committed_seq"].as_u64();
    assert_same("copy", &rows, &reader.api().scan_at("", seq).await.unwrap());
    let url = tailer.url();
    let output = run("isle", &["bootstrap", "--prefix", "deb/games/", "--tailer", &url], cluster.env()).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<Value> =
        output.stdout.split(|b| *b == b'\n').filter_map(|l| serde_json::from_slice(l).ok()).collect();
    let trailer = lines.pop().unwrap();
    let printed: Rows =
        lines.iter().map(|l| (bytes(l, "key").unwrap(), bytes(l, "value").unwrap())).collect();
    assert_same("isle bootstrap", &printed, &with_prefix(&rows, "deb/games/"));
    assert_eq!(trailer["view_seq"].as_u64(), seq);
    let lost = run("isle", &["bootstrap", "--snapshot", "nobody", "--tailer", &url], cluster.env()).await;
    assert_eq!(lost.status.code(), Some(1));
    assert_eq!(tailer.stopped().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_and_the_log_after_it_are_the_database_over_etcd() {
    copies_and_follows(Cluster::etcd().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_and_the_log_after_it_are_the_database_over_the_bucket() {
    copies_and_follows(Cluster::embedded()).await;
}

/// A tailer that is stopped in the middle says so and lets go; one that is killed holds nothing for longer than it said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_tailer_holds_nothing_for_long() {
    let mut cluster = Cluster::embedded();
    busy(&mut cluster);
    cluster.set("tailer.bootstrap_hold_seconds", "4");
    cluster.set("tailer.bootstrap_linger_seconds", "0");
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let _compactor = cluster.start(Role::Compactor).await;
    let large: Vec<Record> =
        (0..4_000).map(|i| Record { key: format!("k/{i}"), value: "v".repeat(8_000) }).collect();
    writer.api().ingest(ndjson(&large)).await.unwrap();
    for kill in [false, true] {
        let mut tailer = cluster.start(Role::Tailer).await;
        let api = tailer.api();
        let mut lines = api.stream("/v1/bootstrap", SOON).await.unwrap();
        lines.next().await.unwrap().unwrap();
        let held = writer.api().json(Method::GET, "/v1/snapshots").await.unwrap();
        let held = held["snapshots"].as_array().unwrap();
        assert!(held.iter().any(|s| s["holds_log"] == true && s["expires"].is_string()), "{held:?}");
        if kill {
            tailer.kill();
            no_snapshot(&writer.api()).await;
            continue;
        }
        let reading = async {
            let mut last = Value::Null;
            while let Ok(Some(line)) = lines.next().await {
                last = serde_json::from_slice(&line.bytes).unwrap();
            }
            last
        };
        let (code, last) = tokio::join!(tailer.stopped(), reading);
        assert_eq!(code, 0);
        assert_eq!(last["error"]["code"], "shutting_down", "{last}");
        no_snapshot(&writer.api()).await;
    }
}
