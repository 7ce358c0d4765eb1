//! The bucket form: coordination by nothing but objects that are created if absent. The embedded default.
//!
//! ```text
//!   manifest/fold-1 ─► checkpoint 1        manifest/edit-2  edit-3  …  edit-412 │ 413: not there yet
//!   manifest/fold-2 ─► checkpoint 300, gone 172      edits 2..=172 may be deleted │
//!   manifest/fold-3: not there yet
//! ```
//! - **Commit** of version `n`: create `edit-n`. Create has one winner, and every edit below `n` was read before, so
//!   the winner's edit fits. A claim of the writer's role is such an edit (`Adopt`); the old writer meets it under the
//!   number that it wants to take itself, and is fenced.
//! - **Fold** number `k`: create `fold-k`. It names the checkpoint that loads start at, and `gone`: the edits up to there
//!   may now be deleted. Fold records are never deleted. `fold-1` is made at creation: it is the head's existence.
//! - **Load**: the newest fold record, its checkpoint, the edits after it until one is not there.
//! - **Watch**: asking for the next edit, with pauses that double while nothing comes; roles in one process share one
//!   instance, take turns, and see each other's commits without asking.
//!
//! # The name that was deleted
//! A name that is deleted can be created again, and "create" then has a second winner. Two schedules:
//! ```text
//!   writer W has read edit 99, and stops     others commit 100 … 999, fold, delete 100 … 800     W creates edit 100: it works
//!   reader R has read edit 99, and stops     (the same)        W creates edit 100        R reads edit 100, and is on W's path
//! ```
//! W would acknowledge a write that no load ever finds. Looking at the neighbour (is edit 99 still there?) does not
//! settle it, even if deletes run strictly upwards: edit 99 may itself be a ghost, byte for byte the original, put there
//! by an old request of its maker that the network delivered late. So:
//!
//! > **After** creating, reading or missing `edit-n`, and before believing it, a role that knows fold records up to `k`
//! > asks for `fold-(k+1)`. Not there: believe. There: read it; if its `gone` reaches `n`, load anew; else ask for the next.
//!
//! **Proof.** Let `g` be the highest `gone` of the folds up to `k`, and `n > g` (roles start at a checkpoint at or above
//! `g`, and go up). An edit above `g` is deleted only after a fold record with a higher number than `k` was created: that
//! is the order of a fold. Fold records are created in order of their numbers (a folder creates `k+1` only after reading
//! `k`), under names never deleted, so if `fold-(k+1)` is not there at instant `t`, no record above `k` existed at any
//! instant up to `t`. Hence at no instant up to `t` was any edit above `g` deleted, `edit-n` among them. The create, or
//! the read, happened before `t`; therefore a create that went through was the first of that name, a read brought the
//! first object of that name, and a miss means that nobody had ever created it. Neither clocks nor the order of deletes
//! nor how late an old request arrives play any part. □
//!
//! The rule costs one request for an object that is usually not there, after each commit: a commit is three serial
//! requests (segment, edit, question). A false alarm is possible, where a valid edit is folded away between its create
//! and the question; the commit is then judged by what the new load says, as every commit in doubt is. A listing for
//! checkpoints at or above `n` would prove the same, at the price of a listing for each commit.
//!
//! # Crashes and lost answers
//! - A create without an answer: the same bytes are sent again. "Already there" with our bytes is our success, whoever's
//!   retry it was.
//! - Between a fold record and its deletes: superfluous edits lie about, are never read (loads start above them), and the
//!   next fold's sweep deletes whatever lies at or below its `gone`, ghosts included.
//! - Between a checkpoint and its fold record: an unnamed checkpoint lies about; the collector deletes it.
//!
//! # Void edits
//! An edit is valid iff its epoch is that of the newest adoption before it. A maker that has read everything below its
//! number cannot make a void one; should there be one all the same, its number is used up and nothing else happens.
//!
//! # What this form does not have
//! No leases and no standby: who opens for writing takes over. Pins are objects of their own ([`pins`]). Members: known
//! within the process only. A job's claim is an edit, renewed by edits; how long it has stood still
//! is measured by each process on its own clock, from when it first saw it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::groups::{GroupChange, GroupOutcome, Groups, of_version};
use super::recover::Remains;
use super::settings::CoordinationSettings;
use super::{
    Authority, Backend, Claim, ClaimAttempt, CommitOutcome, Coordination, CoordinationError, HeadState,
    JobAttempt, LeaderInfo, Lease, Loaded, Member, NodeInfo, PinAttempt, Proposal, WatchEvent,
};
use crate::environment::Environment;
use crate::ids::{Incarnation, JobId, Lineage, Version};
use crate::manifest::{CheckpointRef, Manifest};
use crate::object::{self, Bucket, ProbeError};
use crate::watch;

