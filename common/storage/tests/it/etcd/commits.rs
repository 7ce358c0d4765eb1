//! Commits, folds and loads.

use std::sync::Arc;

use isle_storage::coordination::commit::{self, Resolved};
use isle_storage::coordination::fold;
use isle_storage::coordination::{Authority, CommitOutcome, Coordination, CoordinationError, JobAttempt};
use isle_storage::ids::{JobId, Version};
use tokio::time::Instant;

use super::proxy::Proxy;
use super::scene::{PATIENCE, Scene, Watched, claim_writer, commit_snapshot, node, propose, take_over};

/// Three loads by three connections see the same manifest after a row of commits.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_is_loaded_by_everybody() {
    let (scene, db) = Scene::new().await;
    for n in 0..5 {
        commit_snapshot(&db, &format!("s{n}")).await;
    }
    let here = db.load().await.unwrap();
    let there = scene.database().await.load().await.unwrap();
    assert_eq!(here.manifest, there.manifest);
    assert_eq!(here.manifest.snapshots.len(), 5);
    assert_eq!(here.state.raw, there.state.raw);
}

/// Of two commits on one head one wins, and the other is told that the head has moved.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_commits_on_the_same_head_wins() {
    let (scene, db) = Scene::new().await;
    let other = scene.database().await;
    let loaded = db.load().await.unwrap();
    let (one, two) = (
        propose(&db, &loaded, "one", &Authority::Observer),
        propose(&db, &loaded, "two", &Authority::Observer),
    );
    let (a, b) = tokio::join!(db.coordination.commit(&one), other.coordination.commit(&two));
    match (&a, &b) {
        (CommitOutcome::Committed(_), CommitOutcome::Moved)
        | (CommitOutcome::Moved, CommitOutcome::Committed(_)) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(db.load().await.unwrap().manifest.snapshots.len(), 1);
}

/// The reply of a commit is lost, the commit is not: the identical transaction finds its own head there.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_is_lost_is_committed_once() {
    let (scene, db) = Scene::new().await;
    let proxy = Proxy::to(scene.etcd.address()).await;
    let through = scene.database_with(&scene.settings_for(&[proxy.address()])).await;
    let loaded = through.load().await.unwrap();
    let proposal = propose(&db, &loaded, "once", &Authority::Observer);

    proxy.swallow_replies(true);
    assert!(matches!(through.coordination.commit(&proposal).await, CommitOutcome::Unknown(_)));
    assert!(proxy.swallowed() > 0, "the proxy has swallowed nothing");
    assert_eq!(db.load().await.unwrap().manifest.version, proposal.edit.version, "it was applied");
    proxy.swallow_replies(false);

    match through.coordination.commit(&proposal).await {
        CommitOutcome::Committed(state) => {
            assert_eq!(state.head, proposal.head);
            // The position is that of the first copy: a watch from here delivers what comes next.
            let next = commit_snapshot(&db, "next").await;
            let mut watched = Watched::from(&through.coordination, &state);
            assert_eq!(watched.expect_snapshot("next").await.revision, next.revision);
        }
        other => panic!("{other:?}"),
    }
}

