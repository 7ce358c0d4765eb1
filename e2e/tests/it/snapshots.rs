//! Named snapshots, backups and restores with the programs themselves.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use e2e::client::Api;
use e2e::cluster::Cluster;
use e2e::dataset::{Rows, assert_same, ndjson, records, rows};
use e2e::node::{Node, Role, run};
use e2e::wait::until;
use http::Method;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

/// A whole scan as it came over the wire.
async fn scanned(reader: &Node, snapshot: &str) -> Vec<u8> {
    let target = format!("/v1/scan?limit=10000&snapshot={snapshot}");
    let answer = reader.api().plain(Method::GET, &target, Vec::new()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.body
}

async fn flushed(writer: &Node, seq: u64) {
    let there =
        || async { (writer.api().status().await.ok()?["flushed_seq"].as_u64()? >= seq).then_some(()) };
    until("everything in tables", SOON, there).await;
}

/// Everything into one run, however many merges that takes.
async fn compacted(compactor: &Node, writer: &Node) {
    let api = compactor.api();
    let done = async |api: &Api| {
        let s = api.status().await.ok()?;
        let seen = s["version"].as_u64()? >= writer.api().status().await.ok()?["version"].as_u64()?;
        (seen && s["runs"] == 1 && s["l0_runs"] == 0 && s["merging"].is_null()).then_some(())
    };
    let asked = || async {
        let answer = api.plain(Method::POST, "/v1/compact", Vec::new()).await.ok()?;
        assert_eq!(answer.status, 202);
        tokio::time::sleep(Duration::from_millis(200)).await;
        done(&api).await
    };
    until("one run", SOON, asked).await;
}

async fn isle(cluster: &Cluster, args: &[&str]) -> Output {
    run("isle", args, cluster.env()).await
}

/// Exit code, and the JSON it printed.
fn said(output: &Output) -> (Option<i32>, Value) {
    let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), json)
}

/// Rows that lie in tables, as a verification counts them.
async fn stored_rows(cluster: &Cluster) -> u64 {
    let flags = cluster.flags();
    let mut args: Vec<&str> = vec!["verify", "--json"];
    args.extend(flags.iter().map(String::as_str));
    let (code, report) = said(&isle(cluster, &args).await);
    assert_eq!(code, Some(0), "{report}");
    report["counts"]["rows"].as_u64().unwrap()
}

/// Overwrites, deletes, expiry, full merges and collection later, after restarts, a snapshot reads as on the first day;
/// once it is dropped, what only it held goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_reads_byte_for_byte_the_same_until_it_is_dropped() {
    let mut cluster = Cluster::etcd().await;
    for (setting, value) in [
        ("writer.generation_age_ms", "200"),
        ("compactor.grace_seconds", "1"),
        ("compactor.fold_edits", "4"),
        ("compactor.max_clock_skew_seconds", "1"),
    ] {
        cluster.set(setting, value);
    }
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let mut reader = cluster.start(Role::Reader).await;
    let compactor = cluster.start(Role::Compactor).await;
    let all = records(400);
    writer.api().ingest(ndjson(&all)).await.unwrap();
    for i in 0..20 {
        let short = writer.api().put_with(format!("short/{i}").as_bytes(), b"lived", "?ttl=4s").await;
        short.unwrap();
    }
    // When this one is gone as well, the others have expired on every clock.
    writer.api().put_with(b"short/last", b"lived", "?ttl=7s").await.unwrap();
    let writer_url = writer.url();
    let args = ["snapshot", "create", "first-day", "--json", "--writer", &writer_url];
    let (code, taken) = said(&isle(&cluster, &args).await);
    assert_eq!((code, &taken["seq"]), (Some(0), &421.into()), "{taken}");
    let first = scanned(&reader, "first-day").await;
    assert_eq!(first.iter().filter(|b| **b == b'\n').count(), 422, "every row, and the trailer");

    for (i, record) in all.iter().enumerate() {
        let key = record.key.as_bytes();
        if i % 2 == 0 {
            writer.api().delete(key).await.unwrap();
        } else {
            writer.api().put(key, b"overwritten").await.unwrap();
        }
    }
    flushed(&writer, 821).await;
    let gone = || async { reader.api().get(b"short/last").await.ok()?.is_none().then_some(()) };
    until("the expiry", SOON, gone).await;
    compacted(&compactor, &writer).await;
    let collected = || async { (compactor.api().status().await.ok()?["retired"] == 0).then_some(()) };
    until("the collection of what was merged", SOON, collected).await;
    assert_eq!(scanned(&reader, "first-day").await, first, "after compaction");
    assert_eq!(reader.stopped().await, 0);
    let reader = cluster.start(Role::Reader).await;
    assert_eq!(scanned(&reader, "first-day").await, first, "after a restart");
    assert_eq!(stored_rows(&cluster).await, 821, "both days are kept");

    let (code, _) = said(&isle(&cluster, &["snapshot", "drop", "first-day", "--writer", &writer_url]).await);
    assert_eq!(code, Some(0));
    let target = "/v1/scan?snapshot=first-day";
    let refused = || async {
        let answer = reader.api().plain(Method::GET, target, Vec::new()).await.ok()?;
        (answer.code() == "unknown_snapshot").then_some(())
    };
    until("the end of the snapshot", SOON, refused).await;
    writer.api().put(b"the next", b"row").await.unwrap();
    flushed(&writer, 822).await;
    let alone = || async {
        compacted(&compactor, &writer).await;
        (stored_rows(&cluster).await == 201).then_some(())
    };
    until("the second day alone in tables", SOON, alone).await;
    assert_eq!(writer.stopped().await, 0);
}

