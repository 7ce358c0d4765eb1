//! Following the head: one task per process turns loads and watch events into an ordered stream of manifests.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::{CoordinationError, HeadState, Loaded};
use crate::database::Database;
use crate::manifest::{Edit, Manifest};

/// What a follower sees happen.
#[derive(Debug, Clone)]
pub enum Followed {
    /// A whole manifest: the first one, or after a reset. Never of a lower version within one lineage.
    Loaded(Loaded),
    /// The next version, made by this edit (`None`: a void one).
    Advanced {
        /// The edit.
        edit: Option<Arc<Edit>>,
        /// What it led to.
        loaded: Loaded,
    },
    /// The same version, known to be fresh as of this instant (or under a new checkpoint).
    Fresh(HeadState, Instant),
    /// Coordination is away; the last manifest still serves.
    Down(String),
    /// A definite refusal (lost, regressed, wrong database): serving goes on, following has stopped.
    Refused(CoordinationError),
}

/// The newest manifest a process knows, for whoever only needs that.
#[derive(Debug, Clone)]
pub struct Current {
    /// Head of the manifest.
    pub state: HeadState,
    /// The manifest.
    pub manifest: Arc<Manifest>,
    /// Known to be the newest as of this instant.
    pub as_of: Instant,
    /// Why it may be stale, if it may.
    pub trouble: Option<String>,
}

/// Follows the head of `db` until the returned receivers are dropped: every event in order (bounded; the follower
/// waits for a slow consumer), and the newest manifest. The second is `None` until the first load succeeds.
#[must_use]
pub fn follow(_db: &Database) -> (mpsc::Receiver<Followed>, watch::Receiver<Option<Current>>) {
    todo!()
}
