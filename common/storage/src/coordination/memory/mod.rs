//! The memory form: coordination in this process's memory, for tests and benchmarks.
//!
//! It is the same protocol, not a shortcut: heads are compared as bytes, claims have tokens, a load reads the checkpoint
//! from the bucket and replays the edits. What real services do to their clients can be done to it on purpose: see
//! [`faults`].
//!
//! ```text
//!   State (one mutex)                                    revision (watch channel)
//!     head + bytes     edits: version → (edit, head)  ──► wakes every watcher, which looks for itself
//!     epoch            writer, jobs: holder, token
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::groups::{GroupChange, GroupOutcome, Groups};
use super::recover::Remains;
use super::{
    Authority, Backend, Claim, ClaimAttempt, CommitOutcome, Coordination, CoordinationError, HeadState,
    JobAttempt, LeaderInfo, Loaded, Member, NodeInfo, PinAttempt, Proposal, WatchEvent, checkpoint,
};
use crate::ids::{Epoch, Incarnation, JobId, Lineage, Version};
use crate::manifest::{CheckpointRef, Edit, Head, Manifest};
use crate::object::Bucket;
use crate::sabotage::{Rule, broken};
use crate::watch;

pub mod faults;
mod groups;
mod lease;
mod pins;
mod recover;
mod watcher;

use lease::{Held, MemoryLease, Right};

/// Coordination in this process's memory. Every role that is to share it gets a clone of one `Arc`.
#[derive(Debug)]
pub struct MemoryCoordination {
    bucket: Arc<dyn Bucket>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Counts changes; watchers and leases wait on it.
    changed: watch::Sender<u64>,
}

/// Everything an etcd would hold.
#[derive(Debug, Clone, Default)]
struct State {
    head: Option<HeadState>,
    edits: BTreeMap<Version, (Arc<Edit>, HeadState)>,
    /// The newest epoch claimed, and of which lineage.
    epoch: Option<(Lineage, Epoch)>,
    writer: Option<(LeaderInfo, Held)>,
    jobs: BTreeMap<JobId, (String, Held)>,
    gc_floor: Version,
    /// By their tokens.
    pins: BTreeMap<i64, (Version, Held)>,
    groups: Groups,
    members: BTreeMap<String, Member>,
    /// The last token handed out; never goes back, not even with [`MemoryCoordination::restore`].
    token: i64,
    /// Set by a restore or a wipe: watchers must load anew.
    resets: u64,
    /// Whether it refuses to answer.
    down: bool,
}

impl MemoryCoordination {
    /// An empty service for the database in `bucket`.
    #[must_use]
    pub fn new(bucket: Arc<dyn Bucket>) -> Arc<Self> {
        let (changed, _) = watch::channel(0);
        Arc::new(Self { bucket, shared: Arc::new(Shared { state: Mutex::default(), changed }) })
    }

    /// The same service seen through another bucket (one that injects faults into one role, say).
    #[must_use]
    pub fn through(&self, bucket: Arc<dyn Bucket>) -> Arc<Self> {
        Arc::new(Self { bucket, shared: Arc::clone(&self.shared) })
    }

    /// Applies a change to the state and wakes everybody.
    fn change<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        self.shared.change(f)
    }

    fn read<T>(&self, f: impl FnOnce(&State) -> T) -> Result<T, CoordinationError> {
        let state = self.shared.state.lock();
        state.available()?;
        Ok(f(&state))
    }
}

impl Shared {
    fn change<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let out = f(&mut self.state.lock());
        self.changed.send_modify(|n| *n += 1);
        out
    }
}

impl State {
    fn available(&self) -> Result<(), CoordinationError> {
        if self.down { Err(CoordinationError::Unavailable("the service is down".to_owned())) } else { Ok(()) }
    }

    fn next_token(&mut self) -> i64 {
        self.token += 1;
        self.token
    }

    /// Why the right a commit is made under is gone, if it is.
    fn fence(&self, proposal: &Proposal) -> Option<String> {
        if broken(Rule::FenceAtCommit) {
            return None;
        }
        match &proposal.authority {
            Authority::Writer { lineage, epoch, token } => {
                if self.epoch != Some((*lineage, *epoch)) {
                    return Some(format!("the newest epoch is {:?}, not {lineage}:{epoch}", self.epoch));
                }
                let held = self.writer.as_ref().is_some_and(|(_, held)| held.token() == *token);
                (!held).then(|| "the writer's lease is gone".to_owned())
            }
            Authority::Job { job, token } => {
                let held = self.jobs.get(job).is_some_and(|(_, held)| held.token() == *token);
                (!held).then(|| format!("the claim of job {job} is gone"))
            }
            Authority::Observer => None,
        }
    }

