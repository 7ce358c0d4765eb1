//! Log objects: segments (one group commit) and chunks (one flushed generation).

use std::sync::Arc;

use bytes::Bytes;

use crate::format::{Compression, FormatError};
use crate::ids::{DatabaseId, Epoch, Incarnation, Lineage, SeqNo, Timestamp};
use crate::manifest::{LogEntry, LogTail};
use crate::names::{LogId, LogKind};
use crate::object::Body;
use crate::row::{BlobId, BlobPointerRef, RowRef};

/// One block of records in memory, uncompressed; sequence numbers are implied (dense from `first_seq`). Cloning is
/// cheap. The same type whether the writer has just filled it or a reader has decoded it.
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
}

impl RawBlock {
    /// The records in sequence order. The block has been validated when it was decoded, so iteration cannot fail.
    pub fn rows(&self) -> impl Iterator<Item = RowRef<'_>> + '_ {
        std::iter::from_fn(|| todo!())
    }

    /// The records with each one's offset in `raw`, for a memtable that points into the block: [`RawBlock::row_at`]
    /// finds it again in constant time.
    pub fn rows_with_offsets(&self) -> impl Iterator<Item = (u32, RowRef<'_>)> + '_ {
        std::iter::from_fn(|| todo!())
    }

    /// The record at `offset` (from [`RawBlock::rows_with_offsets`]) whose sequence number is `seq`.
    #[must_use]
    pub fn row_at(&self, _offset: u32, _seq: SeqNo) -> RowRef<'_> {
        todo!()
    }

    /// Last sequence number inside.
    #[must_use]
    pub fn last_seq(&self) -> SeqNo {
        SeqNo(self.first_seq.0 + u64::from(self.count) - 1)
    }
}

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
pub struct Batch {}

impl Batch {
    /// An empty batch whose first record will be `first_seq`; blocks are closed at about `block_bytes`.
    #[must_use]
    pub fn new(_first_seq: SeqNo, _block_bytes: usize) -> Self {
        todo!()
    }

    /// Appends the next record; its sequence number is the returned one. `time` must not decrease.
    pub fn push(
        &mut self,
        _key: &[u8],
        _time: Timestamp,
        _expires: Option<Timestamp>,
        _value: Push<'_>,
    ) -> SeqNo {
        todo!()
    }

    /// Bytes of records so far.
    #[must_use]
    pub fn raw_bytes(&self) -> usize {
        todo!()
    }

    /// Records so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        todo!()
    }

    /// Closes the batch. `None` where it is empty.
    #[must_use]
    pub fn seal(self) -> Option<SealedBatch> {
        todo!()
    }
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

/// The self-describing header of a log object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHeader {
    /// Segment or chunk.
    pub kind: LogKind,
    /// The database.
    pub database: DatabaseId,
    /// The history it was written in.
    pub lineage: Lineage,
    /// The writer's epoch.
    pub epoch: Epoch,
    /// The writer's incarnation.
    pub incarnation: Incarnation,
    /// First sequence number.
    pub first_seq: SeqNo,
    /// Last sequence number.
    pub last_seq: SeqNo,
    /// The segment before this one in the log, if any: how a log is followed without a manifest.
    pub previous: Option<LogTail>,
    /// Whether a memtable generation starts here.
    pub starts_generation: bool,
    /// Blob files the records point at.
    pub blobs: Vec<BlobId>,
    /// Segments a chunk was made of, in order (empty for a segment): a chunk stands for all of them.
    pub parts: Vec<LogTail>,
}

/// An encoded log object, ready to be put, with the entry the manifest will name it by.
#[derive(Debug, Clone)]
pub struct EncodedLog {
    /// The object.
    pub body: Body,
    /// Its manifest entry.
    pub entry: LogEntry,
}

/// Encodes a segment: compresses and checksums each block (adaptively: incompressible data is stored as it is).
#[must_use]
pub fn encode_segment(_header: &LogHeader, _batch: &SealedBatch, _compression: Compression) -> EncodedLog {
    todo!()
}

/// Encodes a chunk from a generation's blocks, small blocks joined into blocks of about `block_bytes`.
#[must_use]
pub fn encode_chunk(
    _header: &LogHeader,
    _blocks: &[RawBlock],
    _block_bytes: usize,
    _compression: Compression,
) -> EncodedLog {
    todo!()
}

/// A decoded log object.
#[derive(Debug, Clone)]
pub struct LogObject {
    /// Its header.
    pub header: LogHeader,
    /// Its blocks, validated.
    pub blocks: Vec<RawBlock>,
}

/// Decodes and validates a whole log object.
///
/// # Errors
/// [`FormatError`]; nothing of a damaged object is handed out.
pub fn decode(_bytes: &Bytes) -> Result<LogObject, FormatError> {
    todo!()
}

/// The manifest entry of a log object found by name alone (roll-forward, recover).
///
/// # Errors
/// [`FormatError`].
pub fn describe(_bytes: &Bytes) -> Result<LogEntry, FormatError> {
    todo!()
}

/// One block in the index of a log object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHandle {
    /// First byte of the stored block in the object.
    pub offset: u64,
    /// Stored length in bytes.
    pub len: u32,
    /// First sequence number inside.
    pub first_seq: SeqNo,
    /// Number of records.
    pub count: u32,
    /// Write time of the first record.
    pub base_time: Timestamp,
}

/// The index of a log object: decoded from its bytes `index_offset..len`, so that a consumer can start in the middle.
#[derive(Debug, Clone)]
pub struct LogIndex {
    /// Its header.
    pub header: LogHeader,
    /// Its blocks, ascending.
    pub blocks: Vec<BlockHandle>,
}

impl LogIndex {
    /// Decodes the object's bytes from `index_offset` to its end.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(_tail: &[u8], _index_offset: u64) -> Result<Self, FormatError> {
        todo!()
    }

    /// Position in `blocks` of the block that holds `seq`, or of the first after it.
    #[must_use]
    pub fn block_at(&self, seq: SeqNo) -> usize {
        self.blocks.partition_point(|b| b.first_seq.0 + u64::from(b.count) <= seq.0)
    }
}

/// Decodes one stored block (`bytes` are exactly `handle.offset..handle.offset + handle.len`).
///
/// # Errors
/// [`FormatError`].
pub fn decode_block(_handle: &BlockHandle, _bytes: &Bytes) -> Result<RawBlock, FormatError> {
    todo!()
}

/// The path's id of a header.
impl LogHeader {
    /// The identity in its object's name.
    #[must_use]
    pub fn id(&self) -> LogId {
        LogId { epoch: self.epoch, incarnation: self.incarnation, first_seq: self.first_seq }
    }
}
