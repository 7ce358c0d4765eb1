//! Following the head: `min_seq`, lost writes, outages, and views that never go back.

use std::time::Duration;

use isle_storage::ids::{Epoch, Position, SeqNo};
use isle_testkit::fault::{Op, Rule};
use reader_node::{MinSeq, ReadError, ReadOptions, Reader, ReaderSettings};

use crate::damage::wait_for;
use crate::fixture::World;

fn at_least(seq: u64) -> ReadOptions {
    ReadOptions { min_seq: Some(MinSeq::Seq(SeqNo(seq))), ..ReadOptions::default() }
}

fn position(epoch: Epoch, seq: SeqNo) -> ReadOptions {
    let wait = Some(Duration::from_secs(1));
    ReadOptions { min_seq: Some(MinSeq::Position(Position { epoch, seq })), wait, ..ReadOptions::default() }
}

/// A read that names a write's number waits for it, and then it is there.
#[tokio::test]
async fn min_seq_waits_until_the_write_is_there() {
    let mut world = World::new().await;
    let reader = world.reader().await;
    let get = tokio::spawn({
        let reader = reader.clone();
        async move { reader.get(b"a", &at_least(2)).await }
    });
    world.put(b"a", b"1");
    world.commit().await;
    world.put(b"a", b"2");
    world.commit().await;
    let answer = get.await.unwrap().unwrap();
    assert_eq!(answer.found.unwrap().value, "2");
}

/// A wait that began before a load and is satisfied by a later one does not take the older one's view: what counts is
/// what the view holds.
#[tokio::test]
async fn a_wait_never_joins_a_load_that_is_older_than_what_it_asks_for() {
    let mut world = World::new().await;
    let reader = world.reader().await;
    let gate = world.faults.hold(Rule::on(Op::Get).path("log/*").nth(1));
    world.put(b"a", b"1");
    world.commit().await;
    gate.arrived(1).await;
    world.put(b"a", b"2");
    world.commit().await;
    let get = tokio::spawn({
        let reader = reader.clone();
        async move { reader.get(b"a", &at_least(2)).await }
    });
    gate.open();
    let answer = get.await.unwrap().unwrap();
    assert_eq!((answer.found.unwrap().value, answer.view_seq), ("2".into(), SeqNo(2)));
}

/// What never comes is reported as behind after the wait asked for, with where the view is.
#[tokio::test(start_paused = true)]
async fn min_seq_that_never_comes_is_view_behind_after_the_wait() {
    let mut world = World::new().await;
    world.put(b"a", b"1");
    world.commit().await;
    let reader = world.reader().await;
    let before = tokio::time::Instant::now();
    let options = ReadOptions { wait: Some(Duration::from_secs(3)), ..at_least(9) };
    let error = reader.get(b"a", &options).await.unwrap_err();
    assert!(matches!(error, ReadError::ViewBehind { seq: SeqNo(1), .. }), "{error}");
    assert!((3..5).contains(&before.elapsed().as_secs()));
    let options = ReadOptions { wait: Some(Duration::from_secs(3600)), ..at_least(9) };
    let before = tokio::time::Instant::now();
    reader.get(b"a", &options).await.unwrap_err();
    assert!((60..62).contains(&before.elapsed().as_secs()), "the longest wait is bounded");
}

/// A position whose epoch ended below it is a lost write, never somebody else's record of the same number.
#[tokio::test(start_paused = true)]
async fn a_write_lost_with_its_epoch_is_reported_as_lost() {
    let mut world = World::new().await;
    world.put(b"a", b"1");
    world.commit().await;
    let old = world.claim.epoch;
    let lost = world.put(b"a", b"answered from memory, then lost");
    world.take_over().await;
    let other = world.put(b"a", b"somebody else's");
    assert_eq!(lost, other);
    world.commit().await;
    let reader = world.reader().await;
    let error = reader.get(b"a", &position(old, lost)).await.unwrap_err();
    assert!(matches!(error, ReadError::WriteLost { .. }), "{error}");
    let answer = reader.get(b"a", &position(world.claim.epoch, other)).await.unwrap();
    assert_eq!(answer.found.unwrap().value, "somebody else's");
    assert!(reader.get(b"a", &position(old, SeqNo(1))).await.is_ok());
    let ahead = reader.get(b"a", &position(world.claim.epoch.next(), SeqNo(1))).await.unwrap_err();
    assert!(matches!(ahead, ReadError::ViewBehind { .. }), "{ahead}");
}

/// While coordination is away the last view serves, and says so; it moves on by itself afterwards.
#[tokio::test(start_paused = true)]
async fn the_last_view_serves_while_coordination_is_away() {
    let mut world = World::new().await;
    world.put(b"a", b"1");
    world.commit().await;
    let reader = world.reader().await;
    assert!(reader.health().is_well());
    world.coordination.set_down(true);
    wait_for(|| !reader.health().is_well()).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let health = reader.health();
    assert!(health.serving && health.view_age.unwrap() > Duration::from_secs(60), "{health:?}");
    assert!(health.reasons.iter().any(|r| r.contains("s old")), "{health:?}");
    assert_eq!(reader.get(b"a", &ReadOptions::default()).await.unwrap().found.unwrap().value, "1");
    world.coordination.set_down(false);
    world.put(b"a", b"2");
    world.commit().await;
    world.catch_up(&reader).await;
    wait_for(|| reader.health().is_well()).await;
    assert_eq!(reader.get(b"a", &ReadOptions::default()).await.unwrap().found.unwrap().value, "2");
}

