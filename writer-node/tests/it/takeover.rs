//! Two writers: standing by, taking over, and what the fenced one may still say.

use std::time::Duration;

use isle_storage::ids::{Epoch, SeqNo};
use isle_testkit::fault::{Op, Rule};
use isle_testkit::scribe::{Entry, Scribe};
use writer_node::{Options, Role, WriteError};

use crate::world::{BUCKET, World, small, until, until_role};

/// The second stands by, knows who leads, is ready, and refuses with the leader's address.
#[tokio::test(start_paused = true)]
async fn a_standby_is_ready_and_names_the_leader() {
    let world = World::new();
    let first = world.leader(small()).await;
    let second = world.contender("w2", small()).await;
    until_role(&second, Role::Standby).await;
    assert!(second.health().ready);
    match second.put(b"k", b"v", None, BUCKET).await {
        Err(WriteError::NotLeader { leader: Some(leader), .. }) => {
            assert_eq!((leader.node.advertise.as_str(), leader.epoch), ("http://w1", Epoch(1)));
        }
        other => panic!("{other:?}"),
    }
    first.close(Duration::from_secs(5)).await;
    assert_eq!(second.leading().await, Some(Epoch(2)));
    assert_eq!(second.put(b"k", b"v", None, BUCKET).await.unwrap().epoch, Epoch(2));
}

