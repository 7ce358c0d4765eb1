//! Copying objects from one store to another, a few at once, each verified before it is written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

use super::parcel::Item;
use super::{BYTES_AT_ONCE, COPIES_AT_ONCE, Progress, Step, TransferError};
use crate::coordination::CoordinationError;
use crate::environment::Environment;
use crate::names::ObjectPath;
use crate::object::{Bucket, StoreError};

/// Permits of the byte budget are kibibytes, so that an object's length fits a permit count.
const PERMIT_BYTES: u64 = 1024;

/// What to do with one object.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) item: Item,
    /// The checksum that a record has of it.
    pub(super) crc: Option<u32>,
    /// It is in the target already, unrecorded: only to be read there and checked.
    pub(super) there: bool,
}

/// Where objects come from and go to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route<'a> {
    pub(super) from: &'a dyn Bucket,
    pub(super) to: &'a dyn Bucket,
    pub(super) env: &'a Environment,
}

/// Carries out every task; the objects' checksums, by path.
pub(super) async fn copy(
    route: Route<'_>,
    tasks: Vec<Task>,
    progress: Progress<'_>,
) -> Result<BTreeMap<String, u32>, TransferError> {
    let permits = (BYTES_AT_ONCE / PERMIT_BYTES) as usize;
    let budget = Semaphore::new(permits);
    let (objects, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let one = async |task: Task| {
        let cost = (task.item.len / PERMIT_BYTES + 1).min(permits as u64) as u32;
        let _held = budget.acquire_many(cost).await;
        let crc = carry(route, &task).await?;
        let objects = objects.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = bytes.fetch_add(task.item.len, Ordering::Relaxed) + task.item.len;
        progress(Step::Copied { objects, bytes });
        Ok::<_, TransferError>((task.item.path.to_string(), crc))
    };
    stream::iter(tasks.into_iter().map(one)).buffer_unordered(COPIES_AT_ONCE).try_collect().await
}

async fn carry(route: Route<'_>, task: &Task) -> Result<u32, TransferError> {
    if task.there {
        let bytes = get(route.to, &task.item.path).await?;
        // Of what an interrupted run has left, only what is whole counts; anything else is written again.
        if let Ok(crc) = check(route.env, task, bytes).await {
            return Ok(crc);
        }
    }
    let bytes = get(route.from, &task.item.path).await?;
    let crc = check(route.env, task, bytes.clone()).await?;
    route.to.put(&task.item.path, bytes.into()).await.map_err(TransferError::Store)?;
    Ok(crc)
}

async fn check(env: &Environment, task: &Task, bytes: Bytes) -> Result<u32, TransferError> {
    let (item, expected) = (task.item.clone(), task.crc);
    let checked = env.offload.run(move || item.check(&bytes)).await;
    let crc = checked.map_err(|e| CoordinationError::Unavailable(e.to_string()))??;
    if expected.is_some_and(|e| e != crc) {
        let why = "its checksum is not the one the backup's record has".to_owned();
        return Err(TransferError::Damaged { object: task.item.path.to_string(), why });
    }
    Ok(crc)
}

async fn get(bucket: &dyn Bucket, path: &ObjectPath) -> Result<Bytes, TransferError> {
    bucket.get(path).await.map_err(|e| gone(e, path))
}

pub(super) fn gone(e: StoreError, path: &ObjectPath) -> TransferError {
    if e.is_not_found() { TransferError::Gone(path.clone()) } else { TransferError::Store(e) }
}

/// Path and length of every data object in a store.
pub(super) async fn listed(bucket: &dyn Bucket) -> Result<BTreeMap<String, u64>, TransferError> {
    let mut there = BTreeMap::new();
    for folder in ["log", "table", "blob"] {
        let mut listing = bucket.list(folder);
        while let Some(object) = listing.try_next().await.map_err(TransferError::Store)? {
            there.insert(object.path, object.len);
        }
    }
    Ok(there)
}

/// Whether two handles lead to one place, as far as their addresses tell.
pub(super) fn same_place(a: &Arc<dyn Bucket>, b: &Arc<dyn Bucket>) -> bool {
    let bare = |url: String| url.split('?').next().unwrap_or_default().trim_end_matches('/').to_owned();
    // Stores in memory are known by their handles only.
    let told = !a.url().starts_with("memory:") && bare(a.url()) == bare(b.url());
    told || Arc::ptr_eq(a, b)
}
