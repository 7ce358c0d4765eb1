//! Large values: durable before they have a number, named by the edit that names their segment, never half applied.

use std::sync::Arc;
use std::time::Duration;

use isle_storage::blob::{BlobDirectory, ValueReader};
use isle_storage::names;
use isle_storage::object::{Bucket, StoreErrorKind};
use isle_storage::row::{BlobPointer, Row, Value};
use isle_storage::values;
use isle_testkit::fault::{Fault, Op, Rule};
use writer_node::{Event, Mutation, Role, WriteError, Writer, WriterSettings};

use crate::world::{BUCKET, MEMORY, World, small, until, until_role, value};

pub const PART: usize = 8 * 1024;

/// Values above 100 bytes are large, and a few kilobytes are several parts.
pub fn with_blobs() -> WriterSettings {
    WriterSettings {
        blob_threshold: 100,
        blob_part_bytes: PART,
        blob_bytes_in_flight: 4 * PART as u64,
        max_value_bytes: 400 * 1024,
        ..small()
    }
}

pub fn bytes(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|n| (n / 13 + n + salt) as u8).collect()
}

pub fn pointer(row: &Row) -> &BlobPointer {
    match &row.value {
        Value::Blob(p) => p,
        other => panic!("{other:?} is no pointer"),
    }
}

/// The value that the row points at, every checksum verified.
pub async fn stored(world: &World, row: &Row) -> Vec<u8> {
    let mut reader = ValueReader::whole(pointer(row), 1);
    values::rest(world.bucket.as_ref(), &mut reader).await.unwrap().to_vec()
}

/// The manifest holds exactly the blob files that its log and tables point at, each as long as it is.
async fn blobs_are_right(world: &World) -> usize {
    let manifest = world.head().await.manifest;
    let mut pointed: Vec<String> = manifest.log.iter().flat_map(|e| e.blobs.clone()).collect();
    pointed.extend(manifest.tables().flat_map(|t| t.blobs.clone()));
    pointed.sort();
    pointed.dedup();
    assert!(manifest.blobs.keys().eq(pointed.iter()));
    for (blob, len) in manifest.blobs.iter() {
        let file = world.bucket.get(&names::blob(blob)).await.unwrap();
        assert_eq!(file.len() as u64, *len);
        BlobDirectory::of(&file).unwrap();
    }
    manifest.blobs.len()
}

async fn streamed(writer: &Writer, key: &[u8], content: &[u8]) -> Result<u64, WriteError> {
    let mut upload = writer.begin_value(None, BUCKET).await?;
    for piece in content.chunks(1000) {
        upload.write(piece).await?;
    }
    Ok(upload.put(key, None, BUCKET).await?.seq.0)
}

#[tokio::test]
async fn a_value_above_the_threshold_lies_in_a_blob_file_and_others_do_not() {
    let world = World::new();
    let writer = world.leader(with_blobs()).await;
    writer.put(b"small", &bytes(100, 0), None, BUCKET).await.unwrap();
    writer.put(b"large", &bytes(101, 0), None, BUCKET).await.unwrap();
    writer.put(b"memory", &bytes(5000, 1), Some(Duration::from_secs(9)), MEMORY).await.unwrap();
    assert_eq!(streamed(&writer, b"streamed", &bytes(300_000, 2)).await.unwrap(), 4);
    writer.flush(None).await.unwrap();
    let log = world.log().await;
    assert_eq!(value(&log[0]), bytes(100, 0));
    assert_eq!(stored(&world, &log[1]).await, bytes(101, 0));
    assert_eq!(stored(&world, &log[2]).await, bytes(5000, 1));
    assert_eq!(log[2].expires.unwrap().0 - log[2].time.0, 9_000_000);
    assert_eq!(stored(&world, &log[3]).await, bytes(300_000, 2));
    assert_eq!(blobs_are_right(&world).await, 3);
    assert!(world.head().await.manifest.required_features.contains(&"blobs".to_owned()));
}

