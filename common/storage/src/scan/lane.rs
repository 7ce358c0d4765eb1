//! A lane being read: the stored blocks of its tables in key order, fetched ahead in large ranged GETs by a task of its
//! own, which stays at most one window ahead. Blocks are opened by whoever merges them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::ScanError;
use crate::database::Database;
use crate::environment::Offload;
use crate::format::FormatError;
use crate::manifest::{KeyRange, TableEntry};
use crate::names::ObjectPath;
use crate::object::Bucket;
use crate::sst::TableMeta;

/// Windows waiting beside the one in use.
const WINDOWS_AHEAD: usize = 1;

/// Windows of one lane that are in memory at most: in use, waiting, and being fetched.
pub(super) const WINDOWS: u64 = WINDOWS_AHEAD as u64 + 2;

/// Tables of one scan whose metadata is in memory at once, until the places of their blocks have been read off.
const OPENINGS: usize = 8;

/// Metadata above this is decoded off the async threads.
const DECODE_INLINE: usize = 64 << 10;

/// Stored blocks of one table, one after the other.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) table: ObjectPath,
    pub(super) bytes: Bytes,
    /// Where each block lies in `bytes`.
    pub(super) blocks: std::vec::IntoIter<Range<usize>>,
}

/// What the lanes of a scan have in common.
#[derive(Debug)]
pub(super) struct Reading {
    bucket: Arc<dyn Bucket>,
    offload: Offload,
    range: KeyRange,
    window_bytes: u64,
    openings: Semaphore,
}

/// A lane. Dropping it stops its task.
#[derive(Debug)]
pub(super) struct Lane {
    windows: mpsc::Receiver<Result<Window, ScanError>>,
    _task: AbortOnDropHandle<()>,
}

impl Lane {
    /// Starts reading `tables`, which ascend and share no key.
    pub(super) fn open(reading: &Arc<Reading>, tables: Vec<Arc<TableEntry>>) -> Self {
        let (tx, windows) = mpsc::channel(WINDOWS_AHEAD);
        let reading = Arc::clone(reading);
        let task = tokio::spawn(async move {
            if let Err(error) = reading.read(&tables, &tx).await {
                // The scan may have ended first; then nobody asks any more.
                let _ = tx.send(Err(error)).await;
            }
        });
        Self { windows, _task: AbortOnDropHandle::new(task) }
    }

    /// The next window, or `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Window>, ScanError> {
        self.windows.recv().await.transpose()
    }
}

/// Where neighbouring blocks lie: the first byte, and each one's length.
#[derive(Debug, Default)]
struct Places {
    start: u64,
    lens: Vec<u32>,
}

impl Places {
    /// Those of the blocks that may hold keys of `range`.
    fn of(meta: &TableMeta, range: &KeyRange) -> Self {
        let from = if range.start.is_empty() { 0 } else { meta.seek(&range.start) };
        let to = match &range.end {
            Some(end) => meta.seek_before(end).map_or(0, |last| last + 1),
            None => meta.block_count(),
        };
        let len = |i| {
            let at = meta.block_range(i);
            u32::try_from(at.end - at.start).unwrap_or(u32::MAX)
        };
        Self { start: meta.block_range(from).start, lens: (from..to.max(from)).map(len).collect() }
    }
}

impl Reading {
    pub(super) fn new(db: &Database, range: &KeyRange, window_bytes: u64) -> Self {
        Self {
            bucket: Arc::clone(&db.bucket),
            offload: db.env.offload,
            range: range.clone(),
            window_bytes,
            openings: Semaphore::new(OPENINGS),
        }
    }

    async fn read(
        &self,
        tables: &[Arc<TableEntry>],
        tx: &mpsc::Sender<Result<Window, ScanError>>,
    ) -> Result<(), ScanError> {
        for table in tables {
            let path = table.path();
            let Places { mut start, lens } = self.places(table, &path).await?;
            let mut rest = lens.as_slice();
            while !rest.is_empty() {
                let (blocks, len) = window(rest, self.window_bytes);
                rest = &rest[blocks.len()..];
                let bytes = self.bucket.get_range(&path, start..start + len).await?;
                start += len;
                let window = Window { table: path.clone(), bytes, blocks: blocks.into_iter() };
                if tx.send(Ok(window)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Opens a table, as far as a scan needs it.
    async fn places(&self, table: &Arc<TableEntry>, path: &ObjectPath) -> Result<Places, ScanError> {
        // The semaphore is never closed: without a permit the memory would only be bounded less.
        let _permit = self.openings.acquire().await.ok();
        let tail = self.bucket.get_range(path, table.meta_offset..table.len).await?;
        let (entry, range) = (Arc::clone(table), self.range.clone());
        let inline = tail.len() <= DECODE_INLINE;
        let decode = move || decode(&entry, tail, &range);
        let places = match inline {
            true => decode(),
            false => self.offload.run(decode).await.map_err(|e| ScanError::CutOff(e.to_string()))?,
        };
        places.map_err(|e| ScanError::damaged(path, e))
    }
}

fn decode(table: &TableEntry, tail: Bytes, range: &KeyRange) -> Result<Places, FormatError> {
    if crc32c::crc32c(&tail) != table.crc {
        return Err(FormatError::damaged("table", "its metadata is not what the manifest names"));
    }
    Ok(Places::of(&TableMeta::decode(tail, table.meta_offset)?, range))
}

/// The first of `lens` that fit one window, at least one: where each lies in it, and its length.
fn window(lens: &[u32], bytes: u64) -> (Vec<Range<usize>>, u64) {
    let (mut blocks, mut end) = (Vec::new(), 0u64);
    for len in lens {
        let next = end + u64::from(*len);
        if next > bytes && !blocks.is_empty() {
            break;
        }
        blocks.push(end as usize..next as usize);
        end = next;
    }
    (blocks, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_what_fits_and_at_least_one_block() {
        let shown = |lens: &[u32], bytes| {
            let (blocks, len) = window(lens, bytes);
            (blocks.iter().map(|b| (b.start, b.end)).collect::<Vec<_>>(), len)
        };
        assert_eq!(shown(&[10, 10, 10], 20), (vec![(0, 10), (10, 20)], 20));
        assert_eq!(shown(&[10, 10, 10], 29), (vec![(0, 10), (10, 20)], 20));
        assert_eq!(shown(&[50, 10], 20), (vec![(0, 50)], 50));
        assert_eq!(shown(&[7], 1), (vec![(0, 7)], 7));
    }
}