/// The lease is lost while writes run: the second takes over, the first acknowledges nothing more under its epoch,
/// and the log has neither gap nor repeat, and everything that was acknowledged.
#[tokio::test(start_paused = true)]
async fn a_takeover_under_load_loses_and_repeats_nothing() {
    let world = World::new();
    let first = world.leader(small()).await;
    let second = world.contender("w2", small()).await;
    let load = |writer: writer_node::Writer, tag: u8| async move {
        let mut acknowledged = Vec::new();
        for i in 0..300u32 {
            let key = [&[tag][..], &i.to_be_bytes()].concat();
            match writer.put(&key, b"v", None, BUCKET).await {
                Ok(position) => acknowledged.push((position, key)),
                Err(WriteError::NotLeader { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(e) => panic!("{e}"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        acknowledged
    };
    let (a, b) = (tokio::spawn(load(first.clone(), 1)), tokio::spawn(load(second.clone(), 2)));
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.coordination.expire_writer();
    }
    let (mut acknowledged, more) = (a.await.unwrap(), b.await.unwrap());
    acknowledged.extend(more);
    assert!(acknowledged.len() > 100, "{} acknowledged", acknowledged.len());
    let log = world.log().await;
    for (position, key) in &acknowledged {
        assert_eq!(log[position.seq.0 as usize - 1].key, key.as_slice(), "{position} was acknowledged");
    }
    let manifest = world.head().await.manifest;
    for (position, _) in &acknowledged {
        let state = isle_storage::manifest::judge::position(&manifest, *position);
        assert_eq!(state, isle_storage::manifest::judge::PositionState::Here, "{position}");
    }
    assert!(manifest.epoch >= Epoch(5));
}

/// A writer that lost its lease without hearing of it finds out at the commit, acknowledges nothing, and stands by.
#[tokio::test(start_paused = true)]
async fn a_stale_writer_is_fenced_at_the_commit() {
    let world = World::new();
    let first = world.leader(small()).await;
    first.put(b"a", b"1", None, BUCKET).await.unwrap();
    let gate = world.bucket.hold(Rule::on(Op::Put).path("log/*").nth(1));
    let stale = tokio::spawn({
        let first = first.clone();
        async move { first.put(b"stale", b"2", None, BUCKET).await }
    });
    gate.arrived(1).await;
    world.coordination.expire_writer_silently();
    let second = world.contender("w2", small()).await;
    second.leading().await.unwrap();
    assert_eq!(second.put(b"b", b"2", None, BUCKET).await.unwrap().seq, SeqNo(2));
    gate.open();
    let refused = stale.await.unwrap();
    assert!(matches!(refused, Err(WriteError::NotLeader { .. })), "{refused:?}");
    until_role(&first, Role::Standby).await;
    let keys: Vec<_> = world.log().await.into_iter().map(|r| r.key).collect();
    assert_eq!(keys, ["a", "b"]);
    assert!(
        first
            .database()
            .env
            .metrics
            .encode()
            .lines()
            .any(|l| l.starts_with("isle_fenced_total") && l.ends_with(" 1"))
    );
}

/// With nobody else there, a lost lease is routine: the same writer leads again with a new epoch.
#[tokio::test(start_paused = true)]
async fn a_lost_lease_alone_costs_an_epoch() {
    let world = World::new();
    let writer = world.leader(small()).await;
    writer.put(b"a", b"1", None, BUCKET).await.unwrap();
    world.coordination.expire_writer();
    let mut standing = writer.standing();
    standing.wait_for(|s| s.role == Role::Leading && s.epoch == Some(Epoch(2))).await.unwrap();
    assert_eq!(writer.put(b"b", b"2", None, BUCKET).await.unwrap().seq, SeqNo(2));
    world.log().await;
}

/// Coordination set back to an older copy is refused, not overwritten.
#[tokio::test(start_paused = true)]
async fn coordination_set_back_is_refused() {
    let world = World::new();
    let writer = world.leader(small()).await;
    writer.put(b"a", b"1", None, BUCKET).await.unwrap();
    let backup = world.coordination.backup();
    writer.close(Duration::from_secs(5)).await;
    let writer = world.leader(small()).await;
    writer.put(b"b", b"2", None, BUCKET).await.unwrap();
    writer.close(Duration::from_secs(5)).await;
    world.coordination.restore(&backup);
    let writer = world.contender("w3", small()).await;
    let status = crate::world::until(&writer, "the refusal", |s| !s.troubles.is_empty()).await;
    assert!(status.troubles[0].contains("coordination_regressed"), "{:?}", status.troubles);
    assert_ne!(status.role, Role::Leading);
}

/// Coordination is wiped under a writer: that is a lost head to it, and no database that is yet to be created.
#[tokio::test(start_paused = true)]
async fn a_wiped_coordination_is_lost_and_not_new() {
    let world = World::new();
    let writer = world.leader(small()).await;
    writer.put(b"k", b"1", None, BUCKET).await.unwrap();
    world.coordination.wipe();
    let lost = |s: &writer_node::Status| s.troubles.iter().any(|t| t.contains("coordination_lost"));
    until(&writer, "the loss", lost).await;
    assert!(!writer.health().ready);
}

/// Coordination comes back as an older copy of itself, in which a paused writer still has its lease and its head, although
/// another epoch has written since: what it commits there is not acknowledged, and it says why.
#[tokio::test(start_paused = true)]
async fn a_lease_that_comes_back_with_an_older_copy_acknowledges_nothing() {
    let world = World::new();
    let first = world.leader(small()).await;
    first.put(b"k", b"1", None, BUCKET).await.unwrap();
    let copy = world.coordination.backup();
    world.coordination.expire_writer_silently();
    let mut second = Scribe::take_over(&world.database().await).await;
    second.append(&[Entry::put("k", "2")]).await;
    world.coordination.restore_with_leases(&copy);

    let bounded = Options { ack_timeout: Some(Duration::from_secs(25)), ..BUCKET };
    let answer = first.put(b"k", b"3", None, bounded).await;
    assert!(matches!(answer, Err(WriteError::OutcomeUnknown { .. })), "{answer:?}");
    assert!(world.head().await.manifest.last_seq > SeqNo(1), "it was committed, in the older copy");
    let troubles = first.status().troubles.join("; ");
    assert!(troubles.contains("coordination_regressed") && troubles.contains("isle recover"), "{troubles}");
}
