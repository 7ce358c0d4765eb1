//! The writer over the bucket form of coordination: no leases, no standby; who opens takes over, and a fenced writer
//! stays down.

use std::sync::Arc;
use std::time::Duration;

use isle_storage::coordination::bucket::BucketCoordination;
use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::{Coordination, CoordinationSettings, NodeInfo};
use isle_storage::database::Database;
use isle_storage::environment::{Clock, Environment};
use isle_storage::ids::{Epoch, SeqNo};
use isle_storage::log;
use isle_storage::manifest::CompactionMode;
use isle_storage::object::Bucket;
use isle_testkit::fault::{Op, Rule};
use writer_node::{Role, WriteError, Writer};

use crate::world::{BUCKET, MEMORY, World, small, until, until_role};

/// A process of its own: an instance of the coordination that shares nothing but the bucket.
async fn process(world: &World, node: &str) -> (Writer, Database) {
    let env = Environment {
        clock: Arc::clone(&world.clock) as Arc<dyn Clock>,
        ..Environment::system("writer", "default")
    };
    let bucket = Arc::clone(&world.bucket) as Arc<dyn Bucket>;
    let coordination =
        BucketCoordination::trusting(&CoordinationSettings::default(), Arc::clone(&bucket), &env);
    let mode = OpenMode::CreateIfMissing(CompactionMode::Merge);
    let db =
        Database::open(bucket, coordination as Arc<dyn Coordination>, env, "default", &mode).await.unwrap();
    let node = NodeInfo { node: node.to_owned(), advertise: format!("http://{node}") };
    (Writer::open(db.clone(), small(), node).unwrap(), db)
}

async fn keys(db: &Database) -> Vec<Vec<u8>> {
    let manifest = db.load().await.unwrap().manifest;
    let mut keys = Vec::new();
    for entry in &manifest.log {
        let object = log::decode(&db.bucket.get(&entry.path()).await.unwrap()).unwrap();
        keys.extend(object.blocks.iter().flat_map(log::RawBlock::rows).map(|r| r.key.to_vec()));
    }
    keys
}

/// Writes, flushes and a restart over numbered edits.
#[tokio::test(start_paused = true)]
async fn writes_survive_a_restart() {
    let world = World::new();
    let (writer, _) = process(&world, "w1").await;
    writer.leading().await.unwrap();
    for i in 0..300u32 {
        writer.put(&i.to_be_bytes(), &[1; 500], None, MEMORY).await.unwrap();
    }
    writer.flush(None).await.unwrap();
    writer.end_generation();
    until(&writer, "the flush", |s| s.flushed_seq == SeqNo(300)).await;
    writer.put(b"last", b"v", None, BUCKET).await.unwrap();
    writer.close(Duration::from_secs(5)).await;
    let (writer, db) = process(&world, "w1").await;
    assert_eq!(writer.leading().await, Some(Epoch(2)));
    assert_eq!(writer.put(b"next", b"v", None, BUCKET).await.unwrap().seq, SeqNo(302));
    assert_eq!(keys(&db).await.len(), 302);
}

/// Who opens takes over. The old one finds out at its next commit, acknowledges nothing, refuses everything with
/// `fenced`, is not ready, and does not fence the new one in its turn.
#[tokio::test(start_paused = true)]
async fn a_fenced_writer_stays_down() {
    let world = World::new();
    let (old, db) = process(&world, "old").await;
    old.leading().await.unwrap();
    old.put(b"a", b"1", None, BUCKET).await.unwrap();
    let (new, _) = process(&world, "new").await;
    assert_eq!(new.leading().await, Some(Epoch(2)));
    assert_eq!(new.put(b"b", b"2", None, BUCKET).await.unwrap().seq, SeqNo(2));
    match old.put(b"stale", b"3", None, BUCKET).await {
        Err(WriteError::Fenced { .. }) => {}
        other => panic!("{other:?}"),
    }
    until_role(&old, Role::Fenced).await;
    assert!(matches!(old.put(b"stale", b"4", None, MEMORY).await, Err(WriteError::Fenced { .. })));
    let health = old.health();
    assert!(!health.ready && !health.reasons.is_empty(), "{health:?}");
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(old.status().role, Role::Fenced);
    assert_eq!(new.put(b"c", b"3", None, BUCKET).await.unwrap().epoch, Epoch(2));
    assert_eq!(keys(&db).await, [b"a", b"b", b"c"]);
    tokio::time::timeout(Duration::from_secs(5), old.close(Duration::from_secs(3))).await.unwrap();
    assert_eq!(old.status().role, Role::Closed);
}

/// An upload that is under way while another takes over: cut off, certainly refused, and void when it lands.
#[tokio::test(start_paused = true)]
async fn an_upload_cut_off_by_a_takeover_is_refused() {
    let world = World::new();
    let (old, db) = process(&world, "old").await;
    old.leading().await.unwrap();
    let gate = world.bucket.hold(Rule::on(Op::Put).path("log/*").nth(1));
    let stale = tokio::spawn({
        let old = old.clone();
        async move { old.put(b"stale", b"1", None, BUCKET).await }
    });
    gate.arrived(1).await;
    let (new, _) = process(&world, "new").await;
    new.leading().await.unwrap();
    new.put(b"new", b"1", None, BUCKET).await.unwrap();
    gate.open();
    let refused = stale.await.unwrap();
    assert!(matches!(refused, Err(WriteError::Fenced { .. })), "{refused:?}");
    assert_eq!(keys(&db).await, [b"new"]);
}

/// An upload that is done when another takes over is adopted, and its caller is told that it is committed.
#[tokio::test(start_paused = true)]
async fn an_upload_adopted_by_a_takeover_is_acknowledged() {
    let world = World::new();
    let (old, db) = process(&world, "old").await;
    old.leading().await.unwrap();
    let gate = world.bucket.hold(Rule::on(Op::Create).path("manifest/edit-*").nth(1));
    let put = tokio::spawn({
        let old = old.clone();
        async move { old.put(b"mine", b"1", None, BUCKET).await }
    });
    gate.arrived(1).await;
    let (new, _) = process(&world, "new").await;
    new.leading().await.unwrap();
    gate.open();
    assert_eq!(put.await.unwrap().unwrap().seq, SeqNo(1));
    assert_eq!(new.put(b"next", b"1", None, BUCKET).await.unwrap().seq, SeqNo(2));
    assert_eq!(keys(&db).await, [&b"mine"[..], b"next"]);
}
