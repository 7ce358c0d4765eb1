//! The single run for cron: its summary and exit code tell what happened.

use std::time::Duration;

use compactor_node::once::{self, Limits, Outcome};
use isle_storage::coordination::JobAttempt;
use isle_testkit::embedded::Embedded;
use isle_testkit::scribe::Scribe;

use crate::merge::{generation, node, settings};
use compactor_node::plan;

async fn database(generations: u64) -> (Embedded, Scribe) {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    for n in 0..generations {
        scribe.append(&generation(n, e.db.env.clock.now())).await;
        scribe.flush().await;
    }
    (e, scribe)
}

#[tokio::test]
async fn work_is_done_and_then_there_is_none() {
    let (e, _scribe) = database(4).await;
    let first = once::once(e.process("compactor"), node("c"), settings(), Limits::default()).await.unwrap();
    assert_eq!((first.outcome, first.merges), (Outcome::Done, 1));
    assert!(first.bytes_read > 0 && first.bytes_written > 0);
    // What the merge retired still asks for two checkpoints and its grace; then there is nothing left.
    for _ in 0..4 {
        e.clock.advance(Duration::from_secs(settings().grace_seconds + 1));
        once::once(e.process("compactor"), node("c"), settings(), Limits::default()).await.unwrap();
    }
    let last = once::once(e.process("compactor"), node("c"), settings(), Limits::default()).await.unwrap();
    assert_eq!((last.outcome, last.outcome.exit_code()), (Outcome::NothingToDo, 0), "{last:?}");
}

#[tokio::test]
async fn a_limit_leaves_work_and_says_so() {
    let (e, _scribe) = database(4).await;
    let limits = Limits { max_bytes: Some(1), ..Limits::default() };
    let run = once::once(e.process("compactor"), node("c"), settings(), limits).await.unwrap();
    assert_eq!((run.outcome, run.outcome.exit_code(), run.merges), (Outcome::WorkLeft, 3, 0));
    let limits = Limits { max_time: Some(Duration::ZERO), ..Limits::default() };
    let run = once::once(e.process("compactor"), node("c"), settings(), limits).await.unwrap();
    assert_eq!(run.outcome, Outcome::WorkLeft);
}

#[tokio::test]
async fn a_merge_claimed_by_another_process_is_left_alone() {
    let (e, _scribe) = database(4).await;
    let manifest = e.db.load().await.unwrap().manifest;
    let planned = plan::merge(&manifest, &settings()).unwrap();
    let held = e.db.coordination.claim_job(planned.job(), &node("other")).await.unwrap();
    assert!(matches!(held, JobAttempt::Won(..)));
    let run = once::once(e.process("compactor"), node("c"), settings(), Limits::default()).await.unwrap();
    assert_eq!((run.outcome, run.outcome.exit_code()), (Outcome::ClaimedElsewhere, 4));
    assert_eq!(e.db.load().await.unwrap().manifest.runs.len(), 4);
}

#[tokio::test]
async fn a_dry_run_says_what_it_would_do() {
    let (e, scribe) = database(4).await;
    let limits = Limits { dry_run: true, ..Limits::default() };
    let run = once::once(e.process("compactor"), node("c"), settings(), limits).await.unwrap();
    assert_eq!((run.outcome, run.merges), (Outcome::WorkLeft, 1));
    assert_eq!(e.db.load().await.unwrap().manifest.version, scribe.manifest().version);
}

/// Two cron runs at once: both end, and the work is done once.
#[tokio::test]
async fn overlapping_runs_are_safe() {
    let (e, scribe) = database(8).await;
    let run = |name| once::once(e.process("compactor"), node(name), settings(), Limits::default());
    let (a, b) = tokio::join!(run("a"), run("b"));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(a.merges + b.merges >= 1, "{a:?} {b:?}");
    let manifest = e.db.load().await.unwrap().manifest;
    let (now, last) = (e.db.env.clock.now(), manifest.last_seq);
    assert_eq!(crate::tree::visible_at(&e.db, &manifest, last, now).await, scribe.visible_at(last, now));
}
