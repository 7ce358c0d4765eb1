//! Tables: rows sorted by (key ascending, sequence number descending).

use std::ops::Range;

use bytes::Bytes;

use crate::format::{Compression, FormatError};
use crate::ids::SeqNo;
use crate::manifest::TableEntry;
use crate::object::Body;
use crate::row::RowRef;

/// How a table is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableOptions {
    /// A data block is closed at about this many bytes of rows.
    pub block_bytes: usize,
    /// How data blocks are compressed.
    pub compression: Compression,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self { block_bytes: 16 * 1024, compression: Compression::Lz4 }
    }
}

/// Builds one table from rows pushed in (key ascending, seq descending) order.
#[derive(Debug)]
pub struct TableBuilder {}

impl TableBuilder {
    /// An empty table.
    #[must_use]
    pub fn new(_options: TableOptions) -> Self {
        todo!()
    }

    /// Appends the next row; panics in debug builds where the order is broken.
    pub fn push(&mut self, _row: RowRef<'_>) {
        todo!()
    }

    /// Bytes the finished table will take, about.
    #[must_use]
    pub fn estimated_len(&self) -> u64 {
        todo!()
    }

    /// Whether no row was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        todo!()
    }

    /// The key pushed last, so that a split never parts the versions of one key.
    #[must_use]
    pub fn last_key(&self) -> Option<&[u8]> {
        todo!()
    }

    /// Finishes the table under `name` (`<owner>-<n>`). Must not be empty.
    #[must_use]
    pub fn finish(self, _name: &str) -> EncodedTable {
        todo!()
    }
}

/// An encoded table with the entry the manifest will name it by.
#[derive(Debug, Clone)]
pub struct EncodedTable {
    /// The object.
    pub body: Body,
    /// Its manifest entry.
    pub entry: TableEntry,
}

/// A table's decoded metadata: filter, index, properties.
#[derive(Debug)]
pub struct TableMeta {}

impl TableMeta {
    /// Decodes the object's bytes from `meta_offset` to its end; all of it is checked. A damaged filter alone leaves
    /// a table that answers "may contain" to everything.
    ///
    /// # Errors
    /// [`FormatError`] where index, properties or footer are damaged.
    pub fn decode(_tail: Bytes, _meta_offset: u64) -> Result<Self, FormatError> {
        todo!()
    }

    /// Whether the filter admits `key`. False means certainly absent.
    #[must_use]
    pub fn may_contain(&self, _key: &[u8]) -> bool {
        todo!()
    }

    /// Number of data blocks.
    #[must_use]
    pub fn block_count(&self) -> usize {
        todo!()
    }

    /// Where data block `i` lies in the object.
    #[must_use]
    pub fn block_range(&self, _i: usize) -> Range<u64> {
        todo!()
    }

    /// The block where a row with a key at or above `key` is first found (versions of one key may straddle blocks:
    /// the first of them); `block_count()` where there is none.
    #[must_use]
    pub fn seek(&self, _key: &[u8]) -> usize {
        todo!()
    }

    /// The last block that may hold a key below `key` (for reverse scans from an exclusive end); `None` where there
    /// is none.
    #[must_use]
    pub fn seek_before(&self, _key: &[u8]) -> Option<usize> {
        todo!()
    }

    /// Memory this metadata takes, in bytes, for a cache's budget.
    #[must_use]
    pub fn memory(&self) -> usize {
        todo!()
    }
}

/// A decoded data block.
#[derive(Debug, Clone)]
pub struct Block {}

impl Block {
    /// Decodes and validates a stored block.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(_stored: &Bytes) -> Result<Self, FormatError> {
        todo!()
    }

    /// The newest row of `key` with a number at or below `max_seq`.
    /// `Lookup::Next` where this block ends inside the key's versions, all of them above `max_seq`.
    #[must_use]
    pub fn get(&self, _key: &[u8], _max_seq: SeqNo) -> Lookup {
        todo!()
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether there is no row (never, for a valid block).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A cursor before the first row.
    #[must_use]
    pub fn cursor(&self) -> BlockCursor {
        todo!()
    }

    /// Memory this block takes, in bytes, for a cache's budget.
    #[must_use]
    pub fn memory(&self) -> usize {
        todo!()
    }
}

/// What a block says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The newest admissible row. The value shares no memory with its neighbours beyond the block itself.
    Found(crate::row::Row),
    /// Not in this block, and the next block need not be asked.
    Absent,
    /// The key's versions may go on in the next block.
    Next,
}

/// A position in a block that moves both ways. Owns a cheap clone of the block. A cursor is either on a row or off
/// (before the first or past the last); `row()` is `None` when off: never a stale row.
#[derive(Debug, Clone)]
pub struct BlockCursor {}

impl BlockCursor {
    /// The row under the cursor.
    #[must_use]
    pub fn row(&self) -> Option<RowRef<'_>> {
        todo!()
    }

    /// Moves to the first row.
    pub fn first(&mut self) {
        todo!()
    }

    /// Moves to the last row.
    pub fn last(&mut self) {
        todo!()
    }

    /// Moves to the first row with a key at or above `key`.
    pub fn seek(&mut self, _key: &[u8]) {
        todo!()
    }

    /// Moves to the last row with a key below `key`.
    pub fn seek_before(&mut self, _key: &[u8]) {
        todo!()
    }

    /// Moves one row on (key ascending, seq descending). From before the first row: to the first.
    pub fn next(&mut self) {
        todo!()
    }

    /// Moves one row back. From past the last row: to the last.
    pub fn prev(&mut self) {
        todo!()
    }
}
