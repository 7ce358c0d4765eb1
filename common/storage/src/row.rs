//! Rows: what a mutation becomes in the log, in a table and in an answer.

use bytes::Bytes;

use crate::ids::{SeqNo, Timestamp};

/// Longest key, in bytes.
pub const MAX_KEY_LEN: usize = 65_536;

/// Longest value, in bytes.
pub const MAX_VALUE_LEN: usize = 256 * 1024 * 1024;

/// Longest value that lies among rows, in the log and in tables, in bytes; longer ones lie in blob files.
pub const MAX_INLINE_VALUE_LEN: usize = 8 * 1024 * 1024;

/// Identity of a blob file, relative to the prefix: its `<owner>-<n>` name.
pub type BlobId = String;

/// Where a value lies that is stored outside its row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BlobPointer {
    /// The blob file's `<owner>-<n>` name.
    pub blob: BlobId,
    /// First byte of the value's first chunk within the blob file (see [`crate::blob`]).
    pub offset: u64,
    /// Length of the value in bytes, without the checksums of its chunks.
    pub len: u64,
    /// CRC32C of the value.
    pub crc: u32,
}

impl BlobPointer {
    /// The same, borrowed.
    #[must_use]
    pub fn as_ref(&self) -> BlobPointerRef<'_> {
        BlobPointerRef { blob: &self.blob, offset: self.offset, len: self.len, crc: self.crc }
    }
}

impl BlobPointerRef<'_> {
    /// An owned copy.
    #[must_use]
    pub fn to_owned(&self) -> BlobPointer {
        BlobPointer { blob: self.blob.to_owned(), offset: self.offset, len: self.len, crc: self.crc }
    }
}

/// What a row says of its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// The key has this value.
    Put(Bytes),
    /// The key is gone.
    Delete,
    /// The key has the value stored there.
    Blob(BlobPointer),
}

/// One mutation, owned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Row {
    /// 1 to [`MAX_KEY_LEN`] bytes.
    pub key: Bytes,
    /// Its place in commit order.
    pub seq: SeqNo,
    /// When it was written; never decreases with `seq`.
    pub time: Timestamp,
    /// When it stops being visible, if ever.
    pub expires: Option<Timestamp>,
    /// The value, its absence, or where it lies.
    pub value: Value,
}

/// What a borrowed row says of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueRef<'a> {
    /// The key has this value.
    Put(&'a [u8]),
    /// The key is gone.
    Delete,
    /// The key has the value stored there.
    Blob(BlobPointerRef<'a>),
}

/// A borrowed [`BlobPointer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobPointerRef<'a> {
    /// The blob file's `<owner>-<n>` name.
    pub blob: &'a str,
    /// First byte of the value within the blob file.
    pub offset: u64,
    /// Length of the value in bytes.
    pub len: u64,
    /// CRC32C of the value.
    pub crc: u32,
}

/// One mutation, borrowed from the block it was decoded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowRef<'a> {
    /// 1 to [`MAX_KEY_LEN`] bytes.
    pub key: &'a [u8],
    /// Its place in commit order.
    pub seq: SeqNo,
    /// When it was written.
    pub time: Timestamp,
    /// When it stops being visible, if ever.
    pub expires: Option<Timestamp>,
    /// The value, its absence, or where it lies.
    pub value: ValueRef<'a>,
}

impl Row {
    /// The same row, borrowed.
    #[must_use]
    pub fn as_ref(&self) -> RowRef<'_> {
        let value = match &self.value {
            Value::Put(v) => ValueRef::Put(v),
            Value::Delete => ValueRef::Delete,
            Value::Blob(p) => {
                ValueRef::Blob(BlobPointerRef { blob: &p.blob, offset: p.offset, len: p.len, crc: p.crc })
            }
        };
        RowRef { key: &self.key, seq: self.seq, time: self.time, expires: self.expires, value }
    }
}

impl RowRef<'_> {
    /// An owned copy; key and value share no buffer with the block, so a small row never pins a large one.
    #[must_use]
    pub fn to_row(&self) -> Row {
        let value = match self.value {
            ValueRef::Put(v) => Value::Put(Bytes::copy_from_slice(v)),
            ValueRef::Delete => Value::Delete,
            ValueRef::Blob(p) => {
                Value::Blob(BlobPointer { blob: p.blob.to_owned(), offset: p.offset, len: p.len, crc: p.crc })
            }
        };
        Row {
            key: Bytes::copy_from_slice(self.key),
            seq: self.seq,
            time: self.time,
            expires: self.expires,
            value,
        }
    }

    /// Whether the row is a delete.
    #[must_use]
    pub fn is_delete(&self) -> bool {
        matches!(self.value, ValueRef::Delete)
    }

    /// Whether the row is past its expiry at `now`. One read judges every row at one instant.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|e| e <= now)
    }
}

/// The smallest key above every key that starts with `prefix`, or `None` when there is none (the prefix is empty or
/// all 0xFF).
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let cut = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut end = prefix[..=cut].to_vec();
    end[cut] += 1;
    Some(end)
}

/// The smallest key above `key`: `key` followed by a zero byte. (Incrementing the last byte would skip every key that
/// extends `key`.)
#[must_use]
pub fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_end_of_all_ff_is_unbounded() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn successor_does_not_skip_extensions() {
        let s = successor(b"k");
        assert!(b"k".as_slice() < s.as_slice() && s.as_slice() <= b"k\0".as_slice());
    }
}
