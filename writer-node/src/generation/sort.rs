//! Sorting a generation: references to its rows in table order, without touching the rows.
//!
//! A reference carries the first eight bytes of the key *after what all keys have in common*, so that nearly every
//! comparison is one of two integers; only ties look at the keys themselves.

use std::cmp::Ordering;

use isle_storage::ids::SeqNo;
use isle_storage::log::RawBlock;
use isle_storage::row::RowRef;

/// Where a row lies, and how it sorts.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowAt {
    prefix: u64,
    seq: u64,
    block: u32,
    offset: u32,
}

impl RowAt {
    pub(super) fn row<'a>(&self, blocks: &'a [RawBlock]) -> RowRef<'a> {
        blocks[self.block as usize].row_at(self.offset, SeqNo(self.seq))
    }
}

/// References to all rows, by key ascending and sequence number descending.
pub(super) fn sorted(blocks: &[RawBlock]) -> Vec<RowAt> {
    let count = blocks.iter().map(|b| b.count as usize).sum();
    let mut rows = Vec::with_capacity(count);
    let common = gather(blocks, &mut rows);
    if common > 0 {
        // Rare enough, and known too late to be spared: one more look at every key.
        for at in &mut rows {
            at.prefix = eight_bytes(&at.row(blocks).key[common..]);
        }
    }
    rows.sort_unstable_by(|a, b| a.prefix.cmp(&b.prefix).then_with(|| tie(blocks, common, a, b)));
    rows
}

/// Refers to every row, with the first bytes of its whole key. Returns the length of what all keys begin with.
fn gather(blocks: &[RawBlock], rows: &mut Vec<RowAt>) -> usize {
    let mut first: Option<&[u8]> = None;
    let mut common = 0;
    for (block, b) in blocks.iter().enumerate() {
        for (offset, row) in b.rows_with_offsets() {
            match first {
                None => (first, common) = (Some(row.key), row.key.len()),
                Some(_) if common == 0 => {}
                Some(first) => common = shared(&first[..common], row.key),
            }
            rows.push(RowAt { prefix: eight_bytes(row.key), seq: row.seq.0, block: block as u32, offset });
        }
    }
    common
}

fn tie(blocks: &[RawBlock], common: usize, a: &RowAt, b: &RowAt) -> Ordering {
    let (ka, kb) = (a.row(blocks).key, b.row(blocks).key);
    ka[common..].cmp(&kb[common..]).then(b.seq.cmp(&a.seq))
}

/// Length of what both begin with.
fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The first eight bytes as a number that sorts as they do; zeros stand for missing ones, so equal numbers prove
/// nothing.
fn eight_bytes(key: &[u8]) -> u64 {
    let mut out = [0; 8];
    let n = key.len().min(8);
    out[..n].copy_from_slice(&key[..n]);
    u64::from_be_bytes(out)
}

#[cfg(test)]
mod tests {
    use isle_storage::ids::Timestamp;
    use isle_storage::log::{Batch, Push};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_come_by_key_ascending_and_newest_first(
            keys in proptest::collection::vec(proptest::collection::vec(0u8..3, 1..12), 1..80),
            shared in proptest::collection::vec(any::<u8>(), 0..12),
        ) {
            let mut batch = Batch::new(SeqNo(5), 64);
            for key in &keys {
                batch.push(&[shared.as_slice(), key].concat(), Timestamp(1), None, Push::Delete);
            }
            let sealed = batch.seal().unwrap();
            let got: Vec<_> = sorted(&sealed.blocks)
                .iter()
                .map(|r| { let row = r.row(&sealed.blocks); (row.key.to_vec(), row.seq.0) })
                .collect();
            let mut want: Vec<_> = keys
                .iter()
                .enumerate()
                .map(|(i, key)| ([shared.as_slice(), key].concat(), 5 + i as u64))
                .collect();
            want.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
            prop_assert_eq!(got, want);
        }
    }
}
