//! What of a merge needs no merging: tables that nothing overlaps stay as they are.
//!
//! Events that are only appended, or tenants that are written one after the other, give runs whose keys do not meet.
//! Rewriting their tables would be reading and writing for nothing: the merged run names the very same objects.
//!
//! ```text
//!   run A   [──a1──][──a2──]      [──a3──]
//!   run B                [──b1──]           [──b2──]
//!           keep a1 │ merge a2, b1 │ keep a3 │ keep b2
//! ```

use std::sync::Arc;

use bytes::Bytes;
use isle_storage::manifest::{KeyRange, Run, TableEntry};
use isle_storage::row::successor;

/// A piece of a merge, in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stretch {
    /// Rows of these keys are merged.
    Merge(KeyRange),
    /// This table stands alone.
    Keep(Arc<TableEntry>),
}

/// Every table of `inputs` that lies wholly in `range` and that no other one overlaps, in key order.
pub(super) fn alone(inputs: &[Arc<Run>], range: &KeyRange) -> Vec<Arc<TableEntry>> {
    let mut tables: Vec<&Arc<TableEntry>> =
        inputs.iter().flat_map(|r| &r.tables).filter(|t| range.meets(t)).collect();
    tables.sort_by(|a, b| a.smallest.cmp(&b.smallest));
    let mut alone = Vec::new();
    let mut reached: Option<&[u8]> = None;
    for (i, table) in tables.iter().enumerate() {
        let after = reached.is_none_or(|key| key < table.smallest.as_slice());
        let before = tables.get(i + 1).is_none_or(|next| table.largest < next.smallest);
        if after && before && range.holds_all(table) {
            alone.push(Arc::clone(table));
        }
        let largest = table.largest.as_slice();
        reached = Some(reached.map_or(largest, |key| key.max(largest)));
    }
    alone
}

/// The pieces of `range` around the tables of `keep`, which stand alone, in key order; without pieces that no other
/// table of `inputs` has keys in.
pub(super) fn around(inputs: &[Arc<Run>], range: &KeyRange, keep: &[Arc<TableEntry>]) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let mut start = range.start.clone();
    let merge = |start: &Bytes, end: Option<Bytes>, stretches: &mut Vec<Stretch>| {
        let between = KeyRange { start: start.clone(), end };
        let kept = |t: &TableEntry| keep.iter().any(|k| k.name == t.name);
        if inputs.iter().flat_map(|r| &r.tables).any(|t| between.meets(t) && !kept(t)) {
            stretches.push(Stretch::Merge(between));
        }
    };
    for table in keep {
        merge(&start, Some(table.smallest.0.clone()), &mut stretches);
        start = successor(table.largest.as_slice()).into();
        stretches.push(Stretch::Keep(Arc::clone(table)));
    }
    merge(&start, range.end.clone(), &mut stretches);
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;
    use isle_storage::ids::{RunId, SeqNo, Timestamp};
    use isle_storage::manifest::Key;

    fn run(id: u64, tables: &[(&'static str, &'static str)]) -> Arc<Run> {
        let table = |(from, to): &(&'static str, &'static str)| {
            Arc::new(TableEntry {
                name: format!("{id}-{from}"),
                len: 100,
                meta_offset: 50,
                crc: 0,
                smallest: Key(Bytes::from_static(from.as_bytes())),
                largest: Key(Bytes::from_static(to.as_bytes())),
                min_seq: SeqNo(id),
                max_seq: SeqNo(id),
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
        };
        Arc::new(Run { id: RunId(id), l0: false, tables: tables.iter().map(table).collect() })
    }

    fn names(tables: &[Arc<TableEntry>]) -> Vec<&str> {
        tables.iter().map(|t| t.name.as_str()).collect()
    }

    fn shown(stretches: &[Stretch]) -> Vec<String> {
        let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
        let show = |s: &Stretch| match s {
            Stretch::Merge(r) => {
                format!("{}..{}", text(&r.start), r.end.as_ref().map(text).unwrap_or_default())
            }
            Stretch::Keep(t) => t.name.clone(),
        };
        stretches.iter().map(show).collect()
    }

    #[test]
    fn only_tables_that_nothing_overlaps_stand_alone() {
        let inputs = [run(2, &[("a", "c"), ("d", "h"), ("n", "p")]), run(1, &[("g", "k"), ("q", "z")])];
        let all = alone(&inputs, &KeyRange::all());
        assert_eq!(names(&all), ["2-a", "2-n", "1-q"]);
        assert_eq!(shown(&around(&inputs, &KeyRange::all(), &all)), ["2-a", "c\0..n", "2-n", "1-q"]);
        // One key in common is an overlap, and so is a table around several.
        assert!(alone(&[run(2, &[("a", "c")]), run(1, &[("c", "d")])], &KeyRange::all()).is_empty());
        assert!(
            alone(&[run(2, &[("a", "z")]), run(1, &[("b", "c"), ("d", "e")])], &KeyRange::all()).is_empty()
        );
        assert!(around(&[], &KeyRange::all(), &[]).is_empty());
    }

    #[test]
    fn a_part_keeps_only_what_lies_wholly_inside_it() {
        let inputs = [run(2, &[("a", "c"), ("d", "h")]), run(1, &[("m", "p")])];
        let range = KeyRange { start: Bytes::from_static(b"b"), end: Some(Bytes::from_static(b"p")) };
        let kept = alone(&inputs, &range);
        assert_eq!(names(&kept), ["2-d"]);
        assert_eq!(shown(&around(&inputs, &range, &kept)), ["b..d", "2-d", "h\0..p"]);
    }
}
