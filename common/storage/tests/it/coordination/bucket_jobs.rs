//! Job claims in the bucket form: renewed by edits, judged on the judge's own clock.

use std::time::Duration;

use isle_storage::coordination::JobAttempt;
use isle_storage::ids::JobId;
use isle_testkit::contract::coordination::World;
use isle_testkit::contract::coordination::world::node;
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
    // A process that sees it for the first time gives it the whole period again.
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
