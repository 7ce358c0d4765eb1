//! Job claims in the bucket form: renewed by edits, judged on the judge's own clock and on the store's.

use std::time::Duration;

use isle_storage::coordination::{JobAttempt, fold};
use isle_storage::database::Database;
use isle_storage::ids::JobId;
use isle_storage::names;
use isle_testkit::contract::coordination::World;
use isle_testkit::contract::coordination::world::node;
use isle_testkit::embedded::ManualClock;
use isle_testkit::fault::{Fault, Rule};

use super::services::Objects;

const JOB: JobId = JobId(9);

/// A holder that renews keeps its claim for ever, whatever the clocks of others say; one that has fallen silent loses it
/// once somebody has watched it stand still for the whole period. (A worker busy for hours once looked dead.)
#[tokio::test(start_paused = true)]
async fn a_silent_claim_is_taken_over_and_a_renewed_one_is_not() {
    let world = World::new(Objects::in_memory());
    let ((holder, faults), other) = (world.faulty().await, world.process().await);
    let JobAttempt::Won(_, lease) = holder.coordination.claim_job(JOB, &node()).await.unwrap() else {
        panic!("nobody has it")
    };
    for _ in 0..20 {
        let attempt = other.coordination.claim_job(JOB, &node()).await.unwrap();
        assert!(matches!(attempt, JobAttempt::HeldBy(_)), "{attempt:?}");
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert!(other.coordination.job_is_claimed(JOB).await.unwrap());
    faults.inject(Rule::any(), Fault::Hang);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(other.coordination.job_is_claimed(JOB).await.unwrap());
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(other.coordination.job_is_claimed(JOB).await.unwrap(), "not the whole period yet");
    // A process that sees it for the first time, over a store whose clock stands still, watches for the whole period.
    let newcomer = world.process().await;
    assert!(newcomer.coordination.job_is_claimed(JOB).await.unwrap());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let attempt = other.coordination.claim_job(JOB, &node()).await.unwrap();
    assert!(matches!(attempt, JobAttempt::Won(..)), "{attempt:?}");
    assert!(newcomer.coordination.job_is_claimed(JOB).await.unwrap());
    faults.heal();
    drop(lease);
}

/// The old holder hears that its claim is gone, and a sweep that asks about a silent claim ends it first.
#[tokio::test(start_paused = true)]
async fn a_lost_claim_is_told_and_a_dead_owner_is_fenced_before_it_is_called_dead() {
    let world = World::new(Objects::in_memory());
    let ((holder, faults), other) = (world.faulty().await, world.process().await);
    let JobAttempt::Won(_, lease) = holder.coordination.claim_job(JOB, &node()).await.unwrap() else {
        panic!("nobody has it")
    };
    let outage = faults.inject(Rule::any(), Fault::Fail(isle_storage::object::StoreErrorKind::Transient));
    assert!(other.coordination.job_is_claimed(JOB).await.unwrap());
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(!other.coordination.job_is_claimed(JOB).await.unwrap());
    assert!(other.load().await.unwrap().manifest.jobs.is_empty());
    faults.remove(outage);
    let why = tokio::time::timeout(Duration::from_secs(3600), lease.lost()).await.unwrap();
    assert!(!why.is_empty());
}

async fn is_won(process: &Database) -> bool {
    matches!(process.coordination.claim_job(JOB, &node()).await.unwrap(), JobAttempt::Won(..))
}

/// Runs of cron live shorter than the period for which a claim must be silent: each has never seen it before, and goes by
/// the store's clock. (A killed compactor's part once stayed claimed for ever.)
#[tokio::test(start_paused = true)]
async fn who_sees_a_claim_for_the_first_time_goes_by_the_stores_clock() {
    let clock = ManualClock::at(1_700_000_000);
    let world = World::new(Objects::on(clock.clone()));
    let killed = world.process().await;
    assert!(is_won(&killed).await, "and its lease is dropped: nobody renews it");
    clock.advance(Duration::from_secs(149));
    assert!(!is_won(&world.process().await).await, "not the whole period yet");
    // Between looks of a process that lives, both clocks count.
    let watching = world.process().await;
    assert!(watching.coordination.job_is_claimed(JOB).await.unwrap());
    assert!(watching.coordination.silence_left(JOB).unwrap() <= Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!watching.coordination.job_is_claimed(JOB).await.unwrap());
    assert!(
        watching.load().await.unwrap().manifest.jobs.is_empty(),
        "its holder is fenced before it is called dead"
    );

    assert!(is_won(&killed).await);
    clock.advance(Duration::from_secs(150));
    assert!(is_won(&world.process().await).await);
}

/// Checkpoints that every run writes, and folds that delete the claim's own edit, do not make it young again.
#[tokio::test(start_paused = true)]
async fn folds_do_not_make_a_claim_younger() {
    let clock = ManualClock::at(1_700_000_000);
    let world = World::new(Objects::on(clock.clone()));
    assert!(is_won(&world.process().await).await);
    for _ in 0..3 {
        clock.advance(Duration::from_secs(50));
        let run = world.process().await;
        assert!(!is_won(&run).await);
        let loaded = run.load().await.unwrap();
        fold::fold(&run, &loaded).await.unwrap();
        let at = loaded.manifest.jobs[&JOB].at.unwrap();
        run.bucket.delete(&names::edit(at)).await.unwrap();
    }
    // The oldest checkpoint that knows the beat is a hundred seconds old.
    assert!(!is_won(&world.process().await).await);
    clock.advance(Duration::from_secs(50));
    assert!(is_won(&world.process().await).await);
}

/// A holder that renews is alive, however long it has had its claim.
#[tokio::test(start_paused = true)]
async fn a_renewed_claim_is_young_by_the_stores_clock() {
    let clock = ManualClock::at(1_700_000_000);
    let world = World::new(Objects::on(clock.clone()));
    let holder = world.process().await;
    let JobAttempt::Won(_, lease) = holder.coordination.claim_job(JOB, &node()).await.unwrap() else {
        panic!("nobody has it")
    };
    for _ in 0..20 {
        clock.advance(Duration::from_secs(30));
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert!(!is_won(&world.process().await).await);
    }
    lease.give_back().await;
}