/// A reader that is opened while coordination is away is not ready, says why, and becomes ready by itself.
#[tokio::test(start_paused = true)]
async fn a_reader_opened_during_an_outage_becomes_ready_by_itself() {
    let mut world = World::new().await;
    world.put(b"a", b"1");
    world.commit().await;
    let db = world.reader_db().await;
    world.coordination.set_down(true);
    let reader = Reader::open(db, ReaderSettings::default()).unwrap();
    wait_for(|| reader.health().reasons.len() > 1).await;
    assert!(!reader.health().serving);
    let error = reader.get(b"a", &ReadOptions::default()).await.unwrap_err();
    assert!(matches!(&error, ReadError::NotReady(why) if why.contains("down")), "{error}");
    world.coordination.set_down(false);
    reader.ready().await.unwrap();
    assert!(reader.get(b"a", &ReadOptions::default()).await.unwrap().found.is_some());
}

/// A coordination service that was set back to an older copy is refused: the view does not go back, and says so.
#[tokio::test(start_paused = true)]
async fn a_view_never_goes_back() {
    let mut world = World::new().await;
    world.put(b"a", b"1");
    world.commit().await;
    let backup = world.coordination.backup();
    world.put(b"a", b"2");
    world.commit().await;
    let reader = world.reader().await;
    let before = reader.position();
    world.coordination.restore(&backup);
    wait_for(|| !reader.health().is_well()).await;
    assert_eq!(reader.position(), before);
    assert_eq!(reader.get(b"a", &ReadOptions::default()).await.unwrap().found.unwrap().value, "2");
    assert!(reader.health().reasons.join(" ").contains("regressed"), "{:?}", reader.health());
}

/// Flushes let whole generations go; a late joiner that holds one generation across several keeps it until its last
/// row is in tables, and answers the same.
#[tokio::test]
async fn generations_leave_only_when_their_last_row_is_in_tables() {
    let mut world = World::new().await;
    let early = world.reader().await;
    for generation in 0..3u8 {
        for n in 0..4u8 {
            world.put(b"k", &[generation, n]);
            world.put(&[generation, n], b"v");
            world.commit_marked(n == 0).await;
        }
    }
    world.catch_up(&early).await;
    assert_eq!(early.status().tree.generations, 3);
    world.flush(2).await;
    let late = world.reader().await;
    world.catch_up(&early).await;
    assert_eq!((early.status().tree.generations, late.status().tree.generations), (3, 3));
    assert_eq!((early.status().tree.memory_rows, late.status().tree.memory_rows), (24, 20));
    world.flush(2).await;
    for reader in [&early, &late] {
        world.catch_up(reader).await;
        assert_eq!(reader.status().tree.generations, 2);
        let found = reader.get(b"k", &ReadOptions::default()).await.unwrap().found.unwrap();
        assert_eq!(found.value, [2u8, 3].as_slice());
    }
    world.flush(8).await;
    world.catch_up(&late).await;
    assert_eq!(late.status().tree.generations, 0);
}

/// The unflushed log has a limit in memory: beyond it the last view serves and says why, and a flush lets it go on.
#[tokio::test(start_paused = true)]
async fn an_unflushed_log_above_its_limit_holds_the_view_until_a_flush() {
    let mut world = World::new().await;
    let settings = ReaderSettings {
        max_unflushed_bytes: 20_000,
        generation_bytes: 4_000,
        max_concurrent_segments: 1,
        ..ReaderSettings::default()
    };
    let reader = world.reader_with(settings).await;
    for n in 0..20u8 {
        world.put(&[b'k', n], &[n; 2000]);
        world.commit().await;
    }
    wait_for(|| reader.health().reasons.join(" ").contains("max_unflushed_bytes")).await;
    assert!(reader.position().1 < SeqNo(20));
    let seen = reader.position().1;
    assert!(reader.get(&[b'k', seen.0 as u8 - 1], &ReadOptions::default()).await.unwrap().found.is_some());
    world.flush(16).await;
    world.catch_up(&reader).await;
    assert!(reader.health().is_well(), "{:?}", reader.health());
    for n in 0..20u8 {
        assert!(reader.get(&[b'k', n], &ReadOptions::default()).await.unwrap().found.is_some(), "{n}");
    }
}

/// Closing ends waits at once, and the follower with them.
#[tokio::test]
async fn closing_ends_waits() {
    let world = World::new().await;
    let reader = world.reader().await;
    let get = tokio::spawn({
        let reader = reader.clone();
        async move { reader.get(b"a", &at_least(99)).await }
    });
    tokio::task::yield_now().await;
    reader.close();
    assert!(matches!(get.await.unwrap(), Err(ReadError::Closed)));
}
