//! Acknowledgement, group commit, order, and what failing stores and lost replies do to them.

use std::time::Duration;

use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::object::StoreErrorKind;
use isle_storage::row::Value;
use isle_testkit::fault::{Fault, Op, Rule};
use tokio::time::Instant;
use writer_node::{Ack, Options, WriteError, WriterSettings};

use crate::world::{BUCKET, MEMORY, World, small, until, value};

/// An acknowledged durable write is in the bucket and named by the head before the acknowledgement leaves.
#[tokio::test(start_paused = true)]
async fn acknowledged_means_in_the_head() {
    let world = World::new();
    let writer = world.leader(small()).await;
    for i in 0..20u64 {
        let key = format!("k{i}");
        let position = writer.put(key.as_bytes(), b"v", None, BUCKET).await.unwrap();
        assert_eq!(position.seq, SeqNo(i + 1));
        assert_eq!(world.head().await.manifest.last_seq, position.seq);
        let log = world.log().await;
        assert_eq!(log.last().unwrap().key, key.as_bytes());
    }
    let position = writer.delete(b"k3", BUCKET).await.unwrap();
    let log = world.log().await;
    assert_eq!((log[20].seq, &log[20].value), (position.seq, &Value::Delete));
}

/// A record with a time to live carries its expiry, and write times never go back with the clock.
#[tokio::test(start_paused = true)]
async fn times_never_decrease_and_expiries_count_from_them() {
    let world = World::new();
    let writer = world.leader(small()).await;
    world.clock.set(5_000_000);
    writer.put(b"a", b"1", Some(Duration::from_secs(1)), MEMORY).await.unwrap();
    world.clock.set(4_000_000);
    writer.put(b"b", b"2", Some(Duration::from_secs(1)), BUCKET).await.unwrap();
    let log = world.log().await;
    assert_eq!([log[0].time, log[1].time], [Timestamp(5_000_000); 2]);
    assert_eq!(log[1].expires, Some(Timestamp(6_000_000)));
}

/// Many clients share uploads and commits, and each gets its own number.
#[tokio::test(start_paused = true)]
async fn concurrent_puts_share_commits_and_are_all_there() {
    let world = World::new();
    let writer = world.leader(small()).await;
    world.bucket.inject(Rule::on(Op::Put).path("log/*"), Fault::Delay(Duration::from_millis(30)));
    let version = world.head().await.manifest.version;
    let puts = (0..200u32).map(|i| {
        let writer = writer.clone();
        async move { writer.put(&i.to_be_bytes(), &i.to_le_bytes(), None, BUCKET).await.unwrap().seq }
    });
    let mut seqs = futures::future::join_all(puts).await;
    let log = world.log().await;
    for (i, seq) in seqs.iter().enumerate() {
        let row = &log[seq.0 as usize - 1];
        assert_eq!(row.key.as_ref(), (i as u32).to_be_bytes());
        assert_eq!(value(row), (i as u32).to_le_bytes());
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=200).map(SeqNo).collect::<Vec<_>>());
    let commits = world.head().await.manifest.version.0 - version.0;
    assert!(commits <= 3, "{commits} commits for 200 concurrent puts");
}

