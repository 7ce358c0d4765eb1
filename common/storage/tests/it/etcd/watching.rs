//! Watches over streams that break.

use isle_storage::coordination::commit::{self, Resolved};
use isle_storage::coordination::{Authority, CommitOutcome, Loaded, WatchEvent};
use isle_storage::manifest::Change;
use tokio::time::Instant;

use super::proxy::Proxy;
use super::scene::{PATIENCE, Scene, Watched, commit_snapshot, snapshot_edit};

/// Every edit comes once and in order, whether it was made before the watch began or after.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_delivers_every_edit_once() {
    let (scene, db) = Scene::new().await;
    let start = db.load().await.unwrap().state;
    for n in 0..3 {
        commit_snapshot(&db, &format!("before{n}")).await;
    }
    let other = scene.database().await;
    let mut watched = Watched::from(&other.coordination, &start);
    for n in 0..3 {
        watched.expect_snapshot(&format!("before{n}")).await;
    }
    for n in 0..3 {
        let state = commit_snapshot(&db, &format!("after{n}")).await;
        assert_eq!(watched.expect_snapshot(&format!("after{n}")).await, state);
    }
    watched.until_alive().await;
}

/// A watch begun before a fold sees the edits that were folded away, then the fold, then what comes after.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_before_a_fold_misses_nothing() {
    let (_scene, db) = Scene::new().await;
    let start = db.load().await.unwrap().state;
    for n in 0..4 {
        commit_snapshot(&db, &format!("s{n}")).await;
    }
    let loaded = db.load().await.unwrap();
    let written =
        isle_storage::coordination::checkpoint::write_verified(db.bucket.as_ref(), &db.env, &loaded.manifest)
            .await
            .unwrap();
    assert!(matches!(db.coordination.fold(&loaded.state, &written, 0).await, CommitOutcome::Committed(_)));
    commit_snapshot(&db, "last").await;

    let mut watched = Watched::from(&db.coordination, &start);
    for n in 0..4 {
        watched.expect_snapshot(&format!("s{n}")).await;
    }
    match watched.change().await {
        WatchEvent::Folded(state) => {
            assert_eq!(state.head.checkpoint, written);
            assert_eq!(state.head.version, loaded.manifest.version);
        }
        other => panic!("{other:?}"),
    }
    watched.expect_snapshot("last").await;
}

/// etcd is killed and started again during a watch: it says so, and goes on without gap or repeat.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_survives_a_restart() {
    let (mut scene, db) = Scene::new().await;
    let start = db.load().await.unwrap().state;
    let mut watched = Watched::from(&db.coordination, &start);
    commit_snapshot(&db, "before").await;
    watched.expect_snapshot("before").await;
    scene.etcd.kill();
    watched.until_down().await;
    scene.etcd.run().await;
    let other = scene.database().await;
    for n in 0..3 {
        commit_snapshot(&other, &format!("after{n}")).await;
        watched.expect_snapshot(&format!("after{n}")).await;
    }
}

/// etcd is stopped with its connections open: the watch notices the silence, and goes on once etcd does.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_notices_a_stopped_etcd_and_resumes() {
    let (scene, db) = Scene::new().await;
    let start = db.load().await.unwrap().state;
    let mut watched = Watched::from(&db.coordination, &start);
    watched.until_alive().await;
    scene.etcd.pause();
    watched.until_down().await;
    scene.etcd.resume();
    watched.until_alive().await;
    commit_snapshot(&db, "after").await;
    watched.expect_snapshot("after").await;
}

/// Packets from etcd are dropped without a word: the watch dials anew, and what was missed is delivered.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_behind_a_black_hole_dials_anew() {
    let (scene, db) = Scene::new().await;
    let proxy = Proxy::to(scene.etcd.address()).await;
    let through = scene.database_with(&scene.settings_for(&[proxy.address()])).await;
    let start = through.load().await.unwrap().state;
    let mut watched = Watched::from(&through.coordination, &start);
    watched.until_alive().await;
    proxy.swallow_replies(true);
    commit_snapshot(&db, "missed").await;
    watched.until_down().await;
    proxy.swallow_replies(false);
    watched.expect_snapshot("missed").await;
    commit_snapshot(&db, "next").await;
    watched.expect_snapshot("next").await;
}

/// Connections are cut again and again while edits are made: each comes exactly once.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_over_breaking_connections_has_no_gap_and_no_repeat() {
    let (scene, db) = Scene::new().await;
    let proxy = Proxy::to(scene.etcd.address()).await;
    let through = scene.database_with(&scene.settings_for(&[proxy.address()])).await;
    let start = through.load().await.unwrap().state;
    let mut watched = Watched::from(&through.coordination, &start);
    let commits = tokio::spawn(async move {
        for n in 0..60 {
            commit_snapshot(&db, &format!("s{n}")).await;
            if n % 7 == 3 {
                proxy.cut();
            }
        }
        proxy
    });
    for n in 0..60 {
        watched.expect_snapshot(&format!("s{n}")).await;
    }
    drop(commits.await.unwrap());
}

