//! Merges equal a sorted list, whatever the sources; what a read sees and what a compaction keeps equal a model.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use isle_storage::format::Compression;
use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::merge::{Direction, Feed, Held, Merge, Rewrite, Step, Visibility, Visible};
use isle_storage::row::{Row, Value};
use isle_storage::sst::TableOptions;
use proptest::prelude::*;

use crate::rows::{EPOCH_TIME, Opened, any_key, any_rows};

/// What a source is made of.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A table's blocks.
    Table,
    /// Rows in memory, so many at a time.
    Rows(usize),
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Table), (1usize..5).prop_map(Kind::Rows)]
}

/// Rows, each with the set of sources that hold it (a bit each), and the sources' kinds.
fn any_sources() -> impl Strategy<Value = (Vec<Row>, Vec<u8>, Vec<Kind>)> {
    (any_rows(80), proptest::collection::vec(any_kind(), 1..7)).prop_flat_map(|(rows, kinds)| {
        let sets = proptest::collection::vec(1u8..1 << kinds.len(), rows.len());
        (Just(rows), sets, Just(kinds))
    })
}

/// The feeds of every source, in order.
fn feeds(rows: &[Row], sets: &[u8], kinds: &[Kind], direction: Direction) -> Vec<VecDeque<Feed>> {
    let of_source = |i: usize, kind: Kind| {
        let mine = rows.iter().zip(sets).filter(|(_, set)| *set & (1 << i) != 0);
        feeds_of(mine.map(|(row, _)| row.clone()).collect(), kind, direction)
    };
    kinds.iter().enumerate().map(|(i, kind)| of_source(i, *kind)).collect()
}

fn feeds_of(mut rows: Vec<Row>, kind: Kind, direction: Direction) -> VecDeque<Feed> {
    match kind {
        Kind::Table if rows.is_empty() => VecDeque::new(),
        Kind::Table => {
            let table = Opened::of(&rows, TableOptions { block_bytes: 100, compression: Compression::None });
            let blocks = 0..table.meta.block_count();
            let cursor = |i| {
                let mut cursor = table.block(i).unwrap().cursor();
                if direction == Direction::Forward {
                    cursor.first()
                } else {
                    cursor.last()
                }
                Feed::Block(cursor)
            };
            match direction {
                Direction::Forward => blocks.map(cursor).collect(),
                Direction::Reverse => blocks.rev().map(cursor).collect(),
            }
        }
        Kind::Rows(n) => {
            if direction == Direction::Reverse {
                rows.reverse();
            }
            rows.chunks(n).map(|chunk| Feed::Rows(chunk.to_vec())).collect()
        }
    }
}

/// Runs a merge to its end; every feed is given when it is asked for, and not before.
fn run(mut merge: Merge, mut feeds: Vec<VecDeque<Feed>>) -> Vec<(Row, usize)> {
    let mut out = Vec::new();
    loop {
        match merge.step() {
            Step::Need(i) => {
                assert!(merge.needs().any(|n| n == i) && merge.row().is_none());
                merge.feed(i, feeds[i].pop_front().unwrap_or(Feed::End));
            }
            Step::Row => {
                assert_eq!(merge.step(), Step::Row, "asking twice changes nothing");
                let row = merge.row().unwrap().to_row();
                let shared = merge.shared_value();
                assert_eq!(shared, if let Value::Put(v) = &row.value { Some(v.clone()) } else { None });
                out.push((row, merge.winner().unwrap()));
                merge.pop();
                assert!(merge.row().is_none(), "no stale row");
            }
            Step::Done => return out,
        }
    }
}

