//! Which tables can be read one after the other. Pure.
//!
//! ```text
//!   run A   [──a1──]        [──a2──]            lane 1   [──a1──][─b1─][──a2──][──c1──]
//!   run B           [─b1─]                      lane 2                  [──b2──]
//!   run B                    [──b2──]
//!   run C                            [──c1──]
//! ```
//! Of intervals in order of their beginning each goes to the lane that ended first, if it ended before: this takes as few
//! lanes as overlap at any one place.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::manifest::{Key, TableEntry};

/// Lays tables into lanes; within one they ascend and share no key.
pub(super) fn lay<'a>(tables: impl Iterator<Item = &'a Arc<TableEntry>>) -> Vec<Vec<Arc<TableEntry>>> {
    let mut tables: Vec<&Arc<TableEntry>> = tables.collect();
    tables.sort_by(|a, b| a.smallest.cmp(&b.smallest).then_with(|| a.name.cmp(&b.name)));
    let mut lanes: Vec<Vec<Arc<TableEntry>>> = Vec::new();
    // Where each lane has ended, the first on top.
    let mut ends: BinaryHeap<Reverse<(&Key, usize)>> = BinaryHeap::new();
    for table in tables {
        let free = ends.peek().filter(|Reverse((end, _))| **end < table.smallest).map(|Reverse((_, i))| *i);
        let i = match free {
            Some(i) => {
                ends.pop();
                i
            }
            None => {
                lanes.push(Vec::new());
                lanes.len() - 1
            }
        };
        lanes[i].push(Arc::clone(table));
        ends.push(Reverse((&table.largest, i)));
    }
    lanes
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{SeqNo, Timestamp};

    fn table(i: usize, from: u8, to: u8) -> Arc<TableEntry> {
        let key = |b: u8| Key(Bytes::copy_from_slice(&[b]));
        Arc::new(TableEntry {
            name: i.to_string(),
            len: 2,
            meta_offset: 1,
            crc: 0,
            smallest: key(from),
            largest: key(to),
            min_seq: SeqNo(1),
            max_seq: SeqNo(1),
            min_time: Timestamp(0),
            max_time: Timestamp(0),
            rows: 1,
            deletes: 0,
            min_expires: None,
            expiring: None,
            raw_bytes: 1,
            blobs: Vec::new(),
            blob_use: Vec::new(),
            extra: Default::default(),
        })
    }

    #[test]
    fn one_key_in_common_takes_two_lanes() {
        let tables = [table(0, 1, 5), table(1, 5, 9), table(2, 6, 7)];
        let names: Vec<Vec<_>> =
            lay(tables.iter()).iter().map(|lane| lane.iter().map(|t| t.name.clone()).collect()).collect();
        assert_eq!(names, [vec!["0", "2"], vec!["1"]]);
    }

    proptest! {
        #[test]
        fn lanes_ascend_hold_every_table_and_are_as_few_as_overlap(
            bounds in prop::collection::vec((any::<u8>(), 0u8..40), 0..60)
        ) {
            let tables: Vec<_> = bounds
                .iter()
                .enumerate()
                .map(|(i, (from, len))| table(i, *from, from.saturating_add(*len)))
                .collect();
            let lanes = lay(tables.iter());
            prop_assert_eq!(lanes.iter().map(Vec::len).sum::<usize>(), tables.len());
            for pair in lanes.iter().flat_map(|lane| lane.windows(2)) {
                prop_assert!(pair[0].largest < pair[1].smallest);
            }
            let depth = |at: u8| tables.iter().filter(|t| t.covers(&[at])).count();
            prop_assert_eq!(lanes.len(), (0..=255).map(depth).max().unwrap_or_default());
        }
    }
}
