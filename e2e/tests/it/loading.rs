//! Everything is loaded and read back, on each backend: gets, scans, tails and a compaction in between answer the same.

use std::time::Duration;

use e2e::client::{Api, Change};
use e2e::cluster::Cluster;
use e2e::dataset::{self, Record, Rows, assert_same, ndjson, records, rows, with_prefix};
use e2e::node::Role;

const LOADED: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_loaded_is_read_back_on_the_embedded_default() {
    everything_is_read_back(Cluster::embedded(), &records(dataset::ALL)).await;
}

/// The store here has no atomic conditional put: coordination by etcd must not need one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_loaded_is_read_back_with_etcd_and_s3() {
    everything_is_read_back(Cluster::etcd().await, &records(dataset::ALL)).await;
}

async fn everything_is_read_back(mut cluster: Cluster, records: &[Record]) {
    // The whole set makes several tables, so that the compaction certainly has something to merge.
    cluster.set("writer.generation_bytes", "4194304");
    cluster.set("compactor.l0_trigger", "2");
    let expected = rows(records);
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let (early_reader, early_tailer) = (cluster.start(Role::Reader).await, cluster.start(Role::Tailer).await);
    let half = records.len() / 2;
    let mut last = 0;
    for part in [&records[..half], &records[half..]] {
        let summary = writer.api().ingest(ndjson(part)).await.unwrap();
        assert_eq!(summary["done"], true, "{summary}");
        assert_eq!(summary["committed_lines"], part.len() as u64, "{summary}");
        last = summary["last_seq"].as_u64().unwrap();
    }
    assert_eq!(last, records.len() as u64, "numbers are dense");
    assert_eq!(writer.stopped().await, 0);
    writer.restart();
    writer.ready().await;

    check_reader(&early_reader.api(), &expected, last).await;
    let compacted = cluster.run(Role::Compactor, &["--once"]).await;
    let said = String::from_utf8_lossy(&compacted.stdout).into_owned();
    let summary: serde_json::Value = serde_json::from_str(&said)
        .unwrap_or_else(|e| panic!("{e}: {said} {}", String::from_utf8_lossy(&compacted.stderr)));
    assert_eq!(compacted.status.code(), Some(0), "{summary}");
    assert_eq!(summary["outcome"], "done", "{summary}");
    assert!(summary["merges"].as_u64().unwrap() > 0, "{summary}");

    let (late_reader, late_tailer) = (cluster.start(Role::Reader).await, cluster.start(Role::Tailer).await);
    for reader in [&early_reader, &late_reader] {
        check_reader(&reader.api(), &expected, last).await;
    }
    let mut told = Vec::new();
    for tailer in [&early_tailer, &late_tailer] {
        let changes = tailer.api().tail("earliest").await.unwrap().until(last, LOADED).await;
        check_changes(&changes, records);
        told.push(changes);
    }
    assert!(told[0] == told[1], "two tailers say the same, cursors included");
}

async fn check_reader(reader: &Api, expected: &Rows, last: u64) {
    let all = reader.scan_at("", Some(last)).await.unwrap();
    assert_same("a scan over everything", &all, expected);
    let games = reader.scan("deb/games/").await.unwrap();
    assert!(!games.is_empty());
    assert_same("a scan over one prefix", &games, &with_prefix(expected, "deb/games/"));
    for (key, value) in expected.iter().step_by(expected.len() / 100) {
        let found = reader.get(key).await.unwrap();
        assert_eq!(found.map(|f| f.value).as_ref(), Some(value), "{}", String::from_utf8_lossy(key));
    }
    assert_eq!(reader.get(b"deb/games/no-such-package").await.unwrap(), None);
}

fn check_changes(changes: &[Change], records: &[Record]) {
    assert_eq!(changes.len(), records.len());
    for (n, (change, record)) in changes.iter().zip(records).enumerate() {
        assert_eq!(change.seq, n as u64 + 1, "a gap or a repeat");
        assert_eq!(change.key, record.key.as_bytes());
        assert_eq!(change.value.as_deref(), Some(record.value.as_bytes()));
    }
}
