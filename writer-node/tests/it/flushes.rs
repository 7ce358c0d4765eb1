//! Generations become tables and chunks.

use std::collections::BTreeMap;
use std::time::Duration;

use isle_storage::ids::SeqNo;
use isle_storage::manifest::{CompactionMode, Run};
use isle_storage::names::LogKind;
use isle_storage::object::{Bucket, StoreErrorKind};
use isle_testkit::fault::{Fault, Op, Rule};
use writer_node::{Patience, WriteError, WriterSettings};

use crate::world::{BUCKET, MEMORY, World, small, until};

/// Tables hold exactly the rows of the log, in table order, and the chunk stands for its segments.
#[tokio::test(start_paused = true)]
async fn a_flush_publishes_the_rows_of_the_log_and_a_chunk() {
    let world = World::new();
    let writer = world.leader(small()).await;
    for i in 0..3000u32 {
        let key = (i.wrapping_mul(2_654_435_761) % 700).to_be_bytes();
        match i % 7 {
            0 => writer.delete(&key, MEMORY).await.unwrap(),
            _ => writer.put(&key, &[i as u8; 200], None, MEMORY).await.unwrap(),
        };
    }
    writer.flush(None).await.unwrap();
    writer.end_generation();
    until(&writer, "the flush", |s| s.flushed_seq == SeqNo(3000)).await;
    let manifest = world.head().await.manifest;
    assert!(manifest.runs.len() > 1 && manifest.runs.iter().all(|r| r.l0));
    assert!(manifest.runs.iter().any(|r| r.tables.len() > 1), "tables are split");
    assert!(manifest.log.iter().all(|e| e.kind == LogKind::Chunk));
    assert_eq!(manifest.log.len(), manifest.runs.len());
    assert!(!manifest.retired.is_empty(), "segments are retired");

    let by_seq = |rows: Vec<isle_storage::row::Row>| -> BTreeMap<SeqNo, isle_storage::row::Row> {
        rows.into_iter().map(|r| (r.seq, r)).collect()
    };
    assert_eq!(by_seq(world.tables().await), by_seq(world.log().await));
    assert_eq!(until(&writer, "free memory", |s| s.queue_bytes == 0).await.generations, 0);
}

/// Chunks say which segments they are made of, and which segment came before them.
#[tokio::test(start_paused = true)]
async fn chunks_name_their_parts_and_their_predecessor() {
    let world = World::new();
    let writer = world.leader(small()).await;
    for round in 0..2u8 {
        for i in 0..3u8 {
            writer.put(&[round, i], b"v", None, BUCKET).await.unwrap();
        }
        writer.end_generation();
        until(&writer, "the flush", |s| s.flushed_seq == SeqNo(3 * (u64::from(round) + 1))).await;
    }
    let manifest = world.head().await.manifest;
    let mut headers = Vec::new();
    for entry in &manifest.log {
        headers
            .push(isle_storage::log::decode(&world.bucket.get(&entry.path()).await.unwrap()).unwrap().header);
    }
    assert_eq!(headers.len(), 2);
    assert_eq!(headers[0].previous, None);
    assert_eq!(headers[0].parts.len(), 3);
    assert_eq!(headers[1].previous, headers[0].parts.last().copied());
    assert_eq!(headers[1].parts.last().map(|p| p.last_seq), Some(SeqNo(6)));
}

/// A trickle ends its generation by age.
#[tokio::test(start_paused = true)]
async fn a_trickle_is_flushed_by_age() {
    let world = World::new();
    let writer = world.leader(WriterSettings { generation_age_ms: 60_000, ..small() }).await;
    writer.put(b"a", b"1", None, BUCKET).await.unwrap();
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(writer.status().flushed_seq, SeqNo(0));
    tokio::time::sleep(Duration::from_secs(15)).await;
    until(&writer, "the flush", |s| s.flushed_seq == SeqNo(1)).await;
    assert_eq!(world.tables().await.len(), 1);
}

