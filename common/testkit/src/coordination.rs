//! A coordination service that loses answers on command.
//!
//! It wraps any form, so that what is proven of one form's resolution of lost answers is proven of all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use isle_storage::coordination::groups::{GroupChange, GroupOutcome, Groups, MAX_GROUPS};
use isle_storage::coordination::recover::Remains;
use isle_storage::coordination::{
    Authority, Backend, ClaimAttempt, CommitOutcome, Coordination, CoordinationError, HeadState, JobAttempt,
    LeaderInfo, Loaded, Member, NodeInfo, PinAttempt, Proposal, WatchEvent, commit,
};
use isle_storage::ids::{CommitId, Incarnation, JobId, Lineage, SeqNo, Version};
use isle_storage::manifest::{Author, CheckpointRef, Edit, GroupCursor, Manifest};
use parking_lot::Mutex;

/// The group that [`CommitFault::GroupBegins`] creates.
pub const LATE_GROUP: &str = "late";

/// What happens to one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFault {
    /// It is applied (if it can be), and the answer is lost.
    LoseReply,
    /// It is applied, and the client's own retry brings back the second copy's answer: the head is not the base.
    AnswerOfTheCopy,
    /// It never arrives, and something on the way answers that the head is not the base.
    FalseAnswer,
    /// It never arrives.
    LoseRequest,
    /// Somebody else's edit comes first: it arrives, and has lost the race.
    Overtaken,
    /// A consumer group ([`LATE_GROUP`]) that has consumed nothing is created first: it arrives, and must not let go of
    /// log.
    GroupBegins,
    /// It is under way, and arrives when [`LossyCoordination::deliver`] says so.
    Late,
}

/// A coordination service whose answers to commits can be lost.
#[derive(Debug)]
pub struct LossyCoordination {
    inner: Arc<dyn Coordination>,
    faults: Mutex<VecDeque<CommitFault>>,
    late: Mutex<Vec<Proposal>>,
    attempts: Mutex<u64>,
    group_changes: Mutex<u64>,
}

impl LossyCoordination {
    /// A faultless decorator over `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Coordination>) -> Arc<Self> {
        let (faults, late) = (Mutex::default(), Mutex::default());
        Arc::new(Self { inner, faults, late, attempts: Mutex::new(0), group_changes: Mutex::new(0) })
    }

    /// The next commit that no earlier fault waits for meets this one.
    pub fn inject(&self, fault: CommitFault) {
        self.faults.lock().push_back(fault);
    }

    /// Removes every fault that has not struck yet.
    pub fn heal(&self) {
        self.faults.lock().clear();
    }

    /// Commits asked for so far.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        *self.attempts.lock()
    }

    /// Changes of consumer groups asked for so far.
    #[must_use]
    pub fn group_changes(&self) -> u64 {
        *self.group_changes.lock()
    }

    /// The commits under way arrive now, in order; their outcomes, which nobody was told.
    pub async fn deliver(&self) -> Vec<CommitOutcome> {
        let late = std::mem::take(&mut *self.late.lock());
        let mut outcomes = Vec::new();
        for proposal in &late {
            outcomes.push(self.inner.commit(proposal).await);
        }
        outcomes
    }
}

/// Commits an edit that changes nothing.
async fn overtake(service: &dyn Coordination) {
    let Ok(at) = service.load().await else { return };
    let edit = Edit {
        version: at.manifest.version.next(),
        lineage: at.manifest.lineage,
        epoch: at.manifest.epoch,
        commit: CommitId(at.manifest.version.0 ^ 0x0f0f_0f0f),
        author: Author::Observer("rival".to_owned()),
        changes: Vec::new(),
        required_features: Vec::new(),
        extra: std::collections::BTreeMap::new(),
    };
    if let Ok(proposal) = commit::propose(&at.state, &at.manifest, edit, &Authority::Observer) {
        service.commit(&proposal).await;
    }
}

async fn begin_group(service: &dyn Coordination) {
    let Ok(at) = service.load().await else { return };
    let create = GroupChange::Create { cursor: GroupCursor::after(SeqNo::ZERO), most: MAX_GROUPS };
    let begun = service.change_group(at.manifest.lineage, LATE_GROUP, &create).await;
    assert!(matches!(begun, Ok(GroupOutcome::Stored(_))), "{begun:?}");
}

