//! Commits: proposals built and checked, attempts made, unknown outcomes resolved (PROTOCOL section 4).

use tokio::time::Instant;

use super::{Authority, HeadState, Loaded, Proposal};
use crate::database::Database;
use crate::manifest::{Edit, EditError, Manifest};

/// Builds a proposal: applies and checks the edit, and derives the head it makes.
///
/// # Errors
/// [`EditError`] where the edit does not fit the manifest.
pub fn propose(
    _base: &HeadState,
    _manifest: &Manifest,
    _edit: Edit,
    _authority: &Authority,
) -> Result<Proposal, EditError> {
    todo!()
}

/// How a commit ended after everything was tried to find out.
#[derive(Debug, Clone)]
pub enum Resolved {
    /// It is part of the database; the proposal's manifest is the head's.
    Committed(HeadState),
    /// It is part of the database and the head has moved on since: this is the head now.
    CommittedEarlier(Loaded),
    /// Certainly not applied: the head has moved. This is the head now; check the edit again, and retry.
    Moved(Loaded),
    /// Certainly not applied and never will be: the right it was made under is gone.
    Fenced(String),
    /// Nobody could tell before the deadline.
    Unknown(String),
}

/// Commits a proposal and resolves an unknown outcome: the identical transaction is sent again, and once the head has
/// moved the edit is judged by its commit id (for a log commit: by whether the log leads through its last segment).
pub async fn commit(_db: &Database, _proposal: &Proposal, _deadline: Instant) -> Resolved {
    todo!()
}
