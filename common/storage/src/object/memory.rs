//! `memory://`: a bucket in the memory of this process, for tests and trials.
//!
//! A body is kept in the pieces it came in, so that storing costs no copy and what several objects share (a segment's
//! blocks and the chunk made of them) is held once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::{Mutex, RwLock};

use super::{
    Body, Bucket, Copied, ObjectMeta, Origin, PartAt, StoreError, StoreErrorKind, StoredPart, UploadId,
    in_folder, whole_range,
};
use crate::environment::Clock;
use crate::ids::Timestamp;
use crate::names::ObjectPath;

/// The buckets with a name, which live as long as the process: closing a database and opening it again finds it.
static NAMED: LazyLock<Mutex<HashMap<String, Arc<MemoryBucket>>>> = LazyLock::new(Mutex::default);

/// Objects by their paths; shared with whoever takes some by reference.
type Objects = Arc<RwLock<BTreeMap<String, Object>>>;

/// A bucket in memory. Every operation is atomic; nothing survives the process.
#[derive(Debug)]
pub struct MemoryBucket {
    name: String,
    clock: Arc<dyn Clock>,
    objects: Objects,
    uploads: Mutex<Uploads>,
}

/// Uploads in parts, by their numbers.
#[derive(Debug, Default)]
struct Uploads {
    begun: u64,
    open: BTreeMap<String, BTreeMap<u32, Body>>,
}

#[derive(Debug, Clone)]
struct Object {
    body: Arc<Pieces>,
    modified: Timestamp,
}

/// A body that can be read in the middle.
#[derive(Debug)]
struct Pieces {
    body: Body,
    /// Where each piece ends.
    ends: Vec<u64>,
}

impl Pieces {
    fn new(body: Body) -> Self {
        let mut end = 0;
        let grow = |piece: &Bytes| {
            end += piece.len() as u64;
            end
        };
        let ends = body.pieces().iter().map(grow).collect();
        Self { body, ends }
    }

    fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The bytes `range`, which lies inside; copies only what more than one piece holds.
    fn slice(&self, range: &Range<u64>) -> Bytes {
        let first = self.ends.partition_point(|end| *end <= range.start);
        let mut start = first.checked_sub(1).map_or(0, |before| self.ends[before]);
        let mut found = Vec::new();
        for (piece, &end) in self.body.pieces().iter().zip(&self.ends).skip(first) {
            if start >= range.end {
                break;
            }
            let (from, to) = (range.start.max(start), range.end.min(end));
            found.push(piece.slice((from - start) as usize..(to - start) as usize));
            start = end;
        }
        Body::from(found).to_bytes()
    }
}

impl MemoryBucket {
    /// An empty bucket of its own.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { name: String::new(), clock, objects: Arc::default(), uploads: Mutex::default() }
    }

    /// The bucket every caller in this process gets under that name.
    #[must_use]
    pub fn named(name: &str, clock: &Arc<dyn Clock>) -> Arc<Self> {
        let fresh = || Arc::new(Self { name: name.to_owned(), ..Self::new(Arc::clone(clock)) });
        Arc::clone(NAMED.lock().entry(name.to_owned()).or_insert_with(fresh))
    }

    /// Bytes of all objects together, those that objects share counted once: what the store, not the engine, keeps in
    /// memory.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let objects = self.objects.read();
        let pieces = objects.values().flat_map(|o| o.body.body.pieces());
        let distinct: HashSet<_> = pieces.map(|p| (p.as_ptr(), p.len())).collect();
        distinct.into_iter().map(|(_, len)| len as u64).sum()
    }

    /// Uploads that were begun and neither completed nor aborted.
    #[must_use]
    pub fn open_uploads(&self) -> usize {
        self.uploads.lock().open.len()
    }

    fn object(&self, body: Body) -> Object {
        Object { body: Arc::new(Pieces::new(body)), modified: self.clock.now() }
    }

    fn find(&self, op: &'static str, path: &ObjectPath) -> Result<Object, StoreError> {
        self.objects.read().get(path.as_str()).cloned().ok_or_else(|| missing(op, path))
    }
}

fn missing(op: &'static str, path: &ObjectPath) -> StoreError {
    StoreError::new(StoreErrorKind::NotFound, op, path, "there is no such object")
}

fn no_upload(op: &'static str, path: &ObjectPath) -> StoreError {
    StoreError::new(StoreErrorKind::NotFound, op, path, "there is no such upload")
}

