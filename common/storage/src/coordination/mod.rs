//! Coordination: the small mutable part of a database behind one trait, with three forms that pass one contract
//! suite: `memory` (tests), `bucket` (the embedded default), `etcd` (clusters).
//!
//! What is shared by all forms lies here too: identity and bootstrap ([`identity`]), the writer's claim
//! ([`claim`]), commits with their unknown outcomes resolved ([`commit`]), those of somebody who is neither the writer nor a
//! job ([`observe`]), folding ([`fold`]) and following the head ([`follow`]).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::ids::{Epoch, Incarnation, JobId, Lineage, SeqNo, Version};
use crate::manifest::{CheckpointRef, Edit, Head, Manifest};
use crate::object::{StoreError, StoreErrorKind};

pub mod backoff;
pub mod bucket;
pub mod checkpoint;
pub mod claim;
pub mod commit;
pub mod epoch;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod fold;
pub mod follow;
pub mod groups;
pub mod identity;
pub mod lineage;
pub mod memory;
pub mod observe;
pub mod recover;
mod roll;
pub mod sealed;
pub mod settings;
mod write_once;

use groups::{GroupChange, GroupOutcome, Groups};
use recover::Remains;
pub use settings::{CoordinationSettings, connect};

/// Which form drives a database; chosen at creation and recorded in `isle.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Head, leases and watches in etcd.
    Etcd,
    /// Numbered edits in the bucket itself.
    Bucket,
    /// In this process's memory: tests and benchmarks.
    Memory,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Etcd => "etcd",
            Self::Bucket => "bucket",
            Self::Memory => "memory",
        })
    }
}

/// Why coordination could not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CoordinationError {
    /// Passing: unreachable, timed out, leaderless. Repeating may help.
    #[error("coordination is unavailable: {0}")]
    Unavailable(String),
    /// The database does not exist yet: a writer (or `isle up`) creates it.
    #[error("there is no database yet at {0}: start a writer to create it")]
    NotFound(String),
    /// `isle.json` is there and the head is not: etcd was wiped, or the root is wrong. Every role refuses.
    #[error("coordination_lost: {0}")]
    Lost(String),
    /// The head is older than the bucket proves, or than this process has seen: etcd was set back.
    #[error("coordination_regressed: {0}")]
    Regressed(String),
    /// Another database, another name, another backend, another lineage.
    #[error("wrong_database: {0}")]
    WrongDatabase(String),
    /// An object or a record that coordination depends on is damaged or too new.
    #[error("{0}")]
    Damaged(String),
    /// The credentials are refused.
    #[error("{0}")]
    Denied(String),
    /// The service takes no writes until somebody gives it room; the message says how. It passes once that is done.
    #[error("{0}")]
    Full(String),
    /// Another definite refusal: settings that cannot work, a store that cannot do what this form needs.
    #[error("{0}")]
    Refused(String),
}

impl CoordinationError {
    /// Whether repeating may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Full(_))
    }
}

impl From<StoreError> for CoordinationError {
    /// What a failed object operation means where an object was expected: a missing one is damage, never emptiness.
    fn from(e: StoreError) -> Self {
        match e.kind {
            StoreErrorKind::Transient => Self::Unavailable(e.to_string()),
            StoreErrorKind::Denied => Self::Denied(e.to_string()),
            StoreErrorKind::Unsupported => Self::Refused(e.to_string()),
            StoreErrorKind::NotFound | StoreErrorKind::AlreadyExists | StoreErrorKind::Permanent => {
                Self::Damaged(e.to_string())
            }
        }
    }
}

/// The head with the exact bytes it was read as: what the next commit compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadState {
    /// The head.
    pub head: Head,
    /// The bytes compared (etcd), or empty where the form compares by number (bucket).
    pub raw: Bytes,
    /// A form's own position for watching (etcd: the revision of the load; bucket: the number of the newest fold).
    pub revision: i64,
}

