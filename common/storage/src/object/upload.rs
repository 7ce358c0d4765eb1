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
//!
//! **Giving up.** [`Upload::abort`] and [`Upload::finish_unless`] have asked the store to clear an upload away when they
//! return; one that is only dropped asks by a task of its own.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, JoinSet};

use super::{Body, Bucket, PartAt, PartBudget, StoreError, StoreErrorKind, StoredPart, UploadId};
use crate::names::ObjectPath;

/// Parts of one upload on their way at once.
const PARTS_AT_ONCE: usize = 2;

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
        let first = first.min(budget.part_bytes());
        let permit = budget.take(first).await;
        Self {
            bucket: Arc::clone(bucket),
            path,
            budget: budget.clone(),
            id: None,
            filling: Some(Filling::new(first, permit)),
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
        self.next.offset + self.filling.as_ref().map_or(0, |f| f.len as u64)
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until the next byte may be held in memory, for a caller that makes the bytes only then.
    pub async fn ready(&mut self) {
        self.filling().await;
    }

    /// Appends a copy of `bytes`; waits while too many are on their way.
    ///
    /// # Errors
    /// The store's: the upload has failed, and dropping it clears it away.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let (filling, room) = self.filling().await;
            let (now, later) = bytes.split_at(bytes.len().min(room));
            filling.copy(now);
            self.send_if(now.len() == room).await?;
            bytes = later;
        }
        Ok(())
    }

    /// [`Upload::write`] without the copy: the parts share the memory of `bytes`.
    ///
    /// # Errors
    /// As [`Upload::write`].
    pub async fn append(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let (filling, room) = self.filling().await;
            let now = bytes.split_to(bytes.len().min(room));
            let full = now.len() == room;
            filling.push(now);
            self.send_if(full).await?;
        }
        Ok(())
    }

    /// Everything was written: on return the object is there. Its length.
    ///
    /// # Errors
    /// The store's. The object may be there all the same, where the error says so.
    pub async fn finish(mut self) -> Result<u64, StoreError> {
        self.complete().await
    }

    /// [`Upload::finish`], unless `stop` comes first. Where that is so (`None`), or where it fails, the upload has been
    /// aborted on return; the object may be there all the same.
    ///
    /// # Errors
    /// As [`Upload::finish`].
    pub async fn finish_unless(mut self, stop: impl Future<Output = ()>) -> Result<Option<u64>, StoreError> {
        let done = tokio::select! {
            biased;
            () = stop => None,
            done = self.complete() => Some(done),
        };
        if !matches!(done, Some(Ok(_))) {
            self.abort().await;
        }
        done.transpose()
    }

    /// Gives it up: nothing appears, unless its end is already on its way. What the store does not take is logged.
    pub async fn abort(mut self) {
        // A part that arrived after the abort would stay for ever.
        self.sending.shutdown().await;
        if let Some(id) = self.id.clone() {
            abort(&self.bucket, &self.path, &id).await;
            self.id = None;
        }
    }

    async fn complete(&mut self) -> Result<u64, StoreError> {
        let len = self.len();
        if self.id.is_none() {
            let (body, _permit) = self.filling.take().map(Filling::into_body).unwrap_or_default();
            self.bucket.put(&self.path, body).await?;
            return Ok(len);
        }
        self.send_if(self.filling.as_ref().is_some_and(|f| f.len > 0)).await?;
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
        let whole = self.budget.part_bytes();
        if self.filling.is_none() {
            let permit = self.budget.take(whole).await;
            self.filling = Some(Filling::new(whole, permit));
        }
        let filling = self.filling.get_or_insert_with(|| Filling::new(whole, None));
        let room = whole - filling.len.min(whole);
        (filling, room)
    }

    /// Sends the part being filled where it is full, or the last one.
    async fn send_if(&mut self, due: bool) -> Result<(), StoreError> {
        let Some(filling) = self.filling.take_if(|_| due) else { return Ok(()) };
        let id = match &self.id {
            Some(id) => id.clone(),
            None => {
                let id = self.bucket.begin_upload(&self.path).await?;
                self.id = Some(id.clone());
                id
            }
        };
        while let Some(sent) = self.sending.try_join_next() {
            self.note(sent)?;
        }
        while self.sending.len() >= PARTS_AT_ONCE {
            match self.sending.join_next().await {
                Some(sent) => self.note(sent)?,
                None => break,
            }
        }
        let at = self.next;
        self.next = PartAt { number: at.number + 1, offset: at.offset + filling.len as u64 };
        self.stored.push(None);
        let (bucket, path) = (Arc::clone(&self.bucket), self.path.clone());
        self.sending.spawn(async move {
            let (body, permit) = filling.into_body();
            let sent = bucket.upload_part(&path, &id, at, body).await;
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
        runtime.spawn(async move { abort(&bucket, &path, &id).await });
    }
}

async fn abort(bucket: &Arc<dyn Bucket>, path: &ObjectPath, id: &UploadId) {
    if let Err(error) = bucket.abort_upload(path, id).await {
        tracing::warn!(object = %path, %error, "an upload that was given up could not be aborted");
    }
}

/// A part being filled: pieces as they came, and the one that copied bytes are gathered in.
#[derive(Debug)]
struct Filling {
    pieces: Vec<Bytes>,
    gathering: Vec<u8>,
    len: usize,
    expected: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Filling {
    fn new(expected: usize, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self { pieces: Vec::new(), gathering: Vec::new(), len: 0, expected, permit }
    }

    fn copy(&mut self, bytes: &[u8]) {
        if self.gathering.capacity() == 0 {
            self.gathering.reserve_exact(self.expected.saturating_sub(self.len).max(bytes.len()));
        }
        self.gathering.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    fn push(&mut self, piece: Bytes) {
        self.end_gathering();
        self.len += piece.len();
        self.pieces.push(piece);
    }

    fn end_gathering(&mut self) {
        if !self.gathering.is_empty() {
            self.pieces.push(std::mem::take(&mut self.gathering).into());
        }
    }

    fn into_body(mut self) -> (Body, Option<OwnedSemaphorePermit>) {
        self.end_gathering();
        (self.pieces.into(), self.permit)
    }
}
