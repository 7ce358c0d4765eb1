//! An object held against what is known of it, window by window: pure.
//!
//! ```text
//!   begin (a table: with its metadata) ─▶ wants 0..n ─▶ feed ─▶ wants n..m ─▶ feed ─▶ … ─▶ finish: its checksum
//! ```
//! A table's windows end where its blocks do, so that each is decoded from one window; everything else is cut at even
//! lengths. So what is in memory of an object does not depend on how large it is.

use std::ops::Range;

use bytes::Bytes;

use super::TransferError;
use super::parcel::{Content, Item};
use crate::sst::{Block, TableMeta};

/// Bytes of an object that are read and held at once; a single larger block of a table still is.
pub const WINDOW_BYTES: u64 = 8 << 20;

/// An object being read from its beginning to its end.
#[derive(Debug)]
pub(super) struct Check {
    item: Item,
    window: u64,
    /// A table's metadata, which says where its blocks end, and the next block.
    blocks: Option<(TableMeta, usize)>,
    at: u64,
    crc: u32,
}

impl Check {
    /// Which bytes of the object [`Check::begin`] needs: a table's metadata, of everything else none.
    pub(super) fn needs(item: &Item) -> Range<u64> {
        match &item.content {
            Content::Table(entry) => entry.meta_offset.min(item.len)..item.len,
            Content::Crc(_) | Content::Length => 0..0,
        }
    }

    /// Begins to read `item` in windows of `window` bytes; `needed` is what [`Check::needs`] says.
    ///
    /// # Errors
    /// [`TransferError::Damaged`]: the metadata is not the one that the manifest records.
    pub(super) fn begin(item: Item, window: u64, needed: Bytes) -> Result<Self, TransferError> {
        let blocks = match &item.content {
            Content::Table(entry) => {
                if crc32c::crc32c(&needed) != entry.crc {
                    let why = "the checksum of its metadata is not the one the manifest records";
                    return Err(damaged(&item, why));
                }
                let meta = TableMeta::decode(needed, entry.meta_offset);
                Some((meta.map_err(|e| damaged(&item, e))?, 0))
            }
            Content::Crc(_) | Content::Length => None,
        };
        Ok(Self { item, window: window.max(1), blocks, at: 0, crc: 0 })
    }

    /// What is to be read next; `None` at the object's end.
    pub(super) fn wants(&self) -> Option<Range<u64>> {
        if self.at >= self.item.len {
            return None;
        }
        let most = self.at.saturating_add(self.window);
        let Some((meta, first)) = self.blocks.as_ref().filter(|(meta, first)| *first < meta.block_count())
        else {
            return Some(self.at..most.min(self.item.len));
        };
        let mut end = meta.block_range(*first).end;
        for i in *first + 1..meta.block_count() {
            match meta.block_range(i).end {
                after if after <= most => end = after,
                _ => break,
            }
        }
        Some(self.at..end)
    }

    /// Takes what [`Check::wants`] said, and shows every block of a table in it.
    ///
    /// # Errors
    /// [`TransferError::Damaged`]: a block does not decode.
    pub(super) fn feed(&mut self, bytes: &Bytes, mut show: impl FnMut(Block)) -> Result<(), TransferError> {
        let end = self.at + bytes.len() as u64;
        if let Some((meta, next)) = &mut self.blocks {
            while *next < meta.block_count() && meta.block_range(*next).end <= end {
                let range = meta.block_range(*next);
                let stored = bytes.slice((range.start - self.at) as usize..(range.end - self.at) as usize);
                let block = Block::decode(&stored)
                    .map_err(|e| damaged(&self.item, format!("block {next} at byte {}: {e}", range.start)))?;
                show(block);
                *next += 1;
            }
        }
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.at = end;
        Ok(())
    }

