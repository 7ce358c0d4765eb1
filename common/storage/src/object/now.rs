//! The store's own time.

use bytes::Bytes;

use super::{Bucket, StoreError};
use crate::environment::Entropy;
use crate::ids::Timestamp;
use crate::names;

/// What the store says of an object written just now: ages of its objects are counted against this, so that no host's
/// clock decides about them. Three small requests; a marker that a crash leaves behind is garbage.
///
/// # Errors
/// The store's.
pub async fn store_now(bucket: &dyn Bucket, entropy: &dyn Entropy) -> Result<Timestamp, StoreError> {
    let marker = names::marker(entropy.next_u64());
    bucket.put(&marker, Bytes::from_static(b"now").into()).await?;
    let meta = bucket.head(&marker).await?;
    if let Err(error) = bucket.delete(&marker).await {
        tracing::debug!(%marker, %error, "a marker stays for the sweep");
    }
    Ok(meta.last_modified)
}
