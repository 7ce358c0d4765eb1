//! Objects larger than a window: what is in memory of them, and what is left where a copy of one is cut off.

use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use isle_storage::names;
use isle_storage::object::{
    Body, NullBucket, ObjectMeta, PART_BYTES, PartAt, StoreError, StoredPart, UploadId,
};
use isle_storage::transfer::{BYTES_AT_ONCE, COPIES_AT_ONCE, WINDOW_BYTES};

use super::*;

/// Bytes that were read from one store and are not yet in another.
#[derive(Debug, Default)]
struct Held {
    now: AtomicI64,
    most: AtomicI64,
}

impl Held {
    fn add(&self, bytes: i64) {
        let now = self.now.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.most.fetch_max(now, Ordering::SeqCst);
    }
}

/// A store that counts what is read from it or written to it, and takes its time with parts.
#[derive(Debug)]
struct Counted {
    inner: Arc<dyn Bucket>,
    held: Arc<Held>,
}

#[async_trait]
impl Bucket for Counted {
    async fn put(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        let len = body.len();
        self.inner.put(path, body).await?;
        self.held.add(-(len as i64));
        Ok(())
    }
    async fn create(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        self.inner.create(path, body).await
    }
    async fn get(&self, path: &ObjectPath) -> Result<Bytes, StoreError> {
        let bytes = self.inner.get(path).await?;
        self.held.add(bytes.len() as i64);
        Ok(bytes)
    }
    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self.inner.get_range(path, range).await?;
        self.held.add(bytes.len() as i64);
        Ok(bytes)
    }
    async fn head(&self, path: &ObjectPath) -> Result<ObjectMeta, StoreError> {
        self.inner.head(path).await
    }
    fn list(&self, folder: &str) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        self.inner.list(folder)
    }
    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        self.inner.delete(path).await
    }
    async fn begin_upload(&self, path: &ObjectPath) -> Result<UploadId, StoreError> {
        self.inner.begin_upload(path).await
    }
    async fn upload_part(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        at: PartAt,
        body: Body,
    ) -> Result<StoredPart, StoreError> {
        let len = body.len();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let part = self.inner.upload_part(path, upload, at, body).await?;
        self.held.add(-(len as i64));
        Ok(part)
    }
    async fn complete_upload(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        parts: &[StoredPart],
    ) -> Result<(), StoreError> {
        self.inner.complete_upload(path, upload, parts).await
    }
    async fn abort_upload(&self, path: &ObjectPath, upload: &UploadId) -> Result<(), StoreError> {
        self.inner.abort_upload(path, upload).await
    }
    fn url(&self) -> String {
        self.inner.url()
    }
}

/// Blob files of `len` bytes, `count` of them, which share one buffer.
async fn add_blobs(e: &Embedded, scribe: &mut Scribe, count: usize, len: usize) {
    let bytes = Bytes::from((0..len).map(|i| (i / 251 + i) as u8).collect::<Vec<_>>());
    let mut blobs = BTreeMap::new();
    for n in 0..count {
        let m = scribe.manifest();
        let name = format!("{}-{}", names::writer_owner(m.epoch, isle_storage::ids::Incarnation(1)), 900 + n);
        e.bucket.put(&names::blob(&name), bytes.clone().into()).await.unwrap();
        blobs.insert(name, len as u64);
    }
    scribe.commit(vec![Change::AddBlobs { blobs }]).await;
}

#[tokio::test(start_paused = true)]
async fn memory_does_not_grow_with_the_objects() {
    const LEN: usize = 40 << 20;
    let e = Embedded::new().await;
    let mut scribe = filled(&e).await;
    add_blobs(&e, &mut scribe, COPIES_AT_ONCE, LEN).await;
    let held = Arc::new(Held::default());
    let counted = |inner: Arc<dyn Bucket>| Arc::new(Counted { inner, held: Arc::clone(&held) });
    let from = Database { bucket: counted(e.bucket.clone()), ..e.db.clone() };
    let to: Arc<dyn Bucket> = counted(Arc::new(NullBucket::new(e.clock.clone())));
    let _before = e.bucket.take_history();
    transfer::backup(&from, &node(), &to, &|_| {}).await.unwrap();
    let most = held.most.load(Ordering::SeqCst);
    assert!(most <= BYTES_AT_ONCE as i64, "{} MiB were held", most >> 20);
    assert!(most > (LEN as i64), "several were on their way at once");
    let largest = e.bucket.history().iter().map(|event| event.len).max().unwrap();
    assert_eq!(largest, WINDOW_BYTES, "the largest single read");
}