/// One client alone pays no linger.
#[tokio::test(start_paused = true)]
async fn a_lone_waiter_does_not_linger() {
    let world = World::new();
    let settings = WriterSettings { linger_ms: 10_000, ..small() };
    let writer = world.leader(settings).await;
    let began = Instant::now();
    writer.put(b"a", b"1", None, BUCKET).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

/// Writes nobody waits for are uploaded once the linger is over.
#[tokio::test(start_paused = true)]
async fn unawaited_writes_are_committed_within_a_linger() {
    let world = World::new();
    let writer = world.leader(small()).await;
    writer.put(b"a", b"1", None, MEMORY).await.unwrap();
    let began = Instant::now();
    until(&writer, "the commit", |s| s.committed_seq == SeqNo(1)).await;
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
}

/// Ten seconds of refusals cost latency and nothing else: the same bytes go to the same name until they are there,
/// and the numbers stay dense.
#[tokio::test(start_paused = true)]
async fn ten_seconds_of_503_cost_only_time() {
    let world = World::new();
    let writer = world.leader(small()).await;
    writer.put(b"before", b"1", None, BUCKET).await.unwrap();
    let outage = world.bucket.inject(Rule::on(Op::Put), Fault::Fail(StoreErrorKind::Transient));
    let during = tokio::spawn({
        let writer = writer.clone();
        async move { writer.put(b"during", b"2", None, BUCKET).await }
    });
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!during.is_finished());
    assert!(!writer.health().ready || writer.status().troubles.len() == 1, "the trouble is shown");
    world.bucket.remove(outage);
    assert_eq!(during.await.unwrap().unwrap().seq, SeqNo(2));
    assert_eq!(world.log().await.len(), 2);
    assert!(writer.status().troubles.is_empty());
    let names: std::collections::BTreeSet<String> = world
        .bucket
        .history()
        .into_iter()
        .filter(|e| e.op == Op::Put && e.path.starts_with("log/"))
        .map(|e| format!("{} {}", e.path, e.len))
        .collect();
    assert_eq!(names.len(), 2, "a retry never makes another object: {names:?}");
}

/// A put that was applied and whose reply was lost is put again, and nobody takes it for somebody else's.
#[tokio::test(start_paused = true)]
async fn a_lost_reply_of_an_upload_does_not_fence() {
    let world = World::new();
    let writer = world.leader(small()).await;
    world.bucket.inject(Rule::on(Op::Put).path("log/*").nth(1), Fault::LoseReply);
    writer.put(b"a", b"1", None, BUCKET).await.unwrap();
    writer.put(b"b", b"2", None, BUCKET).await.unwrap();
    assert_eq!(world.log().await.len(), 2);
    assert_eq!(writer.status().epoch.unwrap().0, 1, "still the first epoch");
}

/// A retry sends the same object: a name of its own for each attempt would leave one behind each time, and could be
/// committed twice.
#[tokio::test(start_paused = true)]
async fn a_retried_upload_is_the_same_object() {
    let world = World::new();
    let writer = world.leader(small()).await;
    let failing = Fault::Fail(StoreErrorKind::Transient);
    world.bucket.inject(Rule::on(Op::Put).path("log/*").times(3), failing);
    let _before = world.bucket.take_history();
    let put = writer.put(b"a", b"1", None, BUCKET);
    let later = async {
        world.clock.set(99_000_000);
    };
    tokio::join!(async { put.await.unwrap() }, later);
    let history = world.bucket.take_history();
    let uploads: Vec<(&str, u64)> = history
        .iter()
        .filter(|e| e.op == Op::Put && e.path.starts_with("log/"))
        .map(|e| (e.path.as_str(), e.len))
        .collect();
    assert_eq!(uploads.len(), 4, "{uploads:?}");
    assert!(uploads.windows(2).all(|pair| pair[0] == pair[1]), "{uploads:?}");
    assert_eq!(world.log().await.len(), 1);
}

/// Uploads that end out of order are published in order, and a later one waits for the earlier.
#[tokio::test(start_paused = true)]
async fn uploads_out_of_order_are_published_in_order() {
    let world = World::new();
    let writer = world.leader(WriterSettings { linger_ms: 1, ..small() }).await;
    let gate = world.bucket.hold(Rule::on(Op::Put).path("log/*").nth(1));
    let first = tokio::spawn({
        let writer = writer.clone();
        async move { writer.put(b"first", b"1", None, BUCKET).await }
    });
    gate.arrived(1).await;
    let second = tokio::spawn({
        let writer = writer.clone();
        async move { writer.put(b"second", b"2", None, BUCKET).await }
    });
    until(&writer, "the second upload", |s| s.segments_in_flight == 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!second.is_finished(), "acknowledged before the segment in front of it");
    assert_eq!(world.head().await.manifest.last_seq, SeqNo(0));
    gate.open();
    assert_eq!(first.await.unwrap().unwrap().seq, SeqNo(1));
    assert_eq!(second.await.unwrap().unwrap().seq, SeqNo(2));
    world.log().await;
}

