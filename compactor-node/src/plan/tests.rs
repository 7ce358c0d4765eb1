//! The planner over manifests made by hand.

use std::sync::Arc;

use bytes::Bytes;
use isle_storage::ids::{DatabaseId, Lineage};
use isle_storage::manifest::{Expiring, Key, Run, Snapshot, TableEntry};

use super::*;

fn table(name: &str, seq: u64, len: u64) -> TableEntry {
    let key = Key(Bytes::from_static(b"k"));
    TableEntry {
        name: name.to_owned(),
        len,
        meta_offset: len / 2,
        crc: 0,
        smallest: key.clone(),
        largest: key,
        min_seq: SeqNo(seq),
        max_seq: SeqNo(seq),
        min_time: Timestamp(0),
        max_time: Timestamp(0),
        rows: 100,
        deletes: 0,
        min_expires: None,
        expiring: None,
        raw_bytes: len,
        blobs: Vec::new(),
        blob_use: Vec::new(),
        extra: Default::default(),
    }
}

/// Runs newest first, as `(is L0, bytes)`.
fn manifest(runs: &[(bool, u64)]) -> Manifest {
    let mut m = Manifest::genesis(DatabaseId(1), Lineage(1), CompactionMode::Merge);
    for (i, (l0, len)) in runs.iter().enumerate() {
        let seq = (runs.len() - i) as u64;
        let tables = vec![Arc::new(table(&format!("t{seq}"), seq, *len))];
        m.runs.push(Arc::new(Run { id: RunId(seq), l0: *l0, tables }));
    }
    m
}

/// The same with `change` made to the table of run `at`.
fn with(mut m: Manifest, at: usize, change: impl FnOnce(&mut TableEntry)) -> Manifest {
    change(Arc::make_mut(&mut Arc::make_mut(&mut m.runs[at]).tables[0]));
    m
}

/// Small runs, newest first, each with one row written at that second.
fn slices(mode: CompactionMode, seconds: &[i64]) -> Manifest {
    let mut m = manifest(&vec![(true, 1000); seconds.len()]);
    m.compaction = mode;
    for (i, s) in seconds.iter().enumerate() {
        m = with(m, i, |t| (t.min_time, t.max_time) = (Timestamp(s * SECOND), Timestamp(s * SECOND)));
    }
    m
}

fn inputs(p: Option<MergePlan>) -> Vec<u64> {
    p.map(|p| p.inputs.iter().map(|r| r.0).collect()).unwrap_or_default()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp(seconds * SECOND)
}

const M: u64 = 1 << 20;
const SECOND: i64 = 1_000_000;

fn sharp() -> CompactorSettings {
    CompactorSettings { max_clock_skew_seconds: 0, ..Default::default() }
}

fn fifo(seconds: i64, retention_count: u64) -> CompactionMode {
    CompactionMode::Fifo { retention_us: seconds * SECOND, retention_count }
}

fn windows(segment: i64, retention: i64) -> CompactionMode {
    CompactionMode::TimeWindow {
        segment_us: segment * SECOND,
        retention_us: retention * SECOND,
        retention_count: 0,
    }
}

#[test]
fn l0_runs_merge_when_enough_have_gathered() {
    let s = CompactorSettings::default();
    assert_eq!(inputs(merge(&manifest(&[(true, M); 3]), &s)), Vec::<u64>::new());
    let p = merge(&manifest(&[(true, M), (true, M), (true, M), (true, M), (false, 90 * M)]), &s);
    assert_eq!(p.as_ref().map(|p| p.bottom), Some(false));
    assert_eq!(inputs(p), [5, 4, 3, 2]);
    let p = merge(&manifest(&[(true, M); 4]), &s).unwrap();
    assert!(p.bottom);
}

