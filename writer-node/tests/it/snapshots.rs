//! Named snapshots: what they hold, who gets a name, and what a lost leadership makes of a request.

use std::time::Duration;

use isle_storage::coordination::Authority;
use isle_storage::coordination::commit::{Resolved, commit, propose};
use isle_storage::ids::{CommitId, SeqNo, Timestamp};
use isle_storage::manifest::{Author, Change, Edit, JudgedExpiry};
use writer_node::{Role, SnapshotError, SnapshotOptions, WriteError, WriterSettings};

use crate::world::{BUCKET, MEMORY, World, small, until, until_role};

const FOR_EVER: SnapshotOptions = SnapshotOptions { ttl: None, holds_log: false, ack_timeout: None };

/// Somebody else ends the snapshot.
async fn drop_behind_its_back(world: &World, name: &str) {
    behind_its_back(world, Change::DropSnapshot { name: name.to_owned() }).await;
}

/// Somebody else's edit, which this writer does not learn of before its next commit.
async fn behind_its_back(world: &World, change: Change) {
    let db = world.database().await;
    let loaded = db.load().await.unwrap();
    let m = &loaded.manifest;
    let edit = Edit {
        version: m.version.next(),
        lineage: m.lineage,
        epoch: m.epoch,
        commit: CommitId(77),
        author: Author::Observer("compactor".to_owned()),
        changes: vec![change],
        required_features: Vec::new(),
        extra: Default::default(),
    };
    let proposal = propose(&loaded.state, m, edit, &Authority::Observer).unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    assert!(matches!(commit(&db, &proposal, deadline).await, Resolved::Committed(_)));
}

/// What was only accepted before the request is committed by the edit that takes the snapshot, and inside.
#[tokio::test(start_paused = true)]
async fn a_snapshot_holds_everything_accepted_before_it() {
    let world = World::new();
    let writer = world.leader(small()).await;
    for i in 0..50u32 {
        writer.put(&i.to_be_bytes(), b"v", None, MEMORY).await.unwrap();
    }
    let options = SnapshotOptions { ttl: Some(Duration::from_secs(60)), holds_log: true, ..FOR_EVER };
    let taken = writer.take_snapshot("s", options).await.unwrap();
    assert_eq!((taken.seq, taken.epoch.0), (SeqNo(50), 1));
    assert_eq!(taken.expires, Some(taken.created.plus(Duration::from_secs(60))));
    let head = world.head().await.manifest;
    let there = &head.snapshots["s"];
    assert_eq!((there.seq, there.created, there.expires), (taken.seq, taken.created, taken.expires));
    assert!(there.holds_log);
    assert_eq!(writer.snapshots().await.unwrap(), std::slice::from_ref(&taken));
    assert!(head.log.iter().any(|e| e.last_seq == SeqNo(50)), "it is the end of a segment");
}

#[tokio::test(start_paused = true)]
async fn an_idle_database_can_be_held_too_and_a_name_belongs_to_one() {
    let world = World::new();
    let writer = world.leader(small()).await;
    assert_eq!(writer.take_snapshot("empty", FOR_EVER).await.unwrap().seq, SeqNo(0));
    writer.put(b"a", b"1", None, BUCKET).await.unwrap();
    world.clock.set(9_000_000);
    let first = writer.take_snapshot("s", FOR_EVER).await.unwrap();
    assert_eq!((first.seq, first.created, first.expires), (SeqNo(1), Timestamp(9_000_000), None));
    writer.put(b"a", b"2", None, BUCKET).await.unwrap();
    let Err(SnapshotError::Exists(there)) = writer.take_snapshot("s", FOR_EVER).await else { panic!() };
    assert_eq!(there, first);
    assert_eq!(writer.drop_snapshot("s", None).await.unwrap(), first);
    assert!(matches!(writer.drop_snapshot("s", None).await, Err(SnapshotError::NotThere(n)) if n == "s"));
    assert_eq!(writer.take_snapshot("s", FOR_EVER).await.unwrap().seq, SeqNo(2));
    assert_eq!(world.head().await.manifest.snapshots.len(), 2);
}

