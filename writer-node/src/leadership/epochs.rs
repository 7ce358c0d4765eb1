//! Which takeovers the bucket knows of.

use futures::TryStreamExt;
use isle_storage::database::Database;
use isle_storage::ids::Epoch;
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
