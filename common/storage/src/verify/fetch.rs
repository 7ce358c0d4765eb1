//! Reading objects, with the failures told apart that mean different things here.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::names::ObjectPath;
use crate::object::{Bucket, StoreError};

/// Why an object could not be had.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is not there.
    Gone,
    /// The store does not hand it out, for now or at all: nothing is known of it.
    Unreadable(String),
}

/// Reads, and counts what it has read.
#[derive(Debug)]
pub(super) struct Fetch<'a> {
    pub(super) bucket: &'a dyn Bucket,
    bytes: AtomicU64,
}

impl<'a> Fetch<'a> {
    pub(super) fn new(bucket: &'a dyn Bucket) -> Self {
        Self { bucket, bytes: AtomicU64::new(0) }
    }

    pub(super) async fn get(&self, path: &ObjectPath) -> Result<Bytes, Fault> {
        self.counted(self.bucket.get(path).await)
    }

    pub(super) async fn range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, Fault> {
        self.counted(self.bucket.get_range(path, range).await)
    }

    fn counted(&self, read: Result<Bytes, StoreError>) -> Result<Bytes, Fault> {
        let bytes =
            read.map_err(|e| if e.is_not_found() { Fault::Gone } else { Fault::Unreadable(e.to_string()) })?;
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