fn run_visible(mut visible: Visible, mut feeds: Vec<VecDeque<Feed>>) -> Vec<Row> {
    let mut out = Vec::new();
    loop {
        match visible.step() {
            Step::Need(i) => visible.feed(i, feeds[i].pop_front().unwrap_or(Feed::End)),
            Step::Row => {
                assert_eq!(visible.step(), Step::Row);
                let row = visible.row().unwrap().to_row();
                assert_eq!(visible.shared_value().map(Value::Put).unwrap_or(row.value.clone()), row.value);
                out.push(row);
                visible.pop();
                assert!(visible.row().is_none(), "no stale row");
            }
            Step::Done => return out,
        }
    }
}

/// What a read at `at` sees of these rows, in key order.
fn seen(rows: &[Row], at: Visibility) -> Vec<Row> {
    let mut newest: BTreeMap<&[u8], &Row> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.seq <= at.max_seq) {
        let entry = newest.entry(&row.key).or_insert(row);
        if entry.seq < row.seq {
            *entry = row;
        }
    }
    let alive = |row: &&Row| row.value != Value::Delete && row.expires.is_none_or(|e| e > at.now);
    newest.into_values().filter(alive).cloned().collect()
}

fn in_direction<T>(mut rows: Vec<T>, direction: Direction) -> Vec<T> {
    if direction == Direction::Reverse {
        rows.reverse();
    }
    rows
}

