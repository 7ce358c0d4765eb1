//! One record: a mutation as it lies in a block.
//!
//! | bytes | field |
//! | --- | --- |
//! | 1 | kind (bits 0 and 1: 1 put, 2 delete, 3 blob) and flags (bit 2: has an expiry); the other bits are zero |
//! | varint | write time, as microseconds since the block's base time |
//! | 8 | expiry in microseconds, little-endian, only with its flag |
//! | varint | length of the key |
//! | varint | length of the value; absent in a delete |
//! | n | key |
//! | n | value; for a blob, where it lies |
//!
//! Where a blob lies: offset (varint), length (varint), CRC32C (4 bytes), then the blob file's name to the end.
//!
//! The sequence number is not stored: numbers are dense, so a record's place in the object is its number.

use super::Push;
use crate::format::varint;
use crate::ids::{SeqNo, Timestamp};
use crate::row::{BlobPointerRef, MAX_KEY_LEN, RowRef, ValueRef};

const KIND: u8 = 0b011;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const BLOB: u8 = 3;
const EXPIRES: u8 = 0b100;
const UNKNOWN: u8 = !(KIND | EXPIRES);

/// Longest part of a record before key and value.
pub(super) const MAX_HEAD: usize = 1 + 3 * varint::MAX_LEN + 8;

/// Longest head of a blob's place, before the name.
const MAX_PLACE: usize = 2 * varint::MAX_LEN + 4;

/// A record about to be written: its pieces, of which only the head is made anew.
pub(super) struct Pieces<'a> {
    head: [u8; MAX_HEAD],
    head_len: usize,
    key: &'a [u8],
    place: [u8; MAX_PLACE],
    place_len: usize,
    value: &'a [u8],
}

impl<'a> Pieces<'a> {
    /// Takes a mutation apart; `delta` is its write time less the block's base time.
    #[inline]
    pub(super) fn new(key: &'a [u8], delta: u64, expires: Option<Timestamp>, value: &Push<'a>) -> Self {
        let (kind, content) = match *value {
            Push::Put(v) => (PUT, v),
            Push::Delete => (DELETE, &[][..]),
            Push::Blob(p) => (BLOB, p.blob.as_bytes()),
        };
        let mut p = Self {
            head: [0; MAX_HEAD],
            head_len: 1,
            key,
            place: [0; MAX_PLACE],
            place_len: 0,
            value: content,
        };
        if let Push::Blob(at) = value {
            p.put_place(at);
        }
        p.head[0] = kind | if expires.is_some() { EXPIRES } else { 0 };
        p.put_varint(delta);
        if let Some(at) = expires {
            p.head[p.head_len..p.head_len + 8].copy_from_slice(&at.0.to_le_bytes());
            p.head_len += 8;
        }
        p.put_varint(key.len() as u64);
        if kind != DELETE {
            p.put_varint((p.place_len + content.len()) as u64);
        }
        p
    }

    #[inline]
    fn put_varint(&mut self, n: u64) {
        self.head_len += varint::write(&mut self.head[self.head_len..], n);
    }

    fn put_place(&mut self, at: &BlobPointerRef<'_>) {
        let mut len = varint::write(&mut self.place, at.offset);
        len += varint::write(&mut self.place[len..], at.len);
        self.place[len..len + 4].copy_from_slice(&at.crc.to_le_bytes());
        self.place_len = len + 4;
    }

    /// Length of the whole record in bytes.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.head_len + self.key.len() + self.place_len + self.value.len()
    }

    /// Appends the record.
    #[inline]
    pub(super) fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head[..self.head_len]);
        out.extend_from_slice(self.key);
        if self.place_len > 0 {
            out.extend_from_slice(&self.place[..self.place_len]);
        }
        out.extend_from_slice(self.value);
    }
}

/// The record at the start of `bytes` and its length; `None` where there is no whole, well-formed one.
#[inline]
pub(super) fn parse(bytes: &[u8], base: Timestamp, seq: SeqNo) -> Option<(RowRef<'_>, usize)> {
    let kind = *bytes.first()?;
    if kind & UNKNOWN != 0 {
        return None;
    }
    let mut at = 1;
    let delta = take_varint(bytes, &mut at)?;
    let time = Timestamp(base.0.checked_add_unsigned(delta)?);
    let mut expires = None;
    if kind & EXPIRES != 0 {
        let raw = bytes.get(at..)?.first_chunk::<8>()?;
        expires = Some(Timestamp(i64::from_le_bytes(*raw)));
        at += 8;
    }
    let key_len = usize::try_from(take_varint(bytes, &mut at)?).ok()?;
    if key_len == 0 || key_len > MAX_KEY_LEN {
        return None;
    }
    let value_len = match kind & KIND {
        DELETE => 0,
        _ => usize::try_from(take_varint(bytes, &mut at)?).ok()?,
    };
    let rest = bytes.get(at..)?;
    let (key, rest) = rest.split_at_checked(key_len)?;
    let content = rest.get(..value_len)?;
    let value = match kind & KIND {
        PUT => ValueRef::Put(content),
        DELETE => ValueRef::Delete,
        BLOB => ValueRef::Blob(parse_place(content)?),
        _ => return None,
    };
    Some((RowRef { key, seq, time, expires, value }, at + key_len + value_len))
}

#[inline]
fn take_varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let (n, len) = varint::get(bytes.get(*at..)?)?;
    *at += len;
    Some(n)
}

fn parse_place(bytes: &[u8]) -> Option<BlobPointerRef<'_>> {
    let mut at = 0;
    let offset = take_varint(bytes, &mut at)?;
    let len = take_varint(bytes, &mut at)?;
    let (crc, name) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let blob = std::str::from_utf8(name).ok().filter(|n| crate::names::is_name(n))?;
    Some(BlobPointerRef { blob, offset, len, crc: u32::from_le_bytes(*crc) })
}
