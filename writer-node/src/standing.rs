//! Where a writer stands: its role, its troubles, and what it says of both.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use isle_storage::coordination::LeaderInfo;
use isle_storage::ids::{Epoch, SeqNo, Version};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

/// What a writer is at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Contesting, taking over or loading: not ready.
    Starting,
    /// Another writer leads; this one waits for its role.
    Standby,
    /// Takes mutations.
    Leading,
    /// Another writer has taken over, and this form of coordination has no way back but a restart.
    Fenced,
    /// Commits what it accepted and takes nothing new.
    Draining,
    /// Done.
    Closed,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Leading => "leading",
            Self::Fenced => "fenced",
            Self::Draining => "draining",
            Self::Closed => "closed",
        })
    }
}

/// A writer's role with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The role.
    pub role: Role,
    /// The epoch it leads, or led last.
    pub epoch: Option<Epoch>,
    /// Who leads, as far as known.
    pub leader: Option<LeaderInfo>,
    /// Why it is not leading, in words.
    pub why: Option<String>,
}

impl Standing {
    pub(crate) fn starting() -> Self {
        Self { role: Role::Starting, epoch: None, leader: None, why: Some("starting".to_owned()) }
    }
}

/// What `/v1/status` says.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Whether this node takes mutations.
    pub leader: bool,
    /// The role.
    pub role: Role,
    /// Who leads, as far as known.
    pub leader_info: Option<LeaderInfo>,
    /// The epoch it leads, or led last.
    pub epoch: Option<Epoch>,
    /// The newest accepted sequence number.
    pub accepted_seq: SeqNo,
    /// The newest committed one.
    pub committed_seq: SeqNo,
    /// Everything up to here is in tables.
    pub flushed_seq: SeqNo,
    /// The manifest version of the last commit.
    pub version: Version,
    /// Bytes of mutations in memory: queued, in flight, waiting to be flushed.
    pub queue_bytes: u64,
    /// Their limit.
    pub queue_limit_bytes: u64,
    /// Callers waiting for a commit or for admission.
    pub waiters: u64,
    /// Segments being uploaded, or uploaded and not yet committed.
    pub segments_in_flight: u64,
    /// Generations in memory.
    pub generations: u64,
    /// Batches of a lost leadership whose outcome is still being found out.
    pub in_doubt: u64,
    /// What does not work at present.
    pub troubles: Vec<String>,
}

/// What `/readyz` says.
#[derive(Debug, Clone, Serialize)]
pub struct Health {
    /// Whether requests should be sent here.
    pub ready: bool,
    /// The role.
    pub role: Role,
    /// Why not, where not; also troubles that do not make it unready yet.
    pub reasons: Vec<String>,
}

/// What a trouble is about; one of each kind is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// The claim, the takeover or the recovery.
    Leadership,
    /// This node's clock.
    Clock,
    /// Uploads of segments.
    Upload,
    /// Commits.
    Commit,
    /// Flushes: tables and chunks.
    Flush,
    /// Folds.
    Fold,
    /// Batches in doubt.
    Judge,
}

/// What does not work at present, and since when.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<BTreeMap<Trouble, (Instant, String)>>);

impl Troubles {
    /// Notes that `kind` does not work; its beginning is kept.
    pub(crate) fn set(&self, kind: Trouble, text: impl Into<String>) {
        let mut all = self.0.lock();
        let since = all.get(&kind).map_or_else(Instant::now, |(since, _)| *since);
        all.insert(kind, (since, text.into()));
    }

    /// Notes that `kind` works.
    pub(crate) fn clear(&self, kind: Trouble) {
        self.0.lock().remove(&kind);
    }

    /// Everything, in words.
    pub(crate) fn list(&self) -> Vec<String> {
        self.0.lock().iter().map(|(kind, (since, text))| say(*kind, *since, text)).collect()
    }

    /// What has lasted longer than `grace`, in words.
    pub(crate) fn lasting(&self, grace: Duration) -> Vec<String> {
        let all = self.0.lock();
        all.iter()
            .filter(|(_, (since, _))| since.elapsed() >= grace)
            .map(|(k, (s, t))| say(*k, *s, t))
            .collect()
    }
}

fn say(kind: Trouble, since: Instant, text: &str) -> String {
    let what = match kind {
        Trouble::Leadership => "leadership",
        Trouble::Clock => "clock",
        Trouble::Upload => "segment upload",
        Trouble::Commit => "commit",
        Trouble::Flush => "flush",
        Trouble::Fold => "fold",
        Trouble::Judge => "batches in doubt",
    };
    format!("{what}, for {:.1} s: {text}", since.elapsed().as_secs_f64())
}
