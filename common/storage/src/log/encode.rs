//! Making log objects: a segment from a batch, a chunk from a generation's blocks.
//!
//! Nothing is copied that need not be: an object's body is a list of pieces, and the payload of a block that does not
//! compress is the buffer the records were encoded into. The whole object's checksum is joined from its blocks'.

use bytes::Bytes;

use super::batch::{Batch, Push, SealedBatch};
use super::block::RawBlock;
use super::index::{self, PREAMBLE};
use super::{BlockHandle, EncodedLog, LogHeader};
use crate::format::block::TRAILER_LEN;
use crate::format::{Compression, Crc, Sealer, preamble};
use crate::manifest::LogEntry;
use crate::names::LogKind;
use crate::row::{BlobId, ValueRef};

/// Encodes a segment: compresses and checksums each block (adaptively: incompressible data is stored as it is). What
/// the batch knows better than `header` (kind, numbers, blob files) is taken from the batch.
#[must_use]
pub fn encode_segment(header: &LogHeader, batch: &SealedBatch, compression: Compression) -> EncodedLog {
    let header = LogHeader {
        kind: LogKind::Segment,
        first_seq: batch.first_seq,
        last_seq: batch.last_seq,
        blobs: union(&header.blobs, &batch.blobs),
        parts: Vec::new(),
        ..header.clone()
    };
    encode(header, &batch.blocks, compression)
}

/// Encodes a chunk from a generation's blocks, which must not be empty and follow one another: small blocks are
/// joined into blocks of about `block_bytes`, large ones go in as they were stored. `header.blobs` must list the blob
/// files of all of them.
#[must_use]
pub fn encode_chunk(
    header: &LogHeader,
    blocks: &[RawBlock],
    block_bytes: usize,
    compression: Compression,
) -> EncodedLog {
    let header = LogHeader {
        kind: LogKind::Chunk,
        first_seq: blocks.first().map_or(header.first_seq, |b| b.first_seq),
        last_seq: blocks.last().map_or(header.last_seq, RawBlock::last_seq),
        blobs: union(&header.blobs, &[]),
        ..header.clone()
    };
    encode(header, &join(blocks, block_bytes), compression)
}

/// Joins runs of small blocks; a block of at least half of `block_bytes` stays what it is, and so keeps its stored
/// form.
fn join(blocks: &[RawBlock], block_bytes: usize) -> Vec<RawBlock> {
    let mut joined = Vec::new();
    let mut rest = blocks;
    while let Some(first) = rest.first() {
        let large = |b: &RawBlock| b.raw.len() >= block_bytes / 2;
        let small = rest.iter().position(large).unwrap_or(rest.len());
        if small <= 1 {
            joined.push(first.clone());
            rest = &rest[1..];
            continue;
        }
        let mut batch = Batch::new(first.first_seq, block_bytes);
        for row in rest[..small].iter().flat_map(RawBlock::rows) {
            let value = match row.value {
                ValueRef::Put(v) => Push::Put(v),
                ValueRef::Delete => Push::Delete,
                ValueRef::Blob(p) => Push::Blob(p),
            };
            batch.push(row.key, row.time, row.expires, value);
        }
        joined.extend(batch.seal().iter().flat_map(|b| b.blocks.iter().cloned()));
        rest = &rest[small..];
    }
    joined
}

fn encode(header: LogHeader, blocks: &[RawBlock], compression: Compression) -> EncodedLog {
    debug_assert!(!blocks.is_empty(), "a log object without records");
    let mut sealer = Sealer::new(compression);
    let sealed: Vec<_> = blocks.iter().map(|b| b.sealed(&mut sealer)).collect();
    // The preamble and every trailer share one buffer, so that a block costs no small allocation.
    let mut fixed = Vec::with_capacity(preamble::LEN + sealed.len() * TRAILER_LEN);
    fixed.extend_from_slice(&PREAMBLE.encode());
    sealed.iter().for_each(|s| fixed.extend_from_slice(&s.trailer));
    let mut fixed = Bytes::from(fixed);

    let mut pieces = Vec::with_capacity(2 + 2 * sealed.len());
    let mut handles = Vec::with_capacity(sealed.len());
    let start = fixed.split_to(preamble::LEN);
    let mut crc = Crc::of(&start);
    let mut offset = preamble::LEN as u64;
    pieces.push(start);
    for (raw, stored) in blocks.iter().zip(sealed) {
        handles.push(BlockHandle {
            offset,
            len: stored.stored_len(),
            first_seq: raw.first_seq,
            count: raw.count,
            base_time: raw.base_time,
            crc: stored.crc(),
        });
        offset += u64::from(stored.stored_len());
        crc = stored.continue_crc(crc);
        pieces.push(stored.payload);
        pieces.push(fixed.split_to(TRAILER_LEN));
    }
    let tail = Bytes::from(index::encode(&header, &handles, offset));
    crc = crc.then(&tail);
    let len = offset + tail.len() as u64;
    pieces.push(tail);
    EncodedLog { body: pieces.into(), entry: entry(header, blocks, len, offset, crc) }
}

/// The manifest entry of an object with this header and these blocks.
pub(super) fn entry(
    header: LogHeader,
    blocks: &[RawBlock],
    len: u64,
    index_offset: u64,
    crc: Crc,
) -> LogEntry {
    LogEntry {
        kind: header.kind,
        id: header.id(),
        last_seq: header.last_seq,
        len,
        index_offset,
        crc: crc.value(),
        first_time: blocks.first().map(|b| b.base_time).unwrap_or_default(),
        last_time: blocks.last().map(RawBlock::last_time).unwrap_or_default(),
        raw_bytes: blocks.iter().map(|b| b.raw.len() as u64).sum(),
        starts_generation: header.starts_generation,
        blobs: header.blobs,
        extra: Default::default(),
    }
}

fn union(a: &[BlobId], b: &[BlobId]) -> Vec<BlobId> {
    let all: std::collections::BTreeSet<&BlobId> = a.iter().chain(b).collect();
    all.into_iter().cloned().collect()
}
