//! Jobs: work that one process does at a time, and the commit that ends it.
//!
//! A job is claimed before its manifest is read: what it validates against is never older than its claim. While it
//! works, the lease renews itself on its own task; when the claim is lost the work is dropped at its next await.

use std::future::Future;
use std::time::Duration;

use isle_storage::coordination::commit::{self, Resolved};
use isle_storage::coordination::{Authority, JobAttempt, Loaded, NodeInfo};
use isle_storage::database::Database;
use isle_storage::ids::{CommitId, JobId};
use isle_storage::manifest::{Author, Change, Edit};
use tokio::time::Instant;

use crate::error::JobError;

/// How often a job tries again to commit when others keep moving the head. The writer pauses between its commits, so
/// a loser gets its turn; a job that loses this often gives up and is planned anew.
const MAX_COMMIT_ATTEMPTS: usize = 100;

/// How long one commit may take to find out its outcome.
const COMMIT_DEADLINE: Duration = Duration::from_secs(30);

/// Claims `job`, runs `work` under it, and gives the claim back.
///
/// # Errors
/// What `work` returns; [`JobError::ClaimedElsewhere`]; [`JobError::ClaimLost`] where the claim ended first.
pub async fn under_claim<T, F, Fut>(
    db: &Database,
    node: &NodeInfo,
    job: JobId,
    work: F,
) -> Result<T, JobError>
where
    F: FnOnce(Authority) -> Fut,
    Fut: Future<Output = Result<T, JobError>>,
{
    let (authority, lease) = match db.coordination.claim_job(job, node).await? {
        JobAttempt::Won(authority, lease) => (authority, lease),
        JobAttempt::HeldBy(who) => return Err(JobError::ClaimedElsewhere(who)),
    };
    let result = tokio::select! {
        biased;
        why = lease.lost() => Err(JobError::ClaimLost(why)),
        result = work(authority) => result,
    };
    if !matches!(result, Err(JobError::ClaimLost(_))) {
        lease.give_back().await;
    }
    result
}

/// Commits `changes` on top of `loaded`, or of whatever the head has become, as long as they still fit.
///
/// # Errors
/// [`JobError::Stale`] where they no longer fit, [`JobError::ClaimLost`], [`JobError::Unknown`].
pub async fn commit_changes(
    db: &Database,
    authority: &Authority,
    author: &Author,
    changes: Vec<Change>,
    mut loaded: Loaded,
) -> Result<Loaded, JobError> {
    for _ in 0..MAX_COMMIT_ATTEMPTS {
        let manifest = &loaded.manifest;
        let edit = Edit {
            version: manifest.version.next(),
            lineage: manifest.lineage,
            epoch: manifest.epoch,
            commit: CommitId(db.env.entropy.next_u64()),
            author: author.clone(),
            changes: changes.clone(),
            required_features: Vec::new(),
            extra: Default::default(),
        };
        let as_of = Instant::now();
        let proposal = commit::propose(&loaded.state, manifest, edit, authority)
            .map_err(|e| JobError::Stale(e.to_string()))?;
        match commit::commit(db, &proposal, as_of + COMMIT_DEADLINE).await {
            Resolved::Committed(state) => {
                return Ok(Loaded { state, manifest: proposal.manifest.clone(), as_of });
            }
            Resolved::CommittedEarlier(newer) => return Ok(newer),
            Resolved::Moved(newer) => loaded = newer,
            // A job commits no segments, so "through" can only mean that its right is gone.
            Resolved::Fenced(why) | Resolved::CommittedThrough(_, why) => {
                return Err(JobError::ClaimLost(why));
            }
            Resolved::Unknown(why) => return Err(JobError::Unknown(why)),
        }
    }
    Err(JobError::Stale(format!("lost {MAX_COMMIT_ATTEMPTS} commits to others")))
}
