//! The start-up probe: who passes, who is caught.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use isle_storage::environment::SystemEntropy;
use isle_storage::names::ObjectPath;
use isle_storage::object::{
    Body, Bucket, FileBucket, ObjectMeta, PartAt, ProbeError, StoreError, StoreErrorKind, StoredPart,
    UploadId, conditional_create,
};
use isle_testkit::fault::{Fault, FaultBucket, Op, Rule};

use super::{environment, memory};

/// How a store breaks its promise of conditional creates.
#[derive(Debug, Clone, Copy)]
enum Cheat {
    /// Takes a create for a put.
    Ignores,
    /// Looks first and writes later: right in a row, wrong in a race.
    LooksThenWrites,
    /// Answers "exists" and writes all the same.
    RefusesAndWrites,
}

#[derive(Debug)]
struct CheatingBucket(Arc<dyn Bucket>, Cheat);

#[async_trait]
impl Bucket for CheatingBucket {
    async fn put(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        self.0.put(path, body).await
    }

    async fn create(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        match self.1 {
            Cheat::Ignores => self.0.put(path, body).await,
            Cheat::LooksThenWrites => match self.0.head(path).await {
                Ok(_) => self.0.create(path, body).await,
                Err(_) => {
                    tokio::task::yield_now().await;
                    self.0.put(path, body).await
                }
            },
            Cheat::RefusesAndWrites => {
                let answer = self.0.create(path, body.clone()).await;
                self.0.put(path, body).await?;
                answer
            }
        }
    }

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, StoreError> {
        self.0.get(path).await
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.0.get_range(path, range).await
    }

    async fn head(&self, path: &ObjectPath) -> Result<ObjectMeta, StoreError> {
        self.0.head(path).await
    }

    fn list(&self, folder: &str) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        self.0.list(folder)
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        self.0.delete(path).await
    }

    async fn begin_upload(&self, path: &ObjectPath) -> Result<UploadId, StoreError> {
        self.0.begin_upload(path).await
    }

    async fn upload_part(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        at: PartAt,
        body: Body,
    ) -> Result<StoredPart, StoreError> {
        self.0.upload_part(path, upload, at, body).await
    }

    async fn complete_upload(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        parts: &[StoredPart],
    ) -> Result<(), StoreError> {
        self.0.complete_upload(path, upload, parts).await
    }

    async fn abort_upload(&self, path: &ObjectPath, upload: &UploadId) -> Result<(), StoreError> {
        self.0.abort_upload(path, upload).await
    }

    fn url(&self) -> String {
        "cheat://".to_owned()
    }
}

async fn left_behind(bucket: &Arc<dyn Bucket>) -> usize {
    bucket.list("").try_collect::<Vec<_>>().await.unwrap().len()
}

#[tokio::test]
async fn honest_stores_pass_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let files: Arc<dyn Bucket> = Arc::new(FileBucket::open(dir.path(), &environment()).unwrap());
    for bucket in [memory(), files] {
        conditional_create(&bucket, &SystemEntropy).await.unwrap();
        assert_eq!(left_behind(&bucket).await, 0);
    }
}

/// Some stores ignore conditional headers silently, some check them without being atomic.
#[tokio::test]
async fn every_cheat_is_caught_and_told_what_to_do_instead() {
    for cheat in [Cheat::Ignores, Cheat::LooksThenWrites, Cheat::RefusesAndWrites] {
        let bucket: Arc<dyn Bucket> = Arc::new(CheatingBucket(memory(), cheat));
        let error = conditional_create(&bucket, &SystemEntropy).await.unwrap_err();
        assert!(matches!(error, ProbeError::NotAtomic { .. }), "{cheat:?}: {error}");
        let message = error.to_string();
        assert!(message.contains("cheat://") && message.contains("etcd"), "{message}");
        assert_eq!(left_behind(&bucket).await, 0);
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_not_called_a_cheat() {
    let faults = FaultBucket::new(memory());
    faults.inject(Rule::on(Op::Create), Fault::Fail(StoreErrorKind::Transient));
    let bucket: Arc<dyn Bucket> = faults.clone();
    let error = conditional_create(&bucket, &SystemEntropy).await.unwrap_err();
    assert!(matches!(error, ProbeError::Store(ref e) if e.is_transient()), "{error}");
    faults.heal();
    faults.inject(Rule::on(Op::Create), Fault::Fail(StoreErrorKind::Unsupported));
    let error = conditional_create(&bucket, &SystemEntropy).await.unwrap_err();
    assert!(
        matches!(error, ProbeError::NotAtomic { .. }),
        "a store that admits it cannot is refused: {error}"
    );
}
