//! A decoded data block.
//!
//! What a sealed block (see [`crate::format::block`]) holds once opened:
//!
//! ```text
//! base_seq u64 · base_time i64      number and time of the first row; the rows' own are differences to them
//! entries                           see `entry`; a key takes its first bytes from the key before it …
//! restarts u32 × n                  … but for some entries, whose offsets stand here: searches start there
//! n u32 · rows u32                  all little-endian
//! ```
//!
//! [`Block::decode`] proves once (see `check`) what lookups and cursors rely on; from then on nothing can fail.

use std::cmp::Ordering;

use bytes::Bytes;

use super::check;
use super::cursor::BlockCursor;
use super::entry::{self, Base, Fields};
use crate::format::{self, FormatError};
use crate::ids::SeqNo;
use crate::row::{Row, RowRef, Value, ValueRef};

const WHAT: &str = "table block";

/// Bytes before the first entry.
pub(super) const HEAD_LEN: usize = 16;

/// Bytes after the restart points.
pub(super) const COUNTS_LEN: usize = 8;

/// A found value shorter than this part of its block is copied out, so that it does not pin the block.
const SHARE_FROM_PART: usize = 4;

/// A decoded data block. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Block {
    raw: Bytes,
    entries_end: usize,
    restarts: usize,
    rows: usize,
    base: Base,
}

/// What a block says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The newest admissible row. The value shares no memory with its neighbours beyond the block itself, and a small
    /// one not even that.
    Found(Row),
    /// Not in this block, and the next block need not be asked.
    Absent,
    /// The key's versions may go on in the next block.
    Next,
}

/// The same as [`Lookup`], borrowed from the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupRef<'a> {
    /// The newest admissible row.
    Found(RowRef<'a>),
    /// Not in this block, and the next block need not be asked.
    Absent,
    /// The key's versions may go on in the next block.
    Next,
}

enum Place {
    At(Fields),
    Absent,
    Next,
}

impl Block {
    /// Decodes and validates a stored block. The block shares no memory with `stored`, so a cache that keeps it
    /// keeps just its [`Block::memory`], however large the read was that `stored` is a slice of.
    ///
    /// # Errors
    /// [`FormatError`] where the checksum does not match or the rows contradict each other.
    pub fn decode(stored: &Bytes) -> Result<Self, FormatError> {
        let raw = format::open(WHAT, stored)?;
        let shares = stored.as_ptr_range().contains(&raw.as_ptr());
        Self::from_raw(if shares { Bytes::copy_from_slice(&raw) } else { raw })
    }

    /// As [`Block::decode`], but a block stored uncompressed is a slice of `stored`: for merges, which are done with a
    /// block before the read it came from.
    ///
    /// # Errors
    /// As [`Block::decode`].
    pub fn decode_shared(stored: &Bytes) -> Result<Self, FormatError> {
        Self::from_raw(format::open(WHAT, stored)?)
    }

    pub(super) fn from_raw(raw: Bytes) -> Result<Self, FormatError> {
        let block =
            Self::frame(raw).ok_or_else(|| FormatError::damaged(WHAT, "its counts do not fit its length"))?;
        check::check(&block).map_err(|why| FormatError::damaged(WHAT, why))?;
        Ok(block)
    }

    /// Takes the fixed parts off both ends.
    fn frame(raw: Bytes) -> Option<Self> {
        let base = Base {
            seq: u64::from_le_bytes(*raw.first_chunk()?),
            time: i64::from_le_bytes(*raw.get(8..)?.first_chunk()?),
        };
        let counts = raw.len().checked_sub(COUNTS_LEN)?;
        let restarts = u32_at(&raw, counts)? as usize;
        let rows = u32_at(&raw, counts + 4)? as usize;
        let entries_end = counts.checked_sub(restarts.checked_mul(4)?)?;
        (entries_end > HEAD_LEN && restarts > 0).then_some(Self { raw, entries_end, restarts, rows, base })
    }

    /// The newest row of `key` with a number at or below `max_seq`.
    /// [`Lookup::Next`] where this block ends inside the key's versions, all of them above `max_seq`.
    #[must_use]
    pub fn get(&self, key: &[u8], max_seq: SeqNo) -> Lookup {
        match self.locate(key, max_seq) {
            Place::At(fields) => self.row_out(&fields, key).map_or(Lookup::Absent, Lookup::Found),
            Place::Absent => Lookup::Absent,
            Place::Next => Lookup::Next,
        }
    }