    fn base_stands(&self, base: &HeadState) -> bool {
        self.head.as_ref().is_some_and(|h| h.raw == base.raw)
    }

    /// An observer compares the epoch that its manifest was made under with the newest claimed.
    fn epoch_stands(&self, proposal: &Proposal) -> bool {
        let head = &proposal.base.head;
        proposal.authority != Authority::Observer || self.epoch == Some((head.lineage, head.epoch))
    }

    fn commit(&mut self, proposal: &Proposal) -> CommitOutcome {
        if self.down {
            return CommitOutcome::Unknown("the service is down".to_owned());
        }
        if let Some(why) = self.fence(proposal) {
            return CommitOutcome::Fenced(why);
        }
        if !self.base_stands(&proposal.base) || !self.epoch_stands(proposal) {
            return CommitOutcome::Moved;
        }
        if proposal.groups.is_some_and(|read| read != self.groups.mark) {
            return CommitOutcome::Regrouped;
        }
        match self.install(proposal.head.clone()) {
            Ok(state) => {
                self.edits.insert(proposal.edit.version, (Arc::clone(&proposal.edit), state.clone()));
                CommitOutcome::Committed(state)
            }
            Err(e) => CommitOutcome::Unknown(e.to_string()),
        }
    }

    fn fold(&mut self, base: &HeadState, checkpoint: &CheckpointRef, keep: usize) -> CommitOutcome {
        if self.down {
            return CommitOutcome::Unknown("the service is down".to_owned());
        }
        // The start never moves back: the edits between it and the present one may be gone.
        if !self.base_stands(base) || checkpoint.version < base.head.checkpoint.version {
            return CommitOutcome::Moved;
        }
        let head = Head { checkpoint: checkpoint.clone(), ..base.head.clone() };
        match self.install(head) {
            Ok(state) => {
                let newest_to_go = checkpoint.version.0.min(state.head.version.0.saturating_sub(keep as u64));
                self.edits = self.edits.split_off(&Version(newest_to_go + 1));
                CommitOutcome::Committed(state)
            }
            Err(e) => CommitOutcome::Unknown(e.to_string()),
        }
    }

    fn install(&mut self, head: Head) -> Result<HeadState, CoordinationError> {
        let raw = serde_json::to_vec(&head)
            .map_err(|e| CoordinationError::Damaged(format!("the head could not be written as JSON: {e}")))?;
        let state = HeadState { head, raw: Bytes::from(raw), revision: self.next_token() };
        self.head = Some(state.clone());
        Ok(state)
    }
}

#[async_trait]
impl Coordination for MemoryCoordination {
    fn backend(&self) -> Backend {
        Backend::Memory
    }

    async fn bootstrap(
        &self,
        genesis: &Manifest,
        checkpoint: &CheckpointRef,
    ) -> Result<bool, CoordinationError> {
        let head = genesis.head(checkpoint.clone(), crate::ids::CommitId(0));
        self.change(|state| {
            state.available()?;
            if state.head.is_some() {
                return Ok(false);
            }
            state.install(head)?;
            state.epoch = Some((genesis.lineage, genesis.epoch));
            state.put_groups(&genesis.groups);
            Ok(true)
        })
    }

    async fn remains(&self) -> Result<Remains, CoordinationError> {
        self.read_remains()
    }

    async fn replace(
        &self,
        found: &Remains,
        manifest: &Manifest,
        checkpoint: &CheckpointRef,
    ) -> Result<bool, CoordinationError> {
        self.replace_head(found, manifest, checkpoint)
    }

    async fn exists(&self) -> Result<bool, CoordinationError> {
        self.read(|state| state.head.is_some())
    }

    async fn load(&self) -> Result<Loaded, CoordinationError> {
        let as_of = Instant::now();
        let (head, edits) = self.read(|state| (state.head.clone(), state.edits.clone()))?;
        let state = head.ok_or_else(|| CoordinationError::NotFound(self.bucket.url()))?;
        let start = checkpoint::read(self.bucket.as_ref(), &state.head.checkpoint).await?;
        let manifest = replay(start, edits.into_values().map(|(edit, _)| edit))?;
        if manifest.version != state.head.version {
            return Err(CoordinationError::Damaged(format!(
                "the edits lead to version {}, the head is at {}",
                manifest.version, state.head.version
            )));
        }
        Ok(Loaded { state, manifest: manifest.into(), as_of })
    }

