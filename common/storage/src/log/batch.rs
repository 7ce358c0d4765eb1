//! The open batch: where accepted mutations are encoded.
//!
//! This is the write path's hottest code. A mutation is copied once, into the buffer that is later uploaded and read
//! by the memtable; nothing is allocated per record, and a block's buffer is allocated once at its full size.

use std::sync::Arc;

use super::block::RawBlock;
use super::record::Pieces;
use crate::format::MAX_BLOCK_RAW;
use crate::ids::{SeqNo, Timestamp};
use crate::row::{BlobId, BlobPointerRef, MAX_KEY_LEN};

/// What a record is made of when it is pushed.
#[derive(Debug, Clone, Copy)]
pub enum Push<'a> {
    /// A value, inline.
    Put(&'a [u8]),
    /// A delete.
    Delete,
    /// A value stored in a blob file.
    Blob(BlobPointerRef<'a>),
}

/// The open batch: records are encoded once, here, at acceptance, in sequence order. `push` is the write path's only
/// copy of key and value.
#[derive(Debug)]
pub struct Batch {
    first_seq: SeqNo,
    next_seq: SeqNo,
    block_bytes: usize,
    /// The block being filled.
    open: Vec<u8>,
    open_first: SeqNo,
    base_time: Timestamp,
    last_time: Timestamp,
    /// Bytes in `closed`.
    closed_bytes: usize,
    closed: Vec<RawBlock>,
    blobs: Vec<BlobId>,
}

impl Batch {
    /// An empty batch whose first record will be `first_seq`; blocks are closed at about `block_bytes`.
    #[must_use]
    pub fn new(first_seq: SeqNo, block_bytes: usize) -> Self {
        Self {
            first_seq,
            next_seq: first_seq,
            block_bytes: block_bytes.clamp(1, MAX_BLOCK_RAW),
            open: Vec::new(),
            open_first: first_seq,
            base_time: Timestamp(i64::MIN),
            last_time: Timestamp(i64::MIN),
            closed_bytes: 0,
            closed: Vec::new(),
            blobs: Vec::new(),
        }
    }

    /// Appends the next record; its sequence number is the returned one. `time` must not decrease: an earlier one is
    /// taken as the time of the record before. The caller has checked the key's and the value's length.
    #[inline]
    pub fn push(
        &mut self,
        key: &[u8],
        time: Timestamp,
        expires: Option<Timestamp>,
        value: Push<'_>,
    ) -> SeqNo {
        debug_assert!((1..=MAX_KEY_LEN).contains(&key.len()), "a key of {} bytes", key.len());
        let time = time.max(self.last_time);
        let mut record = Pieces::new(key, micros_between(self.base_time, time), expires, &value);
        if self.open.is_empty() || self.open.len() + record.len() > self.open.capacity() {
            // A block's first record has no difference, so it is never longer than the one just made.
            record = Pieces::new(key, 0, expires, &value);
            self.start_block(time, record.len());
        }
        debug_assert!(record.len() <= MAX_BLOCK_RAW, "a record of {} bytes", record.len());
        record.write_to(&mut self.open);
        self.last_time = time;
        if let Push::Blob(p) = value {
            self.note_blob(p.blob);
        }
        let seq = self.next_seq;
        self.next_seq = seq.next();
        seq
    }

    /// Bytes of records so far.
    #[must_use]
    pub fn raw_bytes(&self) -> usize {
        self.closed_bytes + self.open.len()
    }

    /// Records so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.next_seq.0 - self.first_seq.0
    }

    /// Closes the batch. `None` where it is empty.
    #[must_use]
    pub fn seal(mut self) -> Option<SealedBatch> {
        self.close_block();
        let first_time = self.closed.first()?.base_time;
        self.blobs.sort_unstable();
        Some(SealedBatch {
            first_seq: self.first_seq,
            last_seq: SeqNo(self.next_seq.0 - 1),
            first_time,
            last_time: self.last_time,
            raw_bytes: self.closed_bytes as u64,
            blobs: self.blobs,
            blocks: self.closed.into(),
        })
    }

    #[cold]
    fn start_block(&mut self, time: Timestamp, record_len: usize) {
        self.close_block();
        self.open = Vec::with_capacity(self.block_bytes.max(record_len));
        self.open_first = self.next_seq;
        self.base_time = time;
    }

    fn close_block(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let mut raw = std::mem::take(&mut self.open);
        if raw.len() < raw.capacity() / 2 {
            // A trickle's small batches must not each hold a whole block's buffer until they are flushed.
            raw.shrink_to_fit();
        }
        let count = (self.next_seq.0 - self.open_first.0) as u32;
        self.closed_bytes += raw.len();
        self.closed.push(RawBlock::trusted(
            self.open_first,
            count,
            self.base_time,
            self.last_time,
            raw.into(),
        ));
    }

    fn note_blob(&mut self, blob: &str) {
        // Consecutive values go to one file, so the newest name is nearly always the one.
        if !self.blobs.iter().rev().any(|b| b == blob) {
            self.blobs.push(blob.to_owned());
        }
    }
}

fn micros_between(base: Timestamp, time: Timestamp) -> u64 {
    time.0.wrapping_sub(base.0) as u64
}

/// A closed batch: shared by the upload and the memtable generation.
#[derive(Debug, Clone)]
pub struct SealedBatch {
    /// Non-empty, in order.
    pub blocks: Arc<[RawBlock]>,
    /// First sequence number.
    pub first_seq: SeqNo,
    /// Last sequence number.
    pub last_seq: SeqNo,
    /// Write time of the first record.
    pub first_time: Timestamp,
    /// Write time of the last record.
    pub last_time: Timestamp,
    /// Bytes of records.
    pub raw_bytes: u64,
    /// Blob files the records point at, without repeats.
    pub blobs: Vec<BlobId>,
}
