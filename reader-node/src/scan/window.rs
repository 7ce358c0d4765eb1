//! A run as a source of a scan: its tables one after the other, their blocks in windows.
//!
//! A window is a row of neighbouring blocks fetched by one ranged GET. The first is as large as the scan's limit
//! makes likely, each later one twice the one before up to the read-ahead setting, and never much more than the rows
//! still wanted take. From the second window on, the next one is fetched while this one is consumed.
//!
//! ```text
//!   table:   | b0 | b1 | b2 | b3 | b4 | b5 | b6 | b7 | …
//!   windows:  ─w1─ ───w2──── ────────w3─────────           (forward)
//! ```
//! The first part of a scan is kept in the cache, so that a short scan repeated is warm; the rest of a long one goes
//! past it, so that it does not wash out what gets use. Where all scans together have used up the read-ahead budget,
//! windows shrink to single blocks.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use isle_storage::merge::{Direction, Feed};
use isle_storage::sst::{Block, BlockCursor, TableMeta};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::AbortOnDropHandle;

use crate::tables::{FetchError, Reads, RunTables, Table, Window};
use isle_storage::range::KeyRange;

/// A scan's first window where nothing is known of its limit.
const FIRST_WINDOW: u64 = 64 << 10;

/// Bytes of a run that a scan leaves in the cache.
const CACHED_PER_SCAN: u64 = 256 << 10;

/// A table being read: which blocks of the range are still to come.
#[derive(Debug)]
struct Open {
    table: Arc<Table>,
    meta: Arc<TableMeta>,
    blocks: Range<usize>,
}

/// The tables of one run that reach into a range, block by block.
#[derive(Debug)]
pub(super) struct RunSource {
    reads: Arc<Reads>,
    range: KeyRange,
    direction: Direction,
    /// Tables not opened yet, in the scan's direction.
    tables: VecDeque<Arc<Table>>,
    open: Option<Open>,
    /// Fetched blocks in the scan's direction, with their share of the read-ahead budget.
    ready: VecDeque<Block>,
    permit: Option<OwnedSemaphorePermit>,
    ahead: Option<AbortOnDropHandle<Result<Window, FetchError>>>,
    window: u64,
    largest: u64,
    fetched: u64,
    windows: u32,
    /// Whether a row inside the range was reached: from then on blocks are read from their edge.
    inside: bool,
}

impl RunSource {
    pub(super) fn new(
        reads: &Arc<Reads>,
        run: &RunTables,
        range: &KeyRange,
        direction: Direction,
        largest: u64,
    ) -> Option<Self> {
        let from = run.tables.partition_point(|t| t.entry.largest.as_slice() < range.start.as_ref());
        let to = match &range.end {
            Some(end) => run.tables.partition_point(|t| t.entry.smallest.as_slice() < end.as_ref()),
            None => run.tables.len(),
        };
        let mut tables: VecDeque<_> = run.tables.get(from..to)?.iter().cloned().collect();
        if direction == Direction::Reverse {
            tables.make_contiguous().reverse();
        }
        (!tables.is_empty()).then(|| Self {
            reads: Arc::clone(reads),
            range: range.clone(),
            direction,
            tables,
            open: None,
            ready: VecDeque::new(),
            permit: None,
            ahead: None,
            window: FIRST_WINDOW.min(largest),
            largest,
            fetched: 0,
            windows: 0,
            inside: false,
        })
    }

    pub(super) async fn next_feed(&mut self, rows_wanted: usize) -> Result<Feed, FetchError> {
        loop {
            if let Some(feed) = self.ready_block() {
                return Ok(feed);
            }
            if !self.refill(rows_wanted).await? {
                return Ok(Feed::End);
            }
        }
    }

    /// The next rows without any waiting.
    pub(super) fn feed_at_hand(&mut self) -> Option<Feed> {
        if let Some(feed) = self.ready_block() {
            return Some(feed);
        }
        let is_open = self.open.as_ref().is_some_and(|o| !o.blocks.is_empty());
        (!is_open && self.tables.is_empty() && self.ahead.is_none()).then_some(Feed::End)
    }

    fn ready_block(&mut self) -> Option<Feed> {
        while let Some(block) = self.ready.pop_front() {
            let cursor = self.position(&block);
            if cursor.row().is_some() {
                self.inside = true;
                return Some(Feed::Block(cursor));
            }
        }
        None
    }

    fn position(&self, block: &Block) -> BlockCursor {
        let mut cursor = block.cursor();
        match (self.direction, &self.range.end) {
            (Direction::Forward, _) if self.inside => cursor.first(),
            (Direction::Forward, _) => cursor.seek(&self.range.start),
            (Direction::Reverse, Some(end)) if !self.inside => cursor.seek_before(end),
            (Direction::Reverse, _) => cursor.last(),
        }
        cursor
    }

