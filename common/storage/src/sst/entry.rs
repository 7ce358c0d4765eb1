//! One row as it lies in a data block.
//!
//! ```text
//! tag u8            bits 0-1 kind (0 put, 1 delete, 2 blob pointer), bit 2 the row expires; the rest are zero
//! shared varint     bytes of the key taken from the row before
//! unshared varint   bytes of the key that follow
//! suffix            those bytes
//! seq varint        zigzag difference to the block's base number
//! time varint       zigzag difference to the block's base time, in microseconds
//! [expires varint]  zigzag difference to the row's own time
//! put:   len varint, value
//! blob:  name_len varint, name, offset varint, len varint, crc u32 LE
//! ```
//!
//! The key comes first because a search looks at nothing else: a restart point is judged by two lengths and a compare.

use crate::format::varint;
use crate::ids::{SeqNo, Timestamp};
use crate::row::{BlobPointerRef, MAX_KEY_LEN, RowRef, ValueRef};

const KIND: u8 = 0b011;
const EXPIRES: u8 = 0b100;
const PUT: u8 = 0;
const DELETE: u8 = 1;
const BLOB: u8 = 2;

/// Longest blob name a row may carry; names are `<owner>-<n>` and far shorter.
const MAX_BLOB_NAME: usize = 512;

/// What a block's rows are stored as differences to: the number and time of its first row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Base {
    pub(super) seq: u64,
    pub(super) time: i64,
}

/// The part of an entry that a search reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntryKey<'a> {
    tag: u8,
    /// Bytes taken from the key before.
    pub(super) shared: usize,
    /// The bytes that follow them.
    pub(super) suffix: &'a [u8],
    /// Where the rest of the entry starts.
    rest: usize,
}

/// Everything of an entry but its key; the value is named by its place, so that this borrows nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    tag: u8,
    pub(super) seq: SeqNo,
    pub(super) time: Timestamp,
    pub(super) expires: Option<Timestamp>,
    value: (usize, usize),
    /// Where the next entry starts.
    pub(super) next: usize,
}

/// Appends a row whose key shares `shared` bytes with the key before it.
pub(super) fn encode(out: &mut Vec<u8>, shared: usize, row: &RowRef<'_>, base: Base) {
    let kind = match row.value {
        ValueRef::Put(_) => PUT,
        ValueRef::Delete => DELETE,
        ValueRef::Blob(_) => BLOB,
    };
    let suffix = &row.key[shared..];
    out.push(kind | if row.expires.is_some() { EXPIRES } else { 0 });
    varint::put(out, shared as u64);
    varint::put(out, suffix.len() as u64);
    out.extend_from_slice(suffix);
    put_signed(out, row.seq.0.wrapping_sub(base.seq).cast_signed());
    put_signed(out, row.time.0.wrapping_sub(base.time));
    if let Some(expires) = row.expires {
        put_signed(out, expires.0.wrapping_sub(row.time.0));
    }
    encode_value(out, &row.value);
}

fn encode_value(out: &mut Vec<u8>, value: &ValueRef<'_>) {
    match value {
        ValueRef::Put(value) => {
            varint::put(out, value.len() as u64);
            out.extend_from_slice(value);
        }
        ValueRef::Delete => {}
        ValueRef::Blob(p) => {
            varint::put(out, p.blob.len() as u64);
            out.extend_from_slice(p.blob.as_bytes());
            varint::put(out, p.offset);
            varint::put(out, p.len);
            out.extend_from_slice(&p.crc.to_le_bytes());
        }
    }
}

/// An upper bound of what [`encode`] appends for `row`, so that a buffer grows once.
pub(super) fn encoded_bound(row: &RowRef<'_>) -> usize {
    const LENGTHS_AND_NUMBERS: usize = 64;
    let value = match row.value {
        ValueRef::Put(value) => value.len(),
        ValueRef::Delete => 0,
        ValueRef::Blob(p) => p.blob.len(),
    };
    LENGTHS_AND_NUMBERS + row.key.len() + value
}

