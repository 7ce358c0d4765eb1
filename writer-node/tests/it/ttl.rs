//! The default time to live: what it stamps, and what it leaves alone.

use std::time::Duration;

use isle_storage::ids::Timestamp;
use isle_storage::log::decode;
use writer_node::{Event, Mutation, NEVER, SetTtlError, WriteError};

use crate::world::{BUCKET, World, small};

const HOUR: Duration = Duration::from_secs(3600);

/// `(key, how long it lives)` of everything in the log, in order.
async fn lives(world: &World) -> Vec<(String, Option<Duration>)> {
    let db = world.database().await;
    let mut found = Vec::new();
    for entry in &world.head().await.manifest.log {
        let object = decode(&db.bucket.get(&entry.path()).await.unwrap()).unwrap();
        for row in object.blocks.iter().flat_map(|b| b.rows()) {
            let after = |e: Timestamp| Duration::from_micros((e.0 - row.time.0).unsigned_abs());
            found.push((String::from_utf8_lossy(row.key).into_owned(), row.expires.map(after)));
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn what_says_nothing_lives_as_long_as_the_database_says() {
    let world = World::new();
    let writer = world.leader(small()).await;
    writer.put(b"before", b"v", None, BUCKET).await.unwrap();
    writer.set_default_ttl(Some(HOUR), None).await.unwrap();
    assert_eq!(writer.default_ttl().await.unwrap(), Some(HOUR));
    let set = writer.database().load().await.unwrap();
    assert_eq!(set.state.head.checkpoint.version, set.manifest.version, "a recover would not know it");
    writer.put(b"silent", b"v", None, BUCKET).await.unwrap();
    writer.put(b"own", b"v", Some(Duration::from_secs(5)), BUCKET).await.unwrap();
    writer.put(b"never", b"v", Some(NEVER), BUCKET).await.unwrap();
    writer.delete(b"gone", BUCKET).await.unwrap();
    let batch = [Mutation::Put { key: b"batch", value: b"v", ttl: None }];
    assert_eq!(writer.apply_batch(&batch, BUCKET).await.unwrap().last_seq().0, 6);
    let event = [Event { value: b"v", ttl: None }];
    assert_eq!(writer.append(b"s", &event, BUCKET).await.unwrap().last_seq().0, 7);
    writer.set_default_ttl(None, None).await.unwrap();
    writer.put(b"after", b"v", None, BUCKET).await.unwrap();
    let found = lives(&world).await;
    let found: Vec<_> = found.iter().map(|(k, e)| (k.as_str(), *e)).collect();
    assert_eq!(
        found,
        [
            ("before", None),
            ("silent", Some(HOUR)),
            ("own", Some(Duration::from_secs(5))),
            ("never", None),
            ("gone", None),
            ("batch", Some(HOUR)),
            ("s/0000000000000007", Some(HOUR)),
            ("after", None),
        ]
    );
}

/// It is the database's, not the process's.
#[tokio::test(start_paused = true)]
async fn a_successor_stamps_the_same() {
    let world = World::new();
    let writer = world.leader(small()).await;
    writer.set_default_ttl(Some(HOUR), None).await.unwrap();
    let head = world.head().await.manifest;
    assert_eq!(head.default_ttl(), Some(HOUR));
    assert!(head.required_features.contains(&"default_ttl".to_owned()), "{:?}", head.required_features);
    writer.close(Duration::from_secs(5)).await;
    let successor = world.leader(small()).await;
    successor.put(b"k", b"v", None, BUCKET).await.unwrap();
    assert_eq!(lives(&world).await, [("k".to_owned(), Some(HOUR))]);
}

#[tokio::test(start_paused = true)]
async fn what_would_delete_everything_is_refused_and_so_is_a_standby() {
    let world = World::new();
    let writer = world.leader(small()).await;
    let refused = writer.set_default_ttl(Some(Duration::ZERO), None).await;
    assert!(matches!(refused, Err(SetTtlError::Zero)));
    assert_eq!(world.head().await.manifest.default_ttl(), None);
    writer.close(Duration::from_secs(5)).await;
    let refused = writer.set_default_ttl(Some(HOUR), None).await;
    assert!(matches!(refused, Err(SetTtlError::Refused(WriteError::Closing))), "{refused:?}");
}
