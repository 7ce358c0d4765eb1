//! A cluster of three members, one of which dies or stops.

use std::time::Duration;

use isle_storage::coordination::commit::{self, Resolved};
use isle_storage::coordination::{Loaded, NodeInfo};
use isle_storage::database::Database;
use isle_storage::ids::Incarnation;
use isle_storage::object::MemoryBucket;
use tokio::time::Instant;

use super::scene::{PATIENCE, Scene, Watched, propose, take_over};
use super::server::EtcdServer;

/// Commits of each test; the leader is taken out in the middle.
const COMMITS: u64 = 40;

async fn cluster() -> (Scene, Vec<EtcdServer>, Database) {
    let [one, two, three] = EtcdServer::start_three().await;
    let addresses = [one.address(), two.address(), three.address()];
    let env = isle_storage::environment::Environment::system("test", "default");
    let bucket = std::sync::Arc::new(MemoryBucket::new(std::sync::Arc::clone(&env.clock)));
    let scene = Scene { etcd: one, bucket, env };
    let mut settings = scene.settings_for(&addresses);
    settings.lease_ttl = Duration::from_secs(10);
    let db = scene.database_with(&settings).await;
    (scene, vec![two, three], db)
}

fn leader<'a>(scene: &'a mut Scene, others: &'a mut [EtcdServer]) -> &'a mut EtcdServer {
    std::iter::once(&mut scene.etcd).chain(others).find(|m| m.leads()).expect("a leader")
}

/// Commits as a writer does, resolving what is unknown; `n` names the edit.
async fn commit_as_writer(
    db: &Database,
    on: Loaded,
    authority: &isle_storage::coordination::Authority,
    n: u64,
) -> Loaded {
    let proposal = propose(db, &on, &format!("s{n}"), authority);
    match commit::commit(db, &proposal, Instant::now() + PATIENCE).await {
        Resolved::Committed(state) => Loaded { state, manifest: proposal.manifest, as_of: on.as_of },
        Resolved::CommittedEarlier(now) => now,
        other => panic!("commit {n}: {other:?}"),
    }
}

/// The leader is killed while a writer commits: no commit is lost or doubled, and a watch sees each one.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_costs_time_and_no_commit() {
    let (mut scene, mut others, db) = cluster().await;
    let (claim, mut now) = take_over(&db, "w").await;
    let mut watched = Watched::from(&db.coordination, &now.state);
    for n in 0..COMMITS {
        if n == COMMITS / 2 {
            leader(&mut scene, &mut others).kill();
        }
        now = commit_as_writer(&db, now, &claim.authority, n).await;
    }
    for n in 0..COMMITS {
        watched.expect_snapshot(&format!("s{n}")).await;
    }
    assert_eq!(db.load().await.unwrap().manifest.snapshots.len() as u64, COMMITS);
}

/// The leader is stopped with its connections open, and comes back: calls find another member, no commit is lost or
/// doubled, and the lease either lives or its loss is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_leader_costs_time_and_no_commit() {
    let (mut scene, mut others, db) = cluster().await;
    let (claim, mut now) = take_over(&db, "w").await;
    let mut watched = Watched::from(&db.coordination, &now.state);
    for n in 0..COMMITS {
        if n == COMMITS / 2 {
            leader(&mut scene, &mut others).pause();
        }
        now = commit_as_writer(&db, now, &claim.authority, n).await;
    }
    for member in std::iter::once(&scene.etcd).chain(&others) {
        member.resume();
    }
    for n in 0..COMMITS {
        watched.expect_snapshot(&format!("s{n}")).await;
    }
    assert_eq!(db.load().await.unwrap().manifest.snapshots.len() as u64, COMMITS);
    if db.coordination.leader().await.unwrap().is_none() {
        claim.lease.lost().await;
        let node = NodeInfo { node: "w2".to_owned(), advertise: String::new() };
        db.coordination.claim_writer(&node, Incarnation(2)).await.unwrap();
    }
}