/// One file a call, however many large values are in it, and all rows that point at it in one segment.
#[tokio::test]
async fn a_batch_has_one_blob_file_and_one_segment() {
    let world = World::new();
    let writer = world.leader(with_blobs()).await;
    let values: Vec<_> = (0..40).map(|n| bytes(if n % 3 == 0 { 50 } else { 3000 + n }, n)).collect();
    let keys: Vec<_> = (0..40).map(|n| format!("k{n:02}").into_bytes()).collect();
    let batch: Vec<_> =
        keys.iter().zip(&values).map(|(key, value)| Mutation::Put { key, value, ttl: None }).collect();
    drop(writer.apply_batch(&batch, BUCKET).await.unwrap());
    writer.submit(&batch, BUCKET).await.unwrap().committed(Duration::from_secs(9)).await.unwrap();
    let events = [Event { value: &values[1], ttl: None }, Event { value: &values[0], ttl: None }];
    drop(writer.append(b"s", &events, BUCKET).await.unwrap());
    let log = world.log().await;
    for (n, row) in log[..80].iter().enumerate() {
        match n % 40 % 3 {
            0 => assert_eq!(value(row), values[n % 40]),
            _ => assert_eq!(stored(&world, row).await, values[n % 40]),
        }
    }
    assert_eq!(&*log[80].key, Writer::event_key(b"s", log[80].seq));
    assert_eq!(stored(&world, &log[80]).await, values[1]);
    assert_eq!(blobs_are_right(&world).await, 3);
    let manifest = world.head().await.manifest;
    for blob in manifest.blobs.keys() {
        assert_eq!(manifest.log.iter().filter(|e| e.blobs.contains(blob)).count(), 1);
    }
}

/// A streamed value gets its number when its file is complete, not before; what came meanwhile is not held up.
#[tokio::test]
async fn a_value_has_no_number_until_its_file_is_durable() {
    let world = World::new();
    let writer = world.leader(with_blobs()).await;
    let gate = world.bucket.hold(Rule::on(Op::Complete).path("blob/*"));
    let slow = tokio::spawn({
        let writer = writer.clone();
        async move { streamed(&writer, b"slow", &bytes(50_000, 0)).await }
    });
    gate.arrived(1).await;
    assert_eq!(writer.put(b"fast", b"v", None, BUCKET).await.unwrap().seq.0, 1);
    assert!(world.head().await.manifest.blobs.is_empty());
    gate.open();
    assert_eq!(slow.await.unwrap().unwrap(), 2);
    assert_eq!(blobs_are_right(&world).await, 1);
}

/// Whatever fails on the way, nothing is applied and nothing stays.
#[tokio::test]
async fn a_value_that_cannot_be_stored_leaves_nothing() {
    let world = World::new();
    let writer = world.leader(with_blobs()).await;
    for op in [Op::Begin, Op::Part, Op::Complete] {
        let fault = world.bucket.inject(Rule::on(op).path("blob/*"), Fault::Fail(StoreErrorKind::Permanent));
        let refused = streamed(&writer, b"k", &bytes(50_000, 0)).await.unwrap_err();
        assert!(matches!(refused, WriteError::NotStored { .. }), "{refused}");
        world.bucket.remove(fault);
    }
    world.bucket.inject(Rule::on(Op::Put).path("blob/*").nth(1), Fault::LoseReply);
    let refused = writer.put(b"k", &bytes(200, 0), None, BUCKET).await.unwrap_err();
    assert!(matches!(refused, WriteError::NotStored { .. }), "its reply was lost: {refused}");
    let mut too_large = writer.begin_value(None, BUCKET).await.unwrap();
    let refused = loop {
        if let Err(e) = too_large.write(&bytes(30_000, 0)).await {
            break e;
        }
    };
    assert!(matches!(refused, WriteError::ValueTooLarge { limit: 409_600, .. }), "{refused}");
    drop(too_large);
    assert!(matches!(
        writer.begin_value(Some(500_000), BUCKET).await,
        Err(WriteError::ValueTooLarge { len: 500_000, .. })
    ));
    let mut left = writer.begin_value(None, BUCKET).await.unwrap();
    left.write(&bytes(50_000, 0)).await.unwrap();
    drop(left);
    while world.bucket.count(Op::Abort, "blob/*") < 4 || world.bucket.count(Op::Delete, "blob/*") < 1 {
        tokio::task::yield_now().await;
    }
    writer.put(b"after", b"v", None, BUCKET).await.unwrap();
    assert_eq!(world.log().await.len(), 1);
    assert_eq!(blobs_are_right(&world).await, 0);
}

