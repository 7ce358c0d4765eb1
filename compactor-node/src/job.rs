//! Jobs: work that one process does at a time, and the commit that ends it.
//!
//! A job is claimed before its manifest is read: what it validates against is never older than its claim. While it
//! works, the lease renews itself on its own task, however long planning and merging take; when the claim is lost the
//! work ends at its next await.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use isle_storage::coordination::commit::{self, Resolved};
use isle_storage::coordination::groups::Groups;
use isle_storage::coordination::{Authority, Backend, JobAttempt, Lease, Loaded, NodeInfo};
use isle_storage::database::Database;
use isle_storage::ids::{CommitId, JobId};
use isle_storage::manifest::{Author, Change, Edit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::JobError;

/// How often a job tries again to commit when others keep moving the head. The writer pauses between its commits, so
/// a loser gets its turn; a job that loses this often gives up and is planned anew.
pub const MAX_COMMIT_ATTEMPTS: usize = 100;

/// How long one commit may take to find out its outcome.
const COMMIT_DEADLINE: Duration = Duration::from_secs(30);

/// Pause between two looks at somebody's claim.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What ends work before its time, besides the loss of its claim.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    /// The end of the time it was given.
    pub deadline: Option<Instant>,
    /// Cancelled when the compactor is closed.
    pub stop: CancellationToken,
}

impl Bounds {
    /// Resolves when it is time to stop, and says why.
    async fn over(&self) -> &'static str {
        let deadline = async {
            match self.deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = deadline => "--max-time is over",
            () = self.stop.cancelled() => "the compactor is being closed",
        }
    }
}

/// A claim that was won.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// What its commits compare.
    pub authority: Authority,
    lease: Arc<dyn Lease>,
    bounds: Bounds,
}

impl Claimed {
    /// Does `work` as long as the claim stands and the time lasts. What it leaves unfinished then is the caller's to
    /// clear away; so a commit, whose outcome must be known, is not done under this guard.
    ///
    /// # Errors
    /// What `work` returns; [`JobError::ClaimLost`]; [`JobError::Stopped`].
    pub async fn guard<T>(&self, work: impl Future<Output = Result<T, JobError>>) -> Result<T, JobError> {
        tokio::select! {
           biased;
            why = self.lease.lost() => Err(JobError::ClaimLost(why)),
            why = self.bounds.over() => Err(JobError::Stopped(why)),
            result = work => result,
        }
    }
}

/// Claims `job`, runs `work` with the claim in hand, and gives it back.
///
/// # Errors
/// What `work` returns; [`JobError::ClaimedElsewhere`].
pub async fn with_claim<T, F, Fut>(
    db: &Database,
    node: &NodeInfo,
    job: JobId,
    bounds: Bounds,
    work: F,
) -> Result<T, JobError>
where
    F: FnOnce(Claimed) -> Fut,
    Fut: Future<Output = Result<T, JobError>>,
{
    let (authority, lease) = match db.coordination.claim_job(job, node).await? {
        JobAttempt::Won(authority, lease) => (authority, lease),
        JobAttempt::HeldBy(who) => return Err(JobError::ClaimedElsewhere(who)),
    };
    let result = work(Claimed { authority, lease: Arc::clone(&lease), bounds }).await;
    if !matches!(result, Err(JobError::ClaimLost(_))) {
        lease.give_back().await;
    }
    result
}

/// Claims `job`, runs `work` under it, and gives the claim back. The work is dropped where it stands when the claim is
/// lost or `bounds` are over: it leaves nothing behind that is anybody's.
///
/// # Errors
/// What `work` returns; [`JobError::ClaimedElsewhere`]; [`JobError::ClaimLost`] where the claim ended first;
/// [`JobError::Stopped`].
pub async fn under_claim<T, F, Fut>(
    db: &Database,
    node: &NodeInfo,
    job: JobId,
    bounds: &Bounds,
    work: F,
) -> Result<T, JobError>
where
    F: FnOnce(Authority) -> Fut,
    Fut: Future<Output = Result<T, JobError>>,
{
    with_claim(db, node, job, bounds.clone(), async |claimed| {
        let authority = claimed.authority.clone();
        claimed.guard(work(authority)).await
    })
    .await
}

