//! The simulated bucket: one map, seen by each process over a link of its own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use isle_storage::ids::Timestamp;
use isle_storage::names::ObjectPath;
use isle_storage::object::{
    Body, Bucket, Copied, ObjectMeta, Origin, PartAt, StoreError, StoreErrorKind, StoredPart, UploadId,
};
use parking_lot::Mutex;

use crate::oracle::Oracle;
use crate::world::{Failed, ProcessId, Request, Service, Weather, World};

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    modified: Timestamp,
}

/// What is in the bucket.
#[derive(Debug, Default)]
pub struct Objects {
    map: Mutex<BTreeMap<String, Object>>,
    uploads: Mutex<Uploads>,
}

/// Objects that come in parts, by the upload's number.
#[derive(Debug, Default)]
struct Uploads {
    begun: u64,
    open: BTreeMap<String, BTreeMap<u32, Bytes>>,
}

impl Objects {
    /// The object of that path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Bytes> {
        self.map.lock().get(path).map(|o| o.bytes.clone())
    }

    /// Every path in the bucket.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.map.lock().keys().cloned().collect()
    }

    fn list(&self, folder: &str) -> Vec<ObjectMeta> {
        let inside = |path: &str| {
            folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
        };
        let map = self.map.lock();
        let found = map.iter().filter(|(path, _)| inside(path)).map(|(path, o)| ObjectMeta {
            path: path.clone(),
            len: o.bytes.len() as u64,
            last_modified: o.modified,
        });
        found.collect()
    }
}

/// The bucket as one process sees it.
#[derive(Debug, Clone)]
pub struct SimBucket {
    world: Arc<World>,
    objects: Arc<Objects>,
    oracle: Arc<Oracle>,
    process: ProcessId,
}

impl SimBucket {
    /// The bucket as `process` sees it.
    #[must_use]
    pub fn new(world: &Arc<World>, oracle: &Arc<Oracle>, process: ProcessId) -> Self {
        let objects = Arc::clone(oracle.objects());
        Self { world: Arc::clone(world), objects, oracle: Arc::clone(oracle), process }
    }

    async fn ask<T: Send + 'static>(
        &self,
        op: &'static str,
        path: &str,
        apply: impl FnOnce(&Self) -> Result<T, StoreErrorKind> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (this, path) = (self.clone(), path.to_owned());
        let request =
            Request { process: self.process, service: Service::Store, what: format!("{op} {path}") };
        let named = path.clone();
        let applied = self.world.request(request, move |world| {
            let answer = apply(&this);
            let how = answer.as_ref().map(|_| "ok").unwrap_or_else(|kind| kind.as_str());
            world.note_of(this.process, format_args!("{op} {named}: {how}"));
            answer
        });
        let failed = |kind, message: String| StoreError { kind, op, path: path.clone(), message };
        match applied.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kind)) => Err(failed(kind, format!("the simulated store says {}", kind.as_str()))),
            Err(lost) => Err(failed(StoreErrorKind::Transient, lost.to_string())),
        }
    }

    fn write(&self, path: &str, body: &Body) {
        let object = Object { bytes: body.to_bytes(), modified: self.world.wall() };
        let bytes = object.bytes.clone();
        let before = self.objects.map.lock().insert(path.to_owned(), object);
        self.oracle.written(path, &bytes, before.map(|o| o.bytes).as_ref());
    }

    async fn listing(self, folder: String) -> Vec<Result<ObjectMeta, StoreError>> {
        let asked = folder.clone();
        let listed = self.ask("list", &folder, move |this| Ok(this.objects.list(&asked))).await;
        match listed {
            Err(e) => vec![Err(e)],
            Ok(mut all) => {
                let (order, unlucky) = self.world.draw(|rng| (rng.draw(), rng.per_mille(10)));
                let cut = unlucky && !self.world.weather(Weather::is_perfect);
                // In no particular order.
                let turn = order as usize % all.len().max(1);
                all.rotate_left(turn);
                let mut listing: Vec<_> = all.into_iter().map(Ok).collect();
                if cut && listing.len() > 1 {
                    listing.truncate(listing.len() / 2);
                    self.world.fault("broken listing", format_args!("{folder}"));
                    let message = Failed::Lost.to_string();
                    let kind = StoreErrorKind::Transient;
                    listing.push(Err(StoreError { kind, op: "list", path: folder, message }));
                }
                listing
            }
        }
    }
}

#[async_trait]
impl Bucket for SimBucket {
    async fn put(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        let name = path.as_str().to_owned();
        self.ask("put", path.as_str(), move |this| {
            this.write(&name, &body);
            Ok(())
        })
        .await
    }