/// etcd compacts its history while a watcher is away: it is told to load again, and the load gives what it missed.
#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_fallen_behind_a_compaction_is_reset() {
    let (scene, db) = Scene::new().await;
    let start = db.load().await.unwrap().state;
    for n in 0..5 {
        commit_snapshot(&db, &format!("s{n}")).await;
    }
    scene.etcd.ctl(&["compact", &scene.etcd.revision().to_string()]);
    let late = scene.database().await;
    let mut watched = Watched::from(&late.coordination, &start);
    let why = watched.expect_reset().await;
    assert!(why.contains("compacted"), "{why}");
    let again = late.load().await.unwrap();
    assert_eq!(again.manifest, db.load().await.unwrap().manifest);
    let mut watched = Watched::from(&late.coordination, &again.state);
    commit_snapshot(&db, "next").await;
    watched.expect_snapshot("next").await;
}

/// A consumer that does not listen while megabytes of edits are made and compacted away gets them in order, as far as
/// they come, and is then told to load again: never a hole.
#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_under_a_slow_watcher_leaves_no_hole() {
    const EDITS: u64 = 200;
    let (scene, db) = Scene::new().await;
    let start = db.load().await.unwrap().state;
    let other = scene.database().await;
    let mut watched = Watched::from(&other.coordination, &start);
    watched.until_alive().await;
    let padding = "x".repeat(30 << 10);
    let mut now = db.load().await.unwrap();
    for n in 0..EDITS {
        // Each snapshot replaces the one before, so that the manifest stays small and only the edits are large.
        let change = Change::DropSnapshot { name: format!("{}-{padding}", n.saturating_sub(1)) };
        let mut edit = snapshot_edit(&db, &now.manifest, &format!("{n}-{padding}"), &Authority::Observer);
        if n > 0 {
            edit.changes.push(change);
        }
        let proposal = commit::propose(&now.state, &now.manifest, edit, &Authority::Observer).unwrap();
        let state = match commit::commit(&db, &proposal, Instant::now() + PATIENCE).await {
            Resolved::Committed(state) => state,
            other => panic!("{other:?}"),
        };
        now = Loaded { state, manifest: proposal.manifest, as_of: now.as_of };
    }
    scene.etcd.ctl(&["compact", &scene.etcd.revision().to_string()]);
    let mut version = start.head.version;
    while version < now.manifest.version {
        match watched.change().await {
            WatchEvent::Edit { state, .. } => {
                version = version.next();
                assert_eq!(state.head.version, version);
            }
            WatchEvent::Reset(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(other.load().await.unwrap().manifest, now.manifest);
}

/// Nothing happens to the head for long while etcd's revision grows and its history is compacted: a stream that breaks
/// then resumes from what it knows to be quiet, and needs no fresh load.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_watch_survives_compaction_and_a_broken_stream() {
    let (scene, db) = Scene::new().await;
    let proxy = Proxy::to(scene.etcd.address()).await;
    let through = scene.database_with(&scene.settings_for(&[proxy.address()])).await;
    let start = through.load().await.unwrap().state;
    let mut watched = Watched::from(&through.coordination, &start);
    for n in 0..20 {
        scene.etcd.ctl(&["put", "/elsewhere", &n.to_string()]);
    }
    let compacted = scene.etcd.revision();
    watched.until_fresh_since(Instant::now()).await;
    scene.etcd.ctl(&["compact", &compacted.to_string()]);
    proxy.cut();
    watched.until_down().await;
    commit_snapshot(&db, "next").await;
    watched.expect_snapshot("next").await;
}

/// Somebody deletes the database's keys: the watch does not wait for ever, it asks for a load, which says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_head_resets_the_watch() {
    let (scene, db) = Scene::new().await;
    let start = db.load().await.unwrap().state;
    let mut watched = Watched::from(&db.coordination, &start);
    watched.until_alive().await;
    scene.etcd.ctl(&["del", "--prefix", "/isle/default/"]);
    watched.expect_reset().await;
    assert!(!db.coordination.exists().await.unwrap());
}

/// A consumer that does not listen for longer than every bound still gets each edit once.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_consumer_loses_nothing() {
    let (_scene, db) = Scene::new().await;
    let start = db.load().await.unwrap().state;
    let mut watched = Watched::from(&db.coordination, &start);
    watched.until_alive().await;
    for n in 0..150 {
        commit_snapshot(&db, &format!("s{n}")).await;
    }
    for n in 0..150 {
        match watched.news().await {
            WatchEvent::Edit { state, .. } => assert_eq!(state.head.version.0, start.head.version.0 + n + 1),
            other => panic!("{other:?}"),
        }
    }
}
