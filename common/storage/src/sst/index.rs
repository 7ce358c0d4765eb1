//! The block index: for every data block a separator, its stored length, and whether its last key goes on in the next.
//!
//! A block's separator `s` is at or above its last key and below the next block's first key (or equal to both where
//! the versions of one key straddle the two): the shortest such byte string, so that tables of long keys have a small
//! index. The last block's is the table's largest key.
//!
//! ```text
//! count varint, then for each block
//!   stored_len varint · flags u8 (bit 0: goes on) · separator_len varint · separator
//! ```
//! Blocks lie one after the other from the object's first byte, so their offsets are sums of lengths.

use std::ops::Range;

use crate::format::{FormatError, Reader, varint};
use crate::row::MAX_KEY_LEN;

pub(super) const WHAT: &str = "table index";
const GOES_ON: u8 = 1;

/// Least bytes of one index entry.
const MIN_ENTRY: usize = 3;

/// Shortest stored block: one that is nothing but its trailer.
const MIN_BLOCK: u64 = crate::format::block::TRAILER_LEN as u64;

/// A table's block index, decoded. Separators lie one after the other in one buffer.
#[derive(Debug, Default)]
pub(super) struct Index {
    separators: Vec<u8>,
    blocks: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Where the block ends in the object.
    end: u64,
    /// Where its separator ends in the buffer.
    separator_end: u32,
    goes_on: bool,
}

impl Index {
    pub(super) fn decode(mut bytes: Reader<'_>, data_len: u64) -> Result<Self, FormatError> {
        let count = bytes.count(MIN_ENTRY)?;
        let mut index =
            Self { separators: Vec::with_capacity(bytes.remaining()), blocks: Vec::with_capacity(count) };
        let mut end = 0u64;
        for i in 0..count {
            let len = bytes.varint()?;
            let flags = bytes.u8()?;
            let separator = bytes.prefixed()?;
            end =
                end.checked_add(len).filter(|end| *end <= data_len && len > MIN_BLOCK).ok_or_else(|| {
                    bytes.damaged(format!("block {i} of {len} bytes does not fit the data's {data_len}"))
                })?;
            if flags & !GOES_ON != 0 || !(1..=MAX_KEY_LEN).contains(&separator.len()) {
                return Err(bytes.damaged(format!("the entry of block {i} is malformed")));
            }
            let before = i.checked_sub(1).map(|p| (index.separator(p), index.blocks[p].goes_on));
            if before.is_some_and(|(s, goes_on)| s > separator || (s == separator && !goes_on)) {
                return Err(bytes.damaged(format!("the separator of block {i} does not ascend")));
            }
            index.push(end, separator, flags & GOES_ON != 0);
        }
        bytes.end()?;
        if count == 0 || end != data_len {
            return Err(bytes.damaged(format!("{count} blocks of {end} bytes, and {data_len} bytes of data")));
        }
        index.separators.shrink_to_fit();
        Ok(index)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        varint::put(&mut out, self.blocks.len() as u64);
        for (i, entry) in self.blocks.iter().enumerate() {
            let separator = self.separator(i);
            let range = self.range(i);
            varint::put(&mut out, range.end - range.start);
            out.push(if entry.goes_on { GOES_ON } else { 0 });
            varint::put(&mut out, separator.len() as u64);
            out.extend_from_slice(separator);
        }
        out
    }

    /// About as many bytes as [`Index::encode`] gives.
    pub(super) fn encoded_len(&self) -> usize {
        const LENGTHS_AND_FLAGS: usize = 6;
        8 + self.separators.len() + LENGTHS_AND_FLAGS * self.blocks.len()
    }

    pub(super) fn push(&mut self, end: u64, separator: &[u8], goes_on: bool) {
        self.separators.extend_from_slice(separator);
        self.blocks.push(Entry { end, separator_end: self.separators.len() as u32, goes_on });
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    pub(super) fn separator(&self, i: usize) -> &[u8] {
        let start = i.checked_sub(1).map_or(0, |p| self.blocks[p].separator_end);
        &self.separators[start as usize..self.blocks[i].separator_end as usize]
    }

    /// Where block `i` lies; empty, at the end of the data, where there is no such block.
    pub(super) fn range(&self, i: usize) -> Range<u64> {
        let end = |i: usize| self.blocks.get(i).or(self.blocks.last()).map_or(0, |entry| entry.end);
        i.checked_sub(1).map_or(0, end)..end(i)
    }

    pub(super) fn goes_on(&self, i: usize) -> bool {
        self.blocks.get(i).is_some_and(|entry| entry.goes_on)
    }

    /// Number of blocks whose separator is below `key`.
    pub(super) fn below(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.blocks.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.separator(middle) < key { low = middle + 1 } else { high = middle }
        }
        low
    }

    pub(super) fn memory(&self) -> usize {
        self.separators.capacity() + self.blocks.capacity() * size_of::<Entry>()
    }
}

/// A short byte string at or above `last` and below `next`, for `last < next`: `next` cut right behind the first byte
/// in which the two differ (above `last` by that byte, below `next` by being cut), where that is shorter than `last`.
pub(super) fn separator<'a>(last: &'a [u8], next: &'a [u8]) -> &'a [u8] {
    let common = super::block::common_prefix(last, next);
    let candidate = common + 1;
    if candidate < next.len() && candidate < last.len() { &next[..candidate] } else { last }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_lie_between_and_are_short() {
        let cases: [(&[u8], &[u8], &[u8]); 6] = [
            (b"apple-long-key", b"apricot", b"apr"),
            (b"a", b"b", b"a"),
            (b"abc", b"abcd", b"abc"),
            (b"abc", b"abd", b"abc"),
            (b"aaaa", b"b", b"aaaa"),
            (b"k\xff\xff\xff\xff", b"l\x00", b"l"),
        ];
        for (last, next, expected) in cases {
            let s = separator(last, next);
            assert_eq!(s, expected);
            assert!(last <= s && s < next);
        }
    }

    #[test]
    fn an_index_reads_back_and_refuses_what_does_not_add_up() {
        let mut index = Index::default();
        index.push(100, b"b", false);
        index.push(250, b"d", true);
        index.push(300, b"d", false);
        let bytes = index.encode();
        let again = Index::decode(Reader::new(WHAT, &bytes), 300).unwrap();
        assert_eq!((again.len(), again.range(1), again.separator(2)), (3, 100..250, &b"d"[..]));
        assert_eq!(again.range(3), 300..300);
        assert_eq!(
            (again.below(b"a"), again.below(b"c"), again.below(b"d"), again.below(b"e")),
            (0, 1, 1, 3)
        );
        assert!(Index::decode(Reader::new(WHAT, &bytes), 301).is_err());
        assert!(Index::decode(Reader::new(WHAT, &bytes), 299).is_err());
        for cut in 0..bytes.len() {
            assert!(Index::decode(Reader::new(WHAT, &bytes[..cut]), 300).is_err());
        }
        let mut falling = Index::default();
        falling.push(100, b"b", false);
        falling.push(200, b"b", false);
        assert!(Index::decode(Reader::new(WHAT, &falling.encode()), 200).is_err());
    }
}
