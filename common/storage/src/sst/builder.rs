//! Builds a table: rows in, an object's pieces and its manifest entry out.
//!
//! A row is copied into the open block, whose buffer stays in the processor's cache, and from there, compressed where
//! that gains, into a large piece of the body. Pieces are few and of one size, so that the memory of the tables before
//! is found again; a buffer for each block would be memory the system has to clear anew. Nothing is concatenated at
//! the end, and nothing at the front waits for it: what a table says of itself stands behind its blocks, so finished
//! pieces can be taken, and sent, while the table is still open.
//!
//! A block is closed when the next row arrives, because its separator in the index depends on that row's key.

use bytes::Bytes;

use super::TableOptions;
use super::block::common_prefix;
use super::block_encoder::BlockEncoder;
use super::entry;
use super::filter::{self, Filter};
use super::index::{self, Index};
use super::meta;
use super::properties::Gathered;
use crate::format::Sealer;
use crate::format::block::TRAILER_LEN;
use crate::format::checksum::crc32c;
use crate::manifest::{Key, TableEntry};
use crate::object::Body;
use crate::row::RowRef;

/// Blocks are gathered into pieces of at most this many bytes where nothing else is asked for, but for blocks that are
/// larger by themselves.
const PIECE_BYTES: usize = 1 << 20;

/// Smallest block a table is made of: below, heads and trailers would outweigh rows.
const MIN_BLOCK_BYTES: usize = 64;

/// Bytes a filter takes for eight keys, about.
const FILTER_BYTES_PER_8_KEYS: u64 = 9;

/// Footer, properties and section heads, about.
const META_FIXED: u64 = 512;

/// Builds one table from rows pushed in (key ascending, seq descending) order.
///
/// ```
/// use isle_storage::ids::{SeqNo, Timestamp};
/// use isle_storage::row::{RowRef, ValueRef};
/// use isle_storage::sst::{Block, Lookup, TableBuilder, TableMeta, TableOptions};
///
/// let mut builder = TableBuilder::new(TableOptions::default());
/// for (key, seq) in [("apple", 7), ("apple", 3), ("pear", 5)] {
///     let (key, value) = (key.as_bytes(), ValueRef::Put(b"value"));
///     builder.push(RowRef { key, seq: SeqNo(seq), time: Timestamp(0), expires: None, value });
/// }
/// let table = builder.finish("1-00000000000000aa-1");
///
/// let object = table.body.to_bytes();
/// let meta = TableMeta::decode(object.slice(table.entry.meta_offset as usize..), table.entry.meta_offset)?;
/// assert!(meta.may_contain(b"apple"));
/// let range = meta.block_range(meta.seek(b"apple"));
/// let block = Block::decode(&object.slice(range.start as usize..range.end as usize))?;
/// assert!(matches!(block.get(b"apple", SeqNo(6)), Lookup::Found(row) if row.seq == SeqNo(3)));
/// # Ok::<(), isle_storage::format::FormatError>(())
/// ```
#[derive(Debug)]
pub struct TableBuilder {
    block_bytes: usize,
    sealer: Sealer,
    block: BlockEncoder,
    /// Finished pieces of the body, and the one blocks are being gathered in.
    pieces: Vec<Bytes>,
    gathering: Vec<u8>,
    piece_bytes: usize,
    /// Bytes of the pieces that were finished and not taken.
    finished: u64,
    written: u64,
    index: Index,
    hashes: Vec<u64>,
    gathered: Gathered,
    smallest: Vec<u8>,
    last_key: Vec<u8>,
    #[cfg(debug_assertions)]
    last_seq: crate::ids::SeqNo,
}

/// An encoded table with the entry the manifest will name it by.
#[derive(Debug, Clone)]
pub struct EncodedTable {
    /// The object, but for what [`TableBuilder::take_finished`] took of it before.
    pub body: Body,
    /// Its manifest entry.
    pub entry: TableEntry,
}

impl TableBuilder {
    /// An empty table.
    #[must_use]
    pub fn new(options: TableOptions) -> Self {
        let block_bytes = options.block_bytes.max(MIN_BLOCK_BYTES);
        Self {
            block_bytes,
            sealer: Sealer::new(options.compression),
            block: BlockEncoder::new(most_bytes(block_bytes)),
            pieces: Vec::new(),
            gathering: Vec::new(),
            piece_bytes: PIECE_BYTES,
            finished: 0,
            written: 0,
            index: Index::default(),
            hashes: Vec::new(),
            gathered: Gathered::new(),
            smallest: Vec::new(),
            last_key: Vec::new(),
            #[cfg(debug_assertions)]
            last_seq: crate::ids::SeqNo::ZERO,
        }
    }

