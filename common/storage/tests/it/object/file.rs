//! Files between processes, and a directory that disappears.

use std::process::{Command, Stdio};
use std::sync::Arc;

use futures::TryStreamExt;
use isle_storage::object::{Bucket, FileBucket, StoreErrorKind};

use super::{body, environment, path};

/// Names raced for by the processes.
const ROUNDS: usize = 200;
/// Where the racing child finds its directory.
const DIRECTORY: &str = "ISLE_TEST_RACE_DIRECTORY";
/// What the racing child calls itself.
const RACER: &str = "ISLE_TEST_RACE_RACER";

/// Emulated compare-and-swap on a local directory that is not atomic between processes: real processes, one winner.
#[test]
fn two_processes_racing_to_create_have_one_winner_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let racers: Vec<_> = ["a", "b"]
        .map(|racer| {
            Command::new(&program)
                .args(["--exact", "object::file::racing_child", "--nocapture"])
                .env(DIRECTORY, dir.path())
                .env(RACER, racer)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .into_iter()
        .map(|child| child.wait_with_output().unwrap())
        .collect();
    let wins: Vec<Vec<usize>> = racers
        .iter()
        .map(|output| {
            assert!(output.status.success());
            let text = String::from_utf8_lossy(&output.stdout);
            text.lines().filter_map(|line| line.split("won ").nth(1)?.trim().parse().ok()).collect()
        })
        .collect();
    let mut all = wins.concat();
    all.sort_unstable();
    assert_eq!(all, (0..ROUNDS).collect::<Vec<_>>(), "every name has exactly one winner");
    for (racer, wins) in ["a", "b"].iter().zip(wins) {
        for n in wins {
            let there = std::fs::read_to_string(dir.path().join(format!("manifest/edit-{n}"))).unwrap();
            assert_eq!(there, *racer, "the winner's bytes are there");
        }
    }
}

/// The child of the race; without its directory it is a test that has nothing to do.
#[tokio::test]
async fn racing_child() {
    let (Some(dir), Ok(racer)) = (std::env::var_os(DIRECTORY), std::env::var(RACER)) else { return };
    let bucket = FileBucket::open(dir.as_ref(), &environment()).unwrap();
    rendezvous(&bucket, &racer).await;
    for n in 0..ROUNDS {
        match bucket.create(&path(&format!("manifest/edit-{n}")), racer.clone().into_bytes().into()).await {
            Ok(()) => println!("won {n}"),
            Err(e) => assert_eq!(e.kind, StoreErrorKind::AlreadyExists, "{e}"),
        }
    }
}

/// Waits until both racers are there.
async fn rendezvous(bucket: &FileBucket, racer: &str) {
    bucket.put(&path(&format!("ready/{racer}")), body("")).await.unwrap();
    let ready = async {
        while bucket.list("ready").try_collect::<Vec<_>>().await.unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), ready).await.unwrap();
}

/// A bucket gone for a minute: not "no such object", not an empty database made anew, and everything back after.
#[tokio::test]
async fn a_directory_that_is_gone_is_a_passing_failure_and_is_never_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (root, away) = (dir.path().join("db"), dir.path().join("away"));
    let bucket: Arc<dyn Bucket> = Arc::new(FileBucket::open(&root, &environment()).unwrap());
    bucket.put(&path("log/x"), body("1")).await.unwrap();
    std::fs::rename(&root, &away).unwrap();
    let told = [
        bucket.get(&path("log/x")).await.map(drop),
        bucket.head(&path("log/x")).await.map(drop),
        bucket.put(&path("log/y"), body("2")).await,
        bucket.create(&path("other/y"), body("2")).await,
        bucket.list("log").try_collect::<Vec<_>>().await.map(drop),
        bucket.delete(&path("log/x")).await,
    ];
    for result in told {
        let error = result.unwrap_err();
        assert!(error.is_transient() && error.message.contains("is gone"), "{error}");
    }
    assert!(!root.exists());
    std::fs::rename(&away, &root).unwrap();
    assert_eq!(bucket.get(&path("log/x")).await.unwrap(), "1");
    bucket.put(&path("log/y"), body("2")).await.unwrap();
}

#[tokio::test]
async fn staging_is_no_place_for_objects_and_no_part_of_a_listing() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = FileBucket::open(dir.path(), &environment()).unwrap();
    bucket.put(&path("x"), body("1")).await.unwrap();
    std::fs::write(dir.path().join(".isle-staging/torn"), "half").unwrap();
    let all: Vec<_> = bucket.list("").try_collect().await.unwrap();
    assert_eq!(all.iter().map(|m| m.path.as_str()).collect::<Vec<_>>(), ["x"]);
    let refused = bucket.put(&path(".isle-staging/torn"), body("1")).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Permanent);
}

#[tokio::test]
async fn a_folder_is_no_object() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = FileBucket::open(dir.path(), &environment()).unwrap();
    bucket.put(&path("table/3f/x"), body("1")).await.unwrap();
    let folder = path("table/3f");
    assert!(bucket.get(&folder).await.unwrap_err().is_not_found());
    assert!(bucket.get_range(&folder, 0..1).await.unwrap_err().is_not_found());
    assert!(bucket.head(&folder).await.unwrap_err().is_not_found());
    bucket.delete(&folder).await.unwrap();
    assert_eq!(bucket.get(&path("table/3f/x")).await.unwrap(), "1");
}
