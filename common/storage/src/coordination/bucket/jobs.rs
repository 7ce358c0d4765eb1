//! Claims of compaction jobs as edits.
//!
//! ```text
//!   claim      edit: ClaimJob { node#token, beat 0 }
//!   renew      edit: ClaimJob { node#token, beat n }    every beat period, by a task of the claim
//!   give back  edit: EndJob
//! ```
//! **A claim's silence** has two witnesses, and no clock of a host is ever compared with another's:
//! - the looker's own monotonic clock, from when it first saw this very beat;
//! - the store's clock, from the oldest object of `manifest/` that was written with or after the beat (the edits and
//!   checkpoints from the version on that the claim says) to a marker written just now. Without it a process that lives
//!   shorter than the stale period, as a run of cron does, would begin its own watch each time, and a killed holder's
//!   claim would stand for ever.
//!
//! One that has been silent for the stale period is taken over (or ended) by an edit, and from that edit on the old
//! holder's commits are refused: fencing is in the commit, which must find the claim, with its token, in the manifest it
//! builds on. So a clock that lies, the store's or a machine's that slept, can only waste work: a holder that lives and
//! was called silent is told so, and its part is done again. The holder's own count ([`Lease::valid_until`]) begins
//! before the beat was sent, hence before either witness can have seen it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use tokio::time::Instant;

use super::Inner;
use crate::coordination::{Authority, CoordinationError, JobAttempt, Lease, NodeInfo};
use crate::ids::{JobId, Version};
use crate::manifest::{Change, JobClaim, Manifest};
use crate::names;
use crate::object::{StoreError, store_now};
use crate::watch;

/// Who makes these edits.
const WHO: &str = "jobs";

/// The foreign claims that were seen.
pub(super) type Sightings = HashMap<JobId, Sighting>;

/// A foreign claim at one beat.
#[derive(Debug)]
pub(super) struct Sighting {
    claim: JobClaim,
    /// When this process first saw it at this beat.
    since: Instant,
    /// How long it had been silent at that instant, by the store's clock; none where the store was not asked yet.
    before: Option<Duration>,
}

impl Sighting {
    fn silent(&self) -> Duration {
        self.since.elapsed() + self.before.unwrap_or_default()
    }
}

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

/// The claim as the edit after `manifest` carries it.
fn beat(job: JobId, claim: &JobClaim, manifest: &Manifest) -> Change {
    Change::ClaimJob { job, claim: JobClaim { at: Some(manifest.version.next()), ..claim.clone() } }
}

pub(super) async fn claim(
    inner: &Arc<Inner>,
    job: JobId,
    node: &NodeInfo,
) -> Result<JobAttempt, CoordinationError> {
    let token = inner.env.entropy.next_u64() as i64;
    let claim = JobClaim { node: format!("{}{}", node.node, mark(token)), beat: 0, at: None };
    let attempt = || {
        inner.change(WHO, |manifest| match manifest.jobs.get(&job) {
            // An attempt whose answer was lost went through.
            Some(_) if holds(manifest, job, token) => Err(None),
            Some(other) if !inner.is_stale(job, other) => Err(Some(holder(other))),
            Some(_) => Ok(vec![Change::EndJob { job }, beat(job, &claim, manifest)]),
            None => Ok(vec![beat(job, &claim, manifest)]),
        })
    };
    let mut changed = attempt().await?;
    if matches!(changed, Err(Some(_))) && inner.ask_the_store(job).await {
        changed = attempt().await?;
    }
    if let Err(Some(holder)) = changed {
        return Ok(JobAttempt::HeldBy(holder));
    }
    let lease = JobLease::begin(Arc::clone(inner), job, token, claim);
    Ok(JobAttempt::Won(Authority::Job { job, token }, Arc::new(lease)))
}

/// Whether the claim stands; one that is stale is ended first, so that its holder is fenced by the time the answer is
/// no.
pub(super) async fn is_claimed(inner: &Arc<Inner>, job: JobId) -> Result<bool, CoordinationError> {
    let attempt = || {
        inner.change(WHO, |manifest| match manifest.jobs.get(&job) {
            Some(claim) if inner.is_stale(job, claim) => Ok(vec![Change::EndJob { job }]),
            Some(_) => Err(true),
            None => Err(false),
        })
    };
    let mut ended = attempt().await?;
    if ended == Err(true) && inner.ask_the_store(job).await {
        ended = attempt().await?;
    }
    Ok(ended.err().unwrap_or(false))
}

impl Inner {
    /// Whether a claim has stood at this beat for the stale period.
    fn is_stale(&self, job: JobId, claim: &JobClaim) -> bool {
        let mut sightings = self.sightings.lock();
        let fresh = || Sighting { claim: claim.clone(), since: Instant::now(), before: None };
        let sighting = sightings.entry(job).or_insert_with(fresh);
        if sighting.claim != *claim {
            *sighting = fresh();
        }
        sighting.silent() >= self.pace.stale
    }

    /// How much longer a claim that was seen has to be silent to be stale.
    pub(super) fn silence_left(&self, job: JobId) -> Option<Duration> {
        let sightings = self.sightings.lock();
        sightings.get(&job).map(|seen| self.pace.stale.saturating_sub(seen.silent()))
    }

    /// Asks the store how long a claim that was seen has been silent, once for each beat; whether that makes it stale.
    /// Where the store cannot say, this process's own watch goes on.
    async fn ask_the_store(&self, job: JobId) -> bool {
        let (claim, since) = match self.sightings.lock().get(&job) {
            Some(seen) if seen.before.is_none() => (seen.claim.clone(), seen.since),
            _ => return false,
        };
        let Some(at) = claim.at else { return false };
        let before = match self.silence(at).await {
            Ok(silence) => silence.saturating_sub(since.elapsed()),
            Err(error) => {
                tracing::debug!(%job, %error, "the store could not be asked how old a claim is");
                return false;
            }
        };
        let mut sightings = self.sightings.lock();
        let Some(seen) = sightings.get_mut(&job).filter(|seen| seen.claim == claim) else { return false };
        seen.before = Some(before);
        seen.silent() >= self.pace.stale
    }

    /// For how long, at least, nothing has been heard of a claim whose present beat came with version `at`. Nothing of
    /// that version or a later one can have been written before.
    async fn silence(&self, at: Version) -> Result<Duration, StoreError> {
        let mut oldest = None;
        let mut objects = self.bucket.list("manifest");
        while let Some(object) = objects.try_next().await? {
            let version = names::parse_edit(&object.path).or_else(|| names::parse_checkpoint(&object.path));
            if version.is_some_and(|v| v >= at) {
                oldest = Some(oldest.map_or(object.last_modified, |o| object.last_modified.min(o)));
            }
        }
        let Some(oldest) = oldest else { return Ok(Duration::ZERO) };
        let now = store_now(self.bucket.as_ref(), self.env.entropy.as_ref()).await?;
        let micros = now.micros().saturating_sub(oldest.micros());
        Ok(Duration::from_micros(u64::try_from(micros).unwrap_or_default()))
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
                if holds(manifest, job, token) { Ok(vec![beat(job, &claim, manifest)]) } else { Err(()) }
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
