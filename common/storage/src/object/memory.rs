//! `memory://`: a bucket in the memory of this process, for tests and trials.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::{Mutex, RwLock};

use super::{Body, Bucket, ObjectMeta, StoreError, StoreErrorKind, in_folder, whole_range};
use crate::environment::Clock;
use crate::ids::Timestamp;
use crate::names::ObjectPath;

/// The buckets with a name, which live as long as the process: closing a database and opening it again finds it.
static NAMED: LazyLock<Mutex<HashMap<String, Arc<MemoryBucket>>>> = LazyLock::new(Mutex::default);

/// A bucket in memory. Every operation is atomic; nothing survives the process.
#[derive(Debug)]
pub struct MemoryBucket {
    name: String,
    clock: Arc<dyn Clock>,
    objects: RwLock<BTreeMap<String, Object>>,
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    modified: Timestamp,
}

impl MemoryBucket {
    /// An empty bucket of its own.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { name: String::new(), clock, objects: RwLock::default() }
    }

    /// The bucket every caller in this process gets under that name.
    #[must_use]
    pub fn named(name: &str, clock: &Arc<dyn Clock>) -> Arc<Self> {
        let fresh = || Arc::new(Self { name: name.to_owned(), ..Self::new(Arc::clone(clock)) });
        Arc::clone(NAMED.lock().entry(name.to_owned()).or_insert_with(fresh))
    }

    /// Bytes of all objects together: what the store, not the engine, keeps in memory.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.objects.read().values().map(|o| o.bytes.len() as u64).sum()
    }

    fn find(&self, op: &'static str, path: &ObjectPath) -> Result<Object, StoreError> {
        let missing = || StoreError::new(StoreErrorKind::NotFound, op, path, "there is no such object");
        self.objects.read().get(path.as_str()).cloned().ok_or_else(missing)
    }
}

#[async_trait]
impl Bucket for MemoryBucket {
    async fn put(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        let object = Object { bytes: body.to_bytes(), modified: self.clock.now() };
        self.objects.write().insert(path.as_str().to_owned(), object);
        Ok(())
    }

    async fn create(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        let object = Object { bytes: body.to_bytes(), modified: self.clock.now() };
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
        self.find("get", path).map(|o| o.bytes)
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let bytes = self.find("get", path)?.bytes;
        whole_range(path, &range, bytes.len() as u64)?;
        Ok(bytes.slice(range.start as usize..range.end as usize))
    }

    async fn head(&self, path: &ObjectPath) -> Result<ObjectMeta, StoreError> {
        let object = self.find("head", path)?;
        let (len, last_modified) = (object.bytes.len() as u64, object.modified);
        Ok(ObjectMeta { path: path.as_str().to_owned(), len, last_modified })
    }

    fn list(&self, folder: &str) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        let objects = self.objects.read();
        let found = objects.iter().filter(|(path, _)| in_folder(path, folder)).map(|(path, o)| ObjectMeta {
            path: path.clone(),
            len: o.bytes.len() as u64,
            last_modified: o.modified,
        });
        stream::iter(found.map(Ok).collect::<Vec<_>>()).boxed()
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        self.objects.write().remove(path.as_str());
        Ok(())
    }

    fn url(&self) -> String {
        format!("memory://{}", self.name)
    }
}
