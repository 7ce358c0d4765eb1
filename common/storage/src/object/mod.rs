//! Object access: the one small trait through which everything else sees a bucket.
//!
//! This folder is the only place that names the `object_store` crate. Behaviour across the trait is a decorator in a
//! file of its own; [`open`] stacks them:
//!
//! ```text
//!   engine ─▶ retry ─▶ limit ─▶ meter ─▶ file | memory | null | adapter (S3, GCS, Azure)
//! ```
//! Retries are outermost, so that a request waiting for its next attempt holds no place, and metering innermost, so
//! that every request is counted as the provider counts it.

#[cfg(feature = "cloud")]
mod adapter;
#[cfg(feature = "cloud")]
mod cloud;
mod credentials;
mod file;
mod limit;
mod location;
mod memory;
mod meter;
mod now;
mod null;
mod open;
mod parts;
mod probe;
mod reference;
mod retry;
mod settings;
mod upload;

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use self::credentials::Credentials;
pub use self::file::FileBucket;
pub use self::limit::LimitBucket;
pub use self::memory::MemoryBucket;
pub use self::meter::{Meter, MeterBucket, Prices, Usage};
pub use self::now::store_now;
pub use self::null::NullBucket;
pub use self::open::{OpenError, OpenErrorKind, Opened, decorate, open, open_metered};
pub use self::parts::{PART_BYTES, PartAt, PartBudget, StoredPart, UploadId};
pub use self::probe::{ProbeError, conditional_create};
pub use self::reference::{Copied, Origin};
pub use self::retry::{RetryBucket, RetryPolicy};
pub use self::settings::StoreSettings;
pub use self::upload::Upload;
use crate::ids::Timestamp;
use crate::names::ObjectPath;

/// The body of an object, in pieces that are written one after the other; cloning is cheap.
#[derive(Debug, Clone, Default)]
pub struct Body(Vec<Bytes>);

impl Body {
    /// The pieces in order.
    #[must_use]
    pub fn pieces(&self) -> &[Bytes] {
        &self.0
    }

    /// Total length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.iter().map(|p| p.len() as u64).sum()
    }

    /// Whether there is not one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the pieces together are these bytes.
    #[must_use]
    pub fn equals(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        self.0.iter().all(|piece| match rest.strip_prefix(piece.as_ref()) {
            Some(after) => {
                rest = after;
                true
            }
            None => false,
        }) && rest.is_empty()
    }

    /// Everything in one buffer; copies unless there is only one piece.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match self.0.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => many.concat().into(),
        }
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self(pieces)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(vec![bytes])
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(vec![bytes.into()])
    }
}

/// What a listing or a HEAD says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Path relative to the prefix.
    pub path: String,
    /// Length in bytes.
    pub len: u64,
    /// When it was written, by the store's own clock.
    pub last_modified: Timestamp,
}

/// The few kinds of store failure a caller branches on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// There is no such object.
    NotFound,
    /// A conditional create found an object under that name. After a retry it may be our own.
    AlreadyExists,
    /// The credentials are missing, wrong, or not allowed to do this.
    Denied,
    /// Passing: throttling, a 5xx, a broken connection, a timeout. For a write, it may have happened.
    Transient,
    /// The store cannot do this (a conditional put, say).
    Unsupported,
    /// Everything else; repeating will not help.
    Permanent,
}

impl StoreErrorKind {
    /// The kind as a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Denied => "denied",
            Self::Transient => "transient",
            Self::Unsupported => "unsupported",
            Self::Permanent => "permanent",
        }
    }
}

/// A failed store operation: what failed, on which object, why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{op} {path}: {message}")]
pub struct StoreError {
    /// What a caller branches on.
    pub kind: StoreErrorKind,
    /// `put`, `create`, `get`, `head`, `list`, `delete`, `copy`, `begin_upload`, `upload_part`, `complete_upload`
    /// or `abort_upload`.
    pub op: &'static str,
    /// The object, relative to the prefix.
    pub path: String,
    /// The store's own words.
    pub message: String,
}

impl StoreError {
    /// A failure of `op` on `path`.
    #[must_use]
    pub fn new(
        kind: StoreErrorKind,
        op: &'static str,
        path: &ObjectPath,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, op, path: path.as_str().to_owned(), message: message.into() }
    }

    /// Whether the object was not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == StoreErrorKind::NotFound
    }

    /// Whether repeating may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.kind == StoreErrorKind::Transient
    }
}

