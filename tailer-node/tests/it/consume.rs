//! Consumers get every change, in order, exactly once, whatever happens to the objects beneath.

use std::time::Duration;

use isle_storage::ids::{DatabaseId, Lineage, SeqNo};
use isle_storage::manifest::Change;
use isle_storage::object::StoreErrorKind;
use isle_storage::row::ValueRef;
use isle_testkit::embedded::Embedded;
use isle_testkit::fault::{Fault, Op, Rule};
use isle_testkit::scribe::{Entry, Scribe};
use tailer_node::{Consumer, Cursor, From, TailError, Tailer, TailerSettings};

/// So small that a few hundred changes already make many pieces and an overfull cache.
pub(crate) fn settings() -> TailerSettings {
    TailerSettings {
        whole_object_bytes: 2048,
        window_bytes: 64 << 10,
        cache_bytes: 1 << 20,
        ..Default::default()
    }
}

pub(crate) fn entries(n: u64, count: u64) -> Vec<Entry> {
    (0..count)
        .map(|i| {
            let key = format!("{}/{:05}", ["a", "b", "c"][(i % 3) as usize], n * 1000 + i);
            if i % 10 == 9 { Entry::delete(key) } else { Entry::put(key, format!("value {n}/{i}")) }
        })
        .collect()
}

pub(crate) async fn ready(e: &Embedded, scribe: &Scribe) -> Tailer {
    let tailer = Tailer::open(e.process("tailer"), settings()).unwrap();
    tailer.ready().await;
    follow(&tailer, scribe).await;
    tailer
}

/// Waits until the tailer knows what the scribe has written.
pub(crate) async fn follow(tailer: &Tailer, scribe: &Scribe) {
    while tailer.status().version < scribe.manifest().version.0 {
        tokio::task::yield_now().await;
    }
}

/// Takes `count` changes and compares them with what was written from `first` on.
async fn expect(consumer: &mut Consumer, scribe: &Scribe, first: u64, last: u64) {
    let mut next = first;
    while next <= last {
        let delivery = tokio::time::timeout(Duration::from_secs(20), consumer.next()).await.unwrap().unwrap();
        for row in delivery.rows() {
            let (seq, entry) = &scribe.history[row.seq.0 as usize - 1];
            assert_eq!((row.seq, row.seq.0), (*seq, next));
            assert_eq!(row.key, entry.key);
            let value = if let ValueRef::Put(v) = row.value { Some(v.to_vec()) } else { None };
            assert_eq!(value, entry.value);
            next += 1;
        }
        assert_eq!(consumer.cursor().seq, SeqNo(next - 1));
    }
    assert_eq!(next, last + 1, "more was delivered than asked for");
}

#[tokio::test]
async fn every_change_comes_once_and_in_order_across_flushes() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    for n in 0..5 {
        scribe.append(&entries(n, 100)).await;
        if n % 2 == 1 {
            scribe.flush().await;
        }
    }
    let tailer = ready(&e, &scribe).await;
    let mut consumer = tailer.consume(From::Earliest).await.unwrap();
    expect(&mut consumer, &scribe, 1, 500).await;
    assert!(consumer.caught_up());
    scribe.append(&entries(9, 50)).await;
    expect(&mut consumer, &scribe, 501, 550).await;
}

/// A consumer in the middle of a segment when a flush replaces it by a chunk and the segment is deleted.
#[tokio::test]
async fn a_flush_under_a_consumer_leaves_no_gap() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.append(&entries(0, 300)).await;
    let tailer = ready(&e, &scribe).await;
    let mut consumer = tailer.consume(From::Earliest).await.unwrap();
    let first = consumer.next().await.unwrap();
    assert!(first.to < SeqNo(300), "one delivery holds everything: the test proves nothing");
    scribe.flush().await;
    for retired in &scribe.manifest().retired {
        e.db.bucket.delete(&retired.path).await.unwrap();
    }
    expect(&mut consumer, &scribe, first.to.0 + 1, 300).await;
}

/// The record at the boundary is neither repeated nor skipped, wherever a consumer was cut off.
#[tokio::test]
async fn a_cursor_resumes_after_its_change_wherever_it_lies() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.append(&entries(0, 80)).await;
    scribe.flush().await;
    scribe.append(&entries(1, 70)).await;
    let tailer = ready(&e, &scribe).await;
    let start = tailer.consume(From::Earliest).await.unwrap().cursor();
    for seq in 0..=150 {
        let cursor: Cursor = Cursor { seq: SeqNo(seq), ..start }.to_string().parse().unwrap();
        let mut consumer = tailer.consume(From::Cursor(cursor)).await.unwrap();
        expect(&mut consumer, &scribe, seq + 1, 150).await;
    }
}

#[tokio::test]
async fn a_time_starts_at_the_first_change_written_then_or_later() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    let mut times = Vec::new();
    for n in 0..6 {
        times.push(e.db.env.clock.now());
        scribe.append(&entries(n, 40)).await;
        e.clock.advance(Duration::from_secs(10));
        if n == 2 {
            scribe.flush().await;
        }
    }
    let tailer = ready(&e, &scribe).await;
    for (n, time) in times.iter().enumerate() {
        let first = n as u64 * 40 + 1;
        let at = tailer.consume(From::Time(*time)).await.unwrap();
        assert_eq!(at.cursor().seq.next(), SeqNo(first), "at the instant itself");
        let before = tailer.consume(From::Time(time.minus(Duration::from_secs(3)))).await.unwrap();
        assert_eq!(before.cursor().seq.next(), SeqNo(first), "just before it");
    }
    let late = tailer.consume(From::Time(e.db.env.clock.now())).await.unwrap();
    assert_eq!(late.cursor().seq, SeqNo(240), "after everything: the next change to come");
}

