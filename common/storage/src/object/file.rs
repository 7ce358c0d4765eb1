//! `file://`: a durable bucket in a local directory, safe between processes.
//!
//! ```text
//!   put     stage ─▶ fsync file ─▶ rename over the name   ─▶ fsync folder ─▶ Ok
//!   create  stage ─▶ fsync file ─▶ hard link to the name  ─▶ fsync folder ─▶ Ok
//!                                  └ exists: fsync folder ─▶ AlreadyExists
//!   copy    hard link to staging ─▶ rename over the name  ─▶ fsync folder ─▶ Ok (another bucket's file, by reference)
//!   parts   stage an empty file ─▶ write each at its place, fsync ─▶ complete: as put does from its fsync on
//! ```
//! Rename and hard link are atomic, between processes too: an object appears whole or not at all, and a link has one
//! winner. A file that several buckets name is never written to again, since every write goes to a staged file of its
//! own, and a delete takes away one name. Staged bytes lie in `.isle-staging/`, which no listing shows.
//!
//! Crash cases:
//! - before the link or rename: a staged file is left; the next process that writes removes it (`file/staging.rs`).
//! - between link and fsync of the folder: the object may or may not be there afterwards; nobody was told it is.
//! - the *loser* of a create fsyncs the folder too before it answers, so that nobody builds on an object which a
//!   power cut takes back. For the same reason a repeated create after a failed fsync cannot succeed by mistake.
//! - a folder made by another process that died before its fsync: each process fsyncs the whole chain from the root
//!   the first time it writes into a folder.
//!
//! The root is made by the first write, where it was missing when the bucket was opened, and never again: when it
//! disappears later (an unmounted disk), operations fail as passing failures instead of starting an empty database
//! beside the real one. Who only reads makes nothing. Calls run on tokio's blocking threads, so any number of fsyncs run
//! in parallel.

mod disk;
mod layout;
mod staging;
mod walk;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use self::disk::RealDisk;
use self::layout::{Layout, Publish};
use super::open::OpenError;
use super::{
    Body, Bucket, Copied, ObjectMeta, Origin, PartAt, StoreError, StoreErrorKind, StoredPart, UploadId,
    whole_range,
};
use crate::environment::Environment;
use crate::ids::Timestamp;
use crate::names::ObjectPath;

/// A bucket in a local directory.
#[derive(Debug, Clone)]
pub struct FileBucket {
    layout: Arc<Layout>,
}

impl FileBucket {
    /// Opens the directory, which the first write makes (not its parents) if need be.
    ///
    /// # Errors
    /// [`OpenError::Missing`] if its parent does not exist, [`OpenError::Denied`] if it may not be used.
    pub fn open(root: &Path, env: &Environment) -> Result<Self, OpenError> {
        let layout = Layout::open(root, env.entropy.next_u64(), env.clock.now(), Box::new(RealDisk))
            .map_err(|e| refused(root, &e))?;
        Ok(Self { layout: Arc::new(layout) })
    }

    /// Runs `work` on a blocking thread. Once begun it runs to its end, also when the caller goes away.
    async fn blocking<T: Send + 'static>(
        &self,
        op: &'static str,
        path: &ObjectPath,
        work: impl FnOnce(&Layout, &Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (layout, path) = (Arc::clone(&self.layout), path.clone());
        let at = path.clone();
        let done = tokio::task::spawn_blocking(move || {
            let file = layout.locate(&path)?;
            work(&layout, &file).map_err(|e| layout.explain(e))
        });
        match done.await {
            Ok(result) => result.map_err(|e| failure(op, &at, &e)),
            Err(e) => {
                Err(StoreError::new(StoreErrorKind::Permanent, op, &at, format!("the call was cut off: {e}")))
            }
        }
    }
}

/// The directory of a bucket, for another that links to its files.
#[derive(Debug)]
struct Folder(PathBuf);

fn refused(root: &Path, error: &io::Error) -> OpenError {
    let root = root.display();
    match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing {
            what: format!("directory {root}"),
            why: "neither it nor its parent exists; create the parent or correct the URL".into(),
        },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenError::Denied { message: format!("directory {root} cannot be made: {error}") }
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => OpenError::Missing {
            what: format!("directory {root}"),
            why: "there is a file, not a directory".into(),
        },
        _ => OpenError::Unusable { message: format!("directory {root}: {error}") },
    }
}

