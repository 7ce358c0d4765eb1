//! Admission: how many requests one process has in flight.
//!
//! Reads and writes are counted apart, so that the thousands of reads of a cold start never hold up a commit. What
//! exceeds the limit waits its turn; nothing is refused. A listing takes no place: its consumer may well issue gets
//! while it is half read, and would then wait for itself.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    Body, Bucket, Copied, ObjectMeta, Origin, PartAt, StoreError, StoreErrorKind, StoredPart, UploadId,
};
use crate::names::ObjectPath;

/// A bucket with at most so many reads and as many writes in flight.
#[derive(Debug)]
pub struct LimitBucket {
    inner: Arc<dyn Bucket>,
    reads: Semaphore,
    writes: Semaphore,
}

impl LimitBucket {
    /// At most `max_concurrent` reads and `max_concurrent` writes at once.
    #[must_use]
    pub fn new(inner: Arc<dyn Bucket>, max_concurrent: usize) -> Self {
        Self { inner, reads: Semaphore::new(max_concurrent), writes: Semaphore::new(max_concurrent) }
    }
}

async fn admit<'a>(
    places: &'a Semaphore,
    op: &'static str,
    path: &ObjectPath,
) -> Result<SemaphorePermit<'a>, StoreError> {
    places
        .acquire()
        .await
        .map_err(|_| StoreError::new(StoreErrorKind::Permanent, op, path, "the store is closed"))
}

#[async_trait]
impl Bucket for LimitBucket {
    async fn put(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        let _place = admit(&self.writes, "put", path).await?;
        self.inner.put(path, body).await
    }

    async fn create(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        let _place = admit(&self.writes, "create", path).await?;
        self.inner.create(path, body).await
    }

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, StoreError> {
        let _place = admit(&self.reads, "get", path).await?;
        self.inner.get(path).await
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        let _place = admit(&self.reads, "get", path).await?;
        self.inner.get_range(path, range).await
    }

    async fn head(&self, path: &ObjectPath) -> Result<ObjectMeta, StoreError> {
        let _place = admit(&self.reads, "head", path).await?;
        self.inner.head(path).await
    }

    fn list(&self, folder: &str) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        self.inner.list(folder)
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let _place = admit(&self.writes, "delete", path).await?;
        self.inner.delete(path).await
    }

    async fn begin_upload(&self, path: &ObjectPath) -> Result<UploadId, StoreError> {
        let _place = admit(&self.writes, "begin_upload", path).await?;
        self.inner.begin_upload(path).await
    }

    async fn upload_part(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        at: PartAt,
        body: Body,
    ) -> Result<StoredPart, StoreError> {
        let _place = admit(&self.writes, "upload_part", path).await?;
        self.inner.upload_part(path, upload, at, body).await
    }

    async fn complete_upload(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        parts: &[StoredPart],
    ) -> Result<(), StoreError> {
        let _place = admit(&self.writes, "complete_upload", path).await?;
        self.inner.complete_upload(path, upload, parts).await
    }

    async fn abort_upload(&self, path: &ObjectPath, upload: &UploadId) -> Result<(), StoreError> {
        let _place = admit(&self.writes, "abort_upload", path).await?;
        self.inner.abort_upload(path, upload).await
    }

    fn origin(&self) -> Origin {
        self.inner.origin()
    }

    async fn copy_from(
        &self,
        source: &Origin,
        from: &ObjectPath,
        to: &ObjectPath,
    ) -> Result<Copied, StoreError> {
        let _place = admit(&self.writes, "copy", to).await?;
        self.inner.copy_from(source, from, to).await
    }

    fn has_atomic_create(&self) -> bool {
        self.inner.has_atomic_create()
    }

    fn url(&self) -> String {
        self.inner.url()
    }
}