#[async_trait]
impl Bucket for MemoryBucket {
    async fn put(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        let object = self.object(body);
        self.objects.write().insert(path.as_str().to_owned(), object);
        Ok(())
    }

    async fn create(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        let object = self.object(body);
        match self.objects.write().entry(path.as_str().to_owned()) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(object);
                Ok(())
            }
            std::collections::btree_map::Entry::Occupied(_) => {
                Err(StoreError::new(StoreErrorKind::AlreadyExists, "create", path, "the object exists"))
            }
        }
    }

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, StoreError> {
        self.find("get", path).map(|o| o.body.body.to_bytes())
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let body = self.find("get", path)?.body;
        whole_range(path, &range, body.len())?;
        Ok(body.slice(&range))
    }

    async fn head(&self, path: &ObjectPath) -> Result<ObjectMeta, StoreError> {
        let object = self.find("head", path)?;
        let (len, last_modified) = (object.body.len(), object.modified);
        Ok(ObjectMeta { path: path.as_str().to_owned(), len, last_modified })
    }

    fn list(&self, folder: &str) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        let objects = self.objects.read();
        let found = objects.iter().filter(|(path, _)| in_folder(path, folder)).map(|(path, o)| ObjectMeta {
            path: path.clone(),
            len: o.body.len(),
            last_modified: o.modified,
        });
        stream::iter(found.map(Ok).collect::<Vec<_>>()).boxed()
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        self.objects.write().remove(path.as_str());
        Ok(())
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
        let Some(objects) = source.of::<Objects>() else { return Ok(Copied::Cannot) };
        let Some(found) = objects.read().get(from.as_str()).cloned() else {
            return Err(missing("copy", from));
        };
        let object = Object { modified: self.clock.now(), ..found };
        self.objects.write().insert(to.as_str().to_owned(), object);
        Ok(Copied::ByReference)
    }

    async fn begin_upload(&self, _path: &ObjectPath) -> Result<UploadId, StoreError> {
        let mut uploads = self.uploads.lock();
        uploads.begun += 1;
        let id = uploads.begun.to_string();
        uploads.open.insert(id.clone(), BTreeMap::new());
        Ok(UploadId(id))
    }

    async fn upload_part(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        at: PartAt,
        body: Body,
    ) -> Result<StoredPart, StoreError> {
        let mut uploads = self.uploads.lock();
        let Some(parts) = uploads.open.get_mut(&upload.0) else {
            return Err(no_upload("upload_part", path));
        };
        let stored = StoredPart { len: body.len(), tag: at.number.to_string() };
        parts.insert(at.number, body);
        Ok(stored)
    }

    async fn complete_upload(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        parts: &[StoredPart],
    ) -> Result<(), StoreError> {
        let Some(stored) = self.uploads.lock().open.remove(&upload.0) else {
            return Err(no_upload("complete_upload", path));
        };
        let same = stored.len() == parts.len() && stored.values().zip(parts).all(|(b, p)| b.len() == p.len);
        if !same {
            let message = format!("{} parts are named and {} stored", parts.len(), stored.len());
            return Err(StoreError::new(StoreErrorKind::Permanent, "complete_upload", path, message));
        }
        let pieces: Vec<Bytes> = stored.values().flat_map(|b| b.pieces().iter().cloned()).collect();
        self.put(path, pieces.into()).await
    }

    async fn abort_upload(&self, _path: &ObjectPath, upload: &UploadId) -> Result<(), StoreError> {
        self.uploads.lock().open.remove(&upload.0);
        Ok(())
    }

    fn url(&self) -> String {
        format!("memory://{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_of_a_body_in_pieces_is_that_of_the_whole() {
        let whole = b"abcdefgh";
        for cuts in [vec![], vec![3], vec![1, 1, 4], vec![0, 2, 7, 8]] {
            let mut pieces = Vec::new();
            let mut start = 0;
            for end in cuts.into_iter().chain([whole.len()]) {
                pieces.push(Bytes::from_static(&whole[start..end]));
                start = end;
            }
            let body = Pieces::new(pieces.into());
            assert_eq!(body.len(), whole.len() as u64);
            for from in 0..whole.len() {
                for to in from + 1..=whole.len() {
                    assert_eq!(
                        body.slice(&(from as u64..to as u64)),
                        whole[from..to],
                        "{from}..{to} of {body:?}"
                    );
                }
            }
        }
    }
}