/// A bucket under one prefix.
///
/// **Durability.** When `put` or `create` returns `Ok`, the object is durable: it survives the crash of this process
/// and, for `file://`, of this machine (the file and its folder are fsynced). **Atomicity.** An object appears whole
/// or not at all; `create` has exactly one winner among any number of concurrent callers where
/// [`Bucket::has_atomic_create`] says so. **Reads** see every completed write (all supported stores are strongly
/// consistent). A write that failed with [`StoreErrorKind::Transient`] may still have happened, now or later.
#[async_trait]
pub trait Bucket: Send + Sync + fmt::Debug {
    /// Writes an object, replacing what was there. Engine objects have names never used twice, so replacing happens
    /// only when a retry re-sends the same bytes.
    async fn put(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError>;

    /// Writes an object only if there is none under that name: [`StoreErrorKind::AlreadyExists`] otherwise.
    async fn create(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError>;

    /// The whole object.
    async fn get(&self, path: &ObjectPath) -> Result<Bytes, StoreError>;

    /// The bytes `range` of the object; fewer than asked for is an error ([`StoreErrorKind::Permanent`]), never a short
    /// answer. An empty range is answered without asking the store.
    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// Length and time of an object.
    async fn head(&self, path: &ObjectPath) -> Result<ObjectMeta, StoreError>;

    /// Every object whose path lies in the folder `folder` (`"manifest"`, `"log"`, … or `""` for all), in no
    /// particular order.
    fn list(&self, folder: &str) -> BoxStream<'static, Result<ObjectMeta, StoreError>>;

    /// Deletes an object; one that is already gone is fine.
    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError>;

    /// Where this bucket lies, for another that may take objects of it by reference.
    fn origin(&self) -> Origin {
        Origin::nowhere()
    }

    /// Makes the object `from` of the bucket at `source` an object of this one, named `to`, without reading it: on
    /// [`Copied::ByReference`] it is there as after a [`Bucket::put`], which it replaces like one, and lives on by itself.
    /// Where that cannot be done is an answer; a store that was asked and refused is an error, and whoever wants the
    /// object all the same reads and writes it.
    async fn copy_from(
        &self,
        _source: &Origin,
        _from: &ObjectPath,
        _to: &ObjectPath,
    ) -> Result<Copied, StoreError> {
        Ok(Copied::Cannot)
    }

    /// Begins an object that comes in parts: nothing appears under the name before [`Bucket::complete_upload`]. Use
    /// [`Upload`] rather than this.
    async fn begin_upload(&self, path: &ObjectPath) -> Result<UploadId, StoreError>;

    /// Stores one part, durably as far as a part can be. The same bytes may be sent again for the same part; all parts
    /// but the last have one length, which the cloud stores want to be at least 5 MiB.
    async fn upload_part(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        at: PartAt,
        body: Body,
    ) -> Result<StoredPart, StoreError>;

    /// Makes the parts, in their order and with none missing, the object: it appears whole, or not at all, and is
    /// durable on `Ok`. Like [`Bucket::put`] it replaces what was there.
    async fn complete_upload(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        parts: &[StoredPart],
    ) -> Result<(), StoreError>;

    /// Gives an upload up, with everything stored for it; one that is already gone is fine. What is neither completed
    /// nor aborted (its process died) is left to the bucket's lifecycle rule, or to the next opening of a directory.
    async fn abort_upload(&self, path: &ObjectPath, upload: &UploadId) -> Result<(), StoreError>;

    /// Whether `create` is atomic on this store as far as its kind tells (a probe at start tells for sure).
    fn has_atomic_create(&self) -> bool {
        true
    }

    /// The store's URL without secrets, for messages.
    fn url(&self) -> String;
}

/// Whether an object's path lies in a folder; siblings whose name only begins alike do not.
fn in_folder(path: &str, folder: &str) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Refuses a range that ends beyond the object.
fn whole_range(path: &ObjectPath, range: &Range<u64>, len: u64) -> Result<(), StoreError> {
    if range.end <= len {
        return Ok(());
    }
    let message = format!("bytes {}..{} were asked of an object of {len} bytes", range.start, range.end);
    Err(StoreError::new(StoreErrorKind::Permanent, "get", path, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_equals_its_bytes_however_it_is_cut() {
        let body = Body::from(vec![Bytes::from("ab"), Bytes::new(), Bytes::from("c")]);
        assert!(body.equals(b"abc"));
        assert!(!body.equals(b"ab") && !body.equals(b"abcd") && !body.equals(b"abx"));
        assert!(Body::default().equals(b""));
    }

    #[test]
    fn a_folder_does_not_hold_what_only_begins_like_it() {
        assert!(in_folder("log/a", "log") && in_folder("x", ""));
        assert!(!in_folder("log2/a", "log") && !in_folder("log", "log"));
    }
}