/// A position below the retained log is said to be gone, with the earliest one; never a silent gap.
#[tokio::test]
async fn a_position_below_the_retained_log_has_expired() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.append(&entries(0, 30)).await;
    scribe.flush().await;
    scribe.append(&entries(1, 30)).await;
    let tailer = ready(&e, &scribe).await;
    let mut slow = tailer.consume(From::Earliest).await.unwrap();
    scribe.commit(vec![Change::TrimLog { trimmed_seq: SeqNo(30) }]).await;
    follow(&tailer, &scribe).await;
    let expired = |r: Result<Cursor, TailError>| match r {
        Err(TailError::CursorExpired { trimmed, earliest }) => (trimmed.0, earliest),
        other => panic!("{other:?}"),
    };
    let (trimmed, earliest) = expired(slow.next().await.map(|_| unreachable!()));
    assert_eq!((trimmed, earliest.seq), (30, SeqNo(30)));
    expired(tailer.consume(From::Seq(SeqNo(30))).await.map(|c| c.cursor()));
    let mut resumed = tailer.consume(From::Cursor(earliest)).await.unwrap();
    expect(&mut resumed, &scribe, 31, 60).await;
    let mut earliest = tailer.consume(From::Earliest).await.unwrap();
    expect(&mut earliest, &scribe, 31, 60).await;
}

#[tokio::test]
async fn a_cursor_of_another_history_or_beyond_the_head_is_refused() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.append(&entries(0, 10)).await;
    let tailer = ready(&e, &scribe).await;
    let good = tailer.consume(From::Latest).await.unwrap().cursor();
    let strangers = [
        Cursor { database: DatabaseId(1), ..good },
        Cursor { lineage: Lineage(1), ..good },
        Cursor { seq: SeqNo(11), ..good },
    ];
    for cursor in strangers {
        let refused = tailer.consume(From::Cursor(cursor)).await;
        assert!(matches!(refused, Err(TailError::WrongCursor { .. })), "{refused:?}");
    }
}

/// One fetch per piece, whatever the number of consumers.
#[tokio::test]
async fn many_consumers_cost_one_fetch_each_piece() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.append(&entries(0, 20)).await;
    scribe.append(&entries(1, 300)).await;
    let tailer = ready(&e, &scribe).await;
    let _before = e.bucket.take_history();
    let mut consumers = Vec::new();
    for _ in 0..50 {
        consumers.push(tailer.consume(From::Earliest).await.unwrap());
    }
    let all = consumers.iter_mut().map(|c| expect(c, &scribe, 1, 320));
    futures::future::join_all(all).await;
    let gets = e.bucket.count(Op::Get, "log/*");
    // The first segment whole; the second one's index and its one window.
    assert_eq!(gets, 3, "{:?}", e.bucket.history());
}

#[tokio::test]
async fn a_damaged_segment_is_an_error_and_the_position_stays_good() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.append(&entries(0, 20)).await;
    let tailer = ready(&e, &scribe).await;
    let mut consumer = tailer.consume(From::Earliest).await.unwrap();
    let fault = e.bucket.inject(Rule::on(Op::Get).path("log/*"), Fault::FlipBit(200));
    let error = consumer.next().await.map(|_| ()).unwrap_err();
    assert!(matches!(&error, TailError::Damaged(why) if why.contains("log/")), "{error}");
    e.bucket.remove(fault);
    expect(&mut consumer, &scribe, 1, 20).await;
}

#[tokio::test]
async fn a_store_that_fails_in_passing_costs_no_change() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.append(&entries(0, 20)).await;
    let tailer = ready(&e, &scribe).await;
    let mut consumer = tailer.consume(From::Earliest).await.unwrap();
    e.bucket.inject(Rule::on(Op::Get).path("log/*").times(1), Fault::Fail(StoreErrorKind::Transient));
    assert!(matches!(consumer.next().await.map(|_| ()), Err(TailError::Store(_))));
    expect(&mut consumer, &scribe, 1, 20).await;
}

#[tokio::test]
async fn consumers_are_bounded_and_places_come_back() {
    let e = Embedded::new().await;
    let scribe = Scribe::take_over(&e.db).await;
    let settings = TailerSettings { max_consumers: 2, ..settings() };
    let tailer = Tailer::open(e.process("tailer"), settings).unwrap();
    tailer.ready().await;
    follow(&tailer, &scribe).await;
    let first = tailer.consume(From::Latest).await.unwrap();
    let _second = tailer.consume(From::Latest).await.unwrap();
    assert!(matches!(tailer.consume(From::Latest).await.map(|_| ()), Err(TailError::Overloaded(2))));
    drop(first);
    tailer.consume(From::Latest).await.unwrap();
}

/// While coordination is away the known log is served, and the trouble is shown.
#[tokio::test]
async fn the_last_view_serves_while_coordination_is_away() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.append(&entries(0, 20)).await;
    let tailer = ready(&e, &scribe).await;
    e.coordination.set_down(true);
    while tailer.status().trouble.is_none() {
        tokio::task::yield_now().await;
    }
    let mut consumer = tailer.consume(From::Earliest).await.unwrap();
    expect(&mut consumer, &scribe, 1, 20).await;
    e.coordination.set_down(false);
    scribe.append(&entries(1, 5)).await;
    expect(&mut consumer, &scribe, 21, 25).await;
}
