//! Copying objects from one store to another, a few at once: taken by reference where the target can and may, else read in
//! windows, each verified, and sent on in parts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::check::{Check, WINDOW_BYTES, has_length};
use super::parcel::Item;
use super::{BYTES_AT_ONCE, COPIES_AT_ONCE, Progress, Step, TransferError};
use crate::coordination::CoordinationError;
use crate::environment::Environment;
use crate::names::ObjectPath;
use crate::object::{Bucket, Copied, PART_BYTES, PartBudget, StoreError, Upload};

/// What is left of the budget for parts on their way once every copy has its window.
pub(super) const PARTS_AT_ONCE: u64 = BYTES_AT_ONCE - COPIES_AT_ONCE as u64 * WINDOW_BYTES;

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
    pub(super) from: &'a Arc<dyn Bucket>,
    pub(super) to: &'a Arc<dyn Bucket>,
    pub(super) env: &'a Environment,
    pub(super) means: Means,
}

/// How objects come over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// Read, verified and written.
    Stream,
    /// By reference where the target can.
    Reference {
        /// Every byte of what came by reference is read and verified too; else its length and a table's metadata.
        verify: bool,
    },
}

/// What came of one object.
#[derive(Debug, Clone, Copy)]
enum Carried {
    ByReference,
    /// It was written, or was there and whole; its checksum.
    Whole(u32),
}

/// What came of all.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Checksums of the objects that were read, by path.
    pub(super) crcs: BTreeMap<String, u32>,
    /// How many came by reference.
    pub(super) referenced: usize,
}