    async fn commit(&self, proposal: &Proposal) -> CommitOutcome {
        self.change(|state| state.commit(proposal))
    }

    async fn fold(&self, base: &HeadState, checkpoint: &CheckpointRef, keep: usize) -> CommitOutcome {
        self.change(|state| state.fold(base, checkpoint, keep))
    }

    fn watch(&self, from: &HeadState) -> BoxStream<'static, WatchEvent> {
        watcher::watch(Arc::clone(&self.shared), from.clone())
    }

    async fn claim_writer(
        &self,
        node: &NodeInfo,
        incarnation: Incarnation,
    ) -> Result<ClaimAttempt, CoordinationError> {
        self.change(|state| {
            state.available()?;
            if let Some((leader, _)) = &state.writer {
                return Ok(ClaimAttempt::HeldBy(Some(leader.clone())));
            }
            let (lineage, newest) =
                state.epoch.ok_or_else(|| CoordinationError::NotFound(self.bucket.url()))?;
            let (epoch, token) = (newest.next(), state.next_token());
            let held = Held::new(token);
            state.epoch = Some((lineage, epoch));
            state.writer = Some((LeaderInfo { node: node.clone(), epoch }, held.clone()));
            let lease = MemoryLease::new(Arc::clone(&self.shared), Right::Writer, held);
            let authority = Authority::Writer { lineage, epoch, token };
            Ok(ClaimAttempt::Won(Claim { epoch, incarnation, authority, lease: Arc::new(lease) }))
        })
    }

    async fn leader(&self) -> Result<Option<LeaderInfo>, CoordinationError> {
        self.read(|state| state.writer.as_ref().map(|(leader, _)| leader.clone()))
    }

    async fn vacancy(&self, at_most: Duration) {
        let mut changed = self.shared.changed.subscribe();
        let vacant = changed.wait_for(|_| self.shared.state.lock().writer.is_none());
        let _ = tokio::time::timeout(at_most, vacant).await;
    }

    async fn claim_job(&self, job: JobId, node: &NodeInfo) -> Result<JobAttempt, CoordinationError> {
        self.change(|state| {
            state.available()?;
            if let Some((holder, _)) = state.jobs.get(&job) {
                return Ok(JobAttempt::HeldBy(holder.clone()));
            }
            let token = state.next_token();
            let held = Held::new(token);
            state.jobs.insert(job, (node.node.clone(), held.clone()));
            let lease = MemoryLease::new(Arc::clone(&self.shared), Right::Job(job), held);
            Ok(JobAttempt::Won(Authority::Job { job, token }, Arc::new(lease)))
        })
    }

    async fn job_is_claimed(&self, job: JobId) -> Result<bool, CoordinationError> {
        self.read(|state| state.jobs.contains_key(&job))
    }

    async fn pin(&self, version: Version, _node: &NodeInfo) -> Result<PinAttempt, CoordinationError> {
        pins::pin(&self.shared, version)
    }

    async fn raise_gc_floor(&self, version: Version) -> Result<Version, CoordinationError> {
        self.change(|state| {
            state.available()?;
            Ok(state.raise_floor(version))
        })
    }

    async fn groups(&self) -> Result<Groups, CoordinationError> {
        self.read(|state| state.groups.clone())
    }

    async fn change_group(
        &self,
        lineage: Lineage,
        group: &str,
        change: &GroupChange,
    ) -> Result<GroupOutcome, CoordinationError> {
        self.change(|state| {
            state.available()?;
            state.change_group(lineage, group, change)
        })
    }

    async fn register(&self, member: &Member) -> Result<(), CoordinationError> {
        self.change(|state| {
            state.available()?;
            state.members.insert(format!("{}/{}", member.role, member.node.node), member.clone());
            Ok(())
        })
    }

    async fn members(&self) -> Result<Vec<Member>, CoordinationError> {
        self.read(|state| state.members.values().cloned().collect())
    }

    fn connection(&self) -> u64 {
        self.shared.state.lock().resets
    }

    fn describe(&self) -> String {
        "coordination in this process's memory".to_owned()
    }
}

/// Replays what lies above a checkpoint.
fn replay(start: Manifest, edits: impl Iterator<Item = Arc<Edit>>) -> Result<Manifest, CoordinationError> {
    let from = start.version;
    edits.filter(|e| e.version > from).try_fold(start, |manifest, edit| {
        manifest.apply(&edit).map_err(|e| CoordinationError::Damaged(format!("the edits do not replay: {e}")))
    })
}
