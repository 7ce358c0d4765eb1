//! `isle recover` on a real etcd and a real S3: etcd wiped under running programs, etcd set back to an older copy, and
//! everything it refuses to do.

use std::process::Output;
use std::time::Duration;

use e2e::client::Api;
use e2e::cluster::Cluster;
use e2e::dataset::{assert_same, records, rows};
use e2e::load::{Load, check_log};
use e2e::node::{Node, Role, run};
use e2e::servers::{Etcd, S3, free_port};
use e2e::wait::until;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// A cluster whose writer flushes after a few segments and whose compactor folds and merges.
async fn busy() -> Cluster {
    let mut cluster = Cluster::etcd().await;
    cluster.set("writer.generation_bytes", "65536");
    cluster.set("writer.fold_edits", "40");
    cluster
}

async fn isle(cluster: &Cluster, args: &[&str]) -> Output {
    let flags = cluster.flags();
    let args: Vec<&str> =
        ["recover"].into_iter().chain(flags.iter().map(String::as_str)).chain(args.iter().copied()).collect();
    run("isle", &args, cluster.env()).await
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn recovered(cluster: &Cluster, args: &[&str]) -> Value {
    let args = [&["--old-coordination-is-stopped", "--json"], args].concat();
    let output = isle(cluster, &args).await;
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn refused(cluster: &Cluster, args: &[&str], exit: i32) -> String {
    let output = isle(cluster, args).await;
    assert_eq!(output.status.code(), Some(exit), "{args:?}: {}", said(&output));
    said(&output)
}

/// Everything below the prefix, and every key in etcd: what a refusal must leave as it was.
fn state(cluster: &Cluster) -> (Vec<std::path::PathBuf>, String) {
    let keys = cluster.etcd.as_ref().map(|e| e.etcdctl(&["get", "/isle", "--prefix"]));
    (cluster.objects(""), keys.unwrap_or_default())
}

async fn says(node: &mut Node, word: &str) {
    node.readiness(word, |_, body| body.to_string().contains(word)).await;
}

async fn writes_again(api: &Api, key: &[u8]) -> u64 {
    until("a write that is acknowledged", SOON, || async { api.put(key, b"after").await.ok() }).await.last
}

/// etcd is wiped under a running cluster with data in it: every program says so and refuses what it must, one that is
/// started ends; after `isle recover` the same processes go on, everything acknowledged is there, and the tail is exact.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_etcd_is_recovered_under_running_programs() {
    let mut cluster = busy().await;
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let mut reader = cluster.start(Role::Reader).await;
    let mut tailer = cluster.start(Role::Tailer).await;
    let mut compactor = cluster.start(Role::Compactor).await;
    let all = records(4_000);
    let mut batches = Load::start(&[writer.api()], &all, 50, 4).finished().await;

    cluster.etcd.as_mut().unwrap().wipe().await;
    for node in [&mut writer, &mut reader, &mut tailer, &mut compactor] {
        says(node, "coordination_lost").await;
    }
    for role in Role::ALL {
        let mut node = cluster.spawn(role);
        assert_eq!(node.ended().await.code(), Some(1), "{role:?} says {}", node.log());
        assert!(
            node.log().contains("coordination_lost") && node.log().contains("isle recover"),
            "{}",
            node.log()
        );
    }

    let report = recovered(&cluster, &[]).await;
    let last = batches.iter().map(|b| b.written.last).max().unwrap();
    assert!(report["head"]["last_seq"].as_u64().unwrap() >= last, "{report}");
    assert_eq!(report["lost"], Value::Null, "{report}");

    let after = writes_again(&writer.api(), b"zz-after").await;
    let mut expected = rows(&all);
    expected.insert(b"zz-after".to_vec(), b"after".to_vec());
    assert_same("after recover", &reader.api().scan_at("", Some(after)).await.unwrap(), &expected);
    let told = tailer.api().tail("earliest").await.unwrap().until(after, SOON).await;
    let own = told.iter().filter(|c| c.key != b"zz-after").cloned().collect::<Vec<_>>();
    check_log(&own, &batches);
    // Another load through the processes that never stopped, and a reader that has just started.
    let more = records(4_500).split_off(4_000);
    batches.extend(Load::start(&[writer.api()], &more, 50, 2).finished().await);
    expected.extend(rows(&more));
    let last = batches.iter().map(|b| b.written.last).max().unwrap();
    let fresh = cluster.start(Role::Reader).await;
    for api in [reader.api(), fresh.api()] {
        assert_same("after more", &api.scan_at("", Some(last)).await.unwrap(), &expected);
    }
    for node in [&mut writer, &mut reader, &mut tailer, &mut compactor] {
        node.readiness("in order again", |status, body| {
            status == 200 && !body.to_string().contains("coordination_")
        })
        .await;
        assert_eq!(node.stopped().await, 0, "{}", node.log());
    }
}

/// etcd comes back as an older copy under a running writer: it acknowledges nothing into it, and names the command; after
/// `isle recover` everything that was ever acknowledged is there. (That one which starts refuses is told in `outages`.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_set_back_is_noticed_and_recovered() {
    let mut cluster = busy().await;
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let mut all = records(1_500);
    let later = all.split_off(1_000);
    let mut batches = Load::start(&[writer.api()], &all, 50, 2).finished().await;
    assert_eq!(writer.stopped().await, 0);
    let old = cluster.etcd.as_ref().unwrap().backup();
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    batches.extend(Load::start(&[writer.api()], &later, 50, 2).finished().await);
    let acknowledged = batches.iter().map(|b| b.written.last).max().unwrap();

    // Under the running writer: whatever it is asked to write it does not acknowledge.
    cluster.etcd.as_mut().unwrap().restore(&old).await;
    let attempt = tokio::time::timeout(Duration::from_secs(8), writer.api().put(b"zz-lost", b"v")).await;
    assert!(!matches!(attempt, Ok(Ok(_))), "acknowledged into an older copy: {attempt:?}");
    says(&mut writer, "coordination_regressed").await;
    says(&mut writer, "isle recover").await;
    writer.kill();
    let report = recovered(&cluster, &[]).await;
    assert!(report["head"]["last_seq"].as_u64().unwrap() >= acknowledged, "{report}");
    assert_ne!(report["replaced"], Value::Null, "{report}");
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let (reader, tailer) = (cluster.start(Role::Reader).await, cluster.start(Role::Tailer).await);
    let last = writer.api().put(b"zz-after", b"after").await.unwrap().last;
    let mut found = reader.api().scan_at("", Some(last)).await.unwrap();
    found.retain(|key, _| !key.starts_with(b"zz-"));
    all.extend(later);
    assert_same("after recover", &found, &rows(&all));
    let told = tailer.api().tail("earliest").await.unwrap().until(last, SOON).await;
    let own = told.iter().filter(|c| !c.key.starts_with(b"zz-")).cloned().collect::<Vec<_>>();
    check_log(&own, &batches);
}