/// The reply is lost and others commit on top: no failure is reported, and nothing is committed twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_is_lost_is_found_beneath_its_successors() {
    let (scene, db) = Scene::new().await;
    for successors in [1, 3] {
        let proxy = Proxy::to(scene.etcd.address()).await;
        let through = scene.database_with(&scene.settings_for(&[proxy.address()])).await;
        let loaded = through.load().await.unwrap();
        let proposal = propose(&db, &loaded, &format!("lost{successors}"), &Authority::Observer);
        proxy.swallow_replies(true);
        assert!(matches!(through.coordination.commit(&proposal).await, CommitOutcome::Unknown(_)));
        for n in 0..successors {
            commit_snapshot(&db, &format!("after{successors}-{n}")).await;
        }
        proxy.swallow_replies(false);
        assert!(matches!(through.coordination.commit(&proposal).await, CommitOutcome::Moved));
        let deadline = Instant::now() + PATIENCE;
        match commit::commit(&through, &proposal, deadline).await {
            Resolved::CommittedEarlier(now) => {
                assert_eq!(now.manifest.version.0, proposal.edit.version.0 + successors);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The request is lost with its connection; it never applies by itself, and a repeated attempt commits it.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_arrived_is_committed_by_its_repetition() {
    let (mut scene, db) = Scene::new().await;
    let loaded = db.load().await.unwrap();
    let proposal = propose(&db, &loaded, "later", &Authority::Observer);
    scene.etcd.kill();
    assert!(matches!(db.coordination.commit(&proposal).await, CommitOutcome::Unknown(_)));
    let resolved = {
        let (db, proposal) = (db.clone(), proposal.clone());
        tokio::spawn(async move { commit::commit(&db, &proposal, Instant::now() + PATIENCE).await })
    };
    scene.etcd.run().await;
    assert!(matches!(resolved.await.unwrap(), Resolved::Committed(_) | Resolved::CommittedEarlier(_)));
    assert_eq!(db.load().await.unwrap().manifest.version, proposal.edit.version);
}

/// A writer whose epoch is over is fenced by the transaction itself, whatever it believes about its lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_writer_is_fenced() {
    let (scene, db) = Scene::new().await;
    let (old, adopted) = take_over(&db, "old").await;
    let late = propose(&db, &adopted, "late", &old.authority);
    old.lease.give_back().await;
    match db.coordination.commit(&late).await {
        CommitOutcome::Fenced(why) => assert!(why.contains("lease"), "{why}"),
        other => panic!("{other:?}"),
    }
    let other = scene.database().await;
    let (new, _) = take_over(&other, "new").await;
    assert!(new.epoch > old.epoch);
    match db.coordination.commit(&late).await {
        CommitOutcome::Fenced(why) => assert!(why.contains("epoch"), "{why}"),
        other => panic!("{other:?}"),
    }
    let loaded = other.load().await.unwrap();
    assert!(!loaded.manifest.snapshots.contains_key("late"));
    let fresh = propose(&other, &loaded, "fresh", &new.authority);
    assert!(matches!(other.coordination.commit(&fresh).await, CommitOutcome::Committed(_)));
}

/// Each of a writer's comparisons stops a commit by itself: the lease key, the epoch, the head.
#[tokio::test(flavor = "multi_thread")]
async fn each_comparison_stops_a_commit_by_itself() {
    let (scene, db) = Scene::new().await;
    let (claim, adopted) = take_over(&db, "w").await;
    let proposal = propose(&db, &adopted, "s", &claim.authority);
    let get = |key: &str| scene.etcd.ctl(&["get", "--print-value-only", key]).trim_end().to_owned();
    let (epoch, head) = (get("/isle/default/epoch"), get("/isle/default/head"));

    scene.etcd.ctl(&["put", "/isle/default/epoch", &format!("{epoch}0")]);
    assert!(matches!(db.coordination.commit(&proposal).await, CommitOutcome::Fenced(_)));
    scene.etcd.ctl(&["put", "/isle/default/epoch", &epoch]);

    scene.etcd.ctl(&["put", "/isle/default/head", &head.replace("\"version\":2", "\"version\":3")]);
    assert!(matches!(db.coordination.commit(&proposal).await, CommitOutcome::Moved));
    scene.etcd.ctl(&["put", "/isle/default/head", &head]);

    let holder = get("/isle/default/writer");
    scene.etcd.ctl(&["del", "/isle/default/writer"]);
    assert!(matches!(db.coordination.commit(&proposal).await, CommitOutcome::Fenced(_)));
    scene.etcd.ctl(&["put", "/isle/default/writer", &holder]);
    assert!(matches!(db.coordination.commit(&proposal).await, CommitOutcome::Fenced(_)), "created anew");
}

/// A job commits while its claim stands, and not after; a second claimer is told who has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_commits_only_under_its_claim() {
    let (_scene, db) = Scene::new().await;
    let job = JobId(7);
    let JobAttempt::Won(authority, lease) = db.coordination.claim_job(job, &node("a")).await.unwrap() else {
        panic!("the job is free");
    };
    assert!(db.coordination.job_is_claimed(job).await.unwrap());
    match db.coordination.claim_job(job, &node("b")).await.unwrap() {
        JobAttempt::HeldBy(who) => assert_eq!(who, "a"),
        JobAttempt::Won(..) => panic!("the job is claimed twice"),
    }
    let loaded = db.load().await.unwrap();
    let proposal = propose(&db, &loaded, "merged", &authority);
    assert!(matches!(db.coordination.commit(&proposal).await, CommitOutcome::Committed(_)));
    lease.give_back().await;
    assert!(!db.coordination.job_is_claimed(job).await.unwrap());
    let loaded = db.load().await.unwrap();
    let late = propose(&db, &loaded, "late", &authority);
    assert!(matches!(db.coordination.commit(&late).await, CommitOutcome::Fenced(_)));
}

/// Between a claim and its adoption an observer is told to reload, and commits after the adoption.
#[tokio::test(flavor = "multi_thread")]
async fn an_observer_waits_for_a_claimed_epoch_to_be_adopted() {
    let (_scene, db) = Scene::new().await;
    let loaded = db.load().await.unwrap();
    let claim = claim_writer(&db, "w").await;
    let early = propose(&db, &loaded, "early", &Authority::Observer);
    assert!(matches!(db.coordination.commit(&early).await, CommitOutcome::Moved));
    isle_storage::coordination::claim::take_over(&db, &claim, "w").await.unwrap();
    commit_snapshot(&db, "after").await;
    assert!(!db.load().await.unwrap().manifest.snapshots.contains_key("early"));
}

/// An edit of more than 32 KiB lies in the bucket; loaders and watchers see no difference.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_edit_goes_through_an_object() {
    let (scene, db) = Scene::new().await;
    let before = db.load().await.unwrap().state;
    let name = "x".repeat(40 << 10);
    let state = commit_snapshot(&db, &name).await;
    let stored = scene.etcd.ctl(&[
        "get",
        "--print-value-only",
        &format!("/isle/default/edits/{:020}", state.head.version.0),
    ]);
    assert!(stored.len() < 300 && stored.contains("manifest/bigedit-"), "{stored}");
    let mut watched = Watched::from(&db.coordination, &before);
    assert_eq!(watched.expect_snapshot(&name).await, state);
    assert!(scene.database().await.load().await.unwrap().manifest.snapshots.contains_key(&name));
}

