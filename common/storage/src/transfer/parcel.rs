//! What a manifest names: pure.

use std::sync::Arc;

use bytes::Bytes;

use super::TransferError;
use super::check::{Check, has_length};
use crate::manifest::{Manifest, TableEntry};
use crate::names::{self, ObjectPath};

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
        has_length(self, bytes.len() as u64)?;
        let needed = Check::needs(self);
        let needed = bytes.slice(needed.start as usize..needed.end as usize);
        let mut check = Check::begin(self.clone(), self.len, needed)?;
        while let Some(window) = check.wants() {
            check.feed(&bytes.slice(window.start as usize..window.end as usize), drop)?;
        }
        check.finish()
    }
}
