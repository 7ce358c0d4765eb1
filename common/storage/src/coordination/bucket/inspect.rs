//! The bucket form's objects as somebody sees them who only looks: a tool that reads a bucket without driving it.

use super::record::{FoldRecord, NumberedEdit};
use crate::coordination::CoordinationError;
use crate::ids::{Lineage, Version};
use crate::manifest::{CheckpointRef, Manifest};
use crate::names;

/// What a fold record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fold {
    /// The history.
    pub lineage: Lineage,
    /// Where loads start.
    pub checkpoint: CheckpointRef,
    /// Edits up to this one may be gone.
    pub gone: Version,
}

/// Decodes `manifest/fold-<number>`.
///
/// # Errors
/// [`CoordinationError::Damaged`].
pub fn fold(number: u64, bytes: &[u8]) -> Result<Fold, CoordinationError> {
    let FoldRecord { lineage, checkpoint, gone, .. } = FoldRecord::decode(number, bytes)?;
    Ok(Fold { lineage, checkpoint, gone })
}

/// Checks that `bytes` are `manifest/edit-<version>`.
///
/// # Errors
/// [`CoordinationError::Damaged`].
pub fn edit(version: Version, bytes: &[u8]) -> Result<(), CoordinationError> {
    NumberedEdit::decode(version, bytes).map(|_| ())
}

/// The manifest after the next numbered edit, whose bytes these are. A void edit uses up its number.
///
/// # Errors
/// [`CoordinationError::Damaged`] where they are not that edit, or it does not fit.
pub fn replay(manifest: &Manifest, bytes: &[u8]) -> Result<Manifest, CoordinationError> {
    let version = manifest.version.next();
    let numbered = NumberedEdit::decode(version, bytes)?;
    if numbered.is_void_under(manifest.lineage, manifest.epoch) {
        return Ok(manifest.skip_void(version));
    }
    let misfit = |e| CoordinationError::Damaged(format!("{} does not fit: {e}", names::edit(version)));
    manifest.apply(&numbered.edit).map_err(misfit)
}