/// A trickle ends its generation by number of segments.
#[tokio::test(start_paused = true)]
async fn many_small_segments_are_flushed_by_count() {
    let world = World::new();
    let writer = world.leader(WriterSettings { generation_segments: 10, ..small() }).await;
    for i in 0..25u8 {
        writer.put(&[i], b"v", None, BUCKET).await.unwrap();
    }
    until(&writer, "two flushes", |s| s.flushed_seq == SeqNo(20)).await;
    let manifest = world.head().await.manifest;
    let marks: Vec<u64> =
        manifest.log.iter().filter(|e| e.starts_generation).map(|e| e.id.first_seq.0).collect();
    assert_eq!(marks, [1, 11, 21]);
}

/// A flush that fails is seen, in the status, in readiness and in the metric; admission stops before memory is full;
/// and it all resumes by itself.
#[tokio::test(start_paused = true)]
async fn a_failing_flush_is_seen_and_stops_admission() {
    let world = World::new();
    let writer = world.leader(small()).await;
    let limit = writer.settings().admission_bytes;
    let outage =
        world.bucket.inject(Rule::on(Op::Put).path("table/*"), Fault::Fail(StoreErrorKind::Permanent));
    let hurried = writer_node::Options { patience: Patience::AtMost(Duration::from_secs(1)), ..MEMORY };
    let mut accepted = 0;
    let refused = loop {
        match writer.put(format!("k{accepted}").as_bytes(), &[9; 4000], None, hurried).await {
            Ok(_) => accepted += 1,
            Err(e) => break e,
        }
        assert!(writer.status().queue_bytes <= limit, "the bound does not hold");
        assert!(accepted < 10_000, "admission never stopped");
    };
    match refused {
        WriteError::Overloaded { why, .. } => assert!(why.contains("flush"), "{why}"),
        other => panic!("{other:?}"),
    }
    tokio::time::sleep(Duration::from_secs(15)).await;
    let health = writer.health();
    assert!(!health.ready && health.reasons.iter().any(|r| r.contains("flush")), "{health:?}");
    let metrics = writer.database().env.metrics.encode();
    let failures = metrics.lines().find(|l| l.starts_with("isle_flush_failures_total")).unwrap();
    assert!(!failures.ends_with(" 0"), "{failures}");
    world.bucket.remove(outage);
    writer.put(b"after", b"v", None, BUCKET).await.unwrap();
    until(&writer, "readiness", |s| s.troubles.is_empty()).await;
    assert!(writer.health().ready);
    assert_eq!(world.log().await.len(), accepted + 1);
}

/// Two generations flushed at once publish in order, though the second is done first.
#[tokio::test(start_paused = true)]
async fn flushes_publish_in_order() {
    let world = World::new();
    let writer = world.leader(small()).await;
    let gate = world.bucket.hold(Rule::on(Op::Put).path("table/*").nth(1));
    writer.put(b"a", b"1", None, BUCKET).await.unwrap();
    writer.end_generation();
    gate.arrived(1).await;
    writer.put(b"b", b"2", None, BUCKET).await.unwrap();
    writer.end_generation();
    until(&writer, "two generations", |s| s.generations == 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        world.head().await.manifest.flushed_seq,
        SeqNo(0),
        "the second must not be readable before the first"
    );
    gate.open();
    until(&writer, "both flushes", |s| s.flushed_seq == SeqNo(2)).await;
    let manifest = world.head().await.manifest;
    assert_eq!(manifest.runs[0].max_seq(), SeqNo(2), "newest first");
}

/// In `time_window` mode the tables of one flush lie in one window, or retention would keep a window's rows with the next.
#[tokio::test(start_paused = true)]
async fn a_generation_ends_where_its_window_does() {
    let world = World::new();
    let minute = 60_000_000;
    let mode =
        CompactionMode::TimeWindow { segment_us: minute, retention_us: 60 * minute, retention_count: 0 };
    world.database_in(mode.clone()).await;
    let writer = world.leader(small()).await;
    for (i, at) in [10, 20, 61, 62, 119, 300].into_iter().enumerate() {
        world.clock.set(at * 1_000_000);
        writer.put(&[i as u8], b"v", None, BUCKET).await.unwrap();
    }
    writer.end_generation();
    until(&writer, "the flushes", |s| s.flushed_seq == SeqNo(6)).await;
    let manifest = world.head().await.manifest;
    let windows = |r: &std::sync::Arc<Run>| (mode.window(r.min_time()), mode.window(r.max_time()));
    assert_eq!(manifest.runs.iter().map(windows).collect::<Vec<_>>(), [(5, 5), (1, 1), (0, 0)]);
}