/// Numbers are given at acceptance and survive the caller: a request that is dropped is committed all the same.
#[tokio::test(start_paused = true)]
async fn a_cancelled_put_is_still_committed() {
    let world = World::new();
    let writer = world.leader(small()).await;
    let gate = world.bucket.hold(Rule::on(Op::Put).path("log/*").nth(1));
    let put = tokio::spawn({
        let writer = writer.clone();
        async move { writer.put(b"a", b"1", None, BUCKET).await }
    });
    gate.arrived(1).await;
    put.abort();
    assert!(put.await.unwrap_err().is_cancelled());
    gate.open();
    assert_eq!(writer.put(b"b", b"2", None, BUCKET).await.unwrap().seq, SeqNo(2));
    let keys: Vec<_> = world.log().await.into_iter().map(|r| r.key).collect();
    assert_eq!(keys, ["a", "b"]);
}

/// Coordination that is away for a while delays commits; nothing is guessed and nothing fails.
#[tokio::test(start_paused = true)]
async fn coordination_away_costs_only_time() {
    let world = World::new();
    let writer = world.leader(small()).await;
    world.coordination.set_down(true);
    let put = tokio::spawn({
        let writer = writer.clone();
        async move { writer.put(b"a", b"1", None, BUCKET).await }
    });
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!put.is_finished());
    assert!(!writer.health().ready, "twenty seconds without a commit make it not ready");
    world.coordination.set_down(false);
    put.await.unwrap().unwrap();
    assert_eq!(world.log().await.len(), 1);
    until(&writer, "readiness", |s| s.troubles.is_empty()).await;
    assert!(writer.health().ready);
}

/// A caller whose own patience ends is told that the outcome is unknown, with what it needs to find out; never that
/// the write failed.
#[tokio::test(start_paused = true)]
async fn a_deadline_gives_unknown_and_never_a_failure() {
    let world = World::new();
    let writer = world.leader(small()).await;
    world.coordination.set_down(true);
    let options = Options { ack_timeout: Some(Duration::from_secs(3)), ..BUCKET };
    match writer.put(b"a", b"1", None, options).await {
        Err(WriteError::OutcomeUnknown { epoch, first_seq, last_seq, commit, .. }) => {
            assert_eq!((epoch.0, first_seq, last_seq), (1, SeqNo(1), SeqNo(1)));
            assert!(commit.is_some(), "a commit was attempted");
        }
        other => panic!("{other:?}"),
    }
    world.coordination.set_down(false);
    until(&writer, "the commit", |s| s.committed_seq == SeqNo(1)).await;
    assert_eq!(world.log().await.len(), 1);
}

/// Somebody else's commit in between (a compactor's) costs a second proposal.
#[tokio::test(start_paused = true)]
async fn a_moved_head_is_proposed_to_again() {
    let world = World::new();
    let writer = world.leader(small()).await;
    writer.put(b"a", b"1", None, BUCKET).await.unwrap();
    let db = world.database().await;
    let loaded = world.head().await;
    isle_storage::coordination::fold::fold(&db, &loaded).await.unwrap().unwrap();
    writer.put(b"b", b"2", None, BUCKET).await.unwrap();
    assert_eq!(world.log().await.len(), 2);
    assert!(writer.database().env.metrics.encode().contains("isle_manifest_conflicts_total"));
}

/// Where no compactor folds, the writer does, and goes on committing.
#[tokio::test(start_paused = true)]
async fn the_writer_folds_where_nobody_else_does() {
    let world = World::new();
    let writer = world.leader(WriterSettings { fold_edits: 10, ..small() }).await;
    for i in 0..40u32 {
        writer.put(&i.to_be_bytes(), b"v", None, BUCKET).await.unwrap();
    }
    let loaded = world.head().await;
    let behind = loaded.manifest.version.0 - loaded.state.head.checkpoint.version.0;
    assert!(behind < 25, "{behind} edits since the checkpoint");
    assert_eq!(world.log().await.len(), 40);
}

