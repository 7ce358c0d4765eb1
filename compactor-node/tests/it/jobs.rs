//! Jobs that are cut off, lose their claim, or keep losing commits: they leave nothing behind and wreck nothing.

use std::sync::Arc;
use std::time::Duration;

use compactor_node::once::{self, Limits, Outcome};
use compactor_node::plan::{self, MergePlan};
use compactor_node::{Compactor, JobError};
use isle_storage::coordination::JobAttempt;
use isle_storage::coordination::bucket::BucketCoordination;
use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::settings::CoordinationSettings;
use isle_storage::database::Database;
use isle_storage::manifest::CompactionMode;
use isle_testkit::coordination::{CommitFault, LossyCoordination};
use isle_testkit::embedded::Embedded;
use isle_testkit::fault::{Fault, Gate, Op, Rule};
use isle_testkit::scribe::Scribe;

use crate::merge::{generation, node, settings};
use crate::objects::{data, named};
use crate::tree;

async fn four_runs() -> (Embedded, Scribe) {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    for n in 0..4 {
        scribe.append(&generation(n, e.db.env.clock.now())).await;
        scribe.flush().await;
    }
    (e, scribe)
}

async fn planned(db: &Database) -> MergePlan {
    plan::merge(&db.load().await.unwrap().manifest, &settings()).unwrap()
}

/// A compactor that merges only when it is told to.
fn on_demand(db: Database) -> Compactor {
    Compactor::idle(db, node("c"), settings()).unwrap()
}

/// Every table that is put from now on is in the bucket, and its answer on the way.
fn hold_uploaded(e: &Embedded) -> Gate {
    let gate = Gate::new();
    e.bucket.inject(Rule::on(Op::Put).path("table/*"), Fault::HoldAfter(gate.clone()));
    gate
}

async fn assert_nothing_left_behind(e: &Embedded) {
    assert_eq!(data(e).await, named(e).await);
}

/// The time is over in the middle of the uploads.
#[tokio::test(start_paused = true)]
async fn a_merge_cut_by_the_clock_takes_its_outputs_back() {
    let (e, _scribe) = four_runs().await;
    let gate = hold_uploaded(&e);
    let limits = Limits { max_time: Some(Duration::from_secs(60)), ..Limits::default() };
    let run = once::once(e.process("compactor"), node("c"), settings(), limits);
    let (run, ()) = tokio::join!(run, gate.arrived(1));
    assert_eq!(run.unwrap().outcome, Outcome::WorkLeft);
    assert!(e.bucket.count(Op::Put, "table/*") > 0);
    assert_nothing_left_behind(&e).await;
    let job = planned(&e.db).await.job();
    assert!(!e.db.coordination.job_is_claimed(job).await.unwrap(), "the claim is given back");
}

/// A signal, or the end of the program: the same.
#[tokio::test(start_paused = true)]
async fn a_run_that_is_told_to_stop_takes_its_outputs_back() {
    let (e, _scribe) = four_runs().await;
    let gate = hold_uploaded(&e);
    let limits = Limits::default();
    let stop = limits.stop.clone();
    let run = once::once(e.process("compactor"), node("c"), settings(), limits);
    let stopping = async {
        gate.arrived(1).await;
        stop.cancel();
    };
    let (run, ()) = tokio::join!(run, stopping);
    assert_eq!(run.unwrap().outcome, Outcome::WorkLeft);
    assert_nothing_left_behind(&e).await;
}

#[tokio::test(start_paused = true)]
async fn a_compactor_that_is_closed_takes_its_outputs_back() {
    let (e, _scribe) = four_runs().await;
    let gate = hold_uploaded(&e);
    let compactor = Compactor::open(e.process("compactor"), node("c"), settings()).unwrap();
    gate.arrived(1).await;
    compactor.close().await;
    assert_nothing_left_behind(&e).await;
    let job = planned(&e.db).await.job();
    assert!(!e.db.coordination.job_is_claimed(job).await.unwrap());
}

/// The claim is gone: the local work stops at once, whatever it waits for.
#[tokio::test]
async fn a_merge_that_lost_its_claim_stops_and_takes_its_outputs_back() {
    let (e, _scribe) = four_runs().await;
    let job = planned(&e.db).await;
    let gate = hold_uploaded(&e);
    let compactor = on_demand(e.process("compactor"));
    let merging = compactor.merge(&job, None);
    let losing = async {
        gate.arrived(1).await;
        e.coordination.expire_job(job.job());
    };
    let (merged, ()) = tokio::join!(merging, losing);
    assert!(matches!(merged, Err(JobError::ClaimLost(_))), "{merged:?}");
    assert_nothing_left_behind(&e).await;
    compactor.close().await;
}