/// Flushing carries the pointers into tables and the chunk; the files stay.
#[tokio::test]
async fn flushes_carry_pointers_and_keep_the_files() {
    let world = World::new();
    let writer = world.leader(with_blobs()).await;
    for n in 0..5usize {
        streamed(&writer, format!("k{n}").as_bytes(), &bytes(20_000 + n, n)).await.unwrap();
    }
    writer.end_generation();
    until(&writer, "the flush", |s| s.flushed_seq.0 == 5).await;
    for (n, row) in world.tables().await.iter().enumerate() {
        assert_eq!(stored(&world, row).await, bytes(20_000 + n, n));
    }
    assert_eq!(world.log().await.len(), 5, "the chunk has them too");
    assert_eq!(blobs_are_right(&world).await, 5);
}

/// A crash between the blob and its segment, and between the segment and its commit: the next writer adopts what was
/// uploaded, with its blob files.
#[tokio::test]
async fn a_takeover_adopts_segments_with_their_blob_files() {
    let world = World::new();
    let writer = world.leader(with_blobs()).await;
    streamed(&writer, b"committed", &bytes(20_000, 0)).await.unwrap();
    world.coordination.set_down(true);
    let doubted = tokio::spawn({
        let writer = writer.clone();
        async move { streamed(&writer, b"adopted", &bytes(30_000, 1)).await }
    });
    let uploaded = || {
        world
            .bucket
            .history()
            .iter()
            .filter(|e| e.op == Op::Put && e.path.ends_with(".seg") && e.told.is_some())
            .count()
    };
    while uploaded() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    doubted.abort();
    drop(writer);
    world.coordination.expire_writer_silently();
    world.coordination.set_down(false);
    let next = world.leader(with_blobs()).await;
    let log = world.log().await;
    assert_eq!(log.len(), 2);
    assert_eq!(stored(&world, &log[1]).await, bytes(30_000, 1));
    assert_eq!(blobs_are_right(&world).await, 2);
    next.end_generation();
    until(&next, "the flush", |s| s.flushed_seq.0 == 2).await;
    assert_eq!(blobs_are_right(&world).await, 2);
}

/// A value that was arriving while leadership was lost is refused, and its file belongs to nobody.
#[tokio::test]
async fn a_value_is_refused_where_leadership_was_lost_meanwhile() {
    let world = World::new();
    let writer = world.leader(with_blobs()).await;
    let mut upload = writer.begin_value(None, BUCKET).await.unwrap();
    upload.write(&bytes(20_000, 0)).await.unwrap();
    writer.close(Duration::from_secs(5)).await;
    until_role(&writer, Role::Closed).await;
    let refused = upload.put(b"k", None, BUCKET).await.unwrap_err();
    assert!(matches!(refused, WriteError::Closing), "{refused}");
    assert!(world.head().await.manifest.blobs.is_empty());
    assert!(world.log().await.is_empty());
}

/// What all uploads together hold in memory is bounded, however many there are.
#[tokio::test]
async fn uploads_share_a_bounded_memory() {
    let world = World::new();
    let writer = world.leader(with_blobs()).await;
    let puts = (0..30usize).map(|n| {
        let writer = writer.clone();
        tokio::spawn(async move { streamed(&writer, format!("k{n:02}").as_bytes(), &bytes(60_000, n)).await })
    });
    for put in futures::future::join_all(puts).await {
        put.unwrap().unwrap();
    }
    let log = world.log().await;
    assert_eq!(log.len(), 30);
    for row in &log {
        let n: usize = std::str::from_utf8(&row.key[1..]).unwrap().parse().unwrap();
        assert_eq!(stored(&world, row).await, bytes(60_000, n));
    }
    let bucket: Arc<dyn Bucket> = world.bucket.clone();
    assert!(bucket.head(&names::blob(&pointer(&log[0]).blob)).await.unwrap().len > 60_000);
}
