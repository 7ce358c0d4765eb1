//! Epoch objects in the bucket: `manifest/epoch-<n>`, one per takeover, never deleted.

use super::write_once::{Written, get_if_there, write_once};
use super::{CoordinationError, sealed};
use crate::ids::Epoch;
use crate::manifest::judge::EpochObject;
use crate::names;
use crate::object::Bucket;

const KIND: &str = "epoch";

/// The epoch object of `epoch`, or `None` where there is none.
///
/// # Errors
/// The store's, or `Damaged`.
pub async fn read(bucket: &dyn Bucket, epoch: Epoch) -> Result<Option<EpochObject>, CoordinationError> {
    let path = names::epoch(epoch);
    let Some(bytes) = get_if_there(bucket, &path).await? else { return Ok(None) };
    let object: EpochObject = sealed::open(KIND, path.as_str(), &bytes)?;
    if object.epoch != epoch {
        return Err(CoordinationError::Damaged(format!("{path} is that of epoch {}", object.epoch)));
    }
    Ok(Some(object))
}

/// Writes an epoch object. Finding exactly the same there is fine: an earlier attempt of ours went through.
///
/// # Errors
/// `Regressed` where a different one stands under that number, which is left alone: the number was issued before, by a
/// coordination service that has since been set back. The store's.
pub async fn write(bucket: &dyn Bucket, object: &EpochObject) -> Result<(), CoordinationError> {
    let path = names::epoch(object.epoch);
    match write_once(bucket, &path, &sealed::seal(KIND, object)?).await? {
        Written::Ours => Ok(()),
        Written::Other(_) => Err(CoordinationError::Regressed(format!(
            "{path} is that of another takeover: epoch {} was issued twice, so coordination was set back; run \
             `isle recover`",
            object.epoch
        ))),
    }
}