/// Commits keep the rate they are given, and an edit carries all that is ready.
#[tokio::test(start_paused = true)]
async fn commits_keep_their_rate() {
    let world = World::new();
    let settings = WriterSettings { max_commits_per_second: Some(10), linger_ms: 1, ..small() };
    let writer = world.leader(settings).await;
    let before = world.head().await.manifest.version;
    let began = Instant::now();
    let clients = (0..8u32).map(|c| {
        let writer = writer.clone();
        async move {
            for i in 0..40u32 {
                writer.put(&(c * 1000 + i).to_be_bytes(), b"v", None, BUCKET).await.unwrap();
            }
        }
    });
    futures::future::join_all(clients).await;
    let commits = (world.head().await.manifest.version.0 - before.0) as f64;
    let allowed = 10.0 + began.elapsed().as_secs_f64() * 10.0 + 1.0;
    assert!(commits <= allowed, "{commits} commits, {allowed} allowed");
    assert_eq!(world.log().await.len(), 320);
}

/// Uploads keep the rate they are given, and each carries what came in the meantime.
#[tokio::test(start_paused = true)]
async fn uploads_keep_their_rate() {
    let world = World::new();
    let settings = WriterSettings { max_puts_per_second: Some(5), linger_ms: 1, ..small() };
    let writer = world.leader(settings).await;
    let began = Instant::now();
    let clients = (0..8u32).map(|c| {
        let writer = writer.clone();
        async move {
            for i in 0..40u32 {
                writer.put(&(c * 1000 + i).to_be_bytes(), b"v", None, BUCKET).await.unwrap();
            }
        }
    });
    futures::future::join_all(clients).await;
    let allowed = 10.0 + began.elapsed().as_secs_f64() * 5.0 + 1.0;
    let uploads = world.bucket.count(Op::Put, "log/*.seg") as f64;
    assert!(uploads <= allowed, "{uploads} segments, {allowed} allowed");
    assert!(
        began.elapsed() < std::time::Duration::from_secs(12),
        "{:?}: they did not share",
        began.elapsed()
    );
    assert_eq!(world.log().await.len(), 320);
}

/// Flush waits until everything accepted is in the head.
#[tokio::test(start_paused = true)]
async fn flush_waits_for_everything_accepted() {
    let world = World::new();
    let writer = world.leader(WriterSettings { linger_ms: 10_000, ..small() }).await;
    for i in 0..100u32 {
        writer.put(&i.to_be_bytes(), &[7; 1000], None, MEMORY).await.unwrap();
    }
    let position = writer.flush(None).await.unwrap();
    assert_eq!(position.seq, SeqNo(100));
    assert_eq!(world.head().await.manifest.last_seq, SeqNo(100));
    writer.flush(None).await.unwrap();
}

/// Requests that cannot be served are refused before anything is accepted.
#[tokio::test(start_paused = true)]
async fn bad_requests_are_refused_with_their_limits() {
    let world = World::new();
    let writer = world.leader(small()).await;
    assert!(matches!(writer.put(b"", b"v", None, BUCKET).await, Err(WriteError::InvalidKey { len: 0 })));
    let key = vec![b'k'; 65_537];
    assert!(matches!(
        writer.put(&key, b"v", None, BUCKET).await,
        Err(WriteError::InvalidKey { len: 65_537 })
    ));
    let value = vec![0; 64 * 1024 + 1];
    match writer.put(b"k", &value, None, BUCKET).await {
        Err(WriteError::ValueTooLarge { len, limit }) => assert_eq!((len, limit), (65_537, 65_536)),
        other => panic!("{other:?}"),
    }
    let disk = writer.put(b"k", b"v", None, Options::ack(Ack::Disk)).await;
    assert!(matches!(disk, Err(WriteError::Unsupported(_))), "{disk:?}");
    assert_eq!(writer.put(&key[..65_536], &value[..65_536], None, BUCKET).await.unwrap().seq, SeqNo(1));
}