const BOTH: [Direction; 2] = [Direction::Forward, Direction::Reverse];

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Every row once, in order, in both directions, although several sources hold it.
    #[test]
    fn a_merge_is_the_sorted_list_of_all_rows((rows, sets, kinds) in any_sources()) {
        for direction in BOTH {
            let merge = Merge::new(kinds.len(), direction);
            let merged = run(merge, feeds(&rows, &sets, &kinds, direction));
            let expected: Vec<(Row, usize)> =
                rows.iter().cloned().zip(sets.iter().map(|set| set.trailing_zeros() as usize)).collect();
            prop_assert_eq!(merged, in_direction(expected, direction));
        }
    }

    /// Feeding everything ahead of need gives the same rows.
    #[test]
    fn feeding_ahead_changes_nothing((rows, sets, kinds) in any_sources()) {
        for direction in BOTH {
            let mut merge = Merge::new(kinds.len(), direction);
            for (i, feeds) in feeds(&rows, &sets, &kinds, direction).into_iter().enumerate() {
                feeds.into_iter().chain([Feed::End]).for_each(|feed| merge.feed(i, feed));
            }
            prop_assert_eq!(merge.needs().count(), 0);
            let merged = run(merge, Vec::new()).into_iter().map(|(row, _)| row).collect::<Vec<_>>();
            prop_assert_eq!(merged, in_direction(rows.clone(), direction));
        }
    }

    /// A bounded merge ends exactly at its bound, and asks for nothing beyond it.
    #[test]
    fn a_bounded_merge_ends_at_its_bound((rows, sets, kinds) in any_sources(), bound in any_key()) {
        for direction in BOTH {
            let merge = Merge::new(kinds.len(), direction).bounded(Some(bound.clone()));
            let merged = run(merge, feeds(&rows, &sets, &kinds, direction));
            let inside = |row: &&Row| (row.key < bound) == (direction == Direction::Forward);
            let expected = in_direction(rows.iter().filter(inside).cloned().collect(), direction);
            prop_assert_eq!(merged.into_iter().map(|(row, _)| row).collect::<Vec<_>>(), expected);
        }
    }

    /// In both directions a read sees the newest version at or below its sequence number, deletes and rows expired at
    /// its one instant hiding what is older.
    #[test]
    fn a_read_sees_what_the_model_says((rows, sets, kinds) in any_sources(), now in -150i64..350) {
        let now = Timestamp(EPOCH_TIME + now);
        for max_seq in (0..rows.len() as u64 + 2).step_by(7).chain([u64::MAX]).map(SeqNo) {
            let at = Visibility { max_seq, now };
            for direction in BOTH {
                let visible = Visible::new(Merge::new(kinds.len(), direction), at);
                let read = run_visible(visible, feeds(&rows, &sets, &kinds, direction));
                prop_assert_eq!(read, in_direction(seen(&rows, at), direction));
            }
        }
    }

    /// After a rewrite every snapshot and the present see what they saw before, whatever lies above and beneath; and
    /// at the bottom, without snapshots, nothing is left but what is visible.
    #[test]
    fn a_rewrite_is_invisible_and_complete(
        rows in any_rows(120),
        snapshots in proptest::collection::btree_set((0u64..125, -150i64..350), 0..5),
        (beneath, above) in (0u64..60, 60u64..130),
        is_bottom: bool,
        horizon in proptest::option::of(-150i64..350),
        later in 0i64..100,
    ) {
        let beneath = if is_bottom { 0 } else { beneath };
        let held = |(seq, at): (u64, i64)| Held { seq: SeqNo(seq), instant: Timestamp(EPOCH_TIME + at) };
        let snapshots: Vec<Held> = snapshots.into_iter().map(held).collect();
        let inputs: Vec<Row> = rows.iter().filter(|r| (beneath + 1..=above).contains(&r.seq.0)).cloned().collect();
        let others: Vec<Row> = rows.iter().filter(|r| !(beneath + 1..=above).contains(&r.seq.0)).cloned().collect();
        let horizon = horizon.map(|h| Timestamp(EPOCH_TIME + h));
        let mut rewrite = Rewrite::new(&snapshots, is_bottom, horizon);
        let kept: Vec<Row> = inputs.iter().filter_map(|r| rewrite.judge(r.as_ref()).map(|r| r.to_row())).collect();

        let before = [inputs.clone(), others.clone()].concat();
        let after = [kept.clone(), others].concat();
        let now = horizon.map_or(Timestamp(EPOCH_TIME), |h| Timestamp(h.0 + later));
        // A snapshot reads at the instant at which it was taken, also when that is long past.
        let held = snapshots.iter().map(|s| Visibility { max_seq: s.seq, now: s.instant });
        for at in held.chain([Visibility { max_seq: SeqNo(u64::MAX), now }]) {
            prop_assert_eq!(seen(&after, at), seen(&before, at), "at {:?}", at);
        }
        let counts = rewrite.counts();
        prop_assert_eq!(counts.judged, inputs.len() as u64);
        prop_assert_eq!(counts.kept, kept.len() as u64);
        prop_assert_eq!(
            counts.kept + counts.superseded + counts.deletes_dropped + counts.expired_dropped, counts.judged
        );
        prop_assert!(!rewrite.dropped() || is_bottom, "tombstones above the bottom are kept");
        for floor in rewrite.history_floor().0..130 {
            let at = Visibility { max_seq: SeqNo(floor), now };
            prop_assert_eq!(seen(&after, at), seen(&before, at), "a snapshot taken at {}", floor);
        }
        // A snapshot of the present, taken later by whatever clock: it misses nothing from that instant on.
        if let Some(by) = rewrite.expired_by() {
            prop_assert!(horizon.is_some_and(|h| by <= h));
            let at = Visibility { max_seq: SeqNo(u64::MAX), now: by };
            prop_assert_eq!(seen(&after, at), seen(&before, at), "a snapshot of the instant {:?}", by);
        }
        if is_bottom && snapshots.is_empty() {
            let at = Visibility { max_seq: SeqNo(u64::MAX), now: horizon.unwrap_or(Timestamp(i64::MIN)) };
            prop_assert_eq!(kept, seen(&inputs, at), "space comes back");
        }
    }
}

#[test]
fn a_merge_of_nothing_is_done() {
    assert_eq!(Merge::new(0, Direction::Forward).step(), Step::Done);
    let mut merge = Merge::new(3, Direction::Reverse);
    assert_eq!(merge.needs().collect::<Vec<_>>(), [0, 1, 2]);
    for i in [2, 0, 1] {
        merge.feed(i, Feed::Rows(Vec::new()));
        assert!(matches!(merge.step(), Step::Need(_)));
        merge.feed(i, Feed::End);
    }
    assert_eq!(merge.step(), Step::Done);
    merge.pop();
    assert_eq!((merge.step(), merge.row(), merge.winner()), (Step::Done, None, None));
}

