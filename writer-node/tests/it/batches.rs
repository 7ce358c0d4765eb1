//! Atomic batches and appended events.

use isle_storage::ids::SeqNo;
use writer_node::{Event, Mutation, WriteError, Writer};

use crate::world::{BUCKET, MEMORY, World, small, value};

fn puts<'a>(keys: &'a [[u8; 4]], v: &'a [u8]) -> Vec<Mutation<'a>> {
    keys.iter().map(|key| Mutation::Put { key, value: v, ttl: None }).collect()
}

/// A group never straddles a segment, and so never a generation, wherever the rotation falls.
#[tokio::test(start_paused = true)]
async fn a_batch_is_one_segment_across_rotations() {
    let world = World::new();
    let writer = world.leader(small()).await;
    let mut batches = Vec::new();
    for round in 0..60u32 {
        let filler = vec![1; 500 + (round as usize * 977) % 9000];
        writer.put(b"filler", &filler, None, MEMORY).await.unwrap();
        let keys: Vec<[u8; 4]> = (0..10).map(|i| (round * 10 + i).to_be_bytes()).collect();
        let accepted = writer.apply_batch(&puts(&keys, &[2; 1500]), MEMORY).await.unwrap();
        assert_eq!(accepted.last_seq().0 - accepted.first_seq().0, 9);
        batches.push((accepted.first_seq(), accepted.last_seq()));
    }
    writer.flush(None).await.unwrap();
    let db = world.database().await;
    let manifest = world.head().await.manifest;
    assert!(manifest.log.len() > 3 || !manifest.runs.is_empty());
    // Segments that a flush has replaced stand in their chunk's header.
    let mut ends: Vec<SeqNo> = Vec::new();
    for entry in &manifest.log {
        let bytes = db.bucket.get(&entry.path()).await.unwrap();
        let header = isle_storage::log::decode(&bytes).unwrap().header;
        match header.parts.as_slice() {
            [] => ends.push(header.last_seq),
            parts => ends.extend(parts.iter().map(|p| p.last_seq)),
        }
    }
    for (first, last) in batches {
        let split = ends.iter().any(|end| first <= *end && *end < last);
        assert!(!split, "batch {first}..={last} is parted by a segment's end");
    }
    world.log().await;
}

/// A batch that fits no segment is refused with its size and the limit, and nothing of it is applied.
#[tokio::test(start_paused = true)]
async fn a_batch_too_large_is_refused_whole() {
    let world = World::new();
    let writer = world.leader(small()).await;
    let keys: Vec<[u8; 4]> = (0..200u32).map(u32::to_be_bytes).collect();
    match writer.apply_batch(&puts(&keys, &[0; 1000]), BUCKET).await {
        Err(WriteError::BatchTooLarge { len, limit }) => assert!(len > limit && limit == 160 * 1024),
        other => panic!("{other:?}"),
    }
    let mixed = [Mutation::Put { key: b"ok", value: b"v", ttl: None }, Mutation::Delete { key: b"" }];
    assert!(matches!(writer.apply_batch(&mixed, BUCKET).await, Err(WriteError::InvalidKey { .. })));
    assert!(matches!(writer.apply_batch(&[], BUCKET).await, Err(WriteError::EmptyBatch)));
    assert_eq!(writer.status().accepted_seq, SeqNo(0));
}

/// The key of an event is its stream and its own number.
#[tokio::test(start_paused = true)]
async fn events_are_keyed_by_their_numbers() {
    let world = World::new();
    let writer = world.leader(small()).await;
    writer.put(b"a", b"1", None, BUCKET).await.unwrap();
    let events = [Event { value: b"x", ttl: None }, Event { value: b"y", ttl: None }];
    let accepted = writer.append(b"orders", &events, BUCKET).await.unwrap();
    assert_eq!((accepted.first_seq(), accepted.last_seq()), (SeqNo(2), SeqNo(3)));
    let log = world.log().await;
    assert_eq!(log[1].key, "orders/0000000000000002");
    assert_eq!(log[2].key, "orders/0000000000000003");
    assert_eq!(Writer::event_key(b"orders", SeqNo(3)), log[2].key);
    assert_eq!(value(&log[2]), b"y");
    assert!(matches!(writer.append(b"", &events, BUCKET).await, Err(WriteError::InvalidKey { .. })));
}

/// Pieces handed over one after the other may be waited for later, and all at once.
#[tokio::test(start_paused = true)]
async fn submitted_pieces_are_awaited_later() {
    let world = World::new();
    let writer = world.leader(small()).await;
    let keys: Vec<[u8; 4]> = (0..100u32).map(u32::to_be_bytes).collect();
    let first = writer.submit(&puts(&keys[..60], &[3; 1000]), BUCKET).await.unwrap();
    let second = writer.submit(&puts(&keys[60..], &[3; 1000]), BUCKET).await.unwrap();
    assert_eq!(second.first_seq(), first.last_seq().next());
    second.committed(std::time::Duration::from_secs(5)).await.unwrap();
    assert_eq!(first.committed_so_far(), Some(first.last_seq()));
    assert_eq!(world.log().await.len(), 100);
}
