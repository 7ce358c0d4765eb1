//! One in-memory generation: a concurrent skip list over rows that stay where their log blocks hold them.
//!
//! The list orders by (key ascending, sequence number descending) and points into the decoded blocks, so a value is
//! never copied. It only ever grows: a view bounds what it sees by its own sequence number, so that rows applied for
//! the next view are invisible to this one. The same row applied twice (from two sources) is one entry.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use crossbeam_skiplist::map::Entry;
use isle_storage::ids::SeqNo;
use isle_storage::log::RawBlock;
use isle_storage::merge::{Direction, Feed};
use isle_storage::row::{BlobPointer, Row, RowRef, Value, ValueRef};

use isle_storage::range::KeyRange;

/// What one entry of the list costs beyond the block it points into: key, place, links; measured, rounded up.
const ENTRY_BYTES: u64 = 128;

/// Rows applied before the task lets others run.
const ROWS_PER_TURN: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
struct RowKey {
    key: Bytes,
    seq: SeqNo,
}

impl Ord for RowKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key).then_with(|| other.seq.cmp(&self.seq))
    }
}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Where a row lies.
#[derive(Debug)]
struct Place {
    block: Arc<RawBlock>,
    offset: u32,
}

impl Place {
    fn row(&self, key: &RowKey) -> Row {
        let row = self.block.row_at(self.offset, key.seq);
        Row {
            key: key.key.clone(),
            seq: key.seq,
            time: row.time,
            expires: row.expires,
            value: self.value(&row),
        }
    }

    fn value(&self, row: &RowRef<'_>) -> Value {
        match row.value {
            ValueRef::Put(v) => Value::Put(self.block.raw.slice_ref(v)),
            ValueRef::Delete => Value::Delete,
            ValueRef::Blob(p) => {
                Value::Blob(BlobPointer { blob: p.blob.to_owned(), offset: p.offset, len: p.len, crc: p.crc })
            }
        }
    }
}

/// A sorted set of unflushed rows: every row of the log from its first to its last number.
#[derive(Debug)]
pub(crate) struct Generation {
    rows: SkipMap<RowKey, Place>,
    first_seq: SeqNo,
    last_seq: AtomicU64,
    bytes: AtomicU64,
}

impl Generation {
    /// An empty generation whose first row will be `first_seq`.
    pub(crate) fn new(first_seq: SeqNo) -> Self {
        Self {
            rows: SkipMap::new(),
            first_seq,
            last_seq: AtomicU64::new(first_seq.0.saturating_sub(1)),
            bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn first_seq(&self) -> SeqNo {
        self.first_seq
    }

    pub(crate) fn last_seq(&self) -> SeqNo {
        SeqNo(self.last_seq.load(Atomic::Acquire))
    }

    /// Memory taken, about: the blocks and the list over them.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Atomic::Relaxed)
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Adds a block's rows; the blocks of one generation come in sequence order. Views that do not reach so far do
    /// not see them.
    pub(crate) async fn apply(&self, block: RawBlock) {
        let block = Arc::new(block);
        let mut turn = 0;
        for (offset, row) in block.rows_with_offsets() {
            let key = RowKey { key: block.raw.slice_ref(row.key), seq: row.seq };
            self.rows.insert(key, Place { block: Arc::clone(&block), offset });
            turn += 1;
            if turn == ROWS_PER_TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
        let cost = block.memory() as u64 + u64::from(block.count) * ENTRY_BYTES;
        self.bytes.fetch_add(cost, Atomic::Relaxed);
        self.last_seq.fetch_max(block.last_seq().0, Atomic::Release);
    }

    /// The newest row of `key` with a number at or below `max_seq`.
    pub(crate) fn get(&self, key: &Bytes, max_seq: SeqNo) -> Option<Row> {
        let probe = RowKey { key: key.clone(), seq: max_seq };
        let entry = self.rows.lower_bound(Bound::Included(&probe))?;
        (entry.key().key == *key).then(|| entry.value().row(entry.key()))
    }
}

/// A generation as a source of a scan: rows of a range in one direction, handed out in batches that grow.
#[derive(Debug)]
pub(crate) struct MemorySource {
    generation: Arc<Generation>,
    range: KeyRange,
    direction: Direction,
    max_seq: SeqNo,
    /// The last row handed out.
    last: Option<RowKey>,
    batch: usize,
}

/// Rows of a source's first batch, and of its largest.
const FIRST_BATCH: usize = 32;
const LARGEST_BATCH: usize = 512;

/// Rows above the view that one batch steps over at most, so that a scan at an old view yields now and then.
const SKIPS_PER_BATCH: usize = 16 * LARGEST_BATCH;

impl MemorySource {
    pub(crate) fn new(
        generation: Arc<Generation>,
        range: KeyRange,
        direction: Direction,
        max_seq: SeqNo,
    ) -> Self {
        Self { generation, range, direction, max_seq, last: None, batch: FIRST_BATCH }
    }

    /// The next rows, or the end.
    pub(crate) fn next_feed(&mut self) -> Feed {
        let mut rows = Vec::with_capacity(self.batch);
        let mut skipped = 0;
        let mut last = None;
        {
            let mut entry = self.seek();
            while let Some(at) = entry.take_if(|e| self.admits(&e.key().key)) {
                if at.key().seq <= self.max_seq {
                    rows.push(at.value().row(at.key()));
                } else {
                    skipped += 1;
                }
                if rows.len() == self.batch || (skipped >= SKIPS_PER_BATCH && !rows.is_empty()) {
                    last = Some(at.key().clone());
                    break;
                }
                entry = match self.direction {
                    Direction::Forward => at.next(),
                    Direction::Reverse => at.prev(),
                };
            }
        }
        if rows.is_empty() {
            return Feed::End;
        }
        // Without a last row the range is used up: the next call seeks behind the rows just given and finds nothing.
        self.last = last.or_else(|| rows.last().map(|r| RowKey { key: r.key.clone(), seq: r.seq }));
        self.batch = (self.batch * 2).min(LARGEST_BATCH);
        Feed::Rows(rows)
    }

    fn admits(&self, key: &Bytes) -> bool {
        match self.direction {
            Direction::Forward => self.range.end.as_ref().is_none_or(|end| key < end),
            Direction::Reverse => *key >= self.range.start,
        }
    }

    fn seek(&self) -> Option<Entry<'_, RowKey, Place>> {
        let rows = &self.generation.rows;
        match (self.direction, &self.last) {
            (Direction::Forward, Some(last)) => rows.lower_bound(Bound::Excluded(last)),
            (Direction::Reverse, Some(last)) => rows.upper_bound(Bound::Excluded(last)),
            (Direction::Forward, None) => {
                let first = RowKey { key: self.range.start.clone(), seq: SeqNo(u64::MAX) };
                rows.lower_bound(Bound::Included(&first))
            }
            (Direction::Reverse, None) => match &self.range.end {
                // The largest number sorts first among a key's versions, so this lies before all of them.
                Some(end) => {
                    let end = RowKey { key: end.clone(), seq: SeqNo(u64::MAX) };
                    rows.upper_bound(Bound::Excluded(&end))
                }
                None => rows.back(),
            },
        }
    }
}
