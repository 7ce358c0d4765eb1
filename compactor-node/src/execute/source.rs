//! One sorted run as a merge's source: the stored blocks of its tables in key order, fetched ahead in large ranged GETs.
//!
//! Each source has a task that stays at most one window ahead of the merge: while the merge works through one window
//! the next is on its way, and a slow store makes the merge wait rather than memory grow. Blocks stay as they are
//! stored: they are opened, one at a time, by whoever merges them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use isle_storage::database::Database;
use isle_storage::format::FormatError;
use isle_storage::manifest::{KeyRange, Run, TableEntry};
use isle_storage::names::ObjectPath;
use isle_storage::sst::TableMeta;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::Resources;
use crate::error::JobError;

/// Windows waiting beside the one in use.
const WINDOWS_AHEAD: usize = 1;

/// Windows of one source that are in memory at most: in use, waiting, and being fetched.
pub(super) const WINDOWS: u64 = WINDOWS_AHEAD as u64 + 2;

/// Stored blocks of one table, one after the other.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) table: ObjectPath,
    pub(super) bytes: Bytes,
    /// Where each block lies in `bytes`.
    pub(super) blocks: std::vec::IntoIter<Range<usize>>,
}

/// A run being read. Dropping it stops its task.
#[derive(Debug)]
pub(super) struct Source {
    windows: mpsc::Receiver<Result<Window, JobError>>,
    _task: AbortOnDropHandle<()>,
}

impl Source {
    /// Starts reading the blocks of `run` that may hold keys of `range`, `window_bytes` at a time.
    pub(super) fn open(
        db: &Database,
        resources: &Resources,
        run: &Arc<Run>,
        range: &KeyRange,
        window_bytes: u64,
    ) -> Self {
        let (tx, windows) = mpsc::channel(WINDOWS_AHEAD);
        let reader =
            Reader { db: db.clone(), resources: resources.clone(), range: range.clone(), window_bytes };
        let run = Arc::clone(run);
        let task = tokio::spawn(async move {
            if let Err(error) = reader.read(&run, &tx).await {
                // The merge may have ended first; then nobody asks any more.
                let _ = tx.send(Err(error)).await;
            }
        });
        Self { windows, _task: AbortOnDropHandle::new(task) }
    }

    /// The next window, or `None` at the end of the run.
    ///
    /// # Errors
    /// [`JobError::Store`], [`JobError::Damaged`].
    pub(super) async fn next(&mut self) -> Result<Option<Window>, JobError> {
        self.windows.recv().await.transpose()
    }
}

struct Reader {
    db: Database,
    resources: Resources,
    range: KeyRange,
    window_bytes: u64,
}

impl Reader {
    async fn read(&self, run: &Run, tx: &mpsc::Sender<Result<Window, JobError>>) -> Result<(), JobError> {
        for table in run.tables.iter().filter(|t| self.range.meets(t)) {
            let meta = read_meta(&self.db, table).await?;
            let path = table.path();
            let blocks = self.blocks(&meta);
            let mut from = blocks.start;
            while from < blocks.end {
                let (to, at) = window(&meta, from, blocks.end, self.window_bytes);
                self.resources.reads.take(at.end - at.start).await;
                let bytes = self.db.bucket.get_range(&path, at.clone()).await?;
                let within = |i| {
                    let block = meta.block_range(i);
                    (block.start - at.start) as usize..(block.end - at.start) as usize
                };
                let blocks: Vec<Range<usize>> = (from..to).map(within).collect();
                let window = Window { table: path.clone(), bytes, blocks: blocks.into_iter() };
                if tx.send(Ok(window)).await.is_err() {
                    return Ok(());
                }
                from = to;
            }
        }
        Ok(())
    }

    /// The blocks that may hold keys of the range.
    fn blocks(&self, meta: &TableMeta) -> Range<usize> {
        let from = if self.range.start.is_empty() { 0 } else { meta.seek(&self.range.start) };
        let to = match &self.range.end {
            Some(end) => meta.seek_before(end).map_or(0, |last| last + 1),
            None => meta.block_count(),
        };
        from..to.max(from)
    }
}

/// Blocks `from..to` that lie in one window, and the window: at least one block, none from `end` on.
fn window(meta: &TableMeta, from: usize, end: usize, bytes: u64) -> (usize, Range<u64>) {
    let start = meta.block_range(from).start;
    let mut last = meta.block_range(from).end;
    let mut to = from + 1;
    while to < end && meta.block_range(to).end - start <= bytes {
        last = meta.block_range(to).end;
        to += 1;
    }
    (to, start..last)
}

/// A table's metadata, verified.
///
/// # Errors
/// [`JobError::Store`], [`JobError::Damaged`].
pub(crate) async fn read_meta(db: &Database, table: &TableEntry) -> Result<TableMeta, JobError> {
    let path = table.path();
    let tail = db.bucket.get_range(&path, table.meta_offset..table.len).await?;
    TableMeta::decode(tail, table.meta_offset).map_err(|e| damaged(&path, e))
}

pub(super) fn damaged(path: &ObjectPath, error: FormatError) -> JobError {
    JobError::Damaged { object: path.to_string(), error }
}
