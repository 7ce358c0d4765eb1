//! One sorted run as a merge's source: its tables' blocks in key order, fetched ahead in large ranged GETs.
//!
//! Each source has a task that stays at most one window ahead of the merge: while the merge works through one window
//! the next is on its way, and a slow store makes the merge wait rather than memory grow.

use std::sync::Arc;

use isle_storage::database::Database;
use isle_storage::format::FormatError;
use isle_storage::manifest::{Run, TableEntry};
use isle_storage::names::ObjectPath;
use isle_storage::sst::{Block, TableMeta};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::error::JobError;

/// Windows waiting beside the one in use.
const WINDOWS_AHEAD: usize = 1;

/// A run being read. Dropping it stops its task.
#[derive(Debug)]
pub struct Source {
    windows: mpsc::Receiver<Result<Vec<Block>, JobError>>,
    ready: std::vec::IntoIter<Block>,
    _task: AbortOnDropHandle<()>,
}

impl Source {
    /// Starts reading `run` from its first block on, `window_bytes` at a time.
    #[must_use]
    pub fn open(db: &Database, run: &Arc<Run>, window_bytes: u64) -> Self {
        let (tx, windows) = mpsc::channel(WINDOWS_AHEAD);
        let (db, run) = (db.clone(), Arc::clone(run));
        let task = tokio::spawn(async move {
            if let Err(error) = read(&db, &run, window_bytes, &tx).await {
                // The merge may have ended first; then nobody asks any more.
                let _ = tx.send(Err(error)).await;
            }
        });
        Self { windows, ready: Vec::new().into_iter(), _task: AbortOnDropHandle::new(task) }
    }

    /// The next block, or `None` at the end of the run.
    ///
    /// # Errors
    /// [`JobError::Store`], [`JobError::Damaged`].
    pub async fn next(&mut self) -> Result<Option<Block>, JobError> {
        loop {
            if let Some(block) = self.ready.next() {
                return Ok(Some(block));
            }
            match self.windows.recv().await {
                Some(window) => self.ready = window?.into_iter(),
                None => return Ok(None),
            }
        }
    }
}

type Windows = mpsc::Sender<Result<Vec<Block>, JobError>>;

async fn read(db: &Database, run: &Run, window_bytes: u64, tx: &Windows) -> Result<(), JobError> {
    for table in &run.tables {
        let meta = read_meta(db, table).await?;
        let path = table.path();
        let mut from = 0;
        while from < meta.block_count() {
            let (to, window) = window(&meta, from, window_bytes);
            let bytes = db.bucket.get_range(&path, window.clone()).await?;
            let mut blocks = Vec::with_capacity(to - from);
            for i in from..to {
                let at = meta.block_range(i);
                let stored =
                    bytes.slice((at.start - window.start) as usize..(at.end - window.start) as usize);
                blocks.push(Block::decode(&stored).map_err(|e| damaged(&path, e))?);
            }
            if tx.send(Ok(blocks)).await.is_err() {
                return Ok(());
            }
            from = to;
        }
    }
    Ok(())
}

/// Blocks `from..to` that lie in one window, and the window: at least one block.
fn window(meta: &TableMeta, from: usize, bytes: u64) -> (usize, std::ops::Range<u64>) {
    let start = meta.block_range(from).start;
    let mut end = meta.block_range(from).end;
    let mut to = from + 1;
    while to < meta.block_count() && meta.block_range(to).end - start <= bytes {
        end = meta.block_range(to).end;
        to += 1;
    }
    (to, start..end)
}

async fn read_meta(db: &Database, table: &TableEntry) -> Result<TableMeta, JobError> {
    let path = table.path();
    let tail = db.bucket.get_range(&path, table.meta_offset..table.len).await?;
    TableMeta::decode(tail, table.meta_offset).map_err(|e| damaged(&path, e))
}

fn damaged(path: &ObjectPath, error: FormatError) -> JobError {
    JobError::Damaged { object: path.to_string(), error }
}
