//! Writing an object that must never be overwritten, also on a store whose conditional create cannot be trusted.
//!
//! The name is unique (an epoch, a lineage number), so two writers of one name mean that something has gone wrong, and
//! the answer to "did I write it" is to read it back. `create` refuses where the store can; where it cannot, the object
//! is looked for first and put only if it is absent. Either way the bytes that are there in the end decide.

use bytes::Bytes;

use super::CoordinationError;
use crate::names::ObjectPath;
use crate::object::{Bucket, StoreErrorKind};

/// What lies under the name afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    /// Exactly our bytes (written now, or by an earlier attempt).
    Ours,
    /// Something else, which was left alone.
    Other(Bytes),
}

/// Writes `bytes` under `path` unless something is there, and says what is there afterwards.
///
/// # Errors
/// The store's. A passing one leaves open whether the object was written; calling again tells.
pub(super) async fn write_once(
    bucket: &dyn Bucket,
    path: &ObjectPath,
    bytes: &Bytes,
) -> Result<Written, CoordinationError> {
    match bucket.create(path, bytes.clone().into()).await {
        Ok(()) => {}
        Err(e) if e.kind == StoreErrorKind::AlreadyExists => {}
        Err(e) if e.kind == StoreErrorKind::Unsupported => put_if_absent(bucket, path, bytes).await?,
        Err(e) => return Err(e.into()),
    }
    let there = bucket.get(path).await?;
    Ok(if there == *bytes { Written::Ours } else { Written::Other(there) })
}

async fn put_if_absent(
    bucket: &dyn Bucket,
    path: &ObjectPath,
    bytes: &Bytes,
) -> Result<(), CoordinationError> {
    match bucket.head(path).await {
        Ok(_) => Ok(()),
        Err(e) if e.is_not_found() => Ok(bucket.put(path, bytes.clone().into()).await?),
        Err(e) => Err(e.into()),
    }
}

/// The object, or `None` where there is none.
///
/// # Errors
/// The store's.
pub(super) async fn get_if_there(
    bucket: &dyn Bucket,
    path: &ObjectPath,
) -> Result<Option<Bytes>, CoordinationError> {
    match bucket.get(path).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e.into()),
    }
}
