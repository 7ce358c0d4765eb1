//! Listing a directory tree as a stream: walked on a blocking thread, handed over in batches.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use super::layout::Layout;
use super::modified;
use super::staging::STAGING;
use crate::object::{ObjectMeta, StoreError, StoreErrorKind};

/// Objects in one batch.
const BATCH: usize = 256;
/// Batches waiting for the consumer; the walk waits beyond.
const WAITING: usize = 4;

type Batch = Result<Vec<ObjectMeta>, StoreError>;

/// Everything below `folder`.
pub(super) fn list(
    layout: Arc<Layout>,
    folder: String,
) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
    // Begun when first polled, so that building a stream needs no runtime.
    let begin = async move {
        let (to, from) = mpsc::channel(WAITING);
        tokio::task::spawn_blocking(move || walk(&layout, &folder, &to));
        stream::unfold(from, |mut from| async move { from.recv().await.map(|batch| (batch, from)) })
    };
    let items = |batch: Vec<ObjectMeta>| stream::iter(batch.into_iter().map(Ok));
    stream::once(begin).flatten().map_ok(items).try_flatten().boxed()
}

fn walk(layout: &Layout, folder: &str, to: &mpsc::Sender<Batch>) {
    let mut walk = Walk { layout, to, batch: Vec::with_capacity(BATCH) };
    let result = walk.run(folder).and_then(|more| if more { walk.send() } else { Ok(false) });
    if let Err(e) = result {
        let e = layout.explain(e);
        let (path, message) = (folder.to_owned(), e.to_string());
        let kind = match e.kind() {
            ErrorKind::PermissionDenied => StoreErrorKind::Denied,
            _ => StoreErrorKind::Transient,
        };
        // A consumer that is gone needs no error.
        let _gone = to.blocking_send(Err(StoreError { kind, op: "list", path, message }));
    }
}

struct Walk<'a> {
    layout: &'a Layout,
    to: &'a mpsc::Sender<Batch>,
    batch: Vec<ObjectMeta>,
}

impl Walk<'_> {
    /// Depth first; false if the consumer has gone.
    fn run(&mut self, folder: &str) -> io::Result<bool> {
        let mut pending = vec![(self.layout.root().join(folder), folder.to_owned())];
        while let Some((at, name)) = pending.pop() {
            let entries = match fs::read_dir(&at) {
                // A folder nobody has written to yet, or one removed meanwhile; but the root must be there.
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    if self.layout.root().is_dir() || self.layout.is_unmade() {
                        continue;
                    }
                    return Err(ErrorKind::NotFound.into());
                }
                entries => entries?,
            };
            for entry in entries {
                if !self.visit(&entry?, &name, &mut pending)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn visit(
        &mut self,
        entry: &fs::DirEntry,
        folder: &str,
        pending: &mut Vec<(PathBuf, String)>,
    ) -> io::Result<bool> {
        let Ok(name) = entry.file_name().into_string() else { return Ok(true) };
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        if path == STAGING {
            return Ok(true);
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            pending.push((entry.path(), path));
        } else if kind.is_file() {
            match entry.metadata() {
                Ok(meta) => {
                    self.batch.push(ObjectMeta { path, len: meta.len(), last_modified: modified(&meta)? });
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        if self.batch.len() < BATCH { Ok(true) } else { self.send() }
    }

    fn send(&mut self) -> io::Result<bool> {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        Ok(self.to.blocking_send(Ok(batch)).is_ok())
    }
}
