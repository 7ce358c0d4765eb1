//! Reading log objects back: everything is verified before anything is handed out.

use bytes::Bytes;

use super::block::RawBlock;
use super::{BlockHandle, LogHeader, LogIndex, LogObject, encode, index};
use crate::format::{Crc, FormatError, open};
use crate::ids::DatabaseId;
use crate::manifest::LogEntry;
use crate::row::ValueRef;

const WHAT: &str = "log object";

/// Decodes and validates a whole log object.
///
/// # Errors
/// [`FormatError`]; nothing of a damaged object is handed out.
pub fn decode(bytes: &Bytes) -> Result<LogObject, FormatError> {
    let index_offset = index::offset_in(bytes)?;
    let LogIndex { header, blocks: handles } = index::decode(&bytes[index_offset as usize..], index_offset)?;
    let mut blocks: Vec<RawBlock> = Vec::with_capacity(handles.len());
    for handle in &handles {
        let stored = bytes.slice(handle.offset as usize..handle.offset as usize + handle.len as usize);
        let block = decode_block(handle, &stored)?;
        if blocks.last().is_some_and(|b| b.last_time() > block.base_time) {
            return Err(FormatError::damaged(WHAT, "its blocks are out of order in time"));
        }
        blocks.push(block);
    }
    let object = LogObject { header, blocks };
    check_blobs(&object)?;
    Ok(object)
}

/// Decodes the object that `entry` of a manifest of `database` names: any difference is damage.
///
/// # Errors
/// [`FormatError`].
pub fn decode_as(bytes: &Bytes, entry: &LogEntry, database: DatabaseId) -> Result<LogObject, FormatError> {
    if bytes.len() as u64 != entry.len || crc32c::crc32c(bytes) != entry.crc {
        let why = "its length or checksum is not what the manifest says";
        return Err(FormatError::damaged(WHAT, why));
    }
    let object = decode(bytes)?;
    let LogHeader { last_seq, database: of, .. } = object.header;
    if object.header.id() != entry.id || last_seq != entry.last_seq || of != database {
        return Err(FormatError::damaged(WHAT, "it holds another segment than the manifest says"));
    }
    Ok(object)
}

/// Every blob file a record points at is in the header: what keeps it from being collected.
fn check_blobs(object: &LogObject) -> Result<(), FormatError> {
    for row in object.blocks.iter().flat_map(RawBlock::rows) {
        if let ValueRef::Blob(p) = row.value
            && object.header.blobs.binary_search_by(|b| b.as_str().cmp(p.blob)).is_err()
        {
            return Err(FormatError::damaged(
                WHAT,
                format!("its header does not name the blob file {}", p.blob),
            ));
        }
    }
    Ok(())
}

/// The manifest entry of a log object found by name alone (roll-forward, recover).
///
/// # Errors
/// [`FormatError`].
pub fn describe(bytes: &Bytes) -> Result<LogEntry, FormatError> {
    let object = decode(bytes)?;
    let index_offset = index::offset_in(bytes)?;
    Ok(encode::entry(object.header, &object.blocks, bytes.len() as u64, index_offset, Crc::of(bytes)))
}

/// Decodes one stored block (`bytes` are exactly `handle.offset..handle.offset + handle.len`).
///
/// # Errors
/// [`FormatError`].
pub fn decode_block(handle: &BlockHandle, bytes: &Bytes) -> Result<RawBlock, FormatError> {
    let damaged = |why: &str| Err(FormatError::damaged("log block", why));
    if bytes.len() != handle.len as usize {
        return damaged("it is not as long as the index says");
    }
    let raw = open("log block", bytes)?;
    if bytes.last_chunk().map(|c| u32::from_le_bytes(*c)) != Some(handle.crc) {
        return damaged("the index has another checksum for it");
    }
    RawBlock::validated(handle.first_seq, handle.count, handle.base_time, raw)
}
