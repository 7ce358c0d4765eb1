//! Modes through the compactor: retention by itself at its instant, and the change of mode.

use std::time::Duration;

use compactor_node::mode;
use compactor_node::once::{self, Limits, Outcome};
use compactor_node::{Compactor, CompactorSettings, JobError};
use isle_storage::manifest::{Change, CompactionMode, Snapshot};
use isle_testkit::embedded::Embedded;
use isle_testkit::scribe::{Entry, Scribe};

use crate::merge::{node, settings};
use crate::tree;

const SECOND: i64 = 1_000_000;

fn fifo(seconds: i64) -> CompactionMode {
    CompactionMode::Fifo { retention_us: seconds * SECOND, retention_count: 0 }
}

fn sharp() -> CompactorSettings {
    CompactorSettings { max_clock_skew_seconds: 0, ..settings() }
}

/// One run every ten seconds, each with the same key and one of its own.
async fn database(mode: CompactionMode, runs: u64) -> (Embedded, Scribe) {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.commit(vec![Change::SetCompaction { compaction: mode }]).await;
    for n in 0..runs {
        scribe.append(&[Entry::put("same", format!("{n}")), Entry::put(format!("own {n}"), "v")]).await;
        scribe.flush().await;
        e.clock.advance(Duration::from_secs(10));
    }
    (e, scribe)
}

async fn keys(e: &Embedded) -> Vec<String> {
    let m = e.db.load().await.unwrap().manifest;
    let seen = tree::visible_at(&e.db, &m, m.last_seq, e.db.env.clock.now()).await;
    seen.into_keys().map(|k| String::from_utf8(k).unwrap()).collect()
}

/// A pause is about load, and retention costs none: rows go at their time, by cron and by daemons.
#[tokio::test(start_paused = true)]
async fn a_pause_does_not_hold_up_retention() {
    let (e, _scribe) = database(fifo(100), 3).await;
    let daemon = Compactor::open(e.process("compactor"), node("d"), sharp()).unwrap();
    daemon.pause(None).await.unwrap();
    e.clock.advance(Duration::from_secs(75));
    let run = once::once(e.process("compactor"), node("c"), sharp(), Limits::default()).await.unwrap();
    assert_eq!((run.outcome, run.paused, run.expired_tables), (Outcome::Done, true, 1), "{run:?}");
    // The daemon wakes by itself when the next one's time has come.
    e.clock.advance(Duration::from_secs(10));
    let mut view = daemon.current();
    let gone = view.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.runs.len() == 1));
    tokio::time::timeout(Duration::from_secs(3600), gone).await.expect("it waits for the pause").unwrap();
    assert_eq!((daemon.status().paused, daemon.status().expired_tables), (true, 1));
    daemon.close().await;
    assert_eq!(keys(&e).await, ["own 2", "same"]);
}

/// The oldest rows go and the newest version stays what it was; the objects are retired for the collector.
#[tokio::test]
async fn fifo_lets_go_what_is_over_and_nothing_older_comes_back() {
    let (e, scribe) = database(fifo(100), 3).await;
    let run = once::once(e.process("compactor"), node("c"), sharp(), Limits::default()).await.unwrap();
    assert_eq!((run.outcome, run.expired_tables), (Outcome::NothingToDo, 0));
    // 105 s after the first row, 95 after the second.
    e.clock.advance(Duration::from_secs(75));
    let limits = Limits { dry_run: true, ..Limits::default() };
    let dry = once::once(e.process("compactor"), node("c"), sharp(), limits).await.unwrap();
    assert_eq!(dry.plan.unwrap().expire.map(|p| (p.tables, p.rows, p.reason)), Some((1, 2, "retention")));
    let run = once::once(e.process("compactor"), node("c"), sharp(), Limits::default()).await.unwrap();
    assert_eq!((run.outcome, run.expired_tables), (Outcome::Done, 1));
    assert_eq!(keys(&e).await, ["own 1", "own 2", "same"]);
    let m = e.db.load().await.unwrap().manifest;
    assert_eq!((m.runs.len(), m.last_seq), (2, scribe.manifest().last_seq));
    assert!(
        m.required_features.iter().any(|f| f == "expire"),
        "an older program must say that it cannot read this"
    );
}

/// Nobody writes: the loop wakes by itself when the time has come, and not before.
#[tokio::test(start_paused = true)]
async fn retention_wakes_an_idle_compactor() {
    let (e, _scribe) = database(fifo(20), 1).await;
    let compactor = Compactor::open(e.process("compactor"), node("c"), sharp()).unwrap();
    let mut view = compactor.current();
    view.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.runs.len() == 1)).await.unwrap();
    // The runtime's time passes by itself; the wall clock, ten seconds before the end, stands still.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(e.db.load().await.unwrap().manifest.runs.len(), 1);
    e.clock.advance(Duration::from_secs(10));
    let gone = view.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.runs.is_empty()));
    tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap().unwrap();
    compactor.close().await;
    assert_eq!(compactor.status().expired_tables, 1);
}