/// No snapshot is older than another that is there, or than what it holds, whatever the clock does.
#[tokio::test(start_paused = true)]
async fn a_clock_set_back_does_not_take_an_earlier_snapshot() {
    let world = World::new();
    let writer = world.leader(small()).await;
    world.clock.set(9_000_000);
    writer.put(b"a", b"1", None, BUCKET).await.unwrap();
    world.clock.set(12_000_000);
    let first = writer.take_snapshot("first", FOR_EVER).await.unwrap();
    world.clock.set(2_000_000);
    let second = writer.take_snapshot("second", FOR_EVER).await.unwrap();
    assert_eq!((first.created, second.created), (Timestamp(12_000_000), Timestamp(12_000_000)));
    for name in ["first", "second"] {
        writer.drop_snapshot(name, None).await.unwrap();
    }
    assert_eq!(writer.take_snapshot("third", FOR_EVER).await.unwrap().created, Timestamp(9_000_000));
}

/// A merge that this writer has not heard of has dropped rows that expired later than its clock shows: the snapshot reads
/// at an instant at which nobody misses them.
#[tokio::test(start_paused = true)]
async fn a_slow_clock_does_not_take_a_snapshot_of_rows_that_are_gone() {
    let world = World::new();
    let writer = world.leader(small()).await;
    world.clock.set(9_000_000);
    writer.put(b"a", b"1", Some(Duration::from_secs(50)), BUCKET).await.unwrap();
    writer.end_generation();
    until(&writer, "the flush", |s| s.flushed_seq == SeqNo(1)).await;
    let m = world.head().await.manifest;
    let merged = Change::Merge {
        inputs: m.runs.iter().map(|r| r.id).collect(),
        tables: Vec::new(),
        snapshots: Vec::new(),
        planned_mode: m.compaction.clone(),
        dropped: true,
        judged: SeqNo(1),
        expiry: Some(JudgedExpiry { by: Some(Timestamp(59_000_000)), held: Vec::new() }),
    };
    behind_its_back(&world, merged).await;
    let taken = writer.take_snapshot("s", FOR_EVER).await.unwrap();
    assert_eq!(taken.created, Timestamp(59_000_000));
    assert_eq!(world.head().await.manifest.snapshots["s"].created, taken.created);
}

#[tokio::test(start_paused = true)]
async fn bad_requests_change_nothing() {
    let world = World::new();
    let writer = world.leader(WriterSettings { max_snapshots: 1, ..small() }).await;
    let version = world.head().await.manifest.version;
    for bad in ["", ".", "..", "-a", "a/b", "a b", "ä", &"x".repeat(129)] {
        let refused = writer.take_snapshot(bad, FOR_EVER).await;
        assert!(matches!(refused, Err(SnapshotError::InvalidName(_))), "{bad:?}");
        assert!(matches!(writer.drop_snapshot(bad, None).await, Err(SnapshotError::InvalidName(_))));
    }
    assert!(matches!(writer.drop_snapshot("no", None).await, Err(SnapshotError::NotThere(_))));
    assert_eq!(world.head().await.manifest.version, version);
    writer.take_snapshot(&"x".repeat(128), FOR_EVER).await.unwrap();
    let over = writer.take_snapshot("one-more", FOR_EVER).await;
    assert!(matches!(over, Err(SnapshotError::TooMany { limit: 1 })));
}

