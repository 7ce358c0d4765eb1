//! What a manifest names: log objects, tables, and the runs that tables form.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::blobs::BlobUse;
use super::state::is_false;
use crate::ids::{RunId, SeqNo, Timestamp};
use crate::names::{LogId, LogKind, ObjectPath};
use crate::row::BlobId;

/// A key inside the manifest. In JSON: the text itself where the bytes are UTF-8 and do not start with `0x`;
/// otherwise `0x` and hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key(pub Bytes);

impl Key {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The JSON and text form.
    #[must_use]
    pub fn to_text(&self) -> String {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.starts_with("0x") => text.to_owned(),
            _ => {
                let mut out = String::with_capacity(2 + 2 * self.0.len());
                out.push_str("0x");
                for b in &self.0 {
                    out.push(char::from(b"0123456789abcdef"[usize::from(b >> 4)]));
                    out.push(char::from(b"0123456789abcdef"[usize::from(b & 15)]));
                }
                out
            }
        }
    }

    /// Reads the JSON and text form back.
    ///
    /// # Errors
    /// A text saying why it is not one.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let Some(hex) = text.strip_prefix("0x") else {
            return Ok(Self(Bytes::copy_from_slice(text.as_bytes())));
        };
        let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
        let bytes = hex.as_bytes();
        if bytes.len() % 2 != 0 {
            return Err(format!("key {text:?} has an odd number of hexadecimal digits"));
        }
        let pairs = bytes.chunks_exact(2).map(|p| Some((digit(p[0])? << 4) | digit(p[1])?));
        let decoded: Option<Vec<u8>> = pairs.collect();
        decoded
            .map(|k| Self(k.into()))
            .ok_or_else(|| format!("key {text:?} has a digit that is not hexadecimal"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_text(), f)
    }
}

impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.to_text())
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::from_text(&text).map_err(serde::de::Error::custom)
    }
}

/// One log object the manifest names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Segment or chunk.
    pub kind: LogKind,
    /// Who wrote it and where it starts.
    #[serde(flatten)]
    pub id: LogId,
    /// Last sequence number inside.
    pub last_seq: SeqNo,
    /// Length of the object in bytes.
    pub len: u64,
    /// The index and footer are the object's bytes from here to its end.
    pub index_offset: u64,
    /// CRC32C of the whole object.
    pub crc: u32,
    /// Write time of the first mutation.
    pub first_time: Timestamp,
    /// Write time of the last mutation.
    pub last_time: Timestamp,
    /// Bytes of the records before compression: what they take in memory.
    pub raw_bytes: u64,
    /// Whether a memtable generation starts with this segment.
    #[serde(default, skip_serializing_if = "is_false")]
    pub starts_generation: bool,
    /// Blob files the records point at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<BlobId>,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Json>,
}

impl LogEntry {
    /// The object's path.
    #[must_use]
    pub fn path(&self) -> ObjectPath {
        self.id.path(self.kind)
    }

    /// Number of mutations inside.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.last_seq.0.saturating_sub(self.id.first_seq.0).saturating_add(1)
    }
}

/// The newest segment of the log: what the next one names as its predecessor. Kept apart from the list of log
/// objects, where a flush may have replaced the segment by a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogTail {
    /// The segment.
    #[serde(flatten)]
    pub id: LogId,
    /// Its last sequence number.
    pub last_seq: SeqNo,
}

/// One table the manifest names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEntry {
    /// `<owner>-<n>`: the object is [`crate::names::table`] of it.
    pub name: String,
    /// Length of the object in bytes.
    pub len: u64,
    /// Filter, index, properties and footer are the object's bytes from here to its end.
    pub meta_offset: u64,
    /// CRC32C of the object's bytes from `meta_offset` to its end (data blocks carry their own).
    pub crc: u32,
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
    /// Newest write time inside: the table's age for retention; survives rewriting.
    pub max_time: Timestamp,
    /// Number of rows, deletes included.
    pub rows: u64,
    /// Number of deletes.
    #[serde(default)]
    pub deletes: u64,
    /// Earliest expiry of any row, if a row has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_expires: Option<Timestamp>,
    /// How many rows have an expiry, and until when the last of them lives. Absent where no row has one, and in entries
    /// written before it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiring: Option<Expiring>,
    /// Bytes of keys and values before compression.
    pub raw_bytes: u64,
    /// Blob files the rows point at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<BlobId>,
    /// Of each of these files, in the same order, what the rows point at. Absent in entries written before it was
    /// recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blob_use: Vec<BlobUse>,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Json>,
}