/// A whole manifest with the head that names it, read at one revision.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The head.
    pub state: HeadState,
    /// The manifest, replayed and checked.
    pub manifest: Arc<Manifest>,
    /// The instant before the head was read: the view is at least this fresh.
    pub as_of: Instant,
}

/// Under what right a commit is made; the commit's transaction compares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authority {
    /// The writer: its lease key must still be the one it created, its epoch the newest claimed.
    Writer {
        /// The history.
        lineage: Lineage,
        /// The epoch.
        epoch: Epoch,
        /// A form's own token (etcd: the create revision of the writer key).
        token: i64,
    },
    /// A compaction job: its claim must still stand.
    Job {
        /// The job.
        job: JobId,
        /// A form's own token (etcd: the create revision of the job key).
        token: i64,
    },
    /// Nobody in particular: only head and epoch are compared.
    Observer,
}

/// An edit ready to be committed: built by [`commit::propose`], which has checked it against the manifest.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The head it was built on.
    pub base: HeadState,
    /// The edit.
    pub edit: Arc<Edit>,
    /// The head it makes.
    pub head: Head,
    /// The manifest it makes.
    pub manifest: Arc<Manifest>,
    /// Under what right.
    pub authority: Authority,
    /// Compared besides, where it says something: no consumer group has come to hold more of the log since this
    /// [`Groups::mark`] was read.
    pub groups: Option<u64>,
}

impl Proposal {
    /// The same, to be committed only if no consumer group has come to hold more of the log since `read`.
    #[must_use]
    pub fn with_groups(self, read: &Groups) -> Self {
        Self { groups: Some(read.mark), ..self }
    }
}

/// How one attempt to commit ended.
#[derive(Debug, Clone)]
pub enum CommitOutcome {
    /// The head is now this.
    Committed(HeadState),
    /// The head is not the base, so this attempt was not applied, as far as this answer can tell. An earlier copy may
    /// have been, or one that something on the way has sent by itself: [`commit::commit`] judges before it believes.
    Moved,
    /// A consumer group has come to hold more of the log than when [`Proposal::groups`] was read. Marks never come back,
    /// so no copy of the proposal can be applied any more. Judged in the same way.
    Regrouped,
    /// The right this attempt was made under is gone. Judged in the same way.
    Fenced(String),
    /// It may have been applied, or may yet be.
    Unknown(String),
}

/// A process as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// A name for people and logs; unique per process start.
    pub node: String,
    /// The address others are told.
    pub advertise: String,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderInfo {
    /// The node.
    #[serde(flatten)]
    pub node: NodeInfo,
    /// Its epoch.
    pub epoch: Epoch,
}

/// A right that ends by itself when it is not renewed.
///
/// Leases are for liveness only; fencing is decided in the commit's transaction.
#[async_trait]
pub trait Lease: Send + Sync + fmt::Debug {
    /// Until when the lease certainly lives, counted from the send time of the last answered keep-alive on the
    /// monotonic clock; `None` where the form has no leases.
    fn valid_until(&self) -> Option<Instant>;

    /// Resolves, with a reason, once the lease is known or must be assumed to be lost. Never resolves where the form
    /// has no leases.
    async fn lost(&self) -> String;

    /// Gives the right back, so that a successor need not wait.
    async fn give_back(&self);
}

/// A won claim to the writer's role. The epoch is not adopted yet: see [`claim`].
#[derive(Debug, Clone)]
pub struct Claim {
    /// The epoch claimed.
    pub epoch: Epoch,
    /// 64 random bits of this claim.
    pub incarnation: Incarnation,
    /// What its commits compare.
    pub authority: Authority,
    /// Its lease.
    pub lease: Arc<dyn Lease>,
}

/// How a claim attempt ended.
#[derive(Debug, Clone)]
pub enum ClaimAttempt {
    /// Won; the head is read after this.
    Won(Claim),
    /// Somebody else has it: stand by until [`Coordination::vacancy`].
    HeldBy(Option<LeaderInfo>),
}