async fn lossy(e: &Embedded) -> (Database, Arc<LossyCoordination>) {
    let lossy = LossyCoordination::new(e.coordination.clone());
    let mut db = e.process("compactor");
    db.coordination = lossy.clone();
    (db, lossy)
}

/// A compactor that keeps losing commits gives up, says so, and leaks nothing; then it wins.
#[tokio::test]
async fn a_merge_that_keeps_losing_commits_takes_its_outputs_back() {
    let (e, _scribe) = four_runs().await;
    let (db, coordination) = lossy(&e).await;
    let job = planned(&e.db).await;
    let compactor = on_demand(db);
    for _ in 0..1000 {
        coordination.inject(CommitFault::Overtaken);
    }
    let merged = compactor.merge(&job, None).await;
    assert!(matches!(merged, Err(JobError::Stale(_))), "{merged:?}");
    assert_nothing_left_behind(&e).await;
    coordination.heal();
    for _ in 0..20 {
        coordination.inject(CommitFault::Overtaken);
    }
    compactor.merge(&job, None).await.unwrap();
    assert_nothing_left_behind(&e).await;
    compactor.close().await;
}

/// Nobody knows whether the commit happened: then it may have, and the outputs stay.
#[tokio::test(start_paused = true)]
async fn outputs_of_a_commit_in_doubt_stay() {
    let (e, scribe) = four_runs().await;
    let (db, coordination) = lossy(&e).await;
    let job = planned(&e.db).await;
    let compactor = on_demand(db);
    for _ in 0..10_000 {
        coordination.inject(CommitFault::Late);
    }
    let merged = compactor.merge(&job, None).await;
    assert!(matches!(merged, Err(JobError::Unknown(_))), "{merged:?}");
    // The claim was given back, and still: had the transaction come first, its outputs would be named.
    assert!(data(&e).await.len() > named(&e).await.len());
    coordination.heal();
    compactor.close().await;
    let (now, last) = (e.db.env.clock.now(), scribe.manifest().last_seq);
    let manifest = e.db.load().await.unwrap().manifest;
    assert_eq!(tree::visible_at(&e.db, &manifest, last, now).await, scribe.visible_at(last, now));
}

/// An answer that was lost on the way back: the merge is in, and its outputs stay.
#[tokio::test]
async fn outputs_of_a_commit_whose_answer_was_lost_stay() {
    let (e, scribe) = four_runs().await;
    let (db, coordination) = lossy(&e).await;
    let job = planned(&e.db).await;
    let compactor = on_demand(db);
    coordination.inject(CommitFault::LoseReply);
    coordination.inject(CommitFault::AnswerOfTheCopy);
    compactor.merge(&job, None).await.unwrap();
    compactor.close().await;
    assert_nothing_left_behind(&e).await;
    let (now, last) = (e.db.env.clock.now(), scribe.manifest().last_seq);
    let manifest = e.db.load().await.unwrap().manifest;
    assert_eq!(manifest.runs.len(), 1);
    assert_eq!(tree::visible_at(&e.db, &manifest, last, now).await, scribe.visible_at(last, now));
}

/// The manifest is read after the claim: what was merged between planning and claiming is not merged again.
#[tokio::test]
async fn a_plan_is_checked_against_a_manifest_read_after_the_claim() {
    let (e, _scribe) = four_runs().await;
    let old = planned(&e.db).await;
    let compactor = on_demand(e.process("compactor"));
    compactor.merge(&old, None).await.unwrap();
    let _forget = e.bucket.take_history();
    let again = compactor.merge(&old, None).await;
    assert!(matches!(again, Err(JobError::Stale(_))), "{again:?}");
    assert_eq!(e.bucket.count(Op::Get, "table/*") + e.bucket.count(Op::Put, "table/*"), 0);
    compactor.close().await;
}

/// The bucket form over the same objects: claims are edits, renewed by edits.
async fn in_bucket_form() -> (Embedded, Database) {
    let e = Embedded::new().await;
    for path in crate::objects::objects(&e, "").await {
        let path = isle_storage::names::ObjectPath::new(path).unwrap();
        e.db.bucket.delete(&path).await.unwrap();
    }
    let db = bucket_process(&e).await;
    (e, db)
}

/// A process of its own.
async fn bucket_process(e: &Embedded) -> Database {
    let env = e.process("compactor").env;
    let settings = CoordinationSettings::default();
    let coordination = BucketCoordination::trusting(&settings, e.bucket.clone(), &env);
    let mode = OpenMode::CreateIfMissing(CompactionMode::Merge);
    Database::open(e.bucket.clone(), coordination, env, "default", &mode).await.unwrap()
}

