//! Checkpoint objects: a whole manifest, compressed and checksummed.

use bytes::Bytes;

use super::state::Manifest;
use crate::format::FormatError;

/// Encodes a manifest as a checkpoint object.
#[must_use]
pub fn encode(_manifest: &Manifest) -> Bytes {
    todo!()
}

/// Decodes and checks a checkpoint object.
///
/// # Errors
/// [`FormatError`] where the bytes are damaged, of a newer version, or break an invariant.
pub fn decode(_bytes: &[u8]) -> Result<Manifest, FormatError> {
    todo!()
}