/// What happened to the head.
#[derive(Debug, Clone)]
pub enum WatchEvent {
    /// The next edit; versions come one by one, without gap or repeat.
    Edit {
        /// The edit. `None`: the number was used up by a fenced writer's void edit (bucket form).
        edit: Option<Arc<Edit>>,
        /// The head it made.
        state: HeadState,
        /// The instant at which it was received.
        as_of: Instant,
    },
    /// The same version under another checkpoint.
    Folded(HeadState),
    /// Nothing happened; the watch is alive and the view fresh as of this instant.
    Alive(Instant),
    /// Events may have been missed, or the service is not the one it was: load again.
    Reset(String),
    /// The service cannot be reached at present; the watch goes on by itself.
    Down(String),
}

/// The outcome of [`Coordination::claim_job`].
#[derive(Debug, Clone)]
pub enum JobAttempt {
    /// The job is ours while the lease lives.
    Won(Authority, Arc<dyn Lease>),
    /// Another process works on it.
    HeldBy(String),
}

/// The outcome of [`Coordination::pin`].
#[derive(Debug, Clone)]
pub enum PinAttempt {
    /// Objects that the version names stay while the lease lives.
    Held(Arc<dyn Lease>),
    /// The collector's floor, told here, has passed the version: load anew.
    Passed(Version),
}

/// A role's process as it registered itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// `writer`, `reader`, …
    pub role: String,
    /// The process.
    #[serde(flatten)]
    pub node: NodeInfo,
    /// The version it has reached.
    pub version: Version,
    /// The sequence number it has reached.
    pub last_seq: SeqNo,
}

/// The coordination service of one database.
///
/// All methods bound their own time; a passing failure is [`CoordinationError::Unavailable`].
#[async_trait]
pub trait Coordination: Send + Sync + fmt::Debug {
    /// Which form this is.
    fn backend(&self) -> Backend;

    /// Makes sure, before a role's first write, that this form can keep its promises with the store at hand (bucket: that
    /// create is atomic). Forms that need nothing of the store have nothing to do.
    async fn prepare_to_write(&self) -> Result<(), CoordinationError> {
        Ok(())
    }

    /// Creates the head where there is none, with the consumer groups of `genesis`: `Ok(false)` where there already was
    /// one.
    async fn bootstrap(
        &self,
        genesis: &Manifest,
        checkpoint: &CheckpointRef,
    ) -> Result<bool, CoordinationError>;

    /// What stands where the head stands, sound or not. Forms that cannot be recovered refuse.
    async fn remains(&self) -> Result<Remains, CoordinationError> {
        Err(recover::unsupported())
    }

    /// Puts the head of `manifest` (of a lineage that the bucket already lists as its newest, under a checkpoint that was
    /// verified) in the place of what was found, with its consumer groups, and lets go of everything that belonged to the
    /// old one: edits, claims and pins. `Ok(false)`, with nothing changed, where something else than `found` stands there
    /// now, or somebody has the writer's role. Sends the same each time; a lost answer is found out by asking again.
    async fn replace(
        &self,
        found: &Remains,
        manifest: &Manifest,
        checkpoint: &CheckpointRef,
    ) -> Result<bool, CoordinationError> {
        let _ = (found, manifest, checkpoint);
        Err(recover::unsupported())
    }

    /// Whether there is a head, without loading anything.
    async fn exists(&self) -> Result<bool, CoordinationError>;

    /// Reads head, edits and checkpoint at one revision and replays them.
    async fn load(&self) -> Result<Loaded, CoordinationError>;

    /// One attempt to commit; sends exactly the same transaction each time it is called with the same proposal, so
    /// that at most one of them applies.
    async fn commit(&self, proposal: &Proposal) -> CommitOutcome;

