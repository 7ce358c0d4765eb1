//! Taking over the writer's role after a claim is won: regression check, roll-forward, adoption, epoch object
//! (PROTOCOL section 3, steps 2 to 7).

use super::{Claim, CoordinationError, Loaded};
use crate::database::Database;

/// Why a takeover failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TakeoverError {
    /// The claim was lost on the way: contest again.
    #[error("the claim was lost: {0}")]
    Fenced(String),
    /// Coordination or the store failed.
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
}

/// Takes over: on return the epoch is adopted, its epoch object stands in the bucket, and work may be accepted. The
/// returned load is the manifest right after the adoption.
///
/// # Errors
/// [`TakeoverError`]; nothing was accepted, and the claim should be given back.
pub async fn take_over(_db: &Database, _claim: &Claim, _node: &str) -> Result<Loaded, TakeoverError> {
    todo!()
}