mod change;
mod groups;
pub mod inspect;
mod jobs;
mod pins;
mod read;
mod record;
mod recover;
mod tip;
mod watcher;
mod write;

use jobs::Sightings;
use tip::Tip;

/// Coordination by objects in the bucket. All roles of a process share one.
#[derive(Debug)]
pub struct BucketCoordination {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bucket: Arc<dyn Bucket>,
    env: Environment,
    pace: Pace,
    /// Held while coordination objects are read or written: the roles of a process take turns instead of racing.
    turn: tokio::sync::Mutex<Turn>,
    seen: Mutex<Seen>,
    /// Counts changes of `seen`; watchers wait on it.
    changed: watch::Sender<u64>,
    sightings: Mutex<Sightings>,
    members: Mutex<BTreeMap<String, Member>>,
    /// Who claimed the writer's role through this instance.
    claimants: Mutex<BTreeMap<Incarnation, NodeInfo>>,
    /// Set once the store's create has stood its trial.
    tried: tokio::sync::OnceCell<()>,
}

/// The pauses and periods of the settings.
#[derive(Debug, Clone, Copy)]
struct Pace {
    beat: Duration,
    stale: Duration,
}

/// What only the role whose turn it is needs.
#[derive(Debug)]
struct Turn {
    /// How far edits were listed when the tip was loaded.
    listed: Version,
    /// When the fold records were last asked.
    proven: Instant,
}

/// What every role may look at at any time.
#[derive(Debug)]
struct Seen {
    tip: Option<Tip>,
    /// Counts the tips dropped; a watcher of an earlier one must load anew.
    dropped: u64,
    /// Why the bucket cannot be read at present.
    trouble: Option<String>,
    /// When somebody should look for new edits again, and the pause after that.
    look_at: Instant,
    pauses: Backoff,
}

impl BucketCoordination {
    /// Coordination over `bucket`. Nothing is asked of it yet. Before the first write the store's create is put on
    /// trial; a role that only reads never writes, and may have credentials that do not allow it.
    #[must_use]
    pub fn new(settings: &CoordinationSettings, bucket: Arc<dyn Bucket>, env: &Environment) -> Arc<Self> {
        Self::over(settings, bucket, env, tokio::sync::OnceCell::new())
    }

    /// The same without the trial, for a store that has stood it.
    #[must_use]
    pub fn trusting(
        settings: &CoordinationSettings,
        bucket: Arc<dyn Bucket>,
        env: &Environment,
    ) -> Arc<Self> {
        Self::over(settings, bucket, env, tokio::sync::OnceCell::new_with(Some(())))
    }

    fn over(
        settings: &CoordinationSettings,
        bucket: Arc<dyn Bucket>,
        env: &Environment,
        tried: tokio::sync::OnceCell<()>,
    ) -> Arc<Self> {
        let pauses = Backoff::new(
            Duration::from_millis(settings.poll_min_ms),
            Duration::from_millis(settings.poll_max_ms),
        );
        let pace = Pace {
            beat: Duration::from_secs(settings.job_beat_seconds),
            stale: Duration::from_secs(settings.job_stale_seconds),
        };
        let now = Instant::now();
        let seen = Seen { tip: None, dropped: 0, trouble: None, look_at: now, pauses };
        let inner = Inner {
            bucket,
            env: env.clone(),
            pace,
            turn: tokio::sync::Mutex::new(Turn { listed: Version::ZERO, proven: now }),
            seen: Mutex::new(seen),
            changed: watch::Sender::new(0),
            sightings: Mutex::default(),
            members: Mutex::default(),
            claimants: Mutex::default(),
            tried,
        };
        Arc::new(Self { inner: Arc::new(inner) })
    }
}