#[tokio::test]
async fn a_change_of_mode_says_what_it_means_before_it_is_made() {
    let (e, _scribe) = database(CompactionMode::Merge, 4).await;
    let compactor = Compactor::idle(e.process("compactor"), node("c"), sharp()).unwrap();
    let m = e.db.load().await.unwrap().manifest;
    // Rows are 40, 30, 20 and 10 seconds old.
    let foreseen = compactor.foresee(&m, &fifo(25));
    assert_eq!((foreseen.over.tables, foreseen.over.rows, foreseen.all.tables), (2, 4, 4));
    assert_eq!(foreseen.next.map(|at| at.0 - e.db.env.clock.now().0), Some(5 * SECOND));
    assert_eq!(e.db.load().await.unwrap().manifest.version, m.version, "nothing has changed");
    let done = compactor.set_mode(&fifo(25)).await.unwrap();
    assert_eq!((done.changed, &done.forecast), (true, &foreseen));
    let again = compactor.set_mode(&fifo(25)).await.unwrap();
    assert!(!again.changed);
    let loaded = e.db.load().await.unwrap();
    let m = loaded.manifest;
    assert_eq!((&m.compaction, m.tables().count()), (&fifo(25), 4), "the change itself deletes nothing");
    assert_eq!(loaded.state.head.checkpoint.version, m.version, "a recover must know the mode");
    for wrong in [0, -7] {
        let refused = compactor.set_mode(&fifo(wrong)).await.unwrap_err();
        assert!(
            matches!(&refused, JobError::Refused(why) if why.contains("deletes everything")),
            "{refused}"
        );
    }
    compactor.close().await;
    let run = once::once(e.process("compactor"), node("c"), sharp(), Limits::default()).await.unwrap();
    assert_eq!(run.expired_tables, 2);
}

#[tokio::test]
async fn a_snapshot_that_holds_retention_back_is_named() {
    let (e, mut scribe) = database(fifo(5), 2).await;
    let now = e.db.env.clock.now();
    let seq = scribe.manifest().last_seq;
    let snapshot = Snapshot { seq, created: now, expires: None, holds_log: false, extra: Default::default() };
    scribe.commit(vec![Change::TakeSnapshot { name: "backup".to_owned(), snapshot }]).await;
    let run = once::once(e.process("compactor"), node("c"), sharp(), Limits::default()).await.unwrap();
    assert_eq!((run.outcome, run.expired_tables), (Outcome::NothingToDo, 0));
    let m = e.db.load().await.unwrap().manifest;
    let foreseen = mode::foresee(&m, &m.compaction, &sharp(), now);
    assert_eq!(foreseen.held_by.as_deref(), Some("backup"));
    scribe.commit(vec![Change::DropSnapshot { name: "backup".to_owned() }]).await;
    let run = once::once(e.process("compactor"), node("c"), sharp(), Limits::default()).await.unwrap();
    assert_eq!(run.expired_tables, 2);
    assert!(keys(&e).await.is_empty());
}

/// Flushes of one window are joined when it is over, and only those.
#[tokio::test]
async fn windows_are_joined_and_never_across() {
    let windows = CompactionMode::TimeWindow {
        segment_us: 60 * SECOND,
        retention_us: 3600 * SECOND,
        retention_count: 0,
    };
    let (e, scribe) = database(windows.clone(), 30).await;
    let run = once::once(e.process("compactor"), node("c"), sharp(), Limits::default()).await.unwrap();
    assert_eq!(run.outcome, Outcome::Done);
    let m = e.db.load().await.unwrap().manifest;
    let cut: Vec<(i64, i64)> =
        m.runs.iter().map(|r| (windows.window(r.min_time()), windows.window(r.max_time()))).collect();
    assert!(cut.iter().all(|(from, to)| from == to), "{cut:?}");
    assert!(m.runs.len() <= 7, "{} runs of 6 windows", m.runs.len());
    let now = e.db.env.clock.now();
    assert_eq!(tree::visible_at(&e.db, &m, m.last_seq, now).await, scribe.visible_at(m.last_seq, now));
}

/// A merge that was planned before the mode changed would join what must stay apart.
#[tokio::test]
async fn a_merge_planned_in_another_mode_is_planned_anew() {
    let (e, mut scribe) = database(CompactionMode::Merge, 4).await;
    let planned = compactor_node::plan::merge(&e.db.load().await.unwrap().manifest, &sharp()).unwrap();
    scribe.commit(vec![Change::SetCompaction { compaction: fifo(3600) }]).await;
    let compactor = Compactor::idle(e.process("compactor"), node("c"), sharp()).unwrap();
    let refused = compactor.merge(&planned, None).await.unwrap_err();
    assert!(matches!(refused, JobError::Stale(_)), "{refused}");
    compactor.close().await;
}