#[async_trait]
impl Coordination for LossyCoordination {
    async fn commit(&self, proposal: &Proposal) -> CommitOutcome {
        *self.attempts.lock() += 1;
        let fault = self.faults.lock().pop_front();
        let lost = || CommitOutcome::Unknown("an injected fault lost the answer".to_owned());
        match fault {
            None => self.inner.commit(proposal).await,
            Some(CommitFault::LoseReply) => {
                self.inner.commit(proposal).await;
                lost()
            }
            Some(CommitFault::AnswerOfTheCopy) => {
                self.inner.commit(proposal).await;
                CommitOutcome::Moved
            }
            Some(CommitFault::FalseAnswer) => CommitOutcome::Moved,
            Some(CommitFault::LoseRequest) => lost(),
            Some(CommitFault::Overtaken) => {
                overtake(self.inner.as_ref()).await;
                self.inner.commit(proposal).await
            }
            Some(CommitFault::GroupBegins) => {
                begin_group(self.inner.as_ref()).await;
                self.inner.commit(proposal).await
            }
            Some(CommitFault::Late) => {
                self.late.lock().push(proposal.clone());
                lost()
            }
        }
    }

    fn backend(&self) -> Backend {
        self.inner.backend()
    }

    async fn prepare_to_write(&self) -> Result<(), CoordinationError> {
        self.inner.prepare_to_write().await
    }

    async fn bootstrap(
        &self,
        genesis: &Manifest,
        checkpoint: &CheckpointRef,
    ) -> Result<bool, CoordinationError> {
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
        self.inner.replace(found, manifest, checkpoint).await
    }

    async fn exists(&self) -> Result<bool, CoordinationError> {
        self.inner.exists().await
    }

    async fn load(&self) -> Result<Loaded, CoordinationError> {
        self.inner.load().await
    }

    async fn fold(&self, base: &HeadState, checkpoint: &CheckpointRef, keep: usize) -> CommitOutcome {
        self.inner.fold(base, checkpoint, keep).await
    }

    fn watch(&self, from: &HeadState) -> BoxStream<'static, WatchEvent> {
        self.inner.watch(from)
    }

    async fn claim_writer(
        &self,
        node: &NodeInfo,
        incarnation: Incarnation,
    ) -> Result<ClaimAttempt, CoordinationError> {
        self.inner.claim_writer(node, incarnation).await
    }

    async fn leader(&self) -> Result<Option<LeaderInfo>, CoordinationError> {
        self.inner.leader().await
    }

    async fn vacancy(&self, at_most: Duration) {
        self.inner.vacancy(at_most).await;
    }

    async fn claim_job(&self, job: JobId, node: &NodeInfo) -> Result<JobAttempt, CoordinationError> {
        self.inner.claim_job(job, node).await
    }

    async fn job_is_claimed(&self, job: JobId) -> Result<bool, CoordinationError> {
        self.inner.job_is_claimed(job).await
    }

    async fn pin(&self, version: Version, node: &NodeInfo) -> Result<PinAttempt, CoordinationError> {
        self.inner.pin(version, node).await
    }

    async fn raise_gc_floor(&self, version: Version) -> Result<Version, CoordinationError> {
        self.inner.raise_gc_floor(version).await
    }

    async fn groups(&self) -> Result<Groups, CoordinationError> {
        self.inner.groups().await
    }

    async fn change_group(
        &self,
        lineage: Lineage,
        group: &str,
        change: &GroupChange,
    ) -> Result<GroupOutcome, CoordinationError> {
        *self.group_changes.lock() += 1;
        self.inner.change_group(lineage, group, change).await
    }

    async fn register(&self, member: &Member) -> Result<(), CoordinationError> {
        self.inner.register(member).await
    }

    async fn members(&self) -> Result<Vec<Member>, CoordinationError> {
        self.inner.members().await
    }

    fn connection(&self) -> u64 {
        self.inner.connection()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