    /// Appends the next row, whose key and value must fit a block ([`crate::format::MAX_BLOCK_RAW`], four times the
    /// largest inline value). Panics in debug builds where the order is broken; in release builds such a table is
    /// refused when it is read.
    pub fn push(&mut self, row: RowRef<'_>) {
        let shared = common_prefix(&self.last_key, row.key);
        let new_key = self.is_empty() || shared < row.key.len() || shared < self.last_key.len();
        #[cfg(debug_assertions)]
        self.check_order(&row, new_key);
        if self.closes_before(&row) {
            self.close_block(Some(row.key));
        }
        let shared = if self.block.is_empty() { 0 } else { shared };
        self.block.push(&row, shared);
        if new_key {
            self.hashes.push(filter::hash(row.key));
            if self.is_empty() {
                self.smallest.extend_from_slice(row.key);
            }
            self.last_key.clear();
            self.last_key.extend_from_slice(row.key);
        }
        self.gathered.add(&row, new_key);
    }

    /// The same builder, whose body comes in pieces of about `bytes`, for whoever takes them as they are finished.
    #[must_use]
    pub fn in_pieces_of(self, bytes: usize) -> Self {
        Self { piece_bytes: bytes, ..self }
    }

    /// Bytes at the front of the object that are as they will be and were not taken yet.
    #[must_use]
    pub fn finished_len(&self) -> u64 {
        self.finished
    }

    /// Takes what is finished: the object is everything taken, in order, and then the body of [`TableBuilder::finish`].
    #[must_use]
    pub fn take_finished(&mut self) -> Vec<Bytes> {
        self.finished = 0;
        std::mem::take(&mut self.pieces)
    }

    /// Bytes the finished table will take, about.
    #[must_use]
    pub fn estimated_len(&self) -> u64 {
        let filter = self.hashes.len() as u64 * FILTER_BYTES_PER_8_KEYS / 8;
        self.written + self.block.len() as u64 + self.index.encoded_len() as u64 + filter + META_FIXED
    }

    /// Whether no row was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gathered.is_empty()
    }

    /// The key pushed last, so that a split never parts the versions of one key.
    #[must_use]
    pub fn last_key(&self) -> Option<&[u8]> {
        (!self.is_empty()).then_some(&self.last_key)
    }

    /// Finishes the table under `name` (`<owner>-<n>`). Must not be empty: there is no table without rows, and one
    /// made nevertheless is refused by the manifest and by readers.
    #[must_use]
    pub fn finish(mut self, name: &str) -> EncodedTable {
        debug_assert!(!self.is_empty(), "a table without rows");
        self.close_block(None);
        self.end_piece();
        let blocks = self.index.len() as u64;
        let properties =
            self.gathered.finish(Key(self.smallest.into()), Key(self.last_key.into()), blocks, self.written);
        let filter = Filter::build(self.hashes);
        let meta = meta::encode(filter.as_ref(), &self.index, &properties, self.written);
        let entry = properties.to_entry(name, self.written + meta.len() as u64, self.written, crc32c(&meta));
        self.pieces.push(meta.into());
        EncodedTable { body: self.pieces.into(), entry }
    }

    /// Whether the open block is full, or would become much too large: a big row does not make its small neighbours
    /// expensive to read.
    fn closes_before(&self, row: &RowRef<'_>) -> bool {
        let len = self.block.len();
        !self.block.is_empty()
            && (len >= self.block_bytes || len + entry::encoded_bound(row) > most_bytes(self.block_bytes))
    }

    fn close_block(&mut self, next_key: Option<&[u8]>) {
        if self.block.is_empty() {
            return;
        }
        let raw = self.block.take();
        let room = self.gathering.capacity() - self.gathering.len();
        if room < raw.len() + TRAILER_LEN {
            self.end_piece();
            self.gathering.reserve_exact(self.piece_bytes.max(raw.len() + TRAILER_LEN));
        }
        self.written += self.sealer.seal_to(&raw, &mut self.gathering) as u64;
        self.block.give(raw);
        let goes_on = next_key == Some(&self.last_key);
        let separator = match next_key {
            Some(next) if !goes_on => index::separator(&self.last_key, next),
            _ => &self.last_key,
        };
        self.index.push(self.written, separator, goes_on);
    }

    fn end_piece(&mut self) {
        let mut piece = std::mem::take(&mut self.gathering);
        if piece.is_empty() {
            return;
        }
        if piece.len() < piece.capacity() / 2 {
            // A small table must not hold a large piece's memory.
            piece.shrink_to_fit();
        }
        self.finished += piece.len() as u64;
        self.pieces.push(piece.into());
    }

    #[cfg(debug_assertions)]
    fn check_order(&mut self, row: &RowRef<'_>, new_key: bool) {
        let ascends = if new_key { self.last_key.as_slice() < row.key } else { row.seq < self.last_seq };
        assert!(self.is_empty() || ascends, "rows out of order: {:?} {}", row.key, row.seq);
        assert!((1..=crate::row::MAX_KEY_LEN).contains(&row.key.len()), "a key of {} bytes", row.key.len());
        self.last_seq = row.seq;
    }
}

/// Bytes a block may reach, its last row included, unless it has only that row.
fn most_bytes(block_bytes: usize) -> usize {
    block_bytes + block_bytes / 4
}