fn place(dir: &Path, name: &str) -> String {
    format!("file://{}", dir.join(name).display())
}

/// What a database restored as `copy` serves, and that it can be written.
async fn serves(store: &str, coordination: &str, like: &Cluster) -> Rows {
    let mut copy = Cluster::over(store.to_owned(), coordination.to_owned(), like.env().clone());
    copy.set("store.database", "copy");
    let mut writer = copy.start(Role::Writer).await;
    writer.leads().await;
    let written = writer.api().put(b"zz/after", b"the restore").await.unwrap();
    let reader = copy.start(Role::Reader).await;
    let rows = reader.api().scan_at("deb/", Some(written.last)).await.unwrap();
    assert_eq!(writer.stopped().await, 0);
    let args = ["verify", "--json", "--store", store, "--coordination", coordination, "--database", "copy"];
    let (code, report) = said(&isle(&copy, &args).await);
    assert_eq!(code, Some(0), "{report}");
    rows
}

/// Backups of a database in use, the second of which copies only what is new; restores into either form, each a database
/// of its own; refusals that change nothing; damage that is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_made_in_use_is_restored_as_a_database_of_its_own() {
    let mut cluster = Cluster::etcd().await;
    cluster.set("writer.generation_age_ms", "300");
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    let _compactor = cluster.start(Role::Compactor).await;
    let all = records(600);
    writer.api().ingest(ndjson(&all[..400])).await.unwrap();
    flushed(&writer, 400).await;
    let dir = cluster.dir().to_path_buf();
    let to = place(&dir, "backups");
    let flags = cluster.flags();
    let mut back_up: Vec<&str> = vec!["backup", "--json", "--to", &to];
    back_up.extend(flags.iter().map(String::as_str));
    let (code, first) = said(&isle(&cluster, &back_up).await);
    assert_eq!((code, &first["backup"], &first["last_seq"]), (Some(0), &1.into(), &400.into()), "{first}");

    writer.api().ingest(ndjson(&all[400..])).await.unwrap();
    let (code, second) = said(&isle(&cluster, &back_up).await);
    assert_eq!((code, &second["backup"], &second["last_seq"]), (Some(0), &2.into(), &600.into()), "{second}");
    assert!(second["copied_objects"].as_u64() < second["objects"].as_u64(), "{second}");
    let (code, listed) = said(&isle(&cluster, &["backup", "list", "--json", "--from", &to]).await);
    assert_eq!((code, listed["backups"].as_array().map(Vec::len)), (Some(0), Some(2)), "{listed}");
    let verify = ["backup", "verify", "--json", "--from", &to, "--backup", "1"];
    let (code, verified) = said(&isle(&cluster, &verify).await);
    assert_eq!((code, &verified["clean"]), (Some(0), &true.into()), "{verified}");

    // Into files, coordinated by the bucket itself; and into S3, coordinated by the same etcd under another name.
    let (embedded, etcd) = (place(&dir, "restored"), cluster.etcd.as_ref().unwrap().url("isle"));
    let beside = cluster.s3.as_ref().unwrap().url("restored");
    for (store, coordination) in [(&embedded, "bucket"), (&beside, etcd.as_str())] {
        let restore = [
            "restore",
            "--json",
            "--from",
            &to,
            "--to",
            store,
            "--coordination",
            coordination,
            "--database",
            "copy",
        ];
        let (code, restored) = said(&isle(&cluster, &restore).await);
        assert_eq!((code, &restored["last_seq"]), (Some(0), &600.into()), "{restored}");
        let served = serves(store, coordination, &cluster).await;
        assert_same("the restored database", &served, &rows(&all));
        let again = isle(&cluster, &restore).await;
        let why = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(again.status.code() == Some(2) && why.contains("is not empty"), "{why}");
    }
    // The original goes on, and knows nothing of it; a clone of what it was is a database of its own.
    let writer_url = writer.url();
    let (code, _) = said(&isle(&cluster, &["snapshot", "create", "then", "--writer", &writer_url]).await);
    assert_eq!(code, Some(0));
    writer.api().put(b"deb/original", b"goes on").await.unwrap();
    flushed(&writer, 601).await;
    let cloned = place(&dir, "cloned");
    let clone = [
        "clone",
        "--json",
        "--from",
        flags[1].as_str(),
        "--from-coordination",
        flags[3].as_str(),
        "--snapshot",
        "then",
        "--to",
        &cloned,
        "--coordination",
        "bucket",
        "--database",
        "copy",
    ];
    let (code, made) = said(&isle(&cluster, &clone).await);
    assert_eq!((code, &made["last_seq"]), (Some(0), &600.into()), "{made}");
    assert_ne!(made["database"], first["database"], "an id of its own");
    assert_eq!(made["referenced_objects"], 0, "files take nothing of S3 by reference: {made}");
    assert_same("the clone", &serves(&cloned, "bucket", &cluster).await, &rows(&all));
    // Within the bucket the store copies, and within the file system files are linked.
    let beside = cluster.s3.as_ref().unwrap().url("cloned");
    let of_s3: [&str; 4] = [&flags[1], &flags[3], "default", &etcd];
    let of_files: [&str; 4] = [&cloned, "bucket", "copy", "bucket"];
    for (from, to) in [(of_s3, beside), (of_files, place(&dir, "linked"))] {
        let [from, by, named, coordination] = from;
        let clone = [
            "clone",
            "--json",
            "--from",
            from,
            "--from-coordination",
            by,
            "--from-database",
            named,
            "--to",
            &to,
            "--coordination",
            coordination,
            "--database",
            "near",
            "--verify",
        ];
        let (code, made) = said(&isle(&cluster, &clone).await);
        assert_eq!((code, &made["copied_objects"]), (Some(0), &0.into()), "{made}");
        assert!(made["referenced_objects"].as_u64() > Some(0), "{made}");
        let verify = ["verify", "--store", &to, "--coordination", coordination, "--database", "near"];
        let verified = isle(&cluster, &verify).await;
        assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
    }
    let onto_itself: Vec<&str> =
        ["backup", "--to", flags[1].as_str()].into_iter().chain(flags.iter().map(String::as_str)).collect();
    assert_eq!(isle(&cluster, &onto_itself).await.status.code(), Some(2));
    assert_eq!(
        isle(&cluster, &["backup", "verify", "--from", &to, "--backup", "9"]).await.status.code(),
        Some(2)
    );

    let table = walk(&dir.join("backups/table"));
    let mut bytes = std::fs::read(&table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&table, bytes).unwrap();
    let (code, verified) = said(&isle(&cluster, &verify).await);
    assert_eq!((code, &verified["clean"]), (Some(1), &json!(false)), "{verified}");
    let damaged = place(&dir, "damaged");
    let restore = ["restore", "--from", &to, "--backup", "1", "--to", &damaged, "--database", "copy"];
    let refused = isle(&cluster, &restore).await;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && why.contains("damaged"), "{why}");
    assert!(!dir.join("damaged/isle.json").exists());

    let prune = ["backup", "prune", "--json", "--from", &to, "--keep", "1"];
    let (code, would) = said(&isle(&cluster, &prune).await);
    assert_eq!(
        (code, &would["removed"], &would["deleted"]),
        (Some(2), &json!([1]), &json!(false)),
        "{would}"
    );
    let yes: Vec<&str> = prune.into_iter().chain(["--yes"]).collect();
    let (code, done) = said(&isle(&cluster, &yes).await);
    assert_eq!((code, &done["kept"], &done["objects"]), (Some(0), &json!([2]), &would["objects"]), "{done}");
    let (code, listed) = said(&isle(&cluster, &["backup", "list", "--json", "--from", &to]).await);
    assert_eq!((code, listed["backups"].as_array().map(Vec::len)), (Some(0), Some(1)), "{listed}");
    assert_eq!(writer.stopped().await, 0);
}

/// Some file below a folder.
fn walk(folder: &Path) -> std::path::PathBuf {
    let mut at = folder.to_path_buf();
    while at.is_dir() {
        at = std::fs::read_dir(&at).unwrap().next().unwrap().unwrap().path();
    }
    at
}
