//! Back-pressure: the bound on bytes in memory, and who is woken when.

use std::time::Duration;

use isle_storage::object::StoreErrorKind;
use isle_testkit::fault::{Fault, Op, Rule};
use writer_node::{Options, Patience, WriteError};

use crate::world::{BUCKET, MEMORY, World, small};

/// Everything counts: the open batch, what is queued, in flight, committed and not in tables.
#[tokio::test(start_paused = true)]
async fn in_flight_bytes_count_against_the_bound() {
    let world = World::new();
    let writer = world.leader(small()).await;
    let limit = writer.settings().admission_bytes;
    world.bucket.inject(Rule::on(Op::Put), Fault::Fail(StoreErrorKind::Transient));
    let hurried = Options { patience: Patience::AtMost(Duration::from_millis(100)), ..MEMORY };
    let mut charged = 0;
    while writer.put(b"key", &[0; 1000], None, hurried).await.is_ok() {
        charged += 1003;
        assert!(charged <= limit, "more was accepted than the bound allows");
    }
    assert!(charged > limit * 9 / 10, "{charged} of {limit}");
    assert!(writer.status().queue_bytes <= limit);
}

/// Writers over the budget wait, in order, and go on when memory is free again; nothing is lost on the way.
#[tokio::test(start_paused = true)]
async fn waiters_go_on_when_memory_is_free() {
    let world = World::new();
    let writer = world.leader(small()).await;
    world.bucket.inject(Rule::on(Op::Put).path("table/*"), Fault::Delay(Duration::from_millis(200)));
    let clients = (0..4u8).map(|c| {
        let writer = writer.clone();
        async move {
            for i in 0..500u32 {
                let key = [&[c][..], &i.to_be_bytes()].concat();
                writer.put(&key, &[c; 2000], None, MEMORY).await.unwrap();
            }
        }
    });
    futures::future::join_all(clients).await;
    writer.flush(None).await.unwrap();
    assert_eq!(world.log().await.len(), 2000);
}

/// Waiters on back-pressure are woken when leadership is lost.
#[tokio::test(start_paused = true)]
async fn waiters_are_woken_by_a_lost_lease() {
    let world = World::new();
    let writer = world.leader(small()).await;
    world.bucket.inject(Rule::on(Op::Put).path("table/*"), Fault::Hang);
    let hurried = Options { patience: Patience::AtMost(Duration::from_millis(1)), ..MEMORY };
    while writer.put(b"key", &[0; 10_000], None, hurried).await.is_ok() {}
    let waiting = tokio::spawn({
        let writer = writer.clone();
        async move { writer.put(b"late", &[0; 10_000], None, BUCKET).await }
    });
    crate::world::until(&writer, "the waiter", |s| s.waiters == 1).await;
    world.coordination.set_down(true);
    world.coordination.expire_writer();
    let refused = waiting.await.unwrap();
    assert!(matches!(refused, Err(WriteError::NotLeader { .. })), "{refused:?}");
}

/// And when the writer closes.
#[tokio::test(start_paused = true)]
async fn waiters_are_woken_by_close() {
    let world = World::new();
    let writer = world.leader(small()).await;
    world.bucket.inject(Rule::on(Op::Put).path("table/*"), Fault::Hang);
    let hurried = Options { patience: Patience::AtMost(Duration::from_millis(1)), ..MEMORY };
    while writer.put(b"key", &[0; 10_000], None, hurried).await.is_ok() {}
    let waiting = tokio::spawn({
        let writer = writer.clone();
        async move { writer.put(b"late", &[0; 10_000], None, BUCKET).await }
    });
    crate::world::until(&writer, "the waiter", |s| s.waiters == 1).await;
    writer.close(Duration::from_secs(5)).await;
    assert!(matches!(waiting.await.unwrap(), Err(WriteError::Closing)));
}
