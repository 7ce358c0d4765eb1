//! The single run for cron: its summary and exit code tell what happened.

use std::time::Duration;

use compactor_node::CompactorSettings;
use compactor_node::once::{self, Limits, Outcome};
use compactor_node::plan;
use isle_storage::coordination::JobAttempt;
use isle_storage::object::StoreErrorKind;
use isle_testkit::coordination::{CommitFault, LossyCoordination};
use isle_testkit::embedded::Embedded;
use isle_testkit::fault::{Fault, Op, Rule};
use isle_testkit::scribe::Scribe;

use crate::merge::{generation, node, settings};

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

/// What a run of cron finds: a merged run, its inputs retired and their grace over, and so many fresh runs.
async fn with_garbage(fresh: u64, settings: &CompactorSettings) -> (Embedded, Scribe) {
    let (e, mut scribe) = crate::collect::database_with_garbage().await;
    for n in 10..10 + fresh {
        scribe.append(&generation(n, e.db.env.clock.now())).await;
        scribe.flush().await;
    }
    for _ in 0..2 {
        crate::collect::pass(&e, settings).await;
    }
    e.clock.advance(Duration::from_secs(settings.grace_seconds + 1));
    (e, scribe)
}

async fn retired(e: &Embedded) -> usize {
    e.db.load().await.unwrap().manifest.retired.len()
}

/// However many retired objects wait, one run deletes them all, as far as its limits go.
#[tokio::test]
async fn a_run_deletes_all_garbage_that_may_go() {
    let few = CompactorSettings { max_deletes_per_pass: 5, ..settings() };
    let (e, _scribe) = with_garbage(0, &few).await;
    let limits = Limits { max_time: Some(Duration::ZERO), ..Limits::default() };
    let run = once::once(e.process("compactor"), node("c"), few.clone(), limits).await.unwrap();
    assert_eq!(
        (run.outcome, run.retired_objects as usize),
        (Outcome::WorkLeft, retired(&e).await),
        "{run:?}"
    );
    assert!(run.deleted_objects >= 5 && run.retired_objects > 5, "{run:?}");
    let left = run.retired_objects;
    let run = once::once(e.process("compactor"), node("c"), few.clone(), Limits::default()).await.unwrap();
    assert_eq!((run.outcome, run.retired_objects), (Outcome::Done, 0), "{run:?}");
    assert!(run.deleted_objects >= left, "{run:?}");
}

/// Nobody else writes checkpoints: the run that retires something writes both that must cover it, and the next deletes.
#[tokio::test]
async fn what_one_run_retires_the_next_deletes() {
    let (e, _scribe) = crate::collect::database_with_garbage().await;
    assert!(retired(&e).await > 0);
    e.clock.advance(Duration::from_secs(settings().grace_seconds + 1));
    let run = once::once(e.process("compactor"), node("c"), settings(), Limits::default()).await.unwrap();
    assert_eq!((run.outcome, run.retired_objects), (Outcome::Done, 0), "{run:?}");
    let last = once::once(e.process("compactor"), node("c"), settings(), Limits::default()).await.unwrap();
    assert_eq!((last.outcome, last.checkpoint), (Outcome::NothingToDo, false), "{last:?}");
}

/// Of eight fresh runs the four older ones are merged first.
fn by_fours() -> CompactorSettings {
    CompactorSettings { max_merge_width: 4, tier_width: 4, merge_workers: 1, ..settings() }
}

/// A damaged table stands in the way of its own merge, and of nothing else.
#[tokio::test]
async fn damage_keeps_a_run_from_nothing_else() {
    let (e, _scribe) = with_garbage(8, &by_fours()).await;
    let damaged = e.db.load().await.unwrap().manifest.runs[6].tables[0].path();
    e.bucket.inject(Rule::on(Op::Get).path(damaged.as_str()), Fault::FlipBit(3));
    let run = once::once(e.process("compactor"), node("c"), by_fours(), Limits::default()).await.unwrap();
    assert!(run.error.as_ref().is_some_and(|why| why.contains(damaged.as_str())), "{run:?}");
    assert_eq!((run.outcome, run.outcome.exit_code(), run.merges), (Outcome::Failed, 1, 1));
    assert!(run.deleted_objects >= 12, "{run:?}");
    assert_eq!(e.db.load().await.unwrap().manifest.runs.len(), 9 - 3);
}

/// So does a fault that passes: the next run finds what this one has left.
#[tokio::test]
async fn a_passing_fault_keeps_a_run_from_nothing_else() {
    let (e, scribe) = with_garbage(8, &by_fours()).await;
    e.bucket.inject(Rule::on(Op::Put).path("table/*").times(1), Fault::Fail(StoreErrorKind::Transient));
    let run = once::once(e.process("compactor"), node("c"), by_fours(), Limits::default()).await.unwrap();
    assert_eq!((run.outcome, run.merges, run.error.is_some()), (Outcome::Failed, 1, true), "{run:?}");
    assert!(run.deleted_objects >= 12, "{run:?}");
    let run = once::once(e.process("compactor"), node("c"), by_fours(), Limits::default()).await.unwrap();
    assert_eq!((run.outcome, run.error), (Outcome::Done, None));
    let (m, now) = (e.db.load().await.unwrap().manifest, e.db.env.clock.now());
    assert_eq!(crate::tree::visible_at(&e.db, &m, m.last_seq, now).await, scribe.visible_at(m.last_seq, now));
}