/// Whether the claim that another process has on `job` turned out to be a dead one's, and is gone. Only the bucket form
/// needs to be asked: there a claim ends by nobody's clock, and a process that has just started, as a job of cron always
/// has, must watch it stand still for a while before it may take it over. One that is renewed meanwhile is alive.
///
/// # Errors
/// [`JobError::Coordination`]; [`JobError::Stopped`] where `bounds` are over first.
pub async fn outlived(db: &Database, job: JobId, bounds: &Bounds) -> Result<bool, JobError> {
    if db.coordination.backend() != Backend::Bucket {
        return Ok(false);
    }
    let first = db.load().await?.manifest.jobs.get(&job).cloned();
    let mut told = false;
    loop {
        // Asking ends a claim that has stood still long enough.
        if !db.coordination.job_is_claimed(job).await? {
            return Ok(true);
        }
        if !told {
            let holder = first.as_ref().map(|claim| claim.node.as_str()).unwrap_or_default();
            let seconds = db.coordination.silence_left(job).map_or(0, |left| left.as_secs());
            tracing::info!(%job, holder, at_most_seconds = seconds, "waiting until its holder is heard of, or counts as dead");
            told = true;
        }
        if db.load().await?.manifest.jobs.get(&job) != first.as_ref() {
            return Ok(false);
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            why = bounds.over() => return Err(JobError::Stopped(why)),
        }
    }
}

/// What a reader must know to apply them.
fn required_features(changes: &[Change]) -> Vec<String> {
    let mut names: Vec<String> =
        changes.iter().filter_map(Change::required_feature).map(str::to_owned).collect();
    names.dedup();
    names
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
        match attempt(db, authority, author, changes.clone(), None, &loaded).await? {
            Attempt::Committed(done) => return Ok(done),
            Attempt::Moved(newer) => loaded = newer,
        }
    }
    Err(lost())
}

/// How one attempt to commit ended.
#[derive(Debug)]
pub enum Attempt {
    /// It is in; this is the head now.
    Committed(Loaded),
    /// It is not in, and never will be: this is the head to plan with.
    Moved(Loaded),
}

/// Commits `changes` on top of `loaded` and nothing else, and, where it says so, only if no consumer group has come to hold
/// more of the log since `groups` were read: for what must be planned anew where the head has moved.
///
/// # Errors
/// As [`commit_changes`].
pub async fn attempt(
    db: &Database,
    authority: &Authority,
    author: &Author,
    changes: Vec<Change>,
    groups: Option<&Groups>,
    loaded: &Loaded,
) -> Result<Attempt, JobError> {
    let manifest = &loaded.manifest;
    let edit = Edit {
        version: manifest.version.next(),
        lineage: manifest.lineage,
        epoch: manifest.epoch,
        commit: CommitId(db.env.entropy.next_u64()),
        author: author.clone(),
        required_features: required_features(&changes),
        changes,
        extra: Default::default(),
    };
    let as_of = Instant::now();
    let mut proposal = commit::propose(&loaded.state, manifest, edit, authority)
        .map_err(|e| JobError::Stale(e.to_string()))?;
    if let Some(groups) = groups {
        proposal = proposal.with_groups(groups);
    }
    match commit::commit(db, &proposal, as_of + COMMIT_DEADLINE).await {
        Resolved::Committed(state) => {
            Ok(Attempt::Committed(Loaded { state, manifest: proposal.manifest.clone(), as_of }))
        }
        Resolved::CommittedEarlier(newer) => Ok(Attempt::Committed(newer)),
        Resolved::Moved(newer) => Ok(Attempt::Moved(newer)),
        // A job commits no segments, so "through" can only mean that its right is gone.
        Resolved::Fenced(why) | Resolved::CommittedThrough(_, why) => Err(JobError::ClaimLost(why)),
        Resolved::Unknown(why) => Err(JobError::Unknown(why)),
    }
}

/// The head moved under every attempt.
#[must_use]
pub fn lost() -> JobError {
    JobError::Stale(format!("lost {MAX_COMMIT_ATTEMPTS} commits to others"))
}
