//! What a manifest names: pure.

use std::sync::Arc;

use bytes::Bytes;

use super::TransferError;
use crate::manifest::{Manifest, TableEntry};
use crate::names::{self, ObjectPath};
use crate::sst::{Block, TableMeta};

/// An object to be carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its path, the same in every store.
    pub path: ObjectPath,
    /// Its length in bytes.
    pub len: u64,
    /// What it is known by.
    pub content: Content,
}

/// What an object is held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// CRC32C of the whole object.
    Crc(u32),
    /// A table, with its entry.
    Table(Arc<TableEntry>),
    /// Only its length is known.
    Length,
}

/// Every object that `manifest` names: log, tables, blob files.
#[must_use]
pub fn parcel(manifest: &Manifest) -> Vec<Item> {
    let log = manifest.log.iter().map(|e| Item { path: e.path(), len: e.len, content: Content::Crc(e.crc) });
    let tables = manifest.tables().map(|t| Item {
        path: t.path(),
        len: t.len,
        content: Content::Table(Arc::clone(t)),
    });
    let blobs = manifest.blobs.iter().map(|(blob, len)| Item {
        path: names::blob(blob),
        len: *len,
        content: Content::Length,
    });
    log.chain(tables).chain(blobs).collect()
}

impl Item {
    /// Holds the object's bytes against what is known of it; its checksum as a whole.
    ///
    /// # Errors
    /// [`TransferError::Damaged`].
    pub fn check(&self, bytes: &Bytes) -> Result<u32, TransferError> {
        let damaged = |why: String| TransferError::Damaged { object: self.path.to_string(), why };
        if bytes.len() as u64 != self.len {
            return Err(damaged(format!("it has {} bytes, not {}", bytes.len(), self.len)));
        }
        let crc = crc32c::crc32c(bytes);
        match &self.content {
            Content::Crc(expected) if *expected != crc => {
                Err(damaged("its checksum is not the recorded one".to_owned()))
            }
            Content::Table(entry) => table(entry, bytes).map(|()| crc).map_err(damaged),
            Content::Crc(_) | Content::Length => Ok(crc),
        }
    }
}

/// Every block decodes, and the metadata is the one the manifest records.
fn table(entry: &TableEntry, bytes: &Bytes) -> Result<(), String> {
    let at = usize::try_from(entry.meta_offset).unwrap_or(usize::MAX).min(bytes.len());
    let tail = bytes.slice(at..);
    if crc32c::crc32c(&tail) != entry.crc {
        return Err("the checksum of its metadata is not the one the manifest records".to_owned());
    }
    let meta = TableMeta::decode(tail, entry.meta_offset).map_err(|e| e.to_string())?;
    for i in 0..meta.block_count() {
        let range = meta.block_range(i);
        if range.start > range.end || range.end > entry.meta_offset {
            return Err(format!("block {i} lies beyond its end"));
        }
        Block::decode(&bytes.slice(range.start as usize..range.end as usize))
            .map_err(|e| format!("block {i} at byte {}: {e}", range.start))?;
    }
    Ok(())
}
