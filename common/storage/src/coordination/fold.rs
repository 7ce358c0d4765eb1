//! Folding: a checkpoint written, read back, verified, and made the head's (PROTOCOL section 5).

use super::{CoordinationError, HeadState, Loaded};
use crate::database::Database;
use crate::manifest::Manifest;

/// When edits are folded: whichever bound is passed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoldBounds {
    /// Edits since the checkpoint.
    pub edits: u64,
}

/// Whether `manifest` is due for a fold.
#[must_use]
pub fn is_due(manifest: &Manifest, state: &HeadState, bounds: FoldBounds) -> bool {
    manifest.version.0 - state.head.checkpoint.version.0 >= bounds.edits
}

/// Writes and verifies a checkpoint of `loaded`, and folds. `Ok(None)` where somebody else moved the head first: no
/// harm, the next fold is theirs or ours.
///
/// # Errors
/// [`CoordinationError`].
pub async fn fold(_db: &Database, _loaded: &Loaded) -> Result<Option<HeadState>, CoordinationError> {
    todo!()
}