    /// Everything was read: the checksum of the object as a whole.
    ///
    /// # Errors
    /// [`TransferError::Damaged`]: its length or its checksum is another than the recorded one.
    pub(super) fn finish(self) -> Result<u32, TransferError> {
        has_length(&self.item, self.at)?;
        match &self.item.content {
            Content::Crc(expected) if *expected != self.crc => {
                Err(damaged(&self.item, "its checksum is not the recorded one"))
            }
            Content::Crc(_) | Content::Table(_) | Content::Length => Ok(self.crc),
        }
    }
}

/// Whether an object of `len` bytes can be the item.
pub(super) fn has_length(item: &Item, len: u64) -> Result<(), TransferError> {
    if len == item.len {
        return Ok(());
    }
    Err(damaged(item, format!("it has {len} bytes, not {}", item.len)))
}

fn damaged(item: &Item, why: impl ToString) -> TransferError {
    TransferError::Damaged { object: item.path.to_string(), why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ids::{SeqNo, Timestamp};
    use crate::row::{RowRef, ValueRef};
    use crate::sst::{TableBuilder, TableOptions};

    fn table() -> (Item, Bytes) {
        let mut builder = TableBuilder::new(TableOptions { block_bytes: 64, ..TableOptions::default() });
        for n in 0..60u64 {
            let (key, value) = (format!("key/{n:03}"), format!("value {n}"));
            builder.push(RowRef {
                key: key.as_bytes(),
                seq: SeqNo(n + 1),
                time: Timestamp(1),
                expires: None,
                value: ValueRef::Put(value.as_bytes()),
            });
        }
        let built = builder.finish("w1-0000000000000001-1");
        let entry = Arc::new(built.entry);
        let item = Item { path: entry.path(), len: entry.len, content: Content::Table(entry) };
        (item, built.body.to_bytes())
    }

    /// Reads `bytes` in windows; their lengths, and what came of it.
    fn in_windows(item: &Item, bytes: &Bytes, window: u64) -> (Vec<u64>, Result<u32, TransferError>) {
        let part = |r: Range<u64>| bytes.slice(r.start as usize..r.end as usize);
        let mut lens = Vec::new();
        let mut run = || {
            let mut check = Check::begin(item.clone(), window, part(Check::needs(item)))?;
            while let Some(wanted) = check.wants() {
                lens.push(wanted.end - wanted.start);
                check.feed(&part(wanted), drop)?;
            }
            check.finish()
        };
        let came = run();
        (lens, came)
    }

    #[test]
    fn an_object_is_the_same_in_windows_of_any_length() {
        let (table, bytes) = table();
        let crc = crc32c::crc32c(&bytes);
        let log = Item { content: Content::Crc(crc), ..table.clone() };
        let blob = Item { content: Content::Length, ..table.clone() };
        for item in [&table, &log, &blob] {
            for window in [1, 7, 64, 200, 1_000, table.len - 1, table.len, table.len * 2] {
                let (lens, came) = in_windows(item, &bytes, window);
                assert_eq!(came.unwrap(), crc);
                assert_eq!(lens.iter().sum::<u64>(), item.len);
                // A block that is larger than the window is one.
                let longest = if *item == table { window.max(120) } else { window };
                assert!(lens.iter().all(|len| *len <= longest), "{window}: {lens:?}");
            }
            assert_eq!(item.check(&bytes).unwrap(), crc);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_table_or_a_log_object_is_found() {
        let (table, bytes) = table();
        let log = Item { content: Content::Crc(crc32c::crc32c(&bytes)), ..table.clone() };
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 1 << (at % 8);
            let bad = Bytes::from(bad);
            for item in [&table, &log] {
                for window in [100, table.len] {
                    let (_, came) = in_windows(item, &bad, window);
                    assert!(matches!(came, Err(TransferError::Damaged { .. })), "byte {at}: {came:?}");
                }
            }
        }
        let short = bytes.slice(1..);
        assert!(table.check(&short).is_err(), "a shorter object is another");
    }
}