/// What a table says of its rows that expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiring {
    /// How many there are.
    pub rows: u64,
    /// The latest expiry among them.
    pub last: Timestamp,
}

impl TableEntry {
    /// The object's path.
    #[must_use]
    pub fn path(&self) -> ObjectPath {
        crate::names::table(&self.name)
    }

    /// About how many rows have expired at `instant`, as if their expiries were spread evenly from the first to the last.
    /// An entry that does not know is taken to be expired as a whole with its first row: rewriting it once tells.
    #[must_use]
    pub fn expired_rows(&self, instant: Timestamp) -> u64 {
        let Some(first) = self.min_expires.filter(|first| *first <= instant) else { return 0 };
        let Some(Expiring { rows, last }) = self.expiring else { return self.rows };
        if last <= instant {
            return rows;
        }
        let part = |from: Timestamp, to: Timestamp| i128::from(to.0) - i128::from(from.0);
        let expired = i128::from(rows) * part(first, instant) / part(first, last).max(1);
        u64::try_from(expired).unwrap_or(rows).clamp(1, rows.max(1))
    }

    /// Whether `key` lies within the table's bounds.
    #[must_use]
    pub fn covers(&self, key: &[u8]) -> bool {
        self.smallest.as_slice() <= key && key <= self.largest.as_slice()
    }
}

/// A sorted run: tables that ascend by key and do not overlap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Identity, never used twice: the version of the edit that made the run.
    pub id: RunId,
    /// Whether a flush made it and no merge has touched it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub l0: bool,
    /// At least one.
    pub tables: Vec<Arc<TableEntry>>,
}

impl Run {
    /// Smallest sequence number inside.
    #[must_use]
    pub fn min_seq(&self) -> SeqNo {
        self.tables.iter().map(|t| t.min_seq).min().unwrap_or_default()
    }

    /// Largest sequence number inside.
    #[must_use]
    pub fn max_seq(&self) -> SeqNo {
        self.tables.iter().map(|t| t.max_seq).max().unwrap_or_default()
    }

    /// Oldest write time inside.
    #[must_use]
    pub fn min_time(&self) -> Timestamp {
        self.tables.iter().map(|t| t.min_time).min().unwrap_or_default()
    }

    /// Newest write time inside: the run's age.
    #[must_use]
    pub fn max_time(&self) -> Timestamp {
        self.tables.iter().map(|t| t.max_time).max().unwrap_or_default()
    }

    /// Stored bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.tables.iter().map(|t| t.len).sum()
    }

    /// The one table that may hold `key`, found by binary search.
    #[must_use]
    pub fn table_for(&self, key: &[u8]) -> Option<&Arc<TableEntry>> {
        let at = self.tables.partition_point(|t| t.largest.as_slice() < key);
        self.tables.get(at).filter(|t| t.covers(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_any_bytes_survive_their_text_form() {
        for raw in [&b""[..], b"plain", b"0xabc", b"\xff\x00", "sn\u{f8}".as_bytes()] {
            let key = Key(Bytes::copy_from_slice(raw));
            assert_eq!(Key::from_text(&key.to_text()).unwrap(), key);
        }
        assert!(Key::from_text("0x1").is_err());
        assert!(Key::from_text("0xzz").is_err());
    }

    #[test]
    fn expired_rows_are_counted_as_if_they_were_spread_evenly() {
        let key = Key::default();
        let mut t = TableEntry {
            name: "t".into(),
            len: 2,
            meta_offset: 1,
            crc: 0,
            smallest: key.clone(),
            largest: key,
            min_seq: SeqNo(1),
            max_seq: SeqNo(9),
            min_time: Timestamp(0),
            max_time: Timestamp(0),
            rows: 9,
            deletes: 0,
            min_expires: Some(Timestamp(100)),
            expiring: Some(Expiring { rows: 8, last: Timestamp(200) }),
            raw_bytes: 1,
            blobs: Vec::new(),
            blob_use: Vec::new(),
            extra: BTreeMap::new(),
        };
        let at = |t: &TableEntry| [99, 100, 150, 200, 900].map(|i| t.expired_rows(Timestamp(i)));
        assert_eq!(at(&t), [0, 1, 4, 8, 8]);
        t.expiring = None;
        assert_eq!(at(&t), [0, 9, 9, 9, 9], "an older entry does not know");
        t.min_expires = None;
        assert_eq!(at(&t), [0; 5]);
    }
}