/// A fold keeps the version, lets go of what it covers but the newest few, and a load after it gives the same manifest.
#[tokio::test(flavor = "multi_thread")]
async fn a_fold_changes_nothing_but_where_a_load_begins() {
    let (scene, db) = Scene::new().await;
    for n in 0..10 {
        commit_snapshot(&db, &format!("s{n}")).await;
    }
    let before = db.load().await.unwrap();
    let written =
        isle_storage::coordination::checkpoint::write_verified(db.bucket.as_ref(), &db.env, &before.manifest)
            .await
            .unwrap();
    let folded = match db.coordination.fold(&before.state, &written, 3).await {
        CommitOutcome::Committed(state) => state,
        other => panic!("{other:?}"),
    };
    assert_eq!(folded.head.version, before.state.head.version);
    match db.coordination.fold(&before.state, &written, 3).await {
        CommitOutcome::Committed(again) => assert_eq!(again, folded, "a repeated fold finds itself applied"),
        other => panic!("{other:?}"),
    }
    let kept = scene.etcd.ctl(&["get", "--prefix", "--keys-only", "/isle/default/edits/"]);
    assert_eq!(kept.lines().filter(|l| !l.is_empty()).count(), 3, "{kept}");

    let after = scene.database().await.load().await.unwrap();
    assert_eq!(after.manifest, before.manifest);
    assert_eq!(after.state.head.checkpoint, written);
    let stale = propose(&db, &before, "stale", &Authority::Observer);
    assert!(matches!(db.coordination.commit(&stale).await, CommitOutcome::Moved));
    commit_snapshot(&db, "next").await;
    assert_eq!(db.load().await.unwrap().manifest.version, before.manifest.version.next());
}

/// A hole in the edits, and a checkpoint that is missing or damaged, are errors and never an older or empty manifest.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_damage_and_not_emptiness() {
    let (scene, db) = Scene::new().await;
    for n in 0..3 {
        commit_snapshot(&db, &format!("s{n}")).await;
    }
    let loaded = db.load().await.unwrap();
    let fresh = scene.database().await;
    scene.etcd.ctl(&["del", &format!("/isle/default/edits/{:020}", loaded.manifest.version.0 - 1)]);
    assert!(matches!(fresh.coordination.load().await, Err(CoordinationError::Damaged(_))));

    let (scene, _db) = Scene::new().await;
    let fresh = scene.connect().await;
    let checkpoint = scene.database().await.load().await.unwrap().state.head.checkpoint;
    let good = scene.bucket.get(&checkpoint.path).await.unwrap();
    scene.bucket.delete(&checkpoint.path).await.unwrap();
    assert!(matches!(fresh.load().await, Err(CoordinationError::Damaged(_))));
    let mut bad = good.to_vec();
    bad[20] ^= 1;
    scene.bucket.put(&checkpoint.path, bad.into()).await.unwrap();
    assert!(matches!(fresh.load().await, Err(CoordinationError::Damaged(_))));
    scene.bucket.put(&checkpoint.path, good.into()).await.unwrap();
    fresh.load().await.unwrap();
}

/// The shared fold over the etcd form, and commits going on meanwhile: every load sees every committed edit.
#[tokio::test(flavor = "multi_thread")]
async fn folds_and_commits_and_loads_do_not_disturb_each_other() {
    let (scene, db) = Scene::new().await;
    let folding = {
        let db = scene.database().await;
        tokio::spawn(async move {
            for _ in 0..10 {
                let loaded = db.load().await.unwrap();
                fold::fold(&db, &loaded).await.unwrap();
            }
        })
    };
    let loading = {
        let db = scene.database().await;
        tokio::spawn(async move {
            let mut last = Version::ZERO;
            for _ in 0..30 {
                let loaded = db.load().await.unwrap();
                assert!(loaded.manifest.version >= last);
                assert_eq!(loaded.manifest.snapshots.len() as u64, loaded.manifest.version.0 - 1);
                last = loaded.manifest.version;
            }
        })
    };
    let mut committed = 0;
    while committed < 40 {
        let loaded = db.load().await.unwrap();
        let proposal = propose(&db, &loaded, &format!("s{committed}"), &Authority::Observer);
        if matches!(db.coordination.commit(&proposal).await, CommitOutcome::Committed(_)) {
            committed += 1;
        }
    }
    folding.await.unwrap();
    loading.await.unwrap();
    assert_eq!(db.load().await.unwrap().manifest.snapshots.len(), 40);
    let _: Arc<dyn Coordination> = db.coordination;
}