async fn four_runs_in_bucket_form() -> (Embedded, Database) {
    let (e, db) = in_bucket_form().await;
    let mut scribe = Scribe::take_over(&db).await;
    for n in 0..4 {
        scribe.append(&generation(n, db.env.clock.now())).await;
        scribe.flush().await;
    }
    (e, db)
}

/// A merge of hours looks alive all the time, and is not taken over: its claim ticks on its own.
#[tokio::test(start_paused = true)]
async fn a_merge_of_hours_keeps_its_claim() {
    let (e, db) = four_runs_in_bucket_form().await;
    let job = planned(&db).await;
    let gate = e.bucket.hold(Rule::on(Op::Put).path("table/*"));
    let compactor = on_demand(bucket_process(&e).await);
    let rival = bucket_process(&e).await;
    let watching = async {
        gate.arrived(1).await;
        for _ in 0..120 {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let attempt = rival.coordination.claim_job(job.job(), &node("rival")).await.unwrap();
            assert!(matches!(attempt, JobAttempt::HeldBy(_)), "{attempt:?}");
        }
        gate.open();
    };
    let (merged, ()) = tokio::join!(compactor.merge(&job, None), watching);
    merged.unwrap();
    compactor.close().await;
}

/// A crashed run of cron left its claim. Every later run is a new process, which has never seen the claim stand still; it
/// waits until it has, rather than do nothing for ever.
#[tokio::test(start_paused = true)]
async fn a_run_waits_out_the_claim_of_a_dead_one_and_yields_to_a_living_one() {
    let (e, db) = four_runs_in_bucket_form().await;
    let job = planned(&db).await.job();
    let holder = bucket_process(&e).await;
    let JobAttempt::Won(_, lease) = holder.coordination.claim_job(job, &node("holder")).await.unwrap() else {
        panic!("nobody has it")
    };
    let run = once::once(bucket_process(&e).await, node("b"), settings(), Limits::default()).await.unwrap();
    assert_eq!(run.outcome, Outcome::ClaimedElsewhere, "it lives");
    // Without its renewals it is as good as dead.
    drop(lease);
    let limits = Limits { max_time: Some(Duration::from_secs(30)), ..Limits::default() };
    let run = once::once(bucket_process(&e).await, node("b"), settings(), limits).await.unwrap();
    assert_eq!(run.outcome, Outcome::ClaimedElsewhere, "not enough time to tell");
    let run = once::once(bucket_process(&e).await, node("c"), settings(), Limits::default()).await.unwrap();
    assert_eq!((run.outcome, run.merges), (Outcome::Done, 1));
}

/// While a merge stands still, checkpoints, garbage and the sweep go on.
#[tokio::test(start_paused = true)]
async fn nothing_waits_for_a_merge_that_stands_still() {
    let (e, mut scribe) = four_runs().await;
    let _gate = e.bucket.hold(Rule::on(Op::Put).path("table/*").when(|_, path| !path.contains("/1-")));
    let settings = compactor_node::CompactorSettings { fold_edits: 8, grace_seconds: 1, ..settings() };
    let compactor = Compactor::open(e.process("compactor"), node("c"), settings).unwrap();
    for n in 0..10 {
        scribe.append(&generation(n, e.db.env.clock.now())).await;
        scribe.flush().await;
        e.clock.advance(Duration::from_secs(5));
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let status = compactor.status();
    assert!(status.merging.is_some() && status.merges == 0, "{status:?}");
    assert!(status.checkpoints > 0 && status.deleted > 5, "{status:?}");
    compactor.close().await;
}

/// On one thread with everything else: a long merge gives way every few hundred rows.
#[tokio::test]
async fn a_merge_gives_way_to_heartbeats() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    for n in 0..4 {
        for _ in 0..20 {
            scribe.append(&generation(n, e.db.env.clock.now())).await;
        }
        scribe.flush().await;
    }
    let job = planned(&e.db).await;
    let compactor = on_demand(e.process("compactor"));
    let beats = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let heart = tokio::spawn({
        let beats = Arc::clone(&beats);
        async move {
            loop {
                beats.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    let report = compactor.merge(&job, None).await.unwrap();
    heart.abort();
    assert_eq!(report.rows_in, 16_000);
    let beats = beats.load(std::sync::atomic::Ordering::Relaxed);
    assert!(beats >= report.rows_in / 256, "{beats} beats in {} rows", report.rows_in);
    compactor.close().await;
}