    /// Makes `checkpoint` (verified by the caller) the head's, and lets go of the edits it covers except the newest
    /// `keep`. The version stays; the checkpoint may be of an older one, but never of one below the present start: the
    /// edits in between may be gone. `Moved` where the head is not `base`, or is beyond that checkpoint (in the bucket
    /// form, where a fold does not depend on the head standing still, also where it is at that version already).
    async fn fold(&self, base: &HeadState, checkpoint: &CheckpointRef, keep: usize) -> CommitOutcome;

    /// Every edit after `from`, for ever: reconnects by itself, says so with `Down`, and ends never (a `Reset` asks
    /// the caller to load and watch anew).
    fn watch(&self, from: &HeadState) -> BoxStream<'static, WatchEvent>;

    /// One attempt to claim the writer's role, for the epoch after the newest claimed.
    async fn claim_writer(
        &self,
        node: &NodeInfo,
        incarnation: Incarnation,
    ) -> Result<ClaimAttempt, CoordinationError>;

    /// Who leads, if anybody.
    async fn leader(&self) -> Result<Option<LeaderInfo>, CoordinationError>;

    /// Resolves when the writer's role may be vacant (spurious wake-ups are fine), at the latest after `at_most`.
    async fn vacancy(&self, at_most: Duration);

    /// Claims a compaction job.
    async fn claim_job(&self, job: JobId, node: &NodeInfo) -> Result<JobAttempt, CoordinationError>;

    /// Whether a job's claim stands.
    async fn job_is_claimed(&self, job: JobId) -> Result<bool, CoordinationError>;

    /// How long somebody who has been told that `job` is claimed has to wait, at most, until its holder counts as dead,
    /// unless it is heard of before; `None` where that is not known, or not decided by waiting.
    fn silence_left(&self, job: JobId) -> Option<Duration> {
        let _ = job;
        None
    }

    /// Holds `version`: what it names is not deleted while the lease lives, which renews itself. Refused where the
    /// collector's floor has passed it. A holder that is cut off for too long loses its pin; what it then reads is
    /// still right or gone, never wrong, since names are never used twice.
    async fn pin(&self, version: Version, node: &NodeInfo) -> Result<PinAttempt, CoordinationError> {
        Err(CoordinationError::Refused(format!(
            "{} cannot pin version {version}: this form has no pins",
            node.node
        )))
    }

    /// Raises the collector's floor to `version` or as far as pins allow, and returns how far it may delete: what was
    /// retired at or below.
    async fn raise_gc_floor(&self, version: Version) -> Result<Version, CoordinationError>;

    /// Every consumer group, read at one instant.
    async fn groups(&self) -> Result<Groups, CoordinationError>;

    /// Changes one consumer group, atomically: the change is decided by the group as it is at that instant, and by nothing
    /// else, however many change it at once. Numbers in it are of the history `lineage`, which is compared in the same
    /// step, and at or below its head, which the caller has seen to. Answered only once what the answer says is stored.
    /// After a passing failure it may have been done, and to ask for the same again does no harm: an advance is found
    /// done, a group created [`GroupOutcome::Exists`], one deleted is [`GroupOutcome::Unknown`].
    async fn change_group(
        &self,
        lineage: Lineage,
        group: &str,
        change: &GroupChange,
    ) -> Result<GroupOutcome, CoordinationError>;

    /// Says that this process is there (leased where the form has leases).
    async fn register(&self, member: &Member) -> Result<(), CoordinationError>;

    /// Who is there.
    async fn members(&self) -> Result<Vec<Member>, CoordinationError>;

    /// A number that changes whenever the connection to the service was, or may have been, interrupted: behind it may be
    /// an older copy of the service now. A writer that acknowledges nothing across such a change before it has looked
    /// again ([`claim::check_again`]) never acknowledges what only that copy knows.
    fn connection(&self) -> u64 {
        0
    }

    /// Health in one line, for `/readyz?verbose`.
    fn describe(&self) -> String;
}
