//! The engine of a scan: stored blocks in, visible rows out. No I/O and no waiting, so it runs wherever it is put.

use std::collections::VecDeque;

use bytes::Bytes;

use super::ScanError;
use super::lane::Window;
use crate::ids::{SeqNo, Timestamp};
use crate::manifest::KeyRange;
use crate::merge::{Direction, Feed, Merge, Step, Visibility, Visible};
use crate::row::{BlobPointer, Row, RowRef, Value, ValueRef};
use crate::sst::Block;

/// Bytes of keys and values after which a batch of rows is handed out, or [`super::ScanBounds::read_bytes`] where those are
/// fewer.
pub const BATCH_BYTES: u64 = 256 << 10;

/// Steps of one turn at most: a few milliseconds.
const STEPS_PER_TURN: u32 = 8192;

/// Why a turn has ended.
#[derive(Debug)]
pub(super) enum Turn {
    /// Lane `.0` wants its next window, or its end.
    Needs(usize),
    /// Rows are ready.
    Batch(Vec<Row>),
    /// It has run long enough.
    Breath,
    /// Every source has ended, and every row has been handed out.
    Done,
}

/// A merge of lanes and of sorted rows in memory.
#[derive(Debug)]
pub(super) struct Engine {
    rows: Visible,
    lanes: Vec<Waiting>,
    start: Bytes,
    batch: Batch,
    batch_bytes: u64,
}

/// What was fetched of one lane and not yet opened.
#[derive(Debug, Default)]
struct Waiting {
    windows: VecDeque<Window>,
    ended: bool,
    /// Whether a row inside the range was reached: before, blocks may begin below it.
    inside: bool,
}

impl Engine {
    /// A merge of `lanes` lanes and of `memory`, sorted; batches of about `batch_bytes`.
    pub(super) fn new(
        lanes: usize,
        memory: Vec<Row>,
        range: &KeyRange,
        at: Visibility,
        batch_bytes: u64,
    ) -> Self {
        let merge = Merge::new(lanes + 1, Direction::Forward).bounded(range.end.clone());
        let mut rows = Visible::new(merge, at);
        rows.feed(lanes, Feed::Rows(memory));
        rows.feed(lanes, Feed::End);
        Self {
            rows,
            lanes: (0..lanes).map(|_| Waiting::default()).collect(),
            start: range.start.clone(),
            batch: Batch::default(),
            batch_bytes,
        }
    }

    /// Gives lane `i` its next window; `None` is its end.
    pub(super) fn feed(&mut self, i: usize, window: Option<Window>) {
        let lane = &mut self.lanes[i];
        match window {
            Some(window) => lane.windows.push_back(window),
            None => lane.ended = true,
        }
    }

    /// Goes on until something is needed, ready, or long enough.
    pub(super) fn turn(&mut self) -> Result<Turn, ScanError> {
        for _ in 0..STEPS_PER_TURN {
            match self.rows.step() {
                Step::Need(i) => {
                    if !self.open_next(i)? {
                        return Ok(Turn::Needs(i));
                    }
                }
                Step::Row => {
                    if let Some(row) = self.rows.row() {
                        self.batch.push(&row);
                    }
                    self.rows.pop();
                    if self.batch.weight >= self.batch_bytes {
                        return Ok(Turn::Batch(self.batch.take()));
                    }
                }
                Step::Done if self.batch.rows.is_empty() => return Ok(Turn::Done),
                Step::Done => return Ok(Turn::Batch(self.batch.take())),
            }
        }
        Ok(Turn::Breath)
    }

    /// Opens the next block of lane `i`, or tells the merge its end; false where its next window must come first.
    fn open_next(&mut self, i: usize) -> Result<bool, ScanError> {
        let lane = &mut self.lanes[i];
        loop {
            let Some(window) = lane.windows.front_mut() else {
                if lane.ended {
                    self.rows.feed(i, Feed::End);
                }
                return Ok(lane.ended);
            };
            let Some(at) = window.blocks.next() else {
                lane.windows.pop_front();
                continue;
            };
            let block = Block::decode_shared(&window.bytes.slice(at))
                .map_err(|e| ScanError::damaged(&window.table, e))?;
            let mut cursor = block.cursor();
            if lane.inside || self.start.is_empty() {
                cursor.first();
            } else {
                cursor.seek(&self.start);
                lane.inside = cursor.is_on();
            }
            self.rows.feed(i, Feed::Block(cursor));
            return Ok(true);
        }
    }
}

/// Rows being gathered: their bytes one after the other in one buffer, which they share.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    rows: Vec<Gathered>,
    /// Bytes of keys and values, those in blob files included.
    weight: u64,
}

#[derive(Debug)]
struct Gathered {
    /// Where its key ends in the buffer; it begins where the row before ended.
    key_end: usize,
    end: usize,
    seq: SeqNo,
    time: Timestamp,
    expires: Option<Timestamp>,
    blob: Option<BlobPointer>,
}

impl Batch {
    fn push(&mut self, row: &RowRef<'_>) {
        let before = self.bytes.len();
        self.bytes.extend_from_slice(row.key);
        let key_end = self.bytes.len();
        let mut blob = None;
        match row.value {
            ValueRef::Put(value) => self.bytes.extend_from_slice(value),
            ValueRef::Blob(pointer) => {
                self.weight += pointer.len;
                blob = Some(pointer.to_owned());
            }
            ValueRef::Delete => {}
        }
        let end = self.bytes.len();
        self.weight += (end - before) as u64;
        self.rows.push(Gathered { key_end, end, seq: row.seq, time: row.time, expires: row.expires, blob });
    }

    fn take(&mut self) -> Vec<Row> {
        let Self { bytes, rows, .. } = std::mem::take(self);
        let bytes = Bytes::from(bytes);
        let mut start = 0;
        let row = |g: Gathered| {
            let key = bytes.slice(start..g.key_end);
            let value = match g.blob {
                Some(pointer) => Value::Blob(pointer),
                None => Value::Put(bytes.slice(g.key_end..g.end)),
            };
            start = g.end;
            Row { key, seq: g.seq, time: g.time, expires: g.expires, value }
        };
        rows.into_iter().map(row).collect()
    }
}