/// A refusal is judged by a head read after the request: what somebody else has ended since is gone.
#[tokio::test(start_paused = true)]
async fn what_a_compactor_has_ended_is_not_refused_by_a_stale_manifest() {
    let world = World::new();
    let writer = world.leader(small()).await;
    for name in ["a", "b"] {
        writer.take_snapshot(name, FOR_EVER).await.unwrap();
        drop_behind_its_back(&world, name).await;
    }
    assert!(matches!(writer.drop_snapshot("b", None).await, Err(SnapshotError::NotThere(_))));
    writer.take_snapshot("c", FOR_EVER).await.unwrap();
    drop_behind_its_back(&world, "c").await;
    writer.take_snapshot("c", FOR_EVER).await.unwrap();
    assert_eq!(writer.snapshots().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_many_who_want_one_name_one_gets_it() {
    let world = World::new();
    let writer = world.leader(small()).await;
    let takers = (0..8).map(|i| {
        let writer = writer.clone();
        async move {
            writer.put(format!("{i}").as_bytes(), b"v", None, MEMORY).await.unwrap();
            writer.take_snapshot("one", FOR_EVER).await
        }
    });
    let answers = futures::future::join_all(takers).await;
    let taken: Vec<_> = answers.iter().filter_map(|a| a.as_ref().ok()).collect();
    assert_eq!(taken.len(), 1);
    for answer in &answers {
        assert!(matches!(answer, Err(SnapshotError::Exists(s)) if s == taken[0]) || answer.is_ok());
    }
}

/// A successor adopts the segments of an edit that was never committed; the snapshot in it is certainly not taken.
#[tokio::test(start_paused = true)]
async fn an_adopted_segment_does_not_bring_the_snapshot_with_it() {
    let world = World::new();
    let writer = world.leader(small()).await;
    world.coordination.set_down(true);
    let put = tokio::spawn({
        let writer = writer.clone();
        async move { writer.put(b"a", b"1", None, BUCKET).await }
    });
    let snapshot = tokio::spawn({
        let writer = writer.clone();
        async move { writer.take_snapshot("s", FOR_EVER).await }
    });
    until(&writer, "a commit that fails", |s| s.troubles.iter().any(|t| t.contains("commit"))).await;
    world.coordination.expire_writer();
    until_role(&writer, Role::Starting).await;
    assert!(!put.is_finished());
    world.coordination.set_down(false);
    assert_eq!(put.await.unwrap().unwrap().seq, SeqNo(1));
    let refused = snapshot.await.unwrap();
    assert!(
        matches!(refused, Err(SnapshotError::Refused(WriteError::NotLeader { .. }))),
        "certainly not taken: {refused:?}"
    );
    assert!(world.head().await.manifest.snapshots.is_empty());
    writer.leading().await.unwrap();
    assert_eq!(writer.take_snapshot("s", FOR_EVER).await.unwrap().epoch.0, 2);
}

/// A deadline that passes while nobody can tell gives `outcome_unknown`; the same name tells later what became of it.
#[tokio::test(start_paused = true)]
async fn an_outcome_nobody_can_read_is_unknown_and_the_name_tells_later() {
    let world = World::new();
    let writer = world.leader(small()).await;
    world.coordination.set_down(true);
    let hurried = SnapshotOptions { ack_timeout: Some(Duration::from_secs(1)), ..FOR_EVER };
    let unknown = writer.take_snapshot("s", hurried).await;
    assert!(matches!(unknown, Err(SnapshotError::OutcomeUnknown { ref name, .. }) if name == "s"));
    world.coordination.set_down(false);
    until(&writer, "calm", |s| s.troubles.is_empty()).await;
    let Err(SnapshotError::Exists(there)) = writer.take_snapshot("s", FOR_EVER).await else { panic!() };
    assert_eq!(there.seq, world.head().await.manifest.snapshots["s"].seq);
}

/// A writer that stops commits what it was asked for before.
#[tokio::test(start_paused = true)]
async fn a_drain_takes_what_was_asked_for() {
    let world = World::new();
    let writer = world.leader(small()).await;
    let snapshot = tokio::spawn({
        let writer = writer.clone();
        async move {
            writer.put(b"a", b"1", None, MEMORY).await.unwrap();
            writer.take_snapshot("s", FOR_EVER).await
        }
    });
    tokio::task::yield_now().await;
    writer.close(Duration::from_secs(10)).await;
    assert_eq!(snapshot.await.unwrap().unwrap().seq, SeqNo(1));
    assert!(matches!(
        writer.take_snapshot("t", FOR_EVER).await,
        Err(SnapshotError::Refused(WriteError::Closing))
    ));
    assert_eq!(world.head().await.manifest.snapshots.len(), 1);
}