/// Carries out every task.
pub(super) async fn copy(
    route: Route<'_>,
    tasks: Vec<Task>,
    progress: Progress<'_>,
) -> Result<Outcome, TransferError> {
    let parts = PartBudget::new(PARTS_AT_ONCE, PART_BYTES);
    let (objects, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let (parts, objects, bytes) = (&parts, &objects, &bytes);
    let one = |task: Task| async move {
        let carried = carry(route, &task, parts).await?;
        let objects = objects.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = bytes.fetch_add(task.item.len, Ordering::Relaxed) + task.item.len;
        progress(Step::Copied { objects, bytes });
        Ok::<_, TransferError>((task.item.path.to_string(), carried))
    };
    let mut carried = stream::iter(tasks.into_iter().map(one)).buffer_unordered(COPIES_AT_ONCE);
    let mut outcome = Outcome::default();
    while let Some((path, carried)) = carried.try_next().await? {
        match carried {
            Carried::ByReference => outcome.referenced += 1,
            Carried::Whole(crc) => {
                outcome.crcs.insert(path, crc);
            }
        }
    }
    Ok(outcome)
}

async fn carry(route: Route<'_>, task: &Task, parts: &PartBudget) -> Result<Carried, TransferError> {
    if let Means::Reference { verify } = route.means
        && refer(route, task, verify).await?
    {
        return Ok(Carried::ByReference);
    }
    if task.there {
        match read(route.to.as_ref(), route.env, task).await {
            // Of what an interrupted run has left, only what is whole counts; anything else is written again.
            Err(TransferError::Damaged { .. }) => {}
            read => return read.map(Carried::Whole),
        }
    }
    send(route, task, parts).await.map(Carried::Whole)
}

/// Has the target take the object by reference; false where it does not, or what came has another length.
async fn refer(route: Route<'_>, task: &Task, verify: bool) -> Result<bool, TransferError> {
    let path = &task.item.path;
    match route.to.copy_from(&route.from.origin(), path, path).await {
        Ok(Copied::ByReference) => {}
        Ok(Copied::Cannot) => return Ok(false),
        Err(e) if e.is_transient() => return Err(TransferError::Store(e)),
        // The store will not do it, or the object is gone: reading it tells which.
        Err(error) => {
            tracing::debug!(%error, "an object is copied by reading it");
            return Ok(false);
        }
    }
    match route.to.head(path).await {
        Ok(there) if there.len == task.item.len => {}
        Ok(_) => return Ok(false),
        Err(e) if e.is_not_found() => return Ok(false),
        Err(e) => return Err(TransferError::Store(e)),
    }
    if verify {
        read(route.to.as_ref(), route.env, task).await?;
    } else {
        begin(route.to.as_ref(), route.env, &task.item).await?;
    }
    Ok(true)
}

/// Reads the object and writes it; it appears once all of it was verified.
async fn send(route: Route<'_>, task: &Task, parts: &PartBudget) -> Result<u32, TransferError> {
    let path = &task.item.path;
    if task.item.len <= WINDOW_BYTES {
        let bytes = get(route.from.as_ref(), path).await?;
        let crc = check(route.env, task, bytes.clone()).await?;
        route.to.put(path, bytes.into()).await.map_err(TransferError::Store)?;
        return Ok(crc);
    }
    let mut upload = Upload::begin(route.to, path.clone(), parts, Some(task.item.len)).await;
    let crc = read_windows(route.from.as_ref(), route.env, task, Some(&mut upload)).await?;
    upload.finish().await.map_err(TransferError::Store)?;
    Ok(crc)
}

/// Reads an object and verifies it; its checksum.
pub(super) async fn read(bucket: &dyn Bucket, env: &Environment, task: &Task) -> Result<u32, TransferError> {
    if task.item.len <= WINDOW_BYTES {
        let bytes = get(bucket, &task.item.path).await?;
        return check(env, task, bytes).await;
    }
    read_windows(bucket, env, task, None).await
}

async fn read_windows(
    bucket: &dyn Bucket,
    env: &Environment,
    task: &Task,
    mut sink: Option<&mut Upload>,
) -> Result<u32, TransferError> {
    let path = &task.item.path;
    // A longer object would not show itself: every range of it could be read.
    let there = bucket.head(path).await.map_err(|e| gone(e, path))?;
    has_length(&task.item, there.len)?;
    let mut check = begin(bucket, env, &task.item).await?;
    while let Some(window) = check.wants() {
        let bytes = bucket.get_range(path, window).await.map_err(|e| gone(e, path))?;
        check = feed(env, check, bytes.clone()).await?;
        if let Some(upload) = sink.as_deref_mut() {
            upload.write(&bytes).await.map_err(TransferError::Store)?;
        }
    }
    let crc = check.finish()?;
    is_recorded(task, crc)
}

/// Begins to read an object: of a table its metadata is read and verified first.
pub(super) async fn begin(
    bucket: &dyn Bucket,
    env: &Environment,
    item: &Item,
) -> Result<Check, TransferError> {
    let needed = bucket.get_range(&item.path, Check::needs(item)).await.map_err(|e| gone(e, &item.path))?;
    let item = item.clone();
    offloaded(env, move || Check::begin(item, WINDOW_BYTES, needed)).await
}

async fn feed(env: &Environment, mut check: Check, bytes: Bytes) -> Result<Check, TransferError> {
    offloaded(env, move || check.feed(&bytes, drop).map(|()| check)).await
}

async fn check(env: &Environment, task: &Task, bytes: Bytes) -> Result<u32, TransferError> {
    let item = task.item.clone();
    let crc = offloaded(env, move || item.check(&bytes)).await?;
    is_recorded(task, crc)
}

/// Work on bytes, beside the runtime's own threads.
pub(super) async fn offloaded<T: Send + 'static>(
    env: &Environment,
    work: impl FnOnce() -> Result<T, TransferError> + Send + 'static,
) -> Result<T, TransferError> {
    env.offload.run(work).await.map_err(|e| CoordinationError::Unavailable(e.to_string()))?
}

fn is_recorded(task: &Task, crc: u32) -> Result<u32, TransferError> {
    if task.crc.is_none_or(|recorded| recorded == crc) {
        return Ok(crc);
    }
    let why = "its checksum is not the one the backup's record has".to_owned();
    Err(TransferError::Damaged { object: task.item.path.to_string(), why })
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
