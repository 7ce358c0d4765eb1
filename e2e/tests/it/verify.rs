//! `isle verify` against databases that real programs have made, and are still at work on.

use std::path::{Path, PathBuf};
use std::process::Output;

use e2e::cluster::Cluster;
use e2e::dataset::records;
use e2e::load::Load;
use e2e::node::{Role, run};
use serde_json::Value;

/// Generations so small that a short load is flushed and merged.
fn restless(cluster: &mut Cluster) {
    cluster.set("writer.generation_segments", "16");
    cluster.set("writer.fold_edits", "40");
}

async fn verify(cluster: &Cluster, more: &[&str]) -> Output {
    let flags = cluster.flags();
    let mut args = vec!["verify", "--json"];
    args.extend(flags.iter().map(String::as_str));
    args.extend(more);
    run("isle", &args, cluster.env()).await
}

fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text} {}", String::from_utf8_lossy(&output.stderr)))
}

async fn a_cluster_at_work_is_clean(mut cluster: Cluster) {
    restless(&mut cluster);
    let mut nodes = Vec::new();
    for role in Role::ALL {
        nodes.push(cluster.start(role).await);
    }
    let load = Load::start(&[nodes[0].api()], &records(20_000), 50, 4);
    load.goes_on(60).await;
    nodes[0].flushed().await;
    let output = verify(&cluster, &[]).await;
    let found = report(&output);
    assert_eq!(output.status.code(), Some(0), "{found}");
    assert!(found["counts"]["tables"].as_u64().unwrap() > 0, "nothing was flushed: {found}");
    assert_eq!(found["damage"]["total"], 0);
    load.finished().await;
    for node in &mut nodes {
        assert_eq!(node.stopped().await, 0);
    }
    let output = verify(&cluster, &["--offline"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", report(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_at_work_verifies_clean_with_etcd() {
    a_cluster_at_work_is_clean(Cluster::etcd().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_at_work_verifies_clean_on_the_embedded_default() {
    a_cluster_at_work_is_clean(Cluster::embedded()).await;
}

fn flip(file: &Path) -> Vec<u8> {
    let good = std::fs::read(file).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 0x20;
    std::fs::write(file, &bad).unwrap();
    good
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_is_found_and_named() {
    let mut cluster = Cluster::embedded();
    restless(&mut cluster);
    // Four clients' batches may share a segment, so there are at least fifteen of these.
    cluster.set("writer.generation_segments", "4");
    let mut writer = cluster.start(Role::Writer).await;
    Load::start(&[writer.api()], &records(3000), 50, 4).finished().await;
    writer.flushed().await;
    assert_eq!(writer.stopped().await, 0);
    // What a flush that the stop cut short has left is nobody's: a flipped byte there is no damage.
    let orphans = report(&verify(&cluster, &[]).await)["orphans"].to_string();
    for folder in ["table", "log", "manifest"] {
        let files = cluster.objects(folder);
        let named = |file: &&PathBuf| !orphans.contains(file.file_name().unwrap().to_str().unwrap());
        let file = files.iter().rfind(named).unwrap_or_else(|| panic!("no objects in {folder}"));
        let good = flip(file);
        let output = verify(&cluster, &[]).await;
        let name = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(output.status.code(), Some(1), "{folder}: {}", report(&output));
        let damage = report(&output)["damage"]["first"].to_string();
        assert!(damage.contains(name), "{name} is not named: {damage}");
        std::fs::write(file, good).unwrap();
    }
    assert_eq!(verify(&cluster, &[]).await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let (nowhere, empty) = (nowhere.to_str().unwrap(), empty.to_str().unwrap());
    for (args, word) in [
        (vec!["--store", nowhere], "no directory"),
        (vec!["--store", empty], "no database"),
        (vec!["--store", empty, "--database", "Not A Name"], "database"),
        (vec!["--store", "ftp://x"], "ftp"),
        (vec!["--store", empty, "--coordination", "nonsense"], "nonsense"),
        (vec!["--config", nowhere], "nowhere"),
    ] {
        let all: Vec<&str> = ["verify"].into_iter().chain(args.iter().copied()).collect();
        let output = run("isle", &all, &e2e::servers::Env::new()).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(word), "{args:?}: {said}");
    }
    assert!(!Path::new(nowhere).exists());
    assert_eq!(std::fs::read_dir(empty).unwrap().count(), 0);
}