#[test]
fn similar_neighbours_merge_and_a_giant_is_left_alone() {
    let s = CompactorSettings { tier_width: 4, ..Default::default() };
    let sizes = [64, 60, 70, 61, 9000].map(|n| (false, n * M));
    assert_eq!(inputs(merge(&manifest(&sizes), &s)), [5, 4, 3, 2]);
    let growing = [1, 100, 10_000, 1_000_000].map(|n| (false, n * M));
    assert!(merge(&manifest(&growing), &s).is_none());
}

/// What is stored twice lies above the largest run: it goes into it before it is as large.
#[test]
fn the_largest_run_takes_in_what_lies_above_before_that_is_as_large() {
    let s = CompactorSettings { tier_width: 4, ..Default::default() };
    let above = |n| manifest(&[(false, n * M), (false, n * M), (false, n * M), (false, 100 * M)]);
    assert_eq!(merge(&above(28), &s).map(|p| p.inputs.len()), None);
    assert_eq!(merge(&above(29), &s).map(|p| p.inputs.len()), Some(4));
}

/// A small run caught beneath a larger one must not stay there for ever.
#[test]
fn the_number_of_runs_is_bounded_whatever_their_sizes() {
    let s = CompactorSettings::default();
    let sizes: Vec<(bool, u64)> = (0..17u32).map(|i| (false, M << (2 * (17 - i)))).collect();
    let p = merge(&manifest(&sizes), &s).unwrap();
    assert_eq!(p.reason, "too_many_runs");
    // The cheapest pair: the two smallest, at the old end.
    assert_eq!(p.inputs.iter().map(|r| r.0).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn claims_of_the_same_inputs_collide_and_others_do_not() {
    let s = CompactorSettings::default();
    let a = merge(&manifest(&[(true, M); 4]), &s).unwrap();
    let b = merge(&manifest(&[(true, M); 4]), &s).unwrap();
    let c = merge(&manifest(&[(true, M); 5]), &s).unwrap();
    assert_eq!(a.job(), b.job());
    assert_ne!(a.job(), c.job());
}

#[test]
fn levels_go_down_as_far_as_they_are_not_dwarfed() {
    let s = CompactorSettings::default();
    let mut m = manifest(&[(true, M), (true, M), (true, M), (true, M), (false, 30 * M), (false, 400 * M)]);
    m.compaction = CompactionMode::Leveled;
    assert_eq!(
        inputs(merge(&m, &s)),
        [6, 5, 4, 3, 2],
        "30 is within ten times 4, 400 not within ten times 34"
    );
    let m = with(m, 5, |t| t.len = 340 * M);
    assert!(merge(&m, &s).unwrap().bottom, "all the way down in one merge");
}

/// A tree that tiers have made becomes levels without anybody writing.
#[test]
fn levels_out_of_proportion_merge() {
    let s = CompactorSettings::default();
    let mut m = manifest(&[(false, 50 * M), (false, 60 * M), (false, 3000 * M)]);
    m.compaction = CompactionMode::Leveled;
    let p = merge(&m, &s).unwrap();
    assert_eq!((p.reason, p.inputs.len()), ("level", 2));
    m.runs.remove(0);
    assert!(merge(&m, &s).is_none());
}

#[test]
fn a_run_of_tombstones_at_the_bottom_is_compacted_for_that_alone() {
    let s = sharp();
    let m = manifest(&[(false, M), (false, 900 * M)]);
    assert!(next(&m, &s, at(0)).plan.is_none());
    let m = with(m, 1, |t| t.deletes = 60);
    let p = merge(&m, &s).unwrap();
    assert_eq!((p.reason, p.bottom), ("waste", true));
    // A snapshot beneath them keeps them: the same merge would be planned for ever.
    let mut held = m.clone();
    let snapshot = Snapshot {
        seq: SeqNo::ZERO,
        created: at(0),
        expires: None,
        holds_log: false,
        extra: Default::default(),
    };
    held.snapshots.insert("low".to_owned(), snapshot);
    assert!(merge(&held, &s).is_none());
}

/// Tombstones above delete rows beneath: together they are worth a merge before either is by itself.
#[test]
fn tombstones_are_counted_with_the_rows_they_delete() {
    let s = sharp();
    let m = with(manifest(&[(false, M), (false, 900 * M)]), 0, |t| t.deletes = 40);
    assert!(merge(&m, &s).is_none(), "80 of 200 rows are waste");
    let m = with(m, 0, |t| t.deletes = 60);
    assert_eq!(inputs(merge(&m, &s)), [2, 1]);
}

#[test]
fn expired_rows_make_work_by_themselves_at_a_known_instant() {
    let s = CompactorSettings { max_clock_skew_seconds: 10, ..Default::default() };
    let m = with(manifest(&[(false, M), (false, 900 * M)]), 0, |t| {
        t.min_expires = Some(at(100));
        t.expiring = Some(Expiring { rows: 100, last: at(300) });
    });
    let idle = next(&m, &s, at(50));
    assert_eq!(idle.plan, None);
    // Half of the rows at 200, and ten seconds until that is certain.
    let again = idle.look_again.unwrap();
    assert!((at(210)..=at(211)).contains(&again), "{again:?}");
    assert_eq!(next(&m, &s, Timestamp(again.0 - 2 * SECOND)).plan, None);
    let plan = next(&m, &s, again).plan.unwrap();
    assert_eq!((plan.reason(), plan.score() >= 100), ("expired", true));
    assert!(next(&manifest(&[(false, M)]), &s, at(0)).look_again.is_none(), "nothing expires");
}

/// Whatever is due, what waits grows, and gets its turn.
#[test]
fn nothing_waits_for_ever() {
    let s = sharp();
    let l0 = |n| {
        let mut runs = vec![(true, M); n];
        runs.extend([(false, 64 * M); 7]);
        runs.push((false, 9_000_000 * M));
        with(manifest(&runs), n + 7, |t| t.deletes = 100)
    };
    // Writers flush faster than merges end: L0 is always due.
    assert_eq!(merge(&l0(9), &s).unwrap().reason, "l0");
    assert_eq!(merge(&l0(5), &s).unwrap().reason, "waste");
    let no_waste = |n| with(l0(n), n + 7, |t| t.deletes = 0);
    assert_eq!(merge(&no_waste(4), &s).unwrap().reason, "tier", "seven of six wait");
}

#[test]
fn fifo_lets_the_oldest_go_when_their_time_has_come_and_sleeps_until_then() {
    let m = slices(fifo(100, 0), &[30, 20, 10]);
    let s = CompactorSettings { max_clock_skew_seconds: 5, ..Default::default() };
    let idle = next(&m, &s, at(100));
    assert_eq!((idle.plan, idle.look_again), (None, Some(at(115))));
    let Some(Plan::Expire(p)) = next(&m, &s, at(115)).plan else { panic!() };
    assert_eq!((p.tables.clone(), p.rows, p.bytes, p.as_of), (vec!["t1".to_owned()], 100, 1000, at(110)));
    assert_eq!(expire(&m, &s, at(125)).unwrap().tables, ["t1", "t2"]);
    assert_eq!(expire(&m, &s, at(9_999)).unwrap().tables.len(), 3);
}

#[test]
fn the_newest_tables_and_windows_stay_in_any_case() {
    let s = sharp();
    let m = slices(fifo(100, 2), &[30, 20, 10]);
    assert_eq!(expire(&m, &s, at(9_999)).unwrap().tables, ["t1"]);
    let m = slices(windows(10, 100), &[35, 33, 22, 21, 11]);
    assert_eq!(expire(&m, &s, at(119)), None);
    assert_eq!(expire(&m, &s, at(129)).unwrap().tables, ["t1"]);
    assert_eq!(expire(&m, &s, at(130)).unwrap().tables, ["t1", "t2", "t3"]);
    assert_eq!(expire(&m, &s, at(9_999)).unwrap().tables, ["t1", "t2", "t3"], "the newest window stays");
}

#[test]
fn retention_stops_at_what_a_snapshot_sees() {
    let s = sharp();
    let mut m = slices(fifo(100, 0), &[30, 20, 10]);
    let snapshot = |seq| Snapshot {
        seq: SeqNo(seq),
        created: at(0),
        expires: None,
        holds_log: false,
        extra: Default::default(),
    };
    m.snapshots.insert("low".to_owned(), snapshot(1));
    assert_eq!(next(&m, &s, at(9_999)), Outlook::default(), "only the snapshot's end makes work");
    m.snapshots.insert("low".to_owned(), snapshot(0));
    assert_eq!(expire(&m, &s, at(9_999)).unwrap().tables.len(), 3);
}

#[test]
fn small_neighbours_of_one_slice_are_joined_once_and_never_across() {
    let s = sharp();
    // The window of 10 to 19 is over, that of 20 to 29 gathers.
    let m = slices(windows(10, 1000), &[22, 21, 12, 11, 10]);
    let p = merge(&m, &s).unwrap();
    assert_eq!((inputs(Some(p.clone())), p.reason), (vec![3, 2, 1], "slice_over"));
    let m = slices(windows(10, 1000), &[22, 21]);
    assert_eq!(next(&m, &s, at(25)), Outlook { plan: None, look_again: Some(at(30)) });
    assert_eq!(
        next(&m, &s, at(30)).plan.unwrap().reason(),
        "slice_over",
        "by the clock, though nobody writes"
    );
    // In fifo a slice is a part of the retention.
    let m = slices(fifo(3200, 0), &[302, 301, 250, 200, 1]);
    assert_eq!(inputs(merge(&m, &s)), [3, 2], "200 to 250, but not to 301");
    let joined = with(m, 2, |t| t.len = 100 * M);
    assert!(merge(&joined, &s).is_none(), "a large one is left alone");
}

#[test]
fn as_many_gather_as_there_are_others() {
    let s = CompactorSettings { join_width: 8, ..sharp() };
    let with_others = |fresh: usize, others: usize| {
        let mut m = slices(fifo(100_000, 0), &vec![10; fresh + others]);
        for at in fresh..fresh + others {
            Arc::make_mut(&mut m.runs[at]).l0 = false;
        }
        merge(&m, &s).map(|p| (p.inputs.len(), p.reason))
    };
    assert_eq!(with_others(3, 0), None);
    assert_eq!(with_others(4, 0), Some((4, "gathered")));
    assert_eq!(with_others(5, 6), None);
    assert_eq!(with_others(6, 6), Some((6, "gathered")));
    assert_eq!(with_others(8, 99), Some((8, "full")), "no more than one merge takes");
}

#[test]
fn beyond_the_bound_joined_runs_are_joined_once_more() {
    let s = CompactorSettings { max_slices: 10, ..sharp() };
    let mut m = slices(windows(10, 1000), &[55, 45, 35, 25, 16, 15, 14, 13, 12, 11, 10]);
    m.runs.iter_mut().for_each(|r| Arc::make_mut(r).l0 = false);
    let p = merge(&m, &s).unwrap();
    assert_eq!((inputs(Some(p.clone())), p.reason), (vec![7, 6, 5, 4, 3, 2, 1], "too_many_runs"));
}

const ALL: SeqNo = SeqNo(u64::MAX);

/// Slices of time must stay apart, whatever a person asks for.
#[test]
fn a_request_merges_everything_in_merge_mode_only() {
    let s = sharp();
    assert!(full(&manifest(&[(true, M), (false, M)]), &s, at(0), ALL).is_some());
    assert!(full(&slices(fifo(100, 0), &[30, 20]), &s, at(0), ALL).is_none());
}

/// What was flushed after the request was not asked for.
#[test]
fn a_request_takes_what_there_was_when_it_came() {
    let s = sharp();
    let m = manifest(&[(true, M), (true, M), (false, M), (false, M)]);
    assert_eq!(inputs(full(&m, &s, at(0), SeqNo(3))), [3, 2, 1]);
    assert_eq!(inputs(full(&m, &s, at(0), SeqNo(1))), [0u64; 0], "one run, and nothing to drop");
    assert_eq!(inputs(full(&m, &s, at(0), SeqNo(0))), [0u64; 0]);
}

/// One run is written again where something in it can go now, and not for what can go some day.
#[test]
fn one_run_is_written_again_for_what_can_go_now() {
    let s = CompactorSettings { max_clock_skew_seconds: 10, ..Default::default() };
    let expiring = with(manifest(&[(false, M)]), 0, |t| {
        t.min_expires = Some(at(100));
        t.expiring = Some(Expiring { rows: 1, last: at(100) });
    });
    assert_eq!(full(&expiring, &s, at(109), ALL), None);
    assert!(full(&expiring, &s, at(110), ALL).is_some());
    let mut deleted = with(manifest(&[(false, M)]), 0, |t| (t.deletes, t.max_seq) = (1, SeqNo(5)));
    assert!(full(&deleted, &s, at(0), ALL).is_some());
    let held = Snapshot {
        seq: SeqNo(4),
        created: at(0),
        expires: None,
        holds_log: false,
        extra: Default::default(),
    };
    deleted.snapshots.insert("held".to_owned(), held);
    assert_eq!(full(&deleted, &s, at(0), ALL), None, "the snapshot may see what it deletes");
    assert!(full(&manifest(&[(true, M)]), &s, at(0), ALL).is_some(), "it was never merged");
}

/// Of more runs than one merge takes, as many as are too many become one first, the cheapest.
#[test]
fn a_request_comes_to_its_end_however_many_runs_there_are() {
    let s = CompactorSettings { max_merge_width: 8, ..sharp() };
    let sizes: Vec<(bool, u64)> = (1..=30u64).map(|n| (false, (1 + n % 7) * n * M)).collect();
    let mut m = manifest(&sizes);
    let mut steps = 0;
    loop {
        let p = full(&m, &s, at(0), ALL).unwrap();
        assert!((2..=8).contains(&p.inputs.len()));
        steps += 1;
        if p.is_request() {
            assert_eq!(p.inputs.len(), m.runs.len());
            break;
        }
        let at = m.runs.iter().position(|r| r.id == p.inputs[0]).unwrap();
        let mut merged = manifest(&[(false, p.bytes)]).runs[0].clone();
        Arc::make_mut(&mut merged).id = RunId(100 + steps);
        m.runs.splice(at..at + p.inputs.len(), [merged]);
    }
    assert_eq!(steps, 5, "30, 23, 16, 9, 8 and 1");
    assert_eq!(inputs(full(&manifest(&sizes[..9]), &s, at(0), ALL)), [9, 8], "two of nine are enough");
}

/// Where the most due work is in others' hands, time goes on to make more.
#[test]
fn it_is_known_when_to_look_again_also_while_there_is_work() {
    let s = sharp();
    let mut m = slices(fifo(100, 0), &[30, 20, 10]);
    let busy = next(&m, &s, at(115));
    assert_eq!((busy.plan.map(|p| p.reason()), busy.look_again), (Some("retention"), Some(at(120))));
    m = with(manifest(&[(true, M), (true, M), (true, M), (true, M), (false, 900 * M)]), 4, |t| {
        t.min_expires = Some(at(100));
        t.expiring = Some(Expiring { rows: 100, last: at(100) });
    });
    let busy = next(&m, &s, at(50));
    assert_eq!(busy.plan.map(|p| p.reason()), Some("l0"));
    assert!(busy.look_again.is_some_and(|again| (at(100)..=at(101)).contains(&again)));
}