    /// [`Block::get`] without copying anything.
    #[must_use]
    pub fn get_ref<'a>(&'a self, key: &'a [u8], max_seq: SeqNo) -> LookupRef<'a> {
        match self.locate(key, max_seq) {
            Place::At(fields) => fields.row(self.entries(), key).map_or(LookupRef::Absent, LookupRef::Found),
            Place::Absent => LookupRef::Absent,
            Place::Next => LookupRef::Next,
        }
    }

    fn row_out(&self, fields: &Fields, key: &[u8]) -> Option<Row> {
        let row = fields.row(self.entries(), key)?;
        Some(match (row.value, fields.put_range()) {
            (ValueRef::Put(value), Some(range)) if value.len() >= self.raw.len() / SHARE_FROM_PART => Row {
                key: Bytes::copy_from_slice(key),
                seq: row.seq,
                time: row.time,
                expires: row.expires,
                value: Value::Put(self.raw.slice(range)),
            },
            _ => row.to_row(),
        })
    }

    /// The first row at or behind (key, max_seq) in table order, if it is one of `key`. Keys are compared where they
    /// lie: `matched` is how much of `key` the row before had in common with it, which decides most rows at a glance.
    fn locate(&self, key: &[u8], max_seq: SeqNo) -> Place {
        let entries = self.entries();
        let from = self.restarts_where(|part| match part.suffix.cmp(key) {
            Ordering::Equal => {
                entry::fields_of(entries, part, self.base).is_some_and(|fields| fields.seq > max_seq)
            }
            other => other == Ordering::Less,
        });
        let mut at = self.restart(from.saturating_sub(1)).unwrap_or(self.entries_end);
        let (mut matched, mut inside) = (0, false);
        while at < entries.len() {
            let Some(part) = entry::key_at(entries, at) else { break };
            let Some(fields) = entry::fields_of(entries, &part, self.base) else { break };
            at = fields.next;
            if part.shared > matched {
                continue;
            }
            let rest = &key[part.shared..];
            let common = common_prefix(part.suffix, rest);
            match (part.suffix.get(common), rest.get(common)) {
                (None, None) if fields.seq <= max_seq => return Place::At(fields),
                (None, None) => inside = true,
                (None, Some(_)) => {}
                (Some(a), Some(b)) if a < b => {}
                _ => return Place::Absent,
            }
            matched = part.shared + common;
        }
        if inside { Place::Next } else { Place::Absent }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row (never, for a valid block).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// A cursor before the first row.
    #[must_use]
    pub fn cursor(&self) -> BlockCursor {
        BlockCursor::new(self.clone())
    }

    /// Memory this block takes, in bytes, for a cache's budget.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.raw.len()
    }

    /// The entries, with the head before them: offsets count from the block's start.
    #[inline]
    pub(super) fn entries(&self) -> &[u8] {
        &self.raw[..self.entries_end]
    }

    pub(super) fn base(&self) -> Base {
        self.base
    }

    pub(super) fn restarts(&self) -> usize {
        self.restarts
    }

    /// Offset of restart point `i`.
    #[inline]
    pub(super) fn restart(&self, i: usize) -> Option<usize> {
        if i < self.restarts { u32_at(&self.raw, self.entries_end + 4 * i).map(|n| n as usize) } else { None }
    }

    /// Number of restart points, from the first on, for which `before` holds.
    pub(super) fn restarts_where(&self, before: impl Fn(&entry::EntryKey<'_>) -> bool) -> usize {
        let (mut low, mut high) = (0, self.restarts);
        while low < high {
            let middle = low + (high - low) / 2;
            let part = self.restart(middle).and_then(|at| entry::key_at(self.entries(), at));
            if part.is_some_and(|part| before(&part)) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// A put's value as a slice of the block.
    pub(super) fn slice(&self, range: std::ops::Range<usize>) -> Bytes {
        self.raw.slice(range)
    }
}

/// Length of the longest common prefix.
#[inline]
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const STEP: usize = 16;
    let whole = a.chunks_exact(STEP).zip(b.chunks_exact(STEP)).take_while(|(a, b)| a == b).count() * STEP;
    whole + a[whole..].iter().zip(&b[whole..]).take_while(|(a, b)| a == b).count()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