/// The key part of the entry at `at`; `None` where the bytes are not one.
#[inline]
pub(super) fn key_at(entries: &[u8], at: usize) -> Option<EntryKey<'_>> {
    let tag = *entries.get(at)?;
    let (shared, at) = length(entries, at + 1)?;
    let (unshared, at) = length(entries, at)?;
    let rest = at.checked_add(unshared)?;
    Some(EntryKey { tag, shared, suffix: entries.get(at..rest)?, rest })
}

/// The rest of the entry whose key part is `key`; `None` where the bytes are not one.
#[inline]
pub(super) fn fields_of(entries: &[u8], key: &EntryKey<'_>, base: Base) -> Option<Fields> {
    let (seq, at) = signed(entries, key.rest)?;
    let (time, mut at) = signed(entries, at)?;
    let seq = SeqNo(base.seq.wrapping_add(seq.cast_unsigned()));
    let time = Timestamp(base.time.wrapping_add(time));
    let mut expires = None;
    if key.tag & EXPIRES != 0 {
        let (after, next) = signed(entries, at)?;
        expires = Some(Timestamp(time.0.wrapping_add(after)));
        at = next;
    }
    let (value, next) = value_span(entries, key.tag & KIND, at)?;
    Some(Fields { tag: key.tag, seq, time, expires, value, next })
}

/// Where the value lies, and where the next entry starts.
#[inline]
fn value_span(entries: &[u8], kind: u8, at: usize) -> Option<((usize, usize), usize)> {
    match kind {
        PUT => {
            let (len, start) = length(entries, at)?;
            let end = start.checked_add(len)?;
            (end <= entries.len()).then_some(((start, end), end))
        }
        DELETE => Some(((at, at), at)),
        BLOB => {
            let (_, next) = blob_at(entries, at)?;
            Some(((at, next), next))
        }
        _ => None,
    }
}

fn blob_at(entries: &[u8], at: usize) -> Option<(BlobPointerRef<'_>, usize)> {
    let (name_len, at) = length(entries, at)?;
    let name_end = at.checked_add(name_len).filter(|_| name_len <= MAX_BLOB_NAME)?;
    let blob = std::str::from_utf8(entries.get(at..name_end)?).ok()?;
    let (offset, at) = number(entries, name_end)?;
    let (len, at) = number(entries, at)?;
    let crc = entries.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)?;
    Some((BlobPointerRef { blob, offset, len, crc }, at + 4))
}

fn put_signed(out: &mut Vec<u8>, n: i64) {
    varint::put(out, ((n << 1) ^ (n >> 63)).cast_unsigned());
}

#[inline]
fn signed(entries: &[u8], at: usize) -> Option<(i64, usize)> {
    let (n, next) = number(entries, at)?;
    Some(((n >> 1).cast_signed() ^ -(n & 1).cast_signed(), next))
}

#[inline]
fn number(entries: &[u8], at: usize) -> Option<(u64, usize)> {
    let (n, len) = varint::get(entries.get(at..)?)?;
    Some((n, at + len))
}

#[inline]
fn length(entries: &[u8], at: usize) -> Option<(usize, usize)> {
    let (n, next) = number(entries, at)?;
    Some((usize::try_from(n).ok()?, next))
}

impl EntryKey<'_> {
    /// Whether tag and key length are what this version writes.
    pub(super) fn is_well_formed(&self) -> bool {
        let len = self.shared.saturating_add(self.suffix.len());
        self.tag & !(KIND | EXPIRES) == 0 && (1..=MAX_KEY_LEN).contains(&len)
    }
}

impl Fields {
    /// Where the bytes of a put's value lie; `None` for the other kinds.
    #[inline]
    pub(super) fn put_range(&self) -> Option<std::ops::Range<usize>> {
        (self.tag & KIND == PUT).then_some(self.value.0..self.value.1)
    }

    /// The whole row, given its key.
    #[inline]
    pub(super) fn row<'a>(&self, entries: &'a [u8], key: &'a [u8]) -> Option<RowRef<'a>> {
        let value = match self.tag & KIND {
            PUT => ValueRef::Put(entries.get(self.value.0..self.value.1)?),
            DELETE => ValueRef::Delete,
            _ => ValueRef::Blob(blob_at(entries, self.value.0)?.0),
        };
        Some(RowRef { key, seq: self.seq, time: self.time, expires: self.expires, value })
    }
}
