//! The writer's role: leases kept, lost and given back.

use std::time::Duration;

use isle_storage::coordination::{ClaimAttempt, CommitOutcome, Coordination};
use isle_storage::ids::Incarnation;
use tokio::time::{Instant, sleep_until, timeout};

use super::proxy::Proxy;
use super::scene::{PATIENCE, Scene, claim_writer, node, propose, take_over};

/// Of many claimers one wins, and the others are told who.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_claimers_wins() {
    let (scene, _db) = Scene::new().await;
    let mut attempts = tokio::task::JoinSet::new();
    for n in 0..8 {
        let coordination = scene.connect().await;
        attempts.spawn(async move {
            let name = format!("n{n}");
            (name.clone(), coordination.claim_writer(&node(&name), Incarnation(n)).await.unwrap())
        });
    }
    let attempts = attempts.join_all().await;
    let winners: Vec<_> = attempts.iter().filter(|(_, a)| matches!(a, ClaimAttempt::Won(_))).collect();
    assert_eq!(winners.len(), 1);
    let leader = scene.connect().await.leader().await.unwrap().unwrap();
    assert_eq!(leader.node, node(&winners[0].0));
    for (_, attempt) in &attempts {
        if let ClaimAttempt::HeldBy(Some(who)) = attempt {
            assert_eq!(*who, leader);
        }
    }
}

/// A lease outlives its time to live many times over while it is kept alive, and always says until when it lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_kept_alive() {
    let (_scene, db) = Scene::new().await;
    let claim = claim_writer(&db, "w").await;
    let first = claim.lease.valid_until().unwrap();
    assert!(first > Instant::now());
    sleep_until(first + Duration::from_secs(2)).await;
    assert!(claim.lease.valid_until().unwrap() > Instant::now());
    assert!(timeout(Duration::ZERO, claim.lease.lost()).await.is_err());
    assert!(db.coordination.leader().await.unwrap().is_some());
}

/// A lease given back frees the role at once; each claim has the next epoch.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_given_back_frees_the_role_at_once() {
    let (scene, db) = Scene::new().await;
    let standby = scene.connect().await;
    let mut last = 0;
    for n in 0..3 {
        let claim = claim_writer(&db, &format!("n{n}")).await;
        assert_eq!(claim.epoch.0, last + 1);
        last = claim.epoch.0;
        let woken = {
            let standby = standby.clone();
            tokio::spawn(async move { standby.vacancy(PATIENCE).await })
        };
        let begun = Instant::now();
        claim.lease.give_back().await;
        woken.await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        assert_eq!(standby.leader().await.unwrap(), None);
        claim.lease.lost().await;
    }
}

/// A vacancy is not waited for longer than asked, and a vacant role not at all.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_vacancy_is_bounded() {
    let (mut scene, db) = Scene::new().await;
    timeout(Duration::from_secs(1), db.coordination.vacancy(PATIENCE)).await.expect("nobody has the role");
    let _claim = claim_writer(&db, "w").await;
    timeout(Duration::from_secs(1), db.coordination.vacancy(Duration::from_millis(200)))
        .await
        .expect("bounded");
    scene.etcd.kill();
    timeout(Duration::from_secs(4), db.coordination.vacancy(Duration::from_millis(200)))
        .await
        .expect("bounded");
}

/// etcd goes away for longer than the lease: its holder knows before etcd could have given the role away, and what it
/// commits afterwards is fenced once another has the role.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_cannot_be_renewed_is_lost_in_time() {
    let (mut scene, db) = Scene::new().await;
    let (claim, adopted) = take_over(&db, "w").await;
    let late = propose(&db, &adopted, "late", &claim.authority);
    scene.etcd.kill();
    let until = claim.lease.valid_until().unwrap();
    let why = timeout(PATIENCE, claim.lease.lost()).await.expect("the loss is noticed");
    assert!(why.contains("not renewed"), "{why}");
    assert!(until.elapsed() < Duration::from_secs(1), "noticed {:?} after the end", until.elapsed());
    scene.etcd.run().await;

    let other = scene.database().await;
    // etcd restarts the count of every lease when it starts.
    let claim = loop {
        other.coordination.vacancy(PATIENCE).await;
        match other.coordination.claim_writer(&node("next"), Incarnation(2)).await.unwrap() {
            ClaimAttempt::Won(claim) => break claim,
            ClaimAttempt::HeldBy(_) => {}
        }
    };
    assert!(matches!(db.coordination.commit(&late).await, CommitOutcome::Fenced(_)));
    drop(claim);
}

/// The network swallows the answers to keep-alives: the holder stops before etcd gives the role away, not after.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_behind_a_black_hole_stops_before_a_successor_starts() {
    let (scene, db) = Scene::new().await;
    let proxy = Proxy::to(scene.etcd.address()).await;
    let through = scene.database_with(&scene.settings_for(&[proxy.address()])).await;
    let claim = claim_writer(&through, "cut off").await;
    proxy.swallow_replies(true);
    let lost = {
        let lease = claim.lease.clone();
        tokio::spawn(async move {
            lease.lost().await;
            Instant::now()
        })
    };
    // Requests still arrive, so the first stream keeps the lease until its client gives it up.
    let free = loop {
        db.coordination.vacancy(PATIENCE).await;
        if db.coordination.leader().await.unwrap().is_none() {
            break Instant::now();
        }
    };
    assert!(lost.await.unwrap() <= free, "two processes believed to be the writer");
}

/// A short interruption costs a renewal, not the lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_survives_a_short_interruption() {
    let (scene, _db) = Scene::new().await;
    let proxy = Proxy::to(scene.etcd.address()).await;
    let mut settings = scene.settings_for(&[proxy.address()]);
    settings.lease_ttl = Duration::from_secs(5);
    let through = scene.database_with(&settings).await;
    let claim = claim_writer(&through, "w").await;
    for _ in 0..3 {
        proxy.cut();
        let before = claim.lease.valid_until().unwrap();
        timeout(PATIENCE, async {
            while claim.lease.valid_until().unwrap() <= before {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("it is renewed");
    }
    assert!(timeout(Duration::ZERO, claim.lease.lost()).await.is_err());
}

/// The answer to a claim is lost: the claimer finds out whether it has the role, and two never have it.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_is_lost_blocks_nobody() {
    let (scene, db) = Scene::new().await;
    let proxy = Proxy::to(scene.etcd.address()).await;
    let through = scene.connect_with(&scene.settings_for(&[proxy.address()])).await.unwrap();
    let claiming = {
        let through = through.clone();
        tokio::spawn(async move { through.claim_writer(&node("a"), Incarnation(1)).await })
    };
    proxy.swallow_replies(true);
    let outcome = claiming.await.unwrap();
    proxy.swallow_replies(false);
    // Whether the proxy was faster or not, the role is free in the end, and the next epoch is higher.
    drop(outcome);
    let claim = timeout(PATIENCE, async {
        loop {
            db.coordination.vacancy(PATIENCE).await;
            match db.coordination.claim_writer(&node("b"), Incarnation(2)).await.unwrap() {
                ClaimAttempt::Won(claim) => break claim,
                ClaimAttempt::HeldBy(_) => {}
            }
        }
    })
    .await
    .expect("the role becomes free");
    assert!(claim.epoch.0 >= 1);
}
