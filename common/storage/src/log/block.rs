//! A block of records in memory, and reading them.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::record;
use crate::format::{Compression, FormatError, Sealed, Sealer};
use crate::ids::{SeqNo, Timestamp};
use crate::row::{RowRef, ValueRef};

/// Blocks from this long on keep their stored form once they have been sealed, so that a generation's chunk is put
/// together without compressing it a second time. Smaller ones are joined there and sealed anew in any case.
const KEEP_STORED_FROM: usize = 16 * 1024;

/// One block of records in memory, uncompressed; sequence numbers are implied (dense from `first_seq`). Cloning is
/// cheap. The same type whether the writer has just filled it or a reader has decoded it: in both cases every record
/// in it is known to be well-formed, so that reading cannot fail.
#[derive(Debug, Clone)]
pub struct RawBlock {
    /// Sequence number of the first record.
    pub first_seq: SeqNo,
    /// Number of records.
    pub count: u32,
    /// Write time of the first record; the others are stored as differences.
    pub base_time: Timestamp,
    /// The records.
    pub raw: Bytes,
    last_time: Timestamp,
    stored: Arc<OnceLock<(Compression, Sealed)>>,
}

impl RawBlock {
    /// A block whose records the caller has just written.
    pub(super) fn trusted(
        first_seq: SeqNo,
        count: u32,
        base_time: Timestamp,
        last_time: Timestamp,
        raw: Bytes,
    ) -> Self {
        Self { first_seq, count, base_time, raw, last_time, stored: Arc::default() }
    }

    /// A block read from somewhere: every record is looked at once, here.
    pub(super) fn validated(
        first_seq: SeqNo,
        count: u32,
        base_time: Timestamp,
        raw: Bytes,
    ) -> Result<Self, FormatError> {
        let damaged = |why: String| FormatError::damaged("log block", why);
        let mut block = Self::trusted(first_seq, count, base_time, base_time, raw);
        let mut rows = block.iterate();
        let mut last = base_time;
        for n in 0..count {
            let Some((offset, row)) = rows.next() else {
                return Err(damaged(format!("record {n} of {count} is malformed or missing")));
            };
            if row.time < last || (n == 0 && row.time != base_time) {
                return Err(damaged(format!("the record at byte {offset} is out of order in time")));
            }
            last = row.time;
        }
        if rows.at != block.raw.len() {
            return Err(damaged(format!("{} bytes follow the last record", block.raw.len() - rows.at)));
        }
        block.last_time = last;
        Ok(block)
    }

    /// As many records as can be read of a block whose place in the log is not known: numbered from `first_seq`, their
    /// times counted from the block's unknown beginning. With it, the byte at which a record is malformed, if one is.
    pub(super) fn guessed(first_seq: SeqNo, raw: Bytes) -> (Self, Option<u32>) {
        let mut block = Self::trusted(first_seq, u32::MAX, Timestamp(0), Timestamp(0), raw);
        let mut rows = block.iterate();
        let mut count = 0;
        while rows.next().is_some() {
            count += 1;
        }
        let stopped = rows.at;
        block.count = count;
        let malformed = (stopped != block.raw.len()).then_some(stopped as u32);
        (block, malformed)
    }

    /// The records in sequence order. The block has been validated when it was decoded, so iteration cannot fail.
    pub fn rows(&self) -> impl Iterator<Item = RowRef<'_>> + '_ {
        self.iterate().map(|(_, row)| row)
    }

    /// The records with each one's offset in `raw`, for a memtable that points into the block: [`RawBlock::row_at`]
    /// finds it again in constant time.
    pub fn rows_with_offsets(&self) -> impl Iterator<Item = (u32, RowRef<'_>)> + '_ {
        self.iterate()
    }

    fn iterate(&self) -> Rows<'_> {
        Rows { raw: &self.raw, at: 0, base: self.base_time, seq: self.first_seq, left: self.count }
    }

    /// The record at `offset` (from [`RawBlock::rows_with_offsets`]) whose sequence number is `seq`. An offset that is
    /// not from there gives a delete of the empty key, which no record ever is.
    #[must_use]
    pub fn row_at(&self, offset: u32, seq: SeqNo) -> RowRef<'_> {
        let found = self.raw.get(offset as usize..).and_then(|r| record::parse(r, self.base_time, seq));
        debug_assert!(found.is_some(), "no record at byte {offset}");
        let nothing = RowRef { key: &[], seq, time: self.base_time, expires: None, value: ValueRef::Delete };
        found.map_or(nothing, |(row, _)| row)
    }

    /// Last sequence number inside.
    #[must_use]
    pub fn last_seq(&self) -> SeqNo {
        SeqNo(self.first_seq.0 + u64::from(self.count) - 1)
    }

    /// Write time of the last record.
    #[must_use]
    pub fn last_time(&self) -> Timestamp {
        self.last_time
    }

    /// Memory the block takes, in bytes: its records, and their compressed form where it is kept for the chunk.
    #[must_use]
    pub fn memory(&self) -> usize {
        let stored = self.stored.get().filter(|(_, s)| !s.is_raw()).map_or(0, |(_, s)| s.payload.len());
        self.raw.len() + stored + size_of::<Self>()
    }

    /// The block's stored form: the one made before for the same compression, or a new one.
    pub(super) fn sealed(&self, sealer: &mut Sealer) -> Sealed {
        match self.stored.get() {
            Some((compression, sealed)) if *compression == sealer.compression() => sealed.clone(),
            _ => {
                let sealed = sealer.seal(&self.raw);
                if self.raw.len() >= KEEP_STORED_FROM {
                    // Somebody else may have been first; both forms are right.
                    let _ = self.stored.set((sealer.compression(), sealed.clone()));
                }
                sealed
            }
        }
    }
}

struct Rows<'a> {
    raw: &'a [u8],
    at: usize,
    base: Timestamp,
    seq: SeqNo,
    left: u32,
}

impl<'a> Iterator for Rows<'a> {
    type Item = (u32, RowRef<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (row, len) = record::parse(self.raw.get(self.at..)?, self.base, self.seq)?;
        let offset = self.at as u32;
        self.at += len;
        self.seq = self.seq.next();
        Some((offset, row))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize))
    }
}
