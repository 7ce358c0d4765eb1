//! `isle dump` of objects that real programs have made, whole and damaged.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use e2e::cluster::Cluster;
use e2e::dataset::records;
use e2e::load::Load;
use e2e::node::{Role, run};
use serde_json::Value;

const ROWS: usize = 3000;

async fn dump(cluster: &Cluster, args: &[&str]) -> Output {
    let flags = cluster.flags();
    let all: Vec<&str> =
        ["dump"].into_iter().chain(args.iter().copied()).chain(flags.iter().map(String::as_str)).collect();
    run("isle", &all, cluster.env()).await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The rows among a dump's JSON lines: value by key.
fn rows(output: &Output) -> BTreeMap<String, String> {
    let lines = text(&output.stdout);
    let lines =
        lines.lines().map(|l| serde_json::from_str::<Value>(l).unwrap_or_else(|e| panic!("{e}: {l}")));
    let row = |l: Value| Some((l["key"].as_str()?.to_owned(), l["value"].as_str()?.to_owned()));
    lines.filter_map(row).collect()
}

fn file_name(file: &Path) -> String {
    file.file_name().unwrap().to_str().unwrap().to_owned()
}

/// A database of small generations, at rest, whose first objects are not collected yet.
async fn made() -> Cluster {
    let mut cluster = Cluster::embedded();
    // Four clients' batches may share a segment, so there are at least fifteen of these.
    cluster.set("writer.generation_segments", "4");
    cluster.set("writer.fold_edits", "8");
    let mut writer = cluster.start(Role::Writer).await;
    Load::start(&[writer.api()], &records(ROWS), 50, 4).finished().await;
    writer.flushed().await;
    assert_eq!(writer.stopped().await, 0);
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_was_written_stands_in_the_dumps() {
    let cluster = made().await;
    let manifest = dump(&cluster, &["manifest"]).await;
    assert_eq!(manifest.status.code(), Some(0), "{}", text(&manifest.stderr));
    let manifest = text(&manifest.stdout);
    let mut in_tables = BTreeMap::new();
    for line in manifest.lines().filter(|l| l.starts_with("table ")) {
        let name = line.split('"').nth(1).unwrap();
        let table = dump(&cluster, &["table", name, "--json"]).await;
        assert_eq!(table.status.code(), Some(0), "{name}: {}", text(&table.stderr));
        in_tables.extend(rows(&table));
    }
    assert!(!in_tables.is_empty(), "nothing was flushed: {manifest}");
    let mut in_log = BTreeMap::new();
    for file in cluster.objects("log") {
        let log = dump(&cluster, &["log", &file_name(&file), "--json"]).await;
        assert_eq!(log.status.code(), Some(0), "{}: {}", file.display(), text(&log.stderr));
        in_log.extend(rows(&log));
    }
    let written: BTreeMap<String, String> = records(ROWS).into_iter().map(|r| (r.key, r.value)).collect();
    assert_eq!(in_log, written);
    assert!(in_tables.iter().all(|(k, v)| written.get(k) == Some(v)));
    // For people, and from a file: the same rows, a line each.
    let file = cluster.objects("table").pop().unwrap();
    let shown = dump(&cluster, &["table", file.to_str().unwrap()]).await;
    assert!(text(&shown.stdout).contains(" put time="), "{}", text(&shown.stdout));
    let bare = dump(&cluster, &["table", file.to_str().unwrap(), "--no-rows"]).await;
    assert!(!text(&bare.stdout).contains(" put time=") && text(&bare.stdout).contains("properties {"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_damaged_object_everything_else_is_shown_and_the_place_is_named() {
    let cluster = made().await;
    for (folder, what) in [("table", "table"), ("log", "log")] {
        let largest =
            cluster.objects(folder).into_iter().max_by_key(|f| f.metadata().unwrap().len()).unwrap();
        let reference = largest.to_str().unwrap();
        let whole = rows(&dump(&cluster, &[what, reference, "--json"]).await);
        let mut bytes = std::fs::read(&largest).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x20;
        std::fs::write(&largest, &bytes).unwrap();
        let output = dump(&cluster, &[what, reference, "--json"]).await;
        assert_eq!(output.status.code(), Some(1), "{what}");
        let said = text(&output.stderr);
        assert!(said.contains("is damaged at bytes") && said.contains(&file_name(&largest)), "{said}");
        let left = rows(&output);
        assert!(left.len() < whole.len() && left.iter().all(|(k, v)| whole.get(k) == Some(v)), "{what}");
        // Cut off in the middle, index and all.
        std::fs::write(&largest, &bytes[..middle]).unwrap();
        let output = dump(&cluster, &[what, reference, "--json"]).await;
        assert_eq!(output.status.code(), Some(1), "{what}");
        assert!(rows(&output).iter().all(|(k, v)| whole.get(k) == Some(v)), "{what}");
    }
    let checkpoint =
        cluster.objects("manifest").into_iter().rfind(|f| file_name(f).starts_with("checkpoint-"));
    let checkpoint = checkpoint.expect("a fold was due");
    let whole = dump(&cluster, &["checkpoint", checkpoint.to_str().unwrap()]).await;
    assert!(text(&whole.stdout).starts_with("manifest format="), "{}", text(&whole.stderr));
    let mut bytes = std::fs::read(&checkpoint).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&checkpoint, bytes).unwrap();
    let damaged = dump(&cluster, &["checkpoint", checkpoint.to_str().unwrap()]).await;
    assert_eq!(damaged.status.code(), Some(1));
    assert!(damaged.stdout.starts_with(&whole.stdout), "the manifest itself is whole");
}

/// Edits, folds, epochs and lineages are text, and are checked all the same; nothing binary reaches a terminal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_beside_the_checkpoints_are_checked_too() {
    let cluster = made().await;
    for kind in ["edit", "fold", "epoch", "lineage"] {
        let starts = format!("{kind}-");
        let file =
            cluster.objects("manifest").into_iter().rfind(|f| file_name(f).starts_with(&starts)).unwrap();
        let reference = file.to_str().unwrap();
        let whole = std::fs::read(&file).unwrap();
        let output = dump(&cluster, &["manifest", reference]).await;
        assert_eq!(output.status.code(), Some(0), "{kind}: {}", text(&output.stderr));
        assert_eq!(output.stdout, whole, "{kind}");
        let output = dump(&cluster, &["manifest", reference, "--json"]).await;
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(value[kind].is_object(), "{value}");
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 0x80;
        let longer = [&whole[..], b"\x1b[2J"].concat();
        for bad in [&flipped[..], &longer, &whole[..whole.len() / 2], b""] {
            std::fs::write(&file, bad).unwrap();
            let shown = dump(&cluster, &["manifest", reference]).await;
            assert_eq!(shown.status.code(), Some(1), "{kind}: {}", text(&shown.stdout));
            assert!(text(&shown.stdout).contains("DAMAGE at="), "{kind}: {}", text(&shown.stdout));
            assert!(!shown.stdout.contains(&0x1b));
            let json = dump(&cluster, &["manifest", reference, "--json"]).await;
            assert_eq!(json.status.code(), Some(1), "{kind}");
            let lines = text(&json.stdout);
            let values: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
            assert!(values.iter().any(|v| v["damage"].is_object()), "{lines}");
        }
        std::fs::write(&file, &whole).unwrap();
    }
}

/// What a file is tells its content: a checkpoint that was copied elsewhere is one, and a table is no blob file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_known_by_its_content() {
    let cluster = made().await;
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("evidence");
    let mut manifests = cluster.objects("manifest").into_iter();
    let checkpoint = manifests.rfind(|f| file_name(f).starts_with("checkpoint-")).expect("a fold was due");
    std::fs::copy(&checkpoint, &copy).unwrap();
    let shown = dump(&cluster, &["manifest", copy.to_str().unwrap()]).await;
    assert!(text(&shown.stdout).starts_with("manifest format="), "{}", text(&shown.stderr));
    let table = cluster.objects("table").pop().unwrap();
    std::fs::copy(&table, &copy).unwrap();
    for what in ["manifest", "checkpoint", "blob", "log"] {
        for reference in [copy.to_str().unwrap(), table.to_str().unwrap()] {
            let output = dump(&cluster, &[what, reference]).await;
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{what}: {said}");
            assert!(said.contains("is a table") && output.stdout.is_empty(), "{what}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_named() {
    let cluster = made().await;
    for (args, code, word) in [
        (["table", "1-00000000000000ab-77"], 1, "1-00000000000000ab-77"),
        (["log", "../isle.json"], 1, "../isle.json"),
        (["table", "a b"], 2, "a b"),
        (["checkpoint", "manifest/checkpoint-nope"], 1, "checkpoint-nope"),
    ] {
        let output = dump(&cluster, &args).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(word), "{args:?}: {said}");
    }
}
