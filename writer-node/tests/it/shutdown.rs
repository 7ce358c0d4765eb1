//! Closing: what was accepted is committed, the lease goes back, everybody is answered, and in bounded time.

use std::time::Duration;

use isle_storage::coordination::Coordination;
use isle_storage::ids::SeqNo;
use isle_testkit::fault::{Fault, Op, Rule};
use tokio::time::Instant;
use writer_node::{Role, WriteError, WriterSettings};

use crate::world::{BUCKET, MEMORY, World, small, until};

/// Everything accepted is committed, also what nobody waits for, and the role is free at once.
#[tokio::test(start_paused = true)]
async fn close_commits_what_was_accepted_and_gives_the_lease_back() {
    let world = World::new();
    let writer = world.leader(WriterSettings { linger_ms: 60_000, ..small() }).await;
    for i in 0..100u32 {
        writer.put(&i.to_be_bytes(), &[1; 1000], None, MEMORY).await.unwrap();
    }
    writer.close(Duration::from_secs(10)).await;
    assert_eq!(world.log().await.len(), 100);
    assert!(world.coordination.leader().await.unwrap().is_none(), "the lease is given back");
    assert!(matches!(writer.put(b"k", b"v", None, BUCKET).await, Err(WriteError::Closing)));
    assert!(matches!(writer.flush(None).await, Err(WriteError::Closing)));
    assert_eq!(writer.status().role, Role::Closed);
    writer.close(Duration::from_secs(10)).await;
}

/// A store that hangs does not hold the stop up; the waiters are told that the outcome is unknown.
#[tokio::test(start_paused = true)]
async fn close_is_bounded_and_answers_every_waiter() {
    let world = World::new();
    let writer = world.leader(small()).await;
    world.bucket.inject(Rule::on(Op::Put).path("log/*"), Fault::Hang);
    let put = tokio::spawn({
        let writer = writer.clone();
        async move { writer.put(b"a", b"1", None, BUCKET).await }
    });
    until(&writer, "the upload", |s| s.segments_in_flight == 1).await;
    let began = Instant::now();
    writer.close(Duration::from_secs(3)).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    match put.await.unwrap() {
        Err(WriteError::OutcomeUnknown { first_seq, .. }) => assert_eq!(first_seq, SeqNo(1)),
        other => panic!("{other:?}"),
    }
}

/// Whoever closes the writer from a task of its own, several times, at once, while it contests, does not wait for
/// itself.
#[tokio::test(start_paused = true)]
async fn close_does_not_wait_for_itself() {
    let world = World::new();
    let writer = world.leader(small()).await;
    let closers = (0..3).map(|_| {
        let writer = writer.clone();
        tokio::spawn(async move {
            writer.put(b"k", b"v", None, MEMORY).await.ok();
            writer.close(Duration::from_secs(5)).await;
        })
    });
    let all = futures::future::join_all(closers);
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("the close hangs");
    world.coordination.set_down(true);
    let contender = world_contender_without_coordination(&world).await;
    tokio::time::timeout(Duration::from_secs(3), contender.close(Duration::from_secs(2))).await.unwrap();
}

async fn world_contender_without_coordination(world: &World) -> writer_node::Writer {
    world.coordination.set_down(false);
    let db = world.database().await;
    world.coordination.set_down(true);
    let node = isle_storage::coordination::NodeInfo { node: "w9".into(), advertise: "http://w9".into() };
    writer_node::Writer::open(db, small(), node).unwrap()
}
