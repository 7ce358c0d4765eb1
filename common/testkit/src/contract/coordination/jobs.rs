//! Claims of compaction jobs.

use isle_storage::coordination::commit::{self, Resolved};
use isle_storage::coordination::{Authority, JobAttempt};
use isle_storage::ids::JobId;
use isle_storage::manifest::Author;

use super::world::{World, deadline, edit, node};

/// One holder at a time; its commits go in; giving back frees the job.
pub(super) async fn a_job_has_one_holder_and_its_commits_go_in(world: World) {
    let (first, second) = (world.process().await, world.process().await);
    let job = JobId(7);
    assert!(!second.coordination.job_is_claimed(job).await.unwrap());
    let JobAttempt::Won(authority, lease) = first.coordination.claim_job(job, &node()).await.unwrap() else {
        panic!("nobody else has it")
    };
    assert!(second.coordination.job_is_claimed(job).await.unwrap());
    let other = second.coordination.claim_job(job, &node()).await.unwrap();
    assert!(matches!(other, JobAttempt::HeldBy(_)), "{other:?}");
    assert!(matches!(commit_as(&first, job, &authority).await, Resolved::Committed(_)));
    lease.give_back().await;
    assert!(!second.coordination.job_is_claimed(job).await.unwrap());
    let again = second.coordination.claim_job(job, &node()).await.unwrap();
    assert!(matches!(again, JobAttempt::Won(..)), "{again:?}");
    let fenced = commit_as(&first, job, &authority).await;
    assert!(matches!(fenced, Resolved::Fenced(_)), "{fenced:?}");
}

/// Fencing is in the commit: a holder that does not know that its claim is gone is refused.
pub(super) async fn a_job_that_was_taken_away_commits_no_more(world: World) {
    let db = world.process().await;
    let job = JobId(8);
    let JobAttempt::Won(authority, _lease) = db.coordination.claim_job(job, &node()).await.unwrap() else {
        panic!("nobody else has it")
    };
    if world.service.expire_jobs().await {
        let fenced = commit_as(&db, job, &authority).await;
        assert!(matches!(fenced, Resolved::Fenced(_)), "{fenced:?}");
    }
}

async fn commit_as(db: &super::Process, job: JobId, authority: &Authority) -> Resolved {
    let at = db.load().await.unwrap();
    let edit = edit(db, &at.manifest, Author::Job(job), Vec::new());
    let proposal = commit::propose(&at.state, &at.manifest, edit, authority).unwrap();
    commit::commit(db, &proposal, deadline()).await
}
