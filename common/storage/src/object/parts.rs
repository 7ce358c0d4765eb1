//! Uploads in parts: how an object too large for memory comes into the bucket.
//!
//! ```text
//!   begin ─▶ part 0 ─▶ part 1 ─▶ … ─▶ complete: the object appears, whole
//!               └───────────────────▶ abort:    nothing ever appears
//! ```
//! The requests themselves are the store's ([`Bucket::begin_upload`] and its siblings), so that every decorator treats
//! each of them like any other request: a part that fails in passing is sent again by itself. [`Upload`] is what
//! callers use: bytes in, an object out.
//!
//! **Memory.** A part is held while it is filled and while it is sent, and for that long it has permits of a budget
//! that all uploads share. Permits for a part are taken before its first byte, and nobody who waits for them holds a
//! part that is not on its way already: so uploads wait for each other's requests and never for each other.
//!
//! **What is small** enough for one part goes by a plain put: one request instead of three.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};

use super::{Body, Bucket, StoreError, StoreErrorKind};
use crate::names::ObjectPath;

/// Length of every part but the last where nothing else is said. Stores want at least 5 MiB, some want equal parts.
pub const PART_BYTES: usize = 8 << 20;

/// Parts of one upload on their way at once.
const PARTS_AT_ONCE: usize = 2;

/// Bytes a permit stands for.
const PERMIT_BYTES: usize = 1 << 10;

/// The store's name for an upload under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UploadId(pub String);

/// Which part of an upload: its number from zero, and where its bytes lie in the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartAt {
    /// Its number, from zero.
    pub number: u32,
    /// Its first byte's place in the object.
    pub offset: u64,
}

/// A part that the store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// Its length in bytes.
    pub len: u64,
    /// The store's word for it.
    pub tag: String,
}

/// Bytes of parts in memory, over all uploads that share it.
#[derive(Debug, Clone)]
pub struct PartBudget {
    permits: Arc<Semaphore>,
    limit: usize,
    part_bytes: usize,
}

impl PartBudget {
    /// At most `bytes` at once, in parts of `part_bytes`; one part always fits.
    #[must_use]
    pub fn new(bytes: u64, part_bytes: usize) -> Self {
        let wanted = usize::try_from(bytes).unwrap_or(usize::MAX).max(part_bytes);
        let limit = wanted.div_ceil(PERMIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(limit)), limit, part_bytes: part_bytes.max(1) }
    }

    /// Bytes in memory at present, by what was taken for them.
    #[must_use]
    pub fn taken(&self) -> u64 {
        ((self.limit - self.permits.available_permits().min(self.limit)) * PERMIT_BYTES) as u64
    }

    /// Length of a part.
    #[must_use]
    pub fn part_bytes(&self) -> usize {
        self.part_bytes
    }

    /// Waits until `bytes` may be held.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let wanted = u32::try_from(bytes.div_ceil(PERMIT_BYTES).min(self.limit)).unwrap_or(u32::MAX);
        // Never closed.
        Arc::clone(&self.permits).acquire_many_owned(wanted).await.ok()
    }
}

/// A part being filled.
#[derive(Debug)]
struct Filling {
    bytes: Vec<u8>,
    permit: Option<OwnedSemaphorePermit>,
}

/// An object on its way into the bucket. Dropped before [`Upload::finish`], it is aborted: nothing appears.
#[derive(Debug)]
pub struct Upload {
    bucket: Arc<dyn Bucket>,
    path: ObjectPath,
    budget: PartBudget,
    /// What the store calls it, once it has more than one part.
    id: Option<UploadId>,
    filling: Option<Filling>,
    next: PartAt,
    sending: JoinSet<(u32, Result<StoredPart, StoreError>)>,
    stored: Vec<Option<StoredPart>>,
}

impl Upload {
    /// Waits for the budget of the first part. `expected` is the object's length, where it is known: a small object
    /// then takes no more of the budget than it needs.
    pub async fn begin(
        bucket: &Arc<dyn Bucket>,
        path: ObjectPath,
        budget: &PartBudget,
        expected: Option<u64>,
    ) -> Self {
        let first = expected.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        let first = first.min(budget.part_bytes);
        let permit = budget.take(first).await;
        Self {
            bucket: Arc::clone(bucket),
            path,
            budget: budget.clone(),
            id: None,
            filling: Some(Filling { bytes: Vec::with_capacity(first), permit }),
            next: PartAt { number: 0, offset: 0 },
            sending: JoinSet::new(),
            stored: Vec::new(),
        }
    }