/// At the start every source is wanted; later only the one that has run dry.
#[test]
fn sources_are_asked_for_one_at_a_time_after_the_start() {
    let row = |key: String| Row {
        key: Bytes::from(key),
        seq: SeqNo(1),
        time: Timestamp(0),
        expires: None,
        value: Value::Delete,
    };
    let mut merge = Merge::new(5, Direction::Forward);
    for i in 0..5 {
        merge.feed(i, Feed::Rows(vec![row(format!("{i}"))]));
    }
    assert_eq!(merge.step(), Step::Row);
    merge.pop();
    assert_eq!(merge.step(), Step::Need(0));
    assert_eq!(merge.needs().collect::<Vec<_>>(), [0]);
    assert_eq!(merge.step(), Step::Need(0));
    merge.feed(0, Feed::End);
    assert_eq!((merge.step(), merge.winner()), (Step::Row, Some(1)));
}

/// An expired row above the bottom hides what is older; as a delete it does so without its value.
#[test]
fn an_expired_row_above_the_bottom_becomes_a_delete() {
    let expires = Some(Timestamp(10));
    let row =
        Row { key: "k".into(), seq: SeqNo(4), time: Timestamp(3), expires, value: Value::Put("v".into()) };
    let judge = |bottom, instant| {
        let mut rewrite = Rewrite::new(&[], bottom, instant);
        let kept = rewrite.judge(row.as_ref()).map(|r| r.to_row());
        (kept, rewrite.dropped(), rewrite.expired_by())
    };
    let delete = Row { expires: None, value: Value::Delete, ..row.clone() };
    // What is told is the row's expiry, not the instant of whoever judges.
    assert_eq!(judge(false, Some(Timestamp(12))), (Some(delete), false, expires));
    assert_eq!(judge(false, Some(Timestamp(9))), (Some(row.clone()), false, None));
    assert_eq!(judge(true, Some(Timestamp(10))), (None, true, expires));
    assert_eq!(judge(true, None), (Some(row.clone()), false, None));
}

/// A tombstone that hides a version some snapshot keeps must stay, or that version would reappear in the present.
#[test]
fn a_delete_at_the_bottom_stays_while_a_snapshot_beneath_it_is_held() {
    let delete =
        Row { key: "k".into(), seq: SeqNo(4), time: Timestamp(3), expires: None, value: Value::Delete };
    for (snapshots, kept) in [(vec![3], true), (vec![4, 9], false), (vec![], false)] {
        let held: Vec<Held> =
            snapshots.iter().map(|s| Held { seq: SeqNo(*s), instant: Timestamp(3) }).collect();
        let mut rewrite = Rewrite::new(&held, true, None);
        assert_eq!(rewrite.keep(&delete.as_ref()), kept, "{snapshots:?}");
    }
}

/// A snapshot reads at the instant at which it was taken: what expired since is still seen there, value and all.
#[test]
fn a_row_that_expired_after_a_snapshot_was_taken_stays_for_it() {
    let expires = Some(Timestamp(10));
    let row =
        Row { key: "k".into(), seq: SeqNo(4), time: Timestamp(3), expires, value: Value::Put("v".into()) };
    for bottom in [false, true] {
        let judge = |instant| {
            let held = [Held { seq: SeqNo(6), instant: Timestamp(instant) }];
            let mut rewrite = Rewrite::new(&held, bottom, Some(Timestamp(99)));
            rewrite.judge(row.as_ref()).map(|r| r.to_row())
        };
        assert_eq!(judge(9), Some(row.clone()), "taken before it expired");
        assert_ne!(judge(10), Some(row.clone()), "taken when it had expired");
    }
}