    /// Gets more blocks ready; false at the run's end.
    async fn refill(&mut self, rows_wanted: usize) -> Result<bool, FetchError> {
        if let Some(ahead) = self.ahead.take() {
            let window = match ahead.await {
                Ok(result) => result?,
                Err(e) => return Err(FetchError::Store(format!("the read was cut off: {e}"))),
            };
            self.accept(window, rows_wanted);
            return Ok(true);
        }
        if !self.open_table().await? {
            return Ok(false);
        }
        let Some(open) = &self.open else { return Ok(false) };
        let first = match self.direction {
            Direction::Forward => open.blocks.start,
            Direction::Reverse => open.blocks.end - 1,
        };
        let at_hand = self.reads.cached_block(&open.table, first);
        if let Some(block) = at_hand {
            self.take_blocks(1);
            self.ready.push_back(block);
            return Ok(true);
        }
        let Some((table, meta, blocks)) = self.plan(rows_wanted) else { return Ok(false) };
        let window = read(&self.reads, &table, &meta, blocks, self.fetched).await?;
        self.accept(window, rows_wanted);
        Ok(true)
    }

    /// Makes sure a table with blocks to come is open; false where there is none.
    async fn open_table(&mut self) -> Result<bool, FetchError> {
        while self.open.as_ref().is_none_or(|o| o.blocks.is_empty()) {
            let Some(table) = self.tables.pop_front() else { return Ok(false) };
            let meta = match self.reads.cached_meta(&table) {
                Some(meta) => meta,
                None => self.reads.meta(&table).await?,
            };
            let blocks = self.blocks_in_range(&meta);
            self.open = Some(Open { table, meta, blocks });
        }
        Ok(true)
    }

    fn blocks_in_range(&self, meta: &TableMeta) -> Range<usize> {
        let from = meta.seek(&self.range.start);
        let to = match &self.range.end {
            Some(end) => meta.seek_before(end).map_or(0, |last| last + 1),
            None => meta.block_count(),
        };
        from..to.max(from)
    }

    /// The next window of the open table, taken off what is to come.
    fn plan(&mut self, rows_wanted: usize) -> Option<(Arc<Table>, Arc<TableMeta>, Range<usize>)> {
        let open = self.open.as_ref().filter(|o| !o.blocks.is_empty())?;
        let entry = &open.table.entry;
        let row_bytes = (entry.meta_offset / entry.rows.max(1)).max(1);
        let wanted = row_bytes.saturating_mul(rows_wanted as u64);
        let budget = self.window.min(wanted);
        let mut bytes = 0;
        let mut count = 0;
        while count < open.blocks.len() {
            let i = match self.direction {
                Direction::Forward => open.blocks.start + count,
                Direction::Reverse => open.blocks.end - 1 - count,
            };
            let at = open.meta.block_range(i);
            bytes += at.end - at.start;
            if count > 0 && (bytes > budget || !self.reads.may_read_ahead(bytes)) {
                break;
            }
            count += 1;
        }
        let (table, meta) = (Arc::clone(&open.table), Arc::clone(&open.meta));
        let blocks = self.take_blocks(count);
        self.window = (self.window * 2).min(self.largest);
        self.windows += 1;
        Some((table, meta, blocks))
    }

    fn take_blocks(&mut self, count: usize) -> Range<usize> {
        let Some(open) = &mut self.open else { return 0..0 };
        match self.direction {
            Direction::Forward => {
                let from = open.blocks.start;
                open.blocks.start += count;
                from..open.blocks.start
            }
            Direction::Reverse => {
                let to = open.blocks.end;
                open.blocks.end -= count;
                open.blocks.end..to
            }
        }
    }

    fn accept(&mut self, window: Window, rows_wanted: usize) {
        let mut rows = 0;
        for block in &window.blocks {
            rows += block.len();
            self.fetched += block.memory() as u64;
        }
        self.permit = window.permit;
        match self.direction {
            Direction::Forward => self.ready.extend(window.blocks),
            Direction::Reverse => self.ready.extend(window.blocks.into_iter().rev()),
        }
        if self.windows > 1 && rows < rows_wanted {
            self.read_ahead(rows_wanted - rows);
        }
    }

    /// Starts on the next window while this one is consumed.
    fn read_ahead(&mut self, rows_wanted: usize) {
        let Some((table, meta, blocks)) = self.plan(rows_wanted) else { return };
        let (reads, fetched) = (Arc::clone(&self.reads), self.fetched);
        let task = async move { read(&reads, &table, &meta, blocks, fetched).await };
        self.ahead = Some(AbortOnDropHandle::new(tokio::spawn(task)));
    }
}

async fn read(
    reads: &Arc<Reads>,
    table: &Table,
    meta: &TableMeta,
    blocks: Range<usize>,
    fetched: u64,
) -> Result<Window, FetchError> {
    if blocks.len() == 1 && fetched < CACHED_PER_SCAN {
        let block = reads.block(table, meta, blocks.start).await?;
        return Ok(Window { blocks: vec![block], permit: None });
    }
    reads.window(table, meta, blocks, fetched < CACHED_PER_SCAN).await
}
