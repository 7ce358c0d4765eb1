//! Log objects: segments (one group commit) and chunks (one flushed generation).
//!
//! # Layout
//! ```text
//!   ┌──────────┬─────────┬─────────┬───┬──────────────────────────┬────────┐
//!   │ preamble │ block 0 │ block 1 │ … │ sections: header · index │ footer │
//!   └──────────┴─────────┴─────────┴───┴──────────────────────────┴────────┘
//!   0          8                       index_offset                        len
//! ```
//! Blocks are sealed as [`crate::format::block`] says, records lie in them as `record.rs` says, header and index as
//! `header.rs` and `index.rs` say. A reader with the manifest's entry fetches `index_offset..len`, which decodes by
//! itself and names every block, so a consumer can start in the middle; a reader with nothing but the object reads
//! the footer first. Segment and chunk differ only in their header.
//!
//! # Why so
//! A segment is written at every commit, so encoding it must cost nearly nothing: records are encoded once, when they
//! are accepted ([`Batch::push`]), and the same buffers are uploaded, kept as the memtable's rows and written again
//! into the generation's chunk. Hence blocks whose fixed part comes last, offsets that are implied, and sequence
//! numbers that are not stored at all.
//!
//! # Damage
//! Each block has its checksum, and the tail has one that covers the blocks' checksums and the preamble: no byte of
//! the object can change unnoticed, and a sound block in the wrong place is noticed too. Every record is looked at once when a block is
//! decoded; from then on reading it cannot fail.

use crate::format::FormatError;
use crate::ids::{DatabaseId, Epoch, Incarnation, Lineage, SeqNo, Timestamp};
use crate::manifest::{LogEntry, LogTail};
use crate::names::{LogId, LogKind};
use crate::object::Body;
use crate::row::BlobId;

mod batch;
mod block;
mod decode;
mod encode;
mod header;
mod index;
mod record;
mod salvage;
pub mod text;

pub use batch::{Batch, Push, SealedBatch};
pub use block::RawBlock;
pub use decode::{decode, decode_as, decode_block, describe};
pub use encode::{encode_chunk, encode_segment};
pub(crate) use index::PREAMBLE;
pub use salvage::Salvage;

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

impl LogHeader {
    /// The identity in its object's name.
    #[must_use]
    pub fn id(&self) -> LogId {
        LogId { epoch: self.epoch, incarnation: self.incarnation, first_seq: self.first_seq }
    }

    /// The link by which the next segment names this one.
    #[must_use]
    pub fn tail(&self) -> LogTail {
        LogTail { id: self.id(), last_seq: self.last_seq }
    }
}

/// An encoded log object, ready to be put, with the entry the manifest will name it by.
#[derive(Debug, Clone)]
pub struct EncodedLog {
    /// The object.
    pub body: Body,
    /// Its manifest entry.
    pub entry: LogEntry,
}

/// A decoded log object.
#[derive(Debug, Clone)]
pub struct LogObject {
    /// Its header.
    pub header: LogHeader,
    /// Its blocks, validated.
    pub blocks: Vec<RawBlock>,
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
    /// The block's own checksum, which ties it to this place.
    pub crc: u32,
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
    pub fn decode(tail: &[u8], index_offset: u64) -> Result<Self, FormatError> {
        index::decode(tail, index_offset)
    }

    /// Position in `blocks` of the block that holds `seq`, or of the first after it.
    #[must_use]
    pub fn block_at(&self, seq: SeqNo) -> usize {
        self.blocks.partition_point(|b| b.first_seq.0 + u64::from(b.count) <= seq.0)
    }
}
