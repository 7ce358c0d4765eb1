//! A flipped byte anywhere in an object is noticed: the answer is right or an error, never wrong.

use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::cluster::Cluster;
use e2e::dataset::{Rows, records, rows};
use e2e::node::{Node, Role};
use e2e::wait::until;
use isle_service::client::CallError;

const SOON: Duration = Duration::from_secs(60);

/// Positions tried in each object, evenly spread.
const PLACES: usize = 8;

/// Flips a byte for as long as it lives.
struct Flipped {
    path: PathBuf,
    whole: Vec<u8>,
}

impl Flipped {
    fn at(path: &Path, place: usize) -> Self {
        let whole = std::fs::read(path).unwrap();
        let mut flipped = whole.clone();
        let at = (whole.len() - 1) * place / (PLACES - 1);
        flipped[at] ^= 0x10;
        std::fs::write(path, flipped).unwrap();
        Self { path: path.to_path_buf(), whole }
    }
}

impl Drop for Flipped {
    fn drop(&mut self) {
        let _gone = std::fs::write(&self.path, &self.whole);
    }
}

/// A database of 500 records, and the only object of a folder; the programs are stopped.
async fn database(tables: bool, folder: &str) -> (Cluster, Rows, PathBuf) {
    let mut cluster = Cluster::embedded();
    if tables {
        cluster.set("writer.generation_age_ms", "100");
    }
    let all = records(500);
    let mut writer = cluster.start(Role::Writer).await;
    writer.leads().await;
    writer.api().batch(e2e::dataset::ndjson(&all)).await.unwrap();
    let written = || std::future::ready(cluster.objects(folder).into_iter().next_back());
    let object = until("an object to damage", SOON, written).await;
    if tables {
        let api = writer.api();
        let flushed = || async { api.status().await.ok().filter(|s| s["flushed_seq"] == 500) };
        until("the flush", SOON, flushed).await;
    }
    // As a crash leaves it: a stop would write more.
    writer.kill();
    (cluster, rows(&all), object)
}

/// A program that starts over damage ends with an error, is not ready and says so, or serves.
enum Start {
    Serves,
    Refuses(String),
}

async fn start(node: &mut Node) -> Start {
    let api = node.api();
    let started = std::time::Instant::now();
    loop {
        assert!(started.elapsed() < SOON, "neither ready nor refusing:\n{}", node.log());
        if !node.daemon().is_running() {
            assert_eq!(node.ended().await.code(), Some(1), "{}", node.log());
            return Start::Refuses(node.log());
        }
        match api.readyz().await {
            Ok((200, _)) => return Start::Serves,
            Ok((_, says)) if looks_damaged(&says.to_string()) => return Start::Refuses(says.to_string()),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn looks_damaged(text: &str) -> bool {
    let text = text.to_lowercase();
    ["damaged", "checksum", "corrupt"].iter().any(|word| text.contains(word))
}

/// Right, or an error that says what it is.
fn judge<T: PartialEq + std::fmt::Debug>(what: &str, answer: Result<T, CallError>, right: &T) -> usize {
    match answer {
        Ok(found) => {
            assert!(found == *right, "{what}: a wrong answer came from a damaged object");
            0
        }
        Err(CallError::Remote(e)) => {
            assert_eq!(e.code, Some(isle_service::ErrorCode::Damaged), "{what}: {e}");
            1
        }
        Err(e) => panic!("{what}: {e}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_table_never_gives_a_wrong_answer() {
    let (cluster, expected, table) = database(true, "table").await;
    let mut noticed = 0;
    for place in 0..PLACES {
        let _flipped = Flipped::at(&table, place);
        let mut reader = cluster.spawn(Role::Reader);
        if let Start::Refuses(_) = start(&mut reader).await {
            noticed += 1;
            continue;
        }
        let reader = reader.api();
        noticed += judge("a scan", reader.scan("").await, &expected);
        for (key, value) in expected.iter().step_by(25) {
            let found = reader.get(key).await.map(|f| f.map(|f| f.value));
            noticed += judge("a get", found, &Some(value.clone()));
        }
    }
    assert!(noticed >= PLACES - 1, "only {noticed} errors for {PLACES} damaged places");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_segment_never_gives_a_wrong_answer() {
    let (cluster, expected, segment) = database(false, "log").await;
    for place in 0..PLACES {
        let _flipped = Flipped::at(&segment, place);
        let mut reader = cluster.spawn(Role::Reader);
        match start(&mut reader).await {
            Start::Refuses(why) => assert!(looks_damaged(&why), "{why}"),
            Start::Serves => assert_eq!(judge("a scan", reader.api().scan("").await, &expected), 1),
        }
        let tailer = cluster.start(Role::Tailer).await;
        let page = tailer.api().changes("from=earliest&limit=1000&wait=0").await;
        let told = page.map(|p| p["changes"].as_array().unwrap().len());
        assert_eq!(judge("a page of changes", told, &expected.len()), 1, "place {place} was not noticed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_checkpoint_is_refused() {
    let (cluster, _expected, _) = database(false, "log").await;
    let compacted = {
        let mut cluster = cluster;
        cluster.set("compactor.fold_edits", "1");
        let output = cluster.run(Role::Compactor, &["--once"]).await;
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        cluster
    };
    let manifest = compacted.objects("manifest");
    let checkpoints: Vec<_> =
        manifest.iter().filter(|p| p.to_string_lossy().contains("checkpoint-")).collect();
    let newest = checkpoints.last().unwrap();
    for place in 0..PLACES {
        let _flipped = Flipped::at(newest, place);
        for role in Role::ALL {
            let mut node = compacted.spawn(role);
            match start(&mut node).await {
                Start::Refuses(why) => assert!(looks_damaged(&why), "{role:?}: {why}"),
                Start::Serves => panic!("{role:?} serves from a damaged checkpoint:\n{}", node.log()),
            }
        }
    }
    compacted.start(Role::Reader).await;
}