impl Inner {
    /// What the tip says, if there is one.
    fn tip<T>(&self, ask: impl FnOnce(&Tip) -> T) -> Option<T> {
        self.seen.lock().tip.as_ref().map(ask)
    }

    /// Puts a tip in the place of the present one.
    fn install(&self, tip: Option<Tip>) {
        let mut seen = self.seen.lock();
        seen.dropped += u64::from(tip.is_none() && seen.tip.is_some());
        seen.tip = tip;
        drop(seen);
        self.changed.send_modify(|n| *n += 1);
    }

    /// Moves the tip on. Where that fails the tip is dropped: half a step is no state to be in.
    fn update<T>(
        &self,
        step: impl FnOnce(&mut Tip) -> Result<T, CoordinationError>,
    ) -> Result<T, CoordinationError> {
        let done = match self.seen.lock().tip.as_mut() {
            Some(tip) => step(tip),
            None => Err(CoordinationError::Unavailable("the manifest is being loaded anew".to_owned())),
        };
        if done.is_err() {
            self.install(None);
        }
        self.changed.send_modify(|n| *n += 1);
        done
    }

    /// The bucket was looked at just now: the next look can wait.
    fn looked(&self) {
        let mut seen = self.seen.lock();
        let pause = seen.pauses.pause();
        seen.look_at = Instant::now() + pause;
        seen.trouble = None;
    }

    /// Puts the store's create on trial, once.
    async fn trust(&self) -> Result<(), CoordinationError> {
        let trial = || async {
            object::conditional_create(&self.bucket, self.env.entropy.as_ref()).await.map_err(|e| match e {
                ProbeError::Store(e) => e.into(),
                ProbeError::NotAtomic { .. } => CoordinationError::Refused(e.to_string()),
            })
        };
        self.tried.get_or_try_init(trial).await.copied()
    }

    async fn load_now(&self) -> Result<Loaded, CoordinationError> {
        self.load(&mut *self.turn.lock().await).await
    }
}

#[async_trait]
impl Coordination for BucketCoordination {
    fn backend(&self) -> Backend {
        Backend::Bucket
    }

    async fn prepare_to_write(&self) -> Result<(), CoordinationError> {
        self.inner.trust().await
    }

    async fn bootstrap(
        &self,
        genesis: &Manifest,
        checkpoint: &CheckpointRef,
    ) -> Result<bool, CoordinationError> {
        self.inner.trust().await?;
        self.inner.bootstrap(genesis, checkpoint).await
    }

    async fn remains(&self) -> Result<Remains, CoordinationError> {
        self.inner.remains().await
    }

    async fn replace(
        &self,
        found: &Remains,
        manifest: &Manifest,
        checkpoint: &CheckpointRef,
    ) -> Result<bool, CoordinationError> {
        self.inner.trust().await?;
        self.inner.replace(found, manifest, checkpoint).await
    }

    async fn exists(&self) -> Result<bool, CoordinationError> {
        self.inner.exists().await
    }

    async fn load(&self) -> Result<Loaded, CoordinationError> {
        self.inner.load_now().await
    }

    async fn commit(&self, proposal: &Proposal) -> CommitOutcome {
        if let Err(e) = self.inner.trust().await {
            return CommitOutcome::Unknown(e.to_string());
        }
        self.inner.commit(&mut *self.inner.turn.lock().await, proposal).await
    }

    async fn fold(&self, base: &HeadState, checkpoint: &CheckpointRef, keep: usize) -> CommitOutcome {
        if let Err(e) = self.inner.trust().await {
            return CommitOutcome::Unknown(e.to_string());
        }
        let outcome = self.inner.fold(&mut *self.inner.turn.lock().await, base, checkpoint, keep).await;
        if matches!(outcome, CommitOutcome::Committed(_)) {
            self.inner.sweep().await;
        }
        outcome
    }

