//! Writes whose commit was under way when leadership was lost: the truth is waited for, never guessed.

use std::time::Duration;

use isle_storage::ids::SeqNo;
use isle_testkit::fault::{Op, Rule};
use writer_node::{Options, Role, WriteError};

use crate::world::{BUCKET, World, small, until, until_role};

/// Uploaded and never committed, then adopted by the successor: the waiter is told that it is committed.
#[tokio::test(start_paused = true)]
async fn an_adopted_segment_is_acknowledged() {
    let world = World::new();
    let writer = world.leader(small()).await;
    world.coordination.set_down(true);
    let put = tokio::spawn({
        let writer = writer.clone();
        async move { writer.put(b"a", b"1", None, BUCKET).await }
    });
    until(&writer, "a commit that fails", |s| s.troubles.iter().any(|t| t.contains("commit"))).await;
    assert!(world.bucket.count(Op::Put, "log/*") > 0);
    world.coordination.expire_writer();
    until_role(&writer, Role::Starting).await;
    assert!(!put.is_finished(), "nothing can be known yet");
    world.coordination.set_down(false);
    assert_eq!(put.await.unwrap().unwrap().seq, SeqNo(1));
    assert_eq!(world.log().await.len(), 1);
}

/// Never uploaded, and cut off by the successor: certainly refused, and the number goes to another.
#[tokio::test(start_paused = true)]
async fn a_segment_cut_off_is_certainly_refused() {
    let world = World::new();
    let writer = world.leader(small()).await;
    let gate = world.bucket.hold(Rule::on(Op::Put).path("log/*").nth(1));
    let put = tokio::spawn({
        let writer = writer.clone();
        async move { writer.put(b"lost", b"1", None, BUCKET).await }
    });
    gate.arrived(1).await;
    world.coordination.expire_writer();
    assert!(matches!(put.await.unwrap(), Err(WriteError::NotLeader { .. })));
    writer.leading().await.unwrap();
    let next = writer.put(b"next", b"2", None, BUCKET).await.unwrap();
    assert_eq!((next.epoch.0, next.seq), (2, SeqNo(1)), "the number was never committed");
    assert_eq!(world.log().await[0].key, "next");
    gate.open();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.log().await.len(), 1, "a late upload of an older epoch is void");
}

/// A deadline that passes while the truth cannot be read gives `outcome_unknown`.
#[tokio::test(start_paused = true)]
async fn a_deadline_in_doubt_gives_unknown() {
    let world = World::new();
    let writer = world.leader(small()).await;
    world.coordination.set_down(true);
    let options = Options { ack_timeout: Some(Duration::from_secs(30)), ..BUCKET };
    let put = tokio::spawn({
        let writer = writer.clone();
        async move { writer.put(b"a", b"1", None, options).await }
    });
    until(&writer, "a commit that fails", |s| s.troubles.iter().any(|t| t.contains("commit"))).await;
    world.coordination.expire_writer();
    until(&writer, "doubt", |s| s.in_doubt == 1).await;
    assert!(matches!(put.await.unwrap(), Err(WriteError::OutcomeUnknown { .. })));
}
