//! Lineage objects, `manifest/lineage-<n>`: one per creation or recover, listing a database's histories.
//!
//! Every role reads the newest one at claim, at every fresh load and before each batch of deletes and each checkpoint.
//! A head of another lineage is an etcd that was set back across a recover, or a second etcd cluster on the same
//! prefix: noticed here, not fenced. The numbers are dense from 1, so the newest is found by asking upwards, without a
//! listing; recovers are rare, so that is two requests.

use serde::{Deserialize, Serialize};

use super::write_once::{Written, get_if_there, write_once};
use super::{CoordinationError, sealed};
use crate::ids::{DatabaseId, Lineage};
use crate::names;
use crate::object::Bucket;

const KIND: &str = "lineage";

/// No database is recovered this often; the bound ends a search in a bucket that answers "yes" to everything.
const MOST_LINEAGES: u64 = 10_000;

/// Content of a lineage object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageObject {
    /// The database.
    pub database: DatabaseId,
    /// Its place in the row of histories, from 1.
    pub number: u64,
    /// The history.
    pub lineage: Lineage,
}

/// The newest lineage object; `None` where there is none at all.
///
/// # Errors
/// The store's, or `Damaged`.
pub async fn newest(bucket: &dyn Bucket) -> Result<Option<LineageObject>, CoordinationError> {
    Ok(all(bucket).await?.pop())
}

/// Every lineage object, ascending.
///
/// # Errors
/// The store's, or `Damaged`.
pub async fn all(bucket: &dyn Bucket) -> Result<Vec<LineageObject>, CoordinationError> {
    let mut found = Vec::new();
    for number in 1..=MOST_LINEAGES {
        let path = names::lineage(number);
        let Some(bytes) = get_if_there(bucket, &path).await? else { return Ok(found) };
        found.push(sealed::open(KIND, path.as_str(), &bytes)?);
    }
    Err(CoordinationError::Damaged(format!("more than {MOST_LINEAGES} lineage objects")))
}

/// Writes a lineage object; finding the same one there is fine.
///
/// # Errors
/// `WrongDatabase` where another one stands under that number; the store's.
pub async fn write(bucket: &dyn Bucket, object: &LineageObject) -> Result<(), CoordinationError> {
    let path = names::lineage(object.number);
    let other = match write_once(bucket, &path, &sealed::seal(KIND, object)?).await? {
        Written::Ours => return Ok(()),
        Written::Other(bytes) => sealed::open::<LineageObject>(KIND, path.as_str(), &bytes)?,
    };
    if other == *object {
        return Ok(());
    }
    Err(CoordinationError::WrongDatabase(format!(
        "{path} names lineage {} of database {}, not lineage {} of database {}: two coordination services drive {}",
        other.lineage,
        other.database,
        object.lineage,
        object.database,
        bucket.url()
    )))
}

/// Refuses a head of another lineage than the bucket's newest.
///
/// # Errors
/// `WrongDatabase` where the lineages differ, `Damaged` where the bucket lists none; the store's.
pub async fn check(
    bucket: &dyn Bucket,
    database: DatabaseId,
    lineage: Lineage,
) -> Result<(), CoordinationError> {
    let Some(newest) = newest(bucket).await? else {
        return Err(CoordinationError::Damaged(format!("{} has no lineage object", bucket.url())));
    };
    if newest.database == database && newest.lineage == lineage {
        return Ok(());
    }
    Err(CoordinationError::WrongDatabase(format!(
        "the head is of lineage {lineage} of database {database}, but the newest in {} is lineage {} (number {}) of \
         database {}: a recover was cut off, the coordination service is an old copy, or another one drives this \
         prefix; stop every role and run `isle recover`",
        bucket.url(),
        newest.lineage,
        newest.number,
        newest.database
    )))
}