/// What is refused, and a dry run, change nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_changes_nothing() {
    let mut cluster = busy().await;
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    Load::start(&[writer.api()], &records(1_000), 50, 2).finished().await;
    assert_eq!(writer.stopped().await, 0);

    let before = state(&cluster);
    let sure = "--old-coordination-is-stopped";
    assert!(refused(&cluster, &[], 2).await.contains(sure));
    assert!(refused(&cluster, &[sure, "--no-such-flag"], 2).await.contains("--no-such-flag"));
    assert!(refused(&cluster, &[sure, "--database", "Not A Name"], 2).await.contains("database"));
    assert!(refused(&cluster, &[sure, "--database", "other"], 2).await.contains("wrong_database"));
    assert!(
        refused(&cluster, &[sure, "--config", "/no/such/file.toml"], 2).await.contains("/no/such/file.toml")
    );
    assert!(refused(&cluster, &[sure], 1).await.contains("nothing to recover"));
    let shown = isle(&cluster, &["--dry-run"]).await;
    assert!(
        shown.status.code() == Some(0) && said(&shown).contains("nothing to recover"),
        "{}",
        said(&shown)
    );
    let shown: Value =
        serde_json::from_slice(&isle(&cluster, &["--dry-run", "--json"]).await.stdout).unwrap();
    assert_eq!(shown["sound"], true, "{shown}");
    assert_eq!(state(&cluster), before);

    let s3 = cluster.s3.as_ref().unwrap();
    let sound = cluster.flags();
    let elsewhere = |store: &str, coordination: &str| {
        let args = ["recover", "--store", store, "--coordination", coordination, sure].map(str::to_owned);
        let env = cluster.env().clone();
        async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let output = run("isle", &args, &env).await;
            (output.status.code(), said(&output))
        }
    };
    let (exit, why) = elsewhere(&sound[1], "bucket").await;
    assert!(exit == Some(2) && why.contains("coordinated by etcd"), "{exit:?} {why}");
    let (exit, why) = elsewhere(&s3.url("another"), &sound[3]).await;
    assert!(exit == Some(2) && why.contains("isle.json"), "{exit:?} {why}");
    let nobody = format!("etcd://127.0.0.1:{}/isle", free_port());
    let (exit, why) = elsewhere(&sound[1], &nobody).await;
    assert!(exit == Some(1) && why.contains("unavailable"), "{exit:?} {why}");
    assert_eq!(state(&cluster), before);

    cluster.etcd.as_mut().unwrap().wipe().await;
    let before = state(&cluster);
    let shown = isle(&cluster, &["--dry-run"]).await;
    let shown = (shown.status.code(), said(&shown));
    assert!(shown.0 == Some(0) && shown.1.contains("Nothing was changed"), "{shown:?}");
    assert!(shown.1.contains("built on") && shown.1.contains("new head"), "{shown:?}");
    assert_eq!(state(&cluster), before);

    // A segment of the log beyond the checkpoint is gone: the range is named, and only a person may give it up.
    let segments = cluster.objects("log").into_iter().filter(|p| p.extension().is_some_and(|e| e == "seg"));
    let plan: Value = serde_json::from_slice(&isle(&cluster, &["--dry-run", "--json"]).await.stdout).unwrap();
    let adopted = plan["adopted"].as_array().unwrap();
    assert!(adopted.len() >= 3, "the test needs a log beyond the checkpoint: {plan}");
    let lost = adopted[adopted.len() - 2].clone();
    let name = lost["object"].as_str().unwrap().strip_prefix("log/").unwrap().to_owned();
    let file = segments.into_iter().find(|p| p.ends_with(&name)).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let before = state(&cluster);
    let why = refused(&cluster, &[sure], 1).await;
    let range = format!("sequence numbers {} to {} are missing", lost["first_seq"], lost["last_seq"]);
    assert!(why.contains(&range) && why.contains("--accept-loss"), "{why}");
    assert_eq!(state(&cluster), before);
    let shown: Value =
        serde_json::from_slice(&isle(&cluster, &["--dry-run", "--json", "--accept-loss"]).await.stdout)
            .unwrap();
    assert_eq!(shown["lost"]["first_seq"], lost["first_seq"], "{shown}");
    std::fs::write(&file, bytes).unwrap();
    let whole = recovered(&cluster, &[]).await;
    assert_eq!(whole["lost"], Value::Null, "{whole}");
}

