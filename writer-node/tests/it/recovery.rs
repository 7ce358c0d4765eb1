//! What a writer finds when it starts on what another left.

use std::time::Duration;

use isle_storage::ids::{Epoch, SeqNo};
use isle_storage::object::StoreErrorKind;
use isle_testkit::fault::{Fault, Op, Rule};
use writer_node::Role;

use crate::world::{BUCKET, MEMORY, World, small, until, until_role};

/// A writer that goes away without a word keeps every acknowledged write, and its successor continues the numbers.
#[tokio::test(start_paused = true)]
async fn acknowledged_writes_survive_a_writer_that_is_dropped() {
    let world = World::new();
    let writer = world.leader(small()).await;
    let mut last = SeqNo(0);
    for i in 0..50u32 {
        last = writer.put(&i.to_be_bytes(), b"v", None, BUCKET).await.unwrap().seq;
    }
    drop(writer);
    let writer = world.leader(small()).await;
    assert_eq!(writer.status().epoch, Some(Epoch(2)));
    let next = writer.put(b"next", b"v", None, BUCKET).await.unwrap();
    assert_eq!((next.epoch, next.seq), (Epoch(2), last.next()));
    assert_eq!(world.log().await.len(), 51);
}

/// Segments that were uploaded and never committed are adopted where they continue the log: unacknowledged work may
/// become visible, numbers stay dense.
#[tokio::test(start_paused = true)]
async fn an_uploaded_tail_is_rolled_forward() {
    let world = World::new();
    let writer = world.leader(small()).await;
    writer.put(b"a", b"1", None, BUCKET).await.unwrap();
    world.coordination.set_down(true);
    writer.put(b"b", b"2", None, MEMORY).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(writer);
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.coordination.set_down(false);
    world.coordination.expire_writer();
    let writer = world.leader(small()).await;
    let next = writer.put(b"c", b"3", None, BUCKET).await.unwrap();
    assert_eq!(next.seq, SeqNo(3));
    let keys: Vec<_> = world.log().await.into_iter().map(|r| r.key).collect();
    assert_eq!(keys, ["a", "b", "c"]);
}

/// The log beyond the tables is loaded and flushed by the successor, over the boundary of the epochs.
#[tokio::test(start_paused = true)]
async fn generations_of_earlier_epochs_are_flushed() {
    let world = World::new();
    for round in 0..3u8 {
        let writer = world.leader(small()).await;
        for i in 0..10u8 {
            writer.put(&[round, i], b"v", None, BUCKET).await.unwrap();
        }
        assert!(writer.status().queue_bytes > 0, "recovered rows count against the bound");
        drop(writer);
    }
    let writer = world.leader(small()).await;
    writer.end_generation();
    until(&writer, "the flush", |s| s.flushed_seq == SeqNo(30)).await;
    assert_eq!(world.tables().await.len(), 30);
    assert_eq!(world.log().await.len(), 30);
    assert_eq!(world.head().await.manifest.runs.len(), 1, "one generation over three epochs");
    assert_eq!(until(&writer, "free memory", |s| s.queue_bytes == 0).await.queue_bytes, 0);
}

/// A store that fails while the log is loaded delays the start, and the reason is shown.
#[tokio::test(start_paused = true)]
async fn a_failing_store_delays_the_start() {
    let world = World::new();
    let writer = world.leader(small()).await;
    writer.put(b"a", b"1", None, BUCKET).await.unwrap();
    drop(writer);
    let outage = world.bucket.inject(Rule::on(Op::Get).path("log/*"), Fault::Fail(StoreErrorKind::Transient));
    let writer = world.contender("w2", small()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_ne!(writer.status().role, Role::Leading);
    let health = writer.health();
    assert!(!health.ready && !health.reasons.is_empty(), "{health:?}");
    world.bucket.remove(outage);
    until_role(&writer, Role::Leading).await;
    assert_eq!(writer.put(b"b", b"2", None, BUCKET).await.unwrap().seq, SeqNo(2));
}

/// A damaged segment is an error that names it, never a log with a hole.
#[tokio::test(start_paused = true)]
async fn a_damaged_segment_is_refused() {
    let world = World::new();
    let writer = world.leader(small()).await;
    writer.put(b"a", b"1", None, BUCKET).await.unwrap();
    drop(writer);
    world.bucket.inject(Rule::on(Op::Get).path("log/*"), Fault::FlipBit(40));
    let writer = world.contender("w2", small()).await;
    let status = until(&writer, "the refusal", |s| !s.troubles.is_empty()).await;
    assert!(status.troubles[0].contains("log/"), "{:?}", status.troubles);
    assert_ne!(status.role, Role::Leading);
}

/// A writer whose clock lies behind the log's last write time says so and does not lead until it is set.
#[tokio::test(start_paused = true)]
async fn a_clock_far_behind_is_not_ready() {
    let world = World::new();
    world.clock.set(3_600_000_000);
    let writer = world.leader(small()).await;
    writer.put(b"a", b"1", None, BUCKET).await.unwrap();
    drop(writer);
    world.clock.set(60_000_000);
    let writer = world.contender("w2", small()).await;
    let status = until(&writer, "the trouble", |s| s.troubles.iter().any(|t| t.contains("clock"))).await;
    assert_ne!(status.role, Role::Leading);
    assert!(!writer.health().ready);
    world.clock.set(3_600_000_001);
    until_role(&writer, Role::Leading).await;
    assert!(writer.health().ready, "{:?}", writer.health());
}
