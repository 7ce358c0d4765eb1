//! `null:`: a bucket that discards data, to measure an engine without its store. For benchmarks only.
//!
//! Bodies below `log/`, `table/` and `blob/` are counted and dropped; asking for one is NotFound. Everything else
//! (identity, manifest) is small and kept in memory, so that a database can be opened and committed to.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::memory::MemoryBucket;
use super::{Body, Bucket, ObjectMeta, PartAt, StoreError, StoreErrorKind, StoredPart, UploadId};
use crate::environment::Clock;
use crate::names::ObjectPath;

/// The folders whose bodies are discarded.
const DATA: [&str; 3] = ["log/", "table/", "blob/"];

/// A bucket that counts data objects and forgets them.
#[derive(Debug)]
pub struct NullBucket {
    kept: MemoryBucket,
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl NullBucket {
    /// A bucket with nothing in it.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { kept: MemoryBucket::new(clock), objects: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// How many data objects and how many bytes of them were discarded.
    #[must_use]
    pub fn discarded(&self) -> (u64, u64) {
        (self.objects.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Whether the body under that name is discarded; counts it if so.
    fn discards(&self, path: &ObjectPath, body: &Body) -> bool {
        let data = is_data(path);
        if data {
            self.objects.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(body.len(), Ordering::Relaxed);
        }
        data
    }
}

fn is_data(path: &ObjectPath) -> bool {
    DATA.iter().any(|folder| path.as_str().starts_with(folder))
}

fn kept_only(op: &'static str, path: &ObjectPath) -> Result<(), StoreError> {
    if is_data(path) {
        return Err(StoreError::new(
            StoreErrorKind::NotFound,
            op,
            path,
            "a null: store discards data objects",
        ));
    }
    Ok(())
}

#[async_trait]
impl Bucket for NullBucket {
    async fn put(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        if self.discards(path, &body) { Ok(()) } else { self.kept.put(path, body).await }
    }

    async fn create(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        if self.discards(path, &body) { Ok(()) } else { self.kept.create(path, body).await }
    }

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, StoreError> {
        kept_only("get", path)?;
        self.kept.get(path).await
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        kept_only("get", path)?;
        self.kept.get_range(path, range).await
    }

    async fn head(&self, path: &ObjectPath) -> Result<ObjectMeta, StoreError> {
        kept_only("head", path)?;
        self.kept.head(path).await
    }

    fn list(&self, folder: &str) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        self.kept.list(folder)
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        self.kept.delete(path).await
    }

    async fn begin_upload(&self, path: &ObjectPath) -> Result<UploadId, StoreError> {
        if is_data(path) { Ok(UploadId(String::new())) } else { self.kept.begin_upload(path).await }
    }

    async fn upload_part(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        at: PartAt,
        body: Body,
    ) -> Result<StoredPart, StoreError> {
        if !is_data(path) {
            return self.kept.upload_part(path, upload, at, body).await;
        }
        self.bytes.fetch_add(body.len(), Ordering::Relaxed);
        Ok(StoredPart { len: body.len(), tag: String::new() })
    }

    async fn complete_upload(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        parts: &[StoredPart],
    ) -> Result<(), StoreError> {
        if !is_data(path) {
            return self.kept.complete_upload(path, upload, parts).await;
        }
        self.objects.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn abort_upload(&self, path: &ObjectPath, upload: &UploadId) -> Result<(), StoreError> {
        if is_data(path) { Ok(()) } else { self.kept.abort_upload(path, upload).await }
    }

    fn url(&self) -> String {
        "null:".to_owned()
    }
}
