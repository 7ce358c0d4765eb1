//! Checkpoint objects in the bucket: written, read back and verified before anything may rely on them.

use bytes::Bytes;

use super::CoordinationError;
use crate::environment::Environment;
use crate::manifest::{CheckpointRef, Manifest, checkpoint};
use crate::names;
use crate::object::Bucket;

/// Writes `manifest` as a checkpoint under a fresh name, reads it back and compares.
///
/// # Errors
/// [`CoordinationError::Unavailable`] where the store fails for now; `Damaged` where it hands back something else.
pub async fn write_verified(
    bucket: &dyn Bucket,
    env: &Environment,
    manifest: &Manifest,
) -> Result<CheckpointRef, CoordinationError> {
    let bytes = checkpoint::encode(manifest);
    let path = names::checkpoint(manifest.version, env.entropy.next_u64());
    let written = reference(path, &bytes, manifest);
    bucket.put(&written.path, bytes.into()).await?;
    let back = read(bucket, &written).await?;
    if back != *manifest {
        return Err(CoordinationError::Damaged(format!(
            "{} does not decode to what was written",
            written.path
        )));
    }
    Ok(written)
}

fn reference(path: names::ObjectPath, bytes: &Bytes, manifest: &Manifest) -> CheckpointRef {
    CheckpointRef { path, len: bytes.len() as u64, crc: crc32c::crc32c(bytes), version: manifest.version }
}

/// Reads the checkpoint a head names. A missing one is an error, never an empty database.
///
/// # Errors
/// [`CoordinationError::Unavailable`] where the store fails for now; `Damaged` where the object is missing, is not the
/// one named, or does not decode.
pub async fn read(bucket: &dyn Bucket, named: &CheckpointRef) -> Result<Manifest, CoordinationError> {
    let bytes = bucket.get(&named.path).await.map_err(|e| match CoordinationError::from(e) {
        CoordinationError::Damaged(why) => CoordinationError::Damaged(format!(
            "the checkpoint named by the head cannot be read at {}: {why} (is this the right bucket?)",
            bucket.url()
        )),
        other => other,
    })?;
    let damaged = |why: String| CoordinationError::Damaged(format!("{} is damaged: {why}", named.path));
    if bytes.len() as u64 != named.len || crc32c::crc32c(&bytes) != named.crc {
        return Err(damaged("length or checksum differs from the head's".to_owned()));
    }
    let manifest = checkpoint::decode(&bytes).map_err(|e| damaged(e.to_string()))?;
    if manifest.version != named.version {
        return Err(damaged(format!("it holds version {}, not {}", manifest.version, named.version)));
    }
    Ok(manifest)
}