/// A large segment, a chunk, a table and a blob file: over in windows, cut off at every write, verified and restored.
#[tokio::test]
async fn large_objects_come_over_whole_or_not_at_all() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.table_bytes = u64::MAX;
    scribe.table_options.block_bytes = 64 << 10;
    let row = |i: usize| Entry::put(format!("key/{i:04}"), super::clones::noise(i as u64, 60 << 10));
    scribe.append(&(0..150).map(row).collect::<Vec<_>>()).await;
    scribe.flush().await;
    scribe.blob_threshold = 1 << 20;
    let blob = super::clones::noise(1, PART_BYTES + 1);
    scribe.append(&[Entry::put("blob", blob)]).await;
    let large = transfer::parcel(scribe.manifest()).iter().filter(|i| i.len > WINDOW_BYTES).count();
    assert_eq!(large, 3, "a chunk, a table and a blob file are larger than a window");
    for n in 1.. {
        let cut = store();
        let rule = Rule::any().when(is_write).after(n - 1).times(1);
        cut.inject(rule, Fault::Fail(StoreErrorKind::Permanent));
        let failed = back_up(&e, &cut).await;
        cut.heal();
        if let Ok(made) = failed {
            assert!(n > 3 * 4 + 2, "every write was cut off once");
            assert_eq!(cut.count(Op::Complete, "*"), large);
            let held: Arc<dyn Bucket> = cut.clone();
            let checked = transfer::verify(&held, &e.db.env, &made.record, &|_, _| {}).await.unwrap();
            assert!(checked.faults.is_empty(), "{checked:?}");
            let target = Target::bucket_form();
            target.restore(&cut, &made.record).await.unwrap();
            target.is_a_copy_of(&scribe).await;
            return;
        }
        assert!(transfer::backups(cut.as_ref()).await.unwrap().is_empty());
        back_up(&e, &cut).await.unwrap();
    }
}

/// In the middle of one, far from every end.
#[tokio::test]
async fn damage_in_a_large_object_is_found_wherever_it_lies() {
    let e = Embedded::new().await;
    let mut scribe = filled(&e).await;
    add_blobs(&e, &mut scribe, 1, 2 * WINDOW_BYTES as usize + 5).await;
    let to = store();
    let made = back_up(&e, &to).await.unwrap();
    let blob = made.record.objects.iter().find(|o| o.len > WINDOW_BYTES).unwrap();
    let held: Arc<dyn Bucket> = to.clone();
    let whole = to.get(&blob.path).await.unwrap();
    for damage in ["flipped", "longer", "shorter"] {
        let mut bad = whole.to_vec();
        match damage {
            "flipped" => bad[WINDOW_BYTES as usize + 17] ^= 1,
            "longer" => bad.push(0),
            _ => bad.truncate(whole.len() - 1),
        }
        to.put(&blob.path, bad.into()).await.unwrap();
        let checked = transfer::verify(&held, &e.db.env, &made.record, &|_, _| {}).await.unwrap();
        assert_eq!(checked.faults.len(), 1, "{damage}: {checked:?}");
        let target = Target::bucket_form();
        let refused = target.restore(&to, &made.record).await;
        assert!(matches!(refused, Err(TransferError::Damaged { .. })), "{damage}: {refused:?}");
        assert!(target.store.head(&blob.path).await.is_err(), "{damage}: nothing of it appears");
    }
}

/// A table with rows above the snapshot: read in windows, and what is left of it written in parts.
#[tokio::test]
async fn a_large_table_is_written_anew_in_parts() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.table_bytes = u64::MAX;
    scribe.table_options.block_bytes = 64 << 10;
    let row = |i: usize| Entry::put(format!("key/{i:04}"), super::clones::noise(i as u64, 60 << 10));
    scribe.append(&(0..220).map(row).collect::<Vec<_>>()).await;
    scribe.flush().await;
    scribe.commit(vec![Change::TakeSnapshot { name: "s".to_owned(), snapshot: held(160) }]).await;
    let _before = e.bucket.take_history();
    let target = Target::bucket_form();
    let made = target.clone_of(&e, Some("s")).await.unwrap();
    assert_eq!((made.referenced, made.copied, made.rewritten), (0, 0, 1));
    let reads = e.bucket.history();
    let largest = reads.iter().filter(|read| read.path.starts_with("table/")).map(|read| read.len).max();
    assert!(largest.unwrap() <= WINDOW_BYTES, "{largest:?}");
    assert_eq!((target.store.count(Op::Put, "table/*"), target.store.count(Op::Complete, "table/*")), (0, 1));
    target.holds(&scribe, SeqNo(160)).await;
    // Nothing of the table is at or below this one: no table appears.
    scribe.commit(vec![Change::TakeSnapshot { name: "none".to_owned(), snapshot: held(0) }]).await;
    let target = Target::bucket_form();
    assert_eq!(target.clone_of(&e, Some("none")).await.unwrap().rewritten, 0);
    target.holds(&scribe, SeqNo(0)).await;
}