    fn watch(&self, from: &HeadState) -> BoxStream<'static, WatchEvent> {
        watcher::watch(Arc::clone(&self.inner), from.clone())
    }

    async fn claim_writer(
        &self,
        node: &NodeInfo,
        incarnation: Incarnation,
    ) -> Result<ClaimAttempt, CoordinationError> {
        self.inner.trust().await?;
        let manifest = self.inner.load_now().await?.manifest;
        let epoch = manifest.epoch.next();
        self.inner.claimants.lock().insert(incarnation, node.clone());
        let authority = Authority::Writer { lineage: manifest.lineage, epoch, token: 0 };
        Ok(ClaimAttempt::Won(Claim { epoch, incarnation, authority, lease: Arc::new(NoLease) }))
    }

    async fn leader(&self) -> Result<Option<LeaderInfo>, CoordinationError> {
        let manifest = self.inner.load_now().await?.manifest;
        let Some(start) = manifest.epochs.last() else { return Ok(None) };
        let claimant = self.inner.claimants.lock().get(&start.incarnation).cloned();
        let named = self.inner.tip(|tip| tip.leader.clone()).flatten();
        let node = claimant.or_else(|| named.map(|node| NodeInfo { node, advertise: String::new() }));
        Ok(node.map(|node| LeaderInfo { node, epoch: start.epoch }))
    }

    /// Nobody is waited for in this form: who opens for writing takes over.
    async fn vacancy(&self, at_most: Duration) {
        tokio::time::sleep(at_most).await;
    }

    async fn claim_job(&self, job: JobId, node: &NodeInfo) -> Result<JobAttempt, CoordinationError> {
        self.inner.trust().await?;
        jobs::claim(&self.inner, job, node).await
    }

    async fn job_is_claimed(&self, job: JobId) -> Result<bool, CoordinationError> {
        jobs::is_claimed(&self.inner, job).await
    }

    fn silence_left(&self, job: JobId) -> Option<Duration> {
        self.inner.silence_left(job)
    }

    async fn pin(&self, version: Version, _node: &NodeInfo) -> Result<PinAttempt, CoordinationError> {
        pins::pin(&self.inner, version).await
    }

    async fn raise_gc_floor(&self, version: Version) -> Result<Version, CoordinationError> {
        Ok(pins::raise_floor(&self.inner, version).await?)
    }

    async fn groups(&self) -> Result<Groups, CoordinationError> {
        Ok(of_version(&self.inner.load_now().await?.manifest))
    }

    async fn change_group(
        &self,
        lineage: Lineage,
        group: &str,
        change: &GroupChange,
    ) -> Result<GroupOutcome, CoordinationError> {
        self.inner.trust().await?;
        groups::change(&self.inner, lineage, group, change).await
    }

    async fn register(&self, member: &Member) -> Result<(), CoordinationError> {
        let key = format!("{}/{}", member.role, member.node.node);
        self.inner.members.lock().insert(key, member.clone());
        Ok(())
    }

    async fn members(&self) -> Result<Vec<Member>, CoordinationError> {
        Ok(self.inner.members.lock().values().cloned().collect())
    }

    fn describe(&self) -> String {
        let seen = self.inner.seen.lock();
        let at =
            seen.tip.as_ref().map_or("nothing loaded yet".to_owned(), |t| format!("version {}", t.version()));
        let trouble = seen.trouble.as_ref().map(|t| format!(", {t}")).unwrap_or_default();
        format!("objects in {} ({at}{trouble})", self.inner.bucket.url())
    }
}

/// The writer's lease in a form without leases: it lives until somebody else's adoption is met.
#[derive(Debug)]
struct NoLease;

#[async_trait]
impl Lease for NoLease {
    fn valid_until(&self) -> Option<Instant> {
        None
    }

    async fn lost(&self) -> String {
        std::future::pending().await
    }

    async fn give_back(&self) {}
}
