//! Reading epoch objects: which takeovers the bucket knows of.

use futures::TryStreamExt;
use isle_storage::coordination::CoordinationError;
use isle_storage::database::Database;
use isle_storage::ids::Epoch;
use isle_storage::manifest::judge::EpochObject;
use isle_storage::names;
use isle_storage::object::StoreError;

/// The number of the highest epoch object in the bucket. One listing of `manifest/`, for checks that refuse only.
pub(crate) async fn highest_number(db: &Database) -> Result<Option<Epoch>, StoreError> {
    let mut highest = None;
    let mut listing = db.bucket.list("manifest");
    while let Some(object) = listing.try_next().await? {
        highest = highest.max(names::parse_epoch(&object.path));
    }
    Ok(highest)
}

/// The highest epoch object in the bucket.
pub(crate) async fn highest(db: &Database) -> Result<Option<EpochObject>, CoordinationError> {
    let unavailable = |e: StoreError| CoordinationError::Unavailable(e.to_string());
    let Some(epoch) = highest_number(db).await.map_err(unavailable)? else { return Ok(None) };
    let bytes = db.bucket.get(&names::epoch(epoch)).await.map_err(unavailable)?;
    isle_storage::coordination::claim::decode_epoch(&bytes).map(Some)
}
