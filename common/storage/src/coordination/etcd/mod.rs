//! Coordination in etcd: a small head swapped by transactions, leases for roles, and watches, so that nobody polls.
//!
//! This folder is the only place that names the `etcd-client` crate. What that client does not do by itself is done
//! here: a bound on every request and fail-over between endpoints ([`client`]), errors sorted by what they say about
//! the request's fate ([`error`]), watches that resume without gap or repeat and notice that they are dead
//! ([`watch`]), leases on connections of their own ([`lease`]), and noticing an etcd that was wiped, set back or
//! exchanged ([`witness`]).

mod beat;
mod claim;
mod client;
mod edits;
mod error;
mod groups;
mod keys;
mod lease;
mod load;
mod pins;
mod recover;
mod registry;
mod settings;
mod space;
mod target;
mod track;
mod txn;
mod watch;
mod witness;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio_util::task::AbortOnDropHandle;

pub use settings::EtcdSettings;

use super::groups::{GroupChange, GroupOutcome, Groups};
use super::recover::Remains;
use super::{
    Backend, ClaimAttempt, CommitOutcome, Coordination, CoordinationError, HeadState, JobAttempt, LeaderInfo,
    Loaded, Member, NodeInfo, PinAttempt, Proposal, WatchEvent,
};
use crate::environment::Environment;
use crate::ids::{Incarnation, JobId, Lineage, Version};
use crate::manifest::{CheckpointRef, Manifest};
use crate::object::Bucket;
use client::{Dialer, Kv, get};
use keys::Keys;
use load::{Kept, SeenHead};
use registry::Written;
use target::Target;

/// One database's coordination in etcd.
#[derive(Debug)]
pub struct EtcdCoordination {
    target: Arc<Target>,
    settings: EtcdSettings,
    keys: Arc<Keys>,
    kv: Arc<Kv>,
    bucket: Arc<dyn Bucket>,
    env: Environment,
    kept: Kept,
    seen: Arc<SeenHead>,
    written: Written,
    _space: AbortOnDropHandle<()>,
}

impl EtcdCoordination {
    /// Connects to the etcd of `settings` for the database of that name, whose objects lie in `bucket`; on return etcd
    /// has answered a read.
    ///
    /// # Errors
    /// [`CoordinationError::Refused`] for settings or credentials that cannot work,
    /// [`CoordinationError::Unavailable`] where etcd does not answer: that may be tried again.
    pub async fn connect(
        settings: &EtcdSettings,
        database: &str,
        bucket: Arc<dyn Bucket>,
        env: &Environment,
    ) -> Result<Arc<Self>, CoordinationError> {
        let target = Arc::new(Target::read(settings).await?);
        let keys = Arc::new(Keys::new(&target.url.root, database));
        let start = start(env, &target);
        let kv = Arc::new(Kv::new(Dialer::new(Arc::clone(&target), start)));
        let this = Self {
            _space: AbortOnDropHandle::new(tokio::spawn(space::keep_asking(Arc::clone(&kv)))),
            kv,
            target,
            settings: settings.clone(),
            keys,
            bucket,
            env: env.clone(),
            kept: Kept::default(),
            seen: Arc::default(),
            written: Written::default(),
        };
        this.has_head().await?;
        Ok(Arc::new(this))
    }

    /// A connection of its own for one more purpose.
    fn dialer(&self) -> Dialer {
        Dialer::new(Arc::clone(&self.target), start(&self.env, &self.target))
    }

    /// Where the database's keys lie, for messages.
    fn place(&self) -> String {
        format!("{}{}", self.target.url.endpoints.join(","), self.keys.prefix())
    }

    async fn has_head(&self) -> Result<bool, CoordinationError> {
        Ok(self.kv.read(vec![get(self.keys.head())]).await?.one(0).is_some())
    }
}

/// The endpoint to begin with: processes spread themselves over the members.
fn start(env: &Environment, target: &Target) -> usize {
    (env.entropy.next_u64() % target.url.endpoints.len() as u64) as usize
}

#[async_trait]
impl Coordination for EtcdCoordination {
    fn backend(&self) -> Backend {
        Backend::Etcd
    }

    async fn bootstrap(
        &self,
        genesis: &Manifest,
        checkpoint: &CheckpointRef,
    ) -> Result<bool, CoordinationError> {
        self.create_head(genesis, checkpoint).await
    }

    async fn remains(&self) -> Result<Remains, CoordinationError> {
        self.read_remains().await
    }

    async fn replace(
        &self,
        found: &Remains,
        manifest: &Manifest,
        checkpoint: &CheckpointRef,
    ) -> Result<bool, CoordinationError> {
        self.replace_head(found, manifest, checkpoint).await
    }

    async fn exists(&self) -> Result<bool, CoordinationError> {
        self.has_head().await
    }

    async fn load(&self) -> Result<Loaded, CoordinationError> {
        self.load_whole().await
    }

    async fn commit(&self, proposal: &Proposal) -> CommitOutcome {
        self.commit_once(proposal).await
    }

    async fn fold(&self, base: &HeadState, checkpoint: &CheckpointRef, keep: usize) -> CommitOutcome {
        self.fold_once(base, checkpoint, keep).await
    }

    fn watch(&self, from: &HeadState) -> BoxStream<'static, WatchEvent> {
        self.watch_from(from)
    }

    async fn claim_writer(
        &self,
        node: &NodeInfo,
        incarnation: Incarnation,
    ) -> Result<ClaimAttempt, CoordinationError> {
        self.claim_role(node, incarnation).await
    }

    async fn leader(&self) -> Result<Option<LeaderInfo>, CoordinationError> {
        self.current_leader().await
    }

    async fn vacancy(&self, at_most: Duration) {
        self.wait_for_vacancy(at_most).await;
    }

    async fn claim_job(&self, job: JobId, node: &NodeInfo) -> Result<JobAttempt, CoordinationError> {
        self.take_job(job, node).await
    }

    async fn job_is_claimed(&self, job: JobId) -> Result<bool, CoordinationError> {
        self.job_stands(job).await
    }

    async fn pin(&self, version: Version, node: &NodeInfo) -> Result<PinAttempt, CoordinationError> {
        self.put_pin(version, node).await
    }

    async fn raise_gc_floor(&self, version: Version) -> Result<Version, CoordinationError> {
        self.raise_floor(version).await
    }

    async fn groups(&self) -> Result<Groups, CoordinationError> {
        self.read_groups().await
    }

    async fn change_group(
        &self,
        lineage: Lineage,
        group: &str,
        change: &GroupChange,
    ) -> Result<GroupOutcome, CoordinationError> {
        self.change_one_group(lineage, group, change).await
    }

    async fn register(&self, member: &Member) -> Result<(), CoordinationError> {
        self.write_member(member).await
    }

    async fn members(&self) -> Result<Vec<Member>, CoordinationError> {
        self.read_members().await
    }

    fn connection(&self) -> u64 {
        self.target.interruptions.load(Ordering::Acquire)
    }

    fn describe(&self) -> String {
        format!("etcd at {}: {}", self.place(), self.kv.describe())
    }
}