/// What an error of the operating system means to a caller.
fn failure(op: &'static str, path: &ObjectPath, error: &io::Error) -> StoreError {
    use io::ErrorKind as E;
    let kind = match error.kind() {
        E::NotFound | E::IsADirectory => StoreErrorKind::NotFound,
        E::AlreadyExists => StoreErrorKind::AlreadyExists,
        E::PermissionDenied | E::ReadOnlyFilesystem => StoreErrorKind::Denied,
        E::InvalidInput | E::UnexpectedEof | E::NotADirectory | E::CrossesDevices => {
            StoreErrorKind::Permanent
        }
        E::Unsupported => StoreErrorKind::Unsupported,
        // A full disk, too many open files, a stale mount, a device's error: whoever repeats writes a new file, and
        // after a write nobody can be sure.
        _ => StoreErrorKind::Transient,
    };
    StoreError::new(kind, op, path, error.to_string())
}

fn read_all(file: &Path) -> io::Result<Bytes> {
    std::fs::read(file).map(Bytes::from)
}

/// The asked bytes, or the file's length if it is too short for them.
fn read_range(file: &Path, range: &Range<u64>) -> io::Result<Result<Bytes, u64>> {
    let mut file = File::open(file)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let len = meta.len();
    if range.end > len {
        return Ok(Err(len));
    }
    let asked = range.end - range.start;
    // Read to its end, and not filled: that would have the memory cleared first.
    let mut bytes = Vec::with_capacity(asked as usize);
    file.seek(SeekFrom::Start(range.start))?;
    if (file.take(asked).read_to_end(&mut bytes)? as u64) < asked {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Ok(bytes.into()))
}

fn modified(meta: &std::fs::Metadata) -> io::Result<Timestamp> {
    let since = meta.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX)))
}

fn describe(file: &Path, path: String) -> io::Result<ObjectMeta> {
    let meta = std::fs::metadata(file)?;
    if meta.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(ObjectMeta { path, len: meta.len(), last_modified: modified(&meta)? })
}

#[async_trait]
impl Bucket for FileBucket {
    async fn put(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        self.blocking("put", path, move |layout, file| layout.write(file, &body, Publish::Replace)).await
    }

    async fn create(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        self.blocking("create", path, move |layout, file| layout.write(file, &body, Publish::IfAbsent)).await
    }

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, StoreError> {
        self.blocking("get", path, |_, file| read_all(file)).await
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let asked = range.clone();
        match self.blocking("get", path, move |_, file| read_range(file, &asked)).await? {
            Ok(bytes) => Ok(bytes),
            Err(len) => whole_range(path, &range, len).map(|()| Bytes::new()),
        }
    }

    async fn head(&self, path: &ObjectPath) -> Result<ObjectMeta, StoreError> {
        let name = path.as_str().to_owned();
        self.blocking("head", path, move |_, file| describe(file, name)).await
    }

    fn list(&self, folder: &str) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        walk::list(Arc::clone(&self.layout), folder.to_owned())
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let gone = |e: &StoreError| e.is_not_found();
        match self.blocking("delete", path, |_, file| std::fs::remove_file(file)).await {
            Err(e) if gone(&e) => Ok(()),
            result => result,
        }
    }

    fn origin(&self) -> Origin {
        Origin::new(Folder(self.layout.root().to_path_buf()))
    }

    async fn copy_from(
        &self,
        source: &Origin,
        from: &ObjectPath,
        to: &ObjectPath,
    ) -> Result<Copied, StoreError> {
        let Some(Folder(root)) = source.of::<Folder>() else { return Ok(Copied::Cannot) };
        let source = root.join(from.as_str());
        let adopted = self.blocking("copy", to, move |layout, file| layout.adopt(&source, file)).await?;
        Ok(if adopted { Copied::ByReference } else { Copied::Cannot })
    }

    async fn begin_upload(&self, path: &ObjectPath) -> Result<UploadId, StoreError> {
        self.blocking("begin_upload", path, |layout, _| layout.stage_empty().map(UploadId)).await
    }

    async fn upload_part(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        at: PartAt,
        body: Body,
    ) -> Result<StoredPart, StoreError> {
        let (id, len) = (upload.0.clone(), body.len());
        self.blocking("upload_part", path, move |layout, _| layout.write_part(&id, at.offset, &body)).await?;
        Ok(StoredPart { len, tag: String::new() })
    }

    async fn complete_upload(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        parts: &[StoredPart],
    ) -> Result<(), StoreError> {
        let (id, len) = (upload.0.clone(), parts.iter().map(|p| p.len).sum());
        self.blocking("complete_upload", path, move |layout, file| layout.publish_parts(&id, file, len)).await
    }

    async fn abort_upload(&self, path: &ObjectPath, upload: &UploadId) -> Result<(), StoreError> {
        let id = upload.0.clone();
        match self.blocking("abort_upload", path, move |layout, _| layout.unstage(&id)).await {
            Err(e) if e.is_not_found() => Ok(()),
            result => result,
        }
    }

    fn url(&self) -> String {
        format!("file://{}", self.layout.root().display())
    }
}

#[cfg(test)]
mod tests;
