//! What a table says of itself: counts and bounds, the same that its manifest entry carries.
//!
//! Stored as JSON: a few hundred bytes a table that anybody can read in a dump, and a newer version's additions are
//! skipped by nature. What an older reader must not skip goes into a section of its own (see `meta`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{SeqNo, Timestamp};
use crate::manifest::{BlobUse, Expiring, Key, TableEntry};
use crate::row::{BlobId, RowRef, ValueRef};

/// Counts and bounds of one table's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    /// Number of rows, deletes included.
    pub rows: u64,
    /// Number of different keys.
    pub keys: u64,
    /// Number of deletes.
    pub deletes: u64,
    /// Smallest key inside.
    pub smallest: Key,
    /// Largest key inside (inclusive).
    pub largest: Key,
    /// Smallest sequence number inside.
    pub min_seq: SeqNo,
    /// Largest sequence number inside.
    pub max_seq: SeqNo,
    /// Oldest write time inside.
    pub min_time: Timestamp,
    /// Newest write time inside.
    pub max_time: Timestamp,
    /// Earliest expiry of any row, if a row has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_expires: Option<Timestamp>,
    /// Latest expiry, if a row has one: past it, and with no row that never expires, a table holds nothing alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_expires: Option<Timestamp>,
    /// Number of rows that have an expiry.
    #[serde(default)]
    pub expiring: u64,
    /// Bytes of keys and values before compression; values in blob files are not counted.
    pub raw_bytes: u64,
    /// Bytes of the data blocks as stored.
    pub stored_bytes: u64,
    /// Number of data blocks.
    pub blocks: u64,
    /// Blob files the rows point at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<BlobId>,
    /// Of each of these files, in the same order, what the rows point at. Absent in tables written before it was
    /// recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blob_use: Vec<BlobUse>,
}

impl Properties {
    /// The manifest entry of the table these are of.
    #[must_use]
    pub fn to_entry(&self, name: &str, len: u64, meta_offset: u64, crc: u32) -> TableEntry {
        TableEntry {
            name: name.to_owned(),
            len,
            meta_offset,
            crc,
            smallest: self.smallest.clone(),
            largest: self.largest.clone(),
            min_seq: self.min_seq,
            max_seq: self.max_seq,
            min_time: self.min_time,
            max_time: self.max_time,
            rows: self.rows,
            deletes: self.deletes,
            min_expires: self.min_expires,
            expiring: self.max_expires.map(|last| Expiring { rows: self.expiring, last }),
            raw_bytes: self.raw_bytes,
            blobs: self.blobs.clone(),
            blob_use: self.blob_use.clone(),
            extra: Default::default(),
        }
    }

    /// Why bounds and counts contradict each other, if they do.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        let checks = [
            (self.rows == 0, "a table without rows"),
            (self.keys == 0 || self.keys > self.rows, "more keys than rows, or none"),
            (self.deletes > self.rows || self.expiring > self.rows, "more rows of one kind than rows"),
            (self.smallest.as_slice() > self.largest.as_slice(), "the smallest key is above the largest"),
            (self.min_seq > self.max_seq, "the smallest sequence number is above the largest"),
            (self.min_time > self.max_time, "the oldest write time is above the newest"),
            (
                !self.blob_use.is_empty() && self.blob_use.len() != self.blobs.len(),
                "more or fewer blob files are counted than pointed at",
            ),
        ];
        checks.into_iter().find(|(broken, _)| *broken).map(|(_, why)| why)
    }
}

/// Gathers a table's properties row by row.
#[derive(Debug)]
pub(super) struct Gathered {
    rows: u64,
    keys: u64,
    deletes: u64,
    expiring: u64,
    raw_bytes: u64,
    seq: (SeqNo, SeqNo),
    time: (Timestamp, Timestamp),
    expires: Option<(Timestamp, Timestamp)>,
    blobs: BTreeMap<BlobId, BlobUse>,
}

impl Gathered {
    pub(super) fn new() -> Self {
        Self {
            rows: 0,
            keys: 0,
            deletes: 0,
            expiring: 0,
            raw_bytes: 0,
            seq: (SeqNo(u64::MAX), SeqNo::ZERO),
            time: (Timestamp(i64::MAX), Timestamp(i64::MIN)),
            expires: None,
            blobs: BTreeMap::new(),
        }
    }

    #[inline]
    pub(super) fn add(&mut self, row: &RowRef<'_>, new_key: bool) {
        self.rows += 1;
        self.keys += u64::from(new_key);
        self.seq = (self.seq.0.min(row.seq), self.seq.1.max(row.seq));
        self.time = (self.time.0.min(row.time), self.time.1.max(row.time));
        if let Some(e) = row.expires {
            self.expiring += 1;
            self.expires = Some(self.expires.map_or((e, e), |(min, max)| (min.min(e), max.max(e))));
        }
        self.raw_bytes += row.key.len() as u64;
        match row.value {
            ValueRef::Put(value) => self.raw_bytes += value.len() as u64,
            ValueRef::Delete => self.deletes += 1,
            ValueRef::Blob(p) => match self.blobs.get_mut(p.blob) {
                Some(used) => used.add_value(p.len),
                None => self.blobs.entry(p.blob.to_owned()).or_default().add_value(p.len),
            },
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub(super) fn finish(self, smallest: Key, largest: Key, blocks: u64, stored_bytes: u64) -> Properties {
        let (blobs, blob_use) = self.blobs.into_iter().unzip();
        Properties {
            rows: self.rows,
            keys: self.keys,
            deletes: self.deletes,
            smallest,
            largest,
            min_seq: self.seq.0,
            max_seq: self.seq.1,
            min_time: self.time.0,
            max_time: self.time.1,
            min_expires: self.expires.map(|(min, _)| min),
            max_expires: self.expires.map(|(_, max)| max),
            expiring: self.expiring,
            raw_bytes: self.raw_bytes,
            stored_bytes,
            blocks,
            blobs,
            blob_use,
        }
    }
}