/// Housekeeping, garbage and the sweep do not wait for one another either.
#[tokio::test]
async fn what_fails_keeps_no_later_step_from_its_turn() {
    let (e, _scribe) = with_garbage(0, &settings()).await;
    let _before = e.bucket.take_history();
    e.bucket.inject(Rule::on(Op::List).path("manifest").nth(1), Fault::Fail(StoreErrorKind::Transient));
    let run = once::once(e.process("compactor"), node("c"), settings(), Limits::default()).await.unwrap();
    assert_eq!(
        (run.outcome, run.deleted_objects, run.error.is_some()),
        (Outcome::Failed, 0, true),
        "{run:?}"
    );
    assert!(e.bucket.count(Op::List, "table") > 0, "the sweep had its turn");
}

/// What does not fit is named, and what is smaller gets its turn.
#[tokio::test]
async fn a_merge_above_the_limit_holds_back_no_smaller_one() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    for n in 0..8 {
        let entries = if n < 4 { crate::parts::large(n, &e) } else { generation(n, e.db.env.clock.now()) };
        scribe.append(&entries).await;
        scribe.flush().await;
    }
    let runs = scribe.manifest().runs.clone();
    let (small, large): (u64, u64) =
        (runs[..4].iter().map(|r| r.len_bytes()).sum(), runs[4..].iter().map(|r| r.len_bytes()).sum());
    let limits = Limits { max_bytes: Some(small), ..Limits::default() };
    let run = once::once(e.process("compactor"), node("c"), by_fours(), limits).await.unwrap();
    assert_eq!((run.outcome, run.merges, run.bytes_read), (Outcome::WorkLeft, 1, small), "{run:?}");
    let too_large = run.too_large.unwrap();
    assert!((1..=large).contains(&too_large.bytes) && too_large.work.starts_with("4 runs"), "{too_large:?}");
}

/// A merge of which not even one part fits is not begun: it would hold its inputs for nothing.
#[tokio::test]
async fn a_merge_is_begun_only_where_a_part_of_it_fits() {
    let (e, _scribe) = database(4).await;
    let bytes: u64 = e.db.load().await.unwrap().manifest.runs.iter().map(|r| r.len_bytes()).sum();
    let parts = CompactorSettings { part_bytes: bytes / 4, ..settings() };
    let limits = Limits { max_bytes: Some(bytes / 4 - 1), ..Limits::default() };
    let run = once::once(e.process("compactor"), node("c"), parts.clone(), limits).await.unwrap();
    assert_eq!((run.outcome, run.too_large.map(|t| t.bytes)), (Outcome::WorkLeft, Some(bytes / 4)));
    assert!(e.db.load().await.unwrap().manifest.staged.is_empty());
    let run = once::once(e.process("compactor"), node("c"), parts, Limits::default()).await.unwrap();
    assert_eq!((run.outcome, run.merges, run.too_large), (Outcome::Done, 1, None));
}

/// Whoever keeps losing commits pauses before he tries again.
#[tokio::test(start_paused = true)]
async fn a_run_that_keeps_losing_commits_pauses() {
    let (e, _scribe) = database(4).await;
    let lossy = LossyCoordination::new(e.coordination.clone());
    let mut db = e.process("compactor");
    db.coordination = lossy.clone();
    for _ in 0..250 {
        lossy.inject(CommitFault::Overtaken);
    }
    let settings = CompactorSettings { backoff_seconds: (10.0, 60.0), merge_workers: 1, ..settings() };
    let run = once::once(db, node("c"), settings, Limits::default()).await.unwrap();
    assert_eq!((run.outcome, run.merges), (Outcome::Done, 1));
    assert!(run.seconds >= 30.0, "{} seconds", run.seconds);
}

/// A signal in the middle of the deletes: the claim is given back, and the summary says that work is left.
#[tokio::test(start_paused = true)]
async fn a_run_that_is_told_to_stop_leaves_garbage_and_no_claim() {
    let (e, _scribe) = with_garbage(0, &settings()).await;
    let gate = e.bucket.hold(Rule::on(Op::Delete));
    let limits = Limits::default();
    let stop = limits.stop.clone();
    let run = once::once(e.process("compactor"), node("c"), settings(), limits);
    let stopping = async {
        gate.arrived(1).await;
        stop.cancel();
    };
    let (run, ()) = tokio::join!(run, stopping);
    let run = run.unwrap();
    assert_eq!((run.outcome, run.outcome.exit_code()), (Outcome::WorkLeft, 3), "{run:?}");
    assert!(!e.db.coordination.job_is_claimed(plan::job_named("collect")).await.unwrap());
}