    /// The object's path.
    #[must_use]
    pub fn path(&self) -> &ObjectPath {
        &self.path
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.next.offset + self.filling.as_ref().map_or(0, |f| f.bytes.len() as u64)
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends bytes; waits while too many are on their way.
    ///
    /// # Errors
    /// The store's: the upload has failed, and dropping it clears it away.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let filling = self.filling().await;
            let (now, later) = bytes.split_at(bytes.len().min(filling.1));
            filling.0.bytes.extend_from_slice(now);
            if now.len() == filling.1 {
                self.send().await?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// Everything was written: on return the object is there. Its length.
    ///
    /// # Errors
    /// The store's. The object may be there all the same, where the error says so.
    pub async fn finish(mut self) -> Result<u64, StoreError> {
        let len = self.len();
        if self.id.is_none() {
            let bytes = self.filling.take().map(|f| (Bytes::from(f.bytes), f.permit));
            let (bytes, _permit) = bytes.unwrap_or_default();
            self.bucket.put(&self.path, Body::from(bytes)).await?;
            return Ok(len);
        }
        if self.filling.as_ref().is_some_and(|f| !f.bytes.is_empty()) {
            self.send().await?;
        }
        while let Some(sent) = self.sending.join_next().await {
            self.note(sent)?;
        }
        let parts: Option<Vec<StoredPart>> = std::mem::take(&mut self.stored).into_iter().collect();
        let (Some(parts), Some(id)) = (parts, self.id.clone()) else {
            return Err(self.broken("a part is missing"));
        };
        self.bucket.complete_upload(&self.path, &id, &parts).await?;
        self.id = None;
        Ok(len)
    }

    /// The part being filled, and how much it still takes.
    async fn filling(&mut self) -> (&mut Filling, usize) {
        let whole = self.budget.part_bytes;
        if self.filling.is_none() {
            let permit = self.budget.take(whole).await;
            self.filling = Some(Filling { bytes: Vec::with_capacity(whole), permit });
        }
        let filling = self.filling.get_or_insert_with(|| Filling { bytes: Vec::new(), permit: None });
        let room = whole - filling.bytes.len().min(whole);
        (filling, room)
    }

    /// Sends the part that is full, or the last one.
    async fn send(&mut self) -> Result<(), StoreError> {
        let Some(filling) = self.filling.take() else { return Ok(()) };
        let id = match &self.id {
            Some(id) => id.clone(),
            None => {
                let id = self.bucket.begin_upload(&self.path).await?;
                self.id = Some(id.clone());
                id
            }
        };
        while self.sending.len() >= PARTS_AT_ONCE {
            match self.sending.join_next().await {
                Some(sent) => self.note(sent)?,
                None => break,
            }
        }
        let at = self.next;
        self.next = PartAt { number: at.number + 1, offset: at.offset + filling.bytes.len() as u64 };
        self.stored.push(None);
        let (bucket, path) = (Arc::clone(&self.bucket), self.path.clone());
        self.sending.spawn(async move {
            let Filling { bytes, permit } = filling;
            let sent = bucket.upload_part(&path, &id, at, Bytes::from(bytes).into()).await;
            drop(permit);
            (at.number, sent)
        });
        Ok(())
    }

    fn note(
        &mut self,
        sent: Result<(u32, Result<StoredPart, StoreError>), JoinError>,
    ) -> Result<(), StoreError> {
        let (number, stored) = sent.map_err(|e| self.broken(&format!("a part was cut off: {e}")))?;
        let stored = stored?;
        if let Some(slot) = self.stored.get_mut(number as usize) {
            *slot = Some(stored);
        }
        Ok(())
    }

    fn broken(&self, why: &str) -> StoreError {
        StoreError::new(StoreErrorKind::Permanent, "complete_upload", &self.path, why)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.sending.abort_all();
        let Some(id) = self.id.take() else { return };
        // Outside of a runtime nobody is left to ask; the bucket's lifecycle rule clears it away.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (bucket, path) = (Arc::clone(&self.bucket), self.path.clone());
        runtime.spawn(async move {
            if let Err(error) = bucket.abort_upload(&path, &id).await {
                tracing::warn!(object = %path, %error, "an upload that was given up could not be aborted");
            }
        });
    }
}
