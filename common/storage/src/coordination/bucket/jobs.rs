//! Claims of compaction jobs as edits.
//!
//! ```text
//!   claim      edit: ClaimJob { node#token, beat 0 }
//!   renew      edit: ClaimJob { node#token, beat n }    every beat period, by a task of the claim
//!   give back  edit: EndJob
//! ```
//! A claim's age is counted by whoever looks, on its own monotonic clock, from when it first saw this very beat: clocks
//! of different hosts are never compared. One that has not changed under a process's eyes for the stale period is taken
//! over (or ended) by an edit, and from that edit on the old holder's commits are refused: fencing is in the commit,
//! which must find the claim, with its token, in the manifest it builds on.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use super::Inner;
use crate::coordination::{Authority, CoordinationError, JobAttempt, Lease, NodeInfo};
use crate::ids::JobId;
use crate::manifest::{Change, JobClaim, Manifest};
use crate::watch;

/// Who makes these edits.
const WHO: &str = "jobs";

/// When each foreign claim was first seen at its present beat.
pub(super) type Sightings = HashMap<JobId, (JobClaim, Instant)>;

/// Whether the claim that `token` stands for is in the manifest.
pub(super) fn holds(manifest: &Manifest, job: JobId, token: i64) -> bool {
    manifest.jobs.get(&job).is_some_and(|claim| claim.node.ends_with(&mark(token)))
}

fn mark(token: i64) -> String {
    format!("#{:016x}", token as u64)
}

/// The holder without its token.
fn holder(claim: &JobClaim) -> String {
    claim.node.rsplit_once('#').map_or(claim.node.as_str(), |(node, _)| node).to_owned()
}

pub(super) async fn claim(
    inner: &Arc<Inner>,
    job: JobId,
    node: &NodeInfo,
) -> Result<JobAttempt, CoordinationError> {
    let token = inner.env.entropy.next_u64() as i64;
    let claim = JobClaim { node: format!("{}{}", node.node, mark(token)), beat: 0 };
    let changed = inner
        .change(WHO, |manifest| match manifest.jobs.get(&job) {
            // An attempt whose answer was lost went through.
            Some(_) if holds(manifest, job, token) => Err(None),
            Some(other) if !inner.is_stale(job, other) => Err(Some(holder(other))),
            Some(_) => Ok(vec![Change::EndJob { job }, Change::ClaimJob { job, claim: claim.clone() }]),
            None => Ok(vec![Change::ClaimJob { job, claim: claim.clone() }]),
        })
        .await?;
    if let Err(Some(holder)) = changed {
        return Ok(JobAttempt::HeldBy(holder));
    }
    let lease = JobLease::begin(Arc::clone(inner), job, token, claim);
    Ok(JobAttempt::Won(Authority::Job { job, token }, Arc::new(lease)))
}

/// Whether the claim stands; one that is stale under our eyes is ended first, so that its holder is fenced by the time
/// the answer is no.
pub(super) async fn is_claimed(inner: &Arc<Inner>, job: JobId) -> Result<bool, CoordinationError> {
    let ended = inner
        .change(WHO, |manifest| match manifest.jobs.get(&job) {
            Some(claim) if inner.is_stale(job, claim) => Ok(vec![Change::EndJob { job }]),
            Some(_) => Err(true),
            None => Err(false),
        })
        .await?;
    Ok(ended.err().unwrap_or(false))
}

impl Inner {
    /// Whether a claim has stood at this beat, under this process's eyes, for the stale period.
    fn is_stale(&self, job: JobId, claim: &JobClaim) -> bool {
        let mut sightings = self.sightings.lock();
        let now = Instant::now();
        let (seen, since) = sightings.entry(job).or_insert_with(|| (claim.clone(), now));
        if seen != claim {
            (*seen, *since) = (claim.clone(), now);
        }
        now.duration_since(*since) >= self.pace.stale
    }
}

/// A claim, renewed by a task of its own until it is given back, lost, or dropped.
#[derive(Debug)]
struct JobLease {
    inner: Arc<Inner>,
    job: JobId,
    token: i64,
    lost: watch::Receiver<Option<String>>,
    /// Until when nobody can have found the claim stale.
    valid: watch::Receiver<Instant>,
    renewing: tokio::task::AbortHandle,
}

impl JobLease {
    fn begin(inner: Arc<Inner>, job: JobId, token: i64, claim: JobClaim) -> Self {
        let (lost_tx, lost) = watch::channel(None);
        let (valid_tx, valid) = watch::channel(Instant::now() + inner.pace.stale);
        let task = tokio::spawn(renew(Arc::clone(&inner), job, token, claim, lost_tx, valid_tx));
        Self { inner, job, token, lost, valid, renewing: task.abort_handle() }
    }
}

/// Renews until the claim is gone, or has not been renewed for so long that somebody may find it stale.
async fn renew(
    inner: Arc<Inner>,
    job: JobId,
    token: i64,
    mut claim: JobClaim,
    lost: watch::Sender<Option<String>>,
    valid: watch::Sender<Instant>,
) {
    let why = loop {
        tokio::time::sleep(inner.pace.beat).await;
        let sent = Instant::now();
        claim.beat += 1;
        let renewed = inner
            .change(WHO, |manifest| {
                let next = Change::ClaimJob { job, claim: claim.clone() };
                if holds(manifest, job, token) { Ok(vec![next]) } else { Err(()) }
            })
            .await;
        match renewed {
            Ok(Ok(())) => {
                valid.send_replace(sent + inner.pace.stale);
            }
            Ok(Err(())) => break "somebody else has it".to_owned(),
            Err(e) if Instant::now() >= *valid.borrow() => break e.to_string(),
            Err(e) => tracing::debug!(%job, error = %e, "a job's claim could not be renewed yet"),
        }
    };
    lost.send_replace(Some(why));
}

#[async_trait]
impl Lease for JobLease {
    fn valid_until(&self) -> Option<Instant> {
        Some(*self.valid.borrow())
    }

    async fn lost(&self) -> String {
        let mut lost = self.lost.clone();
        let why = lost.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or_else(|| "it was given back".to_owned())
    }

    async fn give_back(&self) {
        self.renewing.abort();
        let ended = self
            .inner
            .change(WHO, |manifest| match holds(manifest, self.job, self.token) {
                true => Ok(vec![Change::EndJob { job: self.job }]),
                false => Err(()),
            })
            .await;
        if let Err(e) = ended {
            tracing::debug!(job = %self.job, error = %e, "a job's claim could not be given back; it will go stale");
        }
    }
}

impl Drop for JobLease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}