    async fn create(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        let name = path.as_str().to_owned();
        self.ask("create", path.as_str(), move |this| {
            if this.objects.map.lock().contains_key(&name) {
                return Err(StoreErrorKind::AlreadyExists);
            }
            this.write(&name, &body);
            Ok(())
        })
        .await
    }

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, StoreError> {
        let name = path.as_str().to_owned();
        self.ask("get", path.as_str(), move |this| this.objects.get(&name).ok_or(StoreErrorKind::NotFound))
            .await
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let name = path.as_str().to_owned();
        self.ask("get", path.as_str(), move |this| {
            let bytes = this.objects.get(&name).ok_or(StoreErrorKind::NotFound)?;
            if range.end > bytes.len() as u64 {
                return Err(StoreErrorKind::Permanent);
            }
            Ok(bytes.slice(range.start as usize..range.end as usize))
        })
        .await
    }

    async fn head(&self, path: &ObjectPath) -> Result<ObjectMeta, StoreError> {
        let name = path.as_str().to_owned();
        self.ask("head", path.as_str(), move |this| {
            let map = this.objects.map.lock();
            let object = map.get(&name).ok_or(StoreErrorKind::NotFound)?;
            let len = object.bytes.len() as u64;
            Ok(ObjectMeta { path: name.clone(), len, last_modified: object.modified })
        })
        .await
    }

    fn list(&self, folder: &str) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        self.clone().listing(folder.to_owned()).map(stream::iter).flatten_stream().boxed()
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let name = path.as_str().to_owned();
        self.ask("delete", path.as_str(), move |this| {
            this.oracle.deleting(&name, this.process);
            this.objects.map.lock().remove(&name);
            Ok(())
        })
        .await
    }

    async fn begin_upload(&self, path: &ObjectPath) -> Result<UploadId, StoreError> {
        self.ask("begin_upload", path.as_str(), move |this| {
            let mut uploads = this.objects.uploads.lock();
            uploads.begun += 1;
            let id = uploads.begun.to_string();
            uploads.open.insert(id.clone(), BTreeMap::new());
            Ok(UploadId(id))
        })
        .await
    }

    async fn upload_part(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        at: PartAt,
        body: Body,
    ) -> Result<StoredPart, StoreError> {
        let id = upload.0.clone();
        self.ask("upload_part", path.as_str(), move |this| {
            let mut uploads = this.objects.uploads.lock();
            let parts = uploads.open.get_mut(&id).ok_or(StoreErrorKind::NotFound)?;
            parts.insert(at.number, body.to_bytes());
            Ok(StoredPart { len: body.len(), tag: at.number.to_string() })
        })
        .await
    }

    async fn complete_upload(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        parts: &[StoredPart],
    ) -> Result<(), StoreError> {
        let (name, id, named) = (path.as_str().to_owned(), upload.0.clone(), parts.to_vec());
        self.ask("complete_upload", path.as_str(), move |this| {
            let stored = this.objects.uploads.lock().open.remove(&id).ok_or(StoreErrorKind::NotFound)?;
            let lens = stored.values().map(|part| part.len() as u64);
            if !lens.eq(named.iter().map(|part| part.len)) {
                return Err(StoreErrorKind::Permanent);
            }
            let pieces: Vec<Bytes> = stored.into_values().collect();
            this.write(&name, &pieces.into());
            Ok(())
        })
        .await
    }

    async fn abort_upload(&self, path: &ObjectPath, upload: &UploadId) -> Result<(), StoreError> {
        let id = upload.0.clone();
        self.ask("abort_upload", path.as_str(), move |this| {
            this.objects.uploads.lock().open.remove(&id);
            Ok(())
        })
        .await
    }

    fn origin(&self) -> Origin {
        Origin::new(Arc::clone(&self.objects))
    }

    async fn copy_from(
        &self,
        source: &Origin,
        from: &ObjectPath,
        to: &ObjectPath,
    ) -> Result<Copied, StoreError> {
        let Some(objects) = source.of::<Arc<Objects>>().cloned() else { return Ok(Copied::Cannot) };
        let (from, name) = (from.as_str().to_owned(), to.as_str().to_owned());
        self.ask("copy", to.as_str(), move |this| {
            let bytes = objects.get(&from).ok_or(StoreErrorKind::NotFound)?;
            this.write(&name, &bytes.into());
            Ok(Copied::ByReference)
        })
        .await
    }

    fn url(&self) -> String {
        "simulated://bucket".to_owned()
    }
}