/// The embedded form: a numbered edit is gone, nothing opens any more, and recover goes on from what is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_edit_of_the_embedded_form_is_recovered() {
    let cluster = Cluster::embedded();
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let all = records(500);
    Load::start(&[writer.api()], &all, 20, 1).finished().await;
    assert_eq!(writer.stopped().await, 0);
    let edits: Vec<_> = cluster
        .objects("manifest")
        .into_iter()
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("edit-")))
        .collect();
    std::fs::remove_file(&edits[edits.len() / 2]).unwrap();
    let mut refusing = cluster.spawn(Role::Reader);
    assert_eq!(refusing.ended().await.code(), Some(1), "{}", refusing.log());
    assert!(refusing.log().contains("is missing"), "{}", refusing.log());
    recovered(&cluster, &[]).await;
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let reader = cluster.start(Role::Reader).await;
    let last = writer.api().put(b"zz-after", b"after").await.unwrap().last;
    let mut expected = rows(&all);
    expected.insert(b"zz-after".to_vec(), b"after".to_vec());
    assert_same("after recover", &reader.api().scan_at("", Some(last)).await.unwrap(), &expected);
}

/// A full etcd is waited for, with the commands that mend it in sight, and does not end a program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_is_waited_for() {
    let (etcd, s3) = (Etcd::with_quota(1 << 20).await, S3::start().await);
    let cluster = Cluster::over(s3.url("db"), etcd.url("isle"), s3.env());
    etcd.fill();
    let mut writer = cluster.spawn(Role::Writer);
    let says = writer
        .readiness("waiting for room", |status, body| {
            status == 503 && body.to_string().contains("coordination_full")
        })
        .await
        .to_string();
    assert!(says.contains("etcdctl compact") && says.contains("etcdctl alarm disarm"), "{says}");
    etcd.mend();
    writer.ready().await;
    writer.leads().await;
    writer.api().put(b"k", b"v").await.unwrap();
}
