//! What retention may not do: each test fails where its rule is taken out.

use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::manifest::{Change, CompactionMode, Manifest, TableEntry};

use super::build::*;

const FIFO: CompactionMode = CompactionMode::Fifo { retention_us: 100, retention_count: 0 };

/// The three runs of [`with_runs`], in `mode`; a table's times are its numbers.
fn runs_in(mode: &CompactionMode) -> Manifest {
    after(&with_runs().0, Change::SetCompaction { compaction: mode.clone() })
}

fn expire(mode: &CompactionMode, as_of: i64, tables: &[&str]) -> Change {
    Change::Expire {
        tables: tables.iter().map(|t| (*t).to_owned()).collect(),
        planned_mode: mode.clone(),
        as_of: Timestamp(as_of),
    }
}

fn names(m: &Manifest) -> Vec<&str> {
    m.tables().map(|t| t.name.as_str()).collect()
}

#[test]
fn what_is_over_goes_from_the_old_end_and_is_retired() {
    let m = runs_in(&FIFO);
    let next = after(&m, expire(&FIFO, 120, &["w-20", "w-10"]));
    assert_eq!(names(&next), ["w-30"]);
    assert_eq!(next.retired.len(), 2);
    assert_eq!((next.history_floor, next.last_seq), (SeqNo(20), m.last_seq));
    assert_refused(&next, expire(&FIFO, 120, &["w-10"]), "is gone");
    assert_refused(&next, expire(&FIFO, 120, &[]), "names no table");
}

/// A newer table deleted before an older one beneath it would bring the older one's values back.
#[test]
fn a_table_never_goes_before_an_older_one_beneath_it() {
    let m = runs_in(&FIFO);
    for tables in [&["w-20"][..], &["w-30", "w-10"], &["w-30", "w-20"]] {
        assert_refused(&m, expire(&FIFO, 1000, tables), "older tables that stay lie beneath");
    }
}

/// A table goes with its newest row, to the microsecond.
#[test]
fn a_table_stays_until_the_retention_of_its_newest_row_has_ended() {
    let m = runs_in(&FIFO);
    assert_refused(&m, expire(&FIFO, 109, &["w-10"]), "has not ended");
    after(&m, expire(&FIFO, 110, &["w-10"]));
    let windows = CompactionMode::TimeWindow { segment_us: 50, retention_us: 100, retention_count: 0 };
    let m = runs_in(&windows);
    assert_refused(&m, expire(&windows, 149, &["w-10"]), "has not ended");
}

/// The rows of one window end together with it, and the last windows stay.
#[test]
fn whole_windows_go_and_the_newest_stay_in_any_case() {
    let of =
        |retention_count| CompactionMode::TimeWindow { segment_us: 16, retention_us: 100, retention_count };
    // Windows 0, 1 and 1: 10, 20 and 30 are the newest rows.
    let m = runs_in(&of(0));
    assert_refused(&m, expire(&of(0), 115, &["w-10"]), "has not ended");
    assert_eq!(names(&after(&m, expire(&of(0), 116, &["w-10"]))), ["w-30", "w-20"]);
    after(&m, expire(&of(0), 132, &["w-20", "w-10"]));
    assert_refused(&m, expire(&of(0), 132, &["w-30", "w-20", "w-10"]), "0 tables in 0 windows would be left");
    let m = runs_in(&of(29));
    assert_refused(&m, expire(&of(29), 9_999, &["w-10"]), "2 tables in 1 windows would be left");
}

#[test]
fn the_newest_tables_stay_in_any_case() {
    let keeps_two = CompactionMode::Fifo { retention_us: 100, retention_count: 2 };
    let m = runs_in(&keeps_two);
    assert_refused(&m, expire(&keeps_two, 9_999, &["w-20", "w-10"]), "1 tables");
    let next = after(&m, expire(&keeps_two, 9_999, &["w-10"]));
    assert_refused(&next, expire(&keeps_two, 9_999, &["w-20"]), "1 tables");
}

#[test]
fn retention_waits_for_snapshots_and_none_is_taken_below_it() {
    let m = runs_in(&FIFO);
    let take = |name: &str, seq| Change::TakeSnapshot { name: name.to_owned(), snapshot: snapshot(seq) };
    let held = after(&m, take("low", 15));
    assert_refused(&held, expire(&FIFO, 110, &["w-10"]), "sees rows of table w-10");
    assert_refused(&held, expire(&FIFO, 120, &["w-20", "w-10"]), "sees rows");
    let free = after(&held, Change::DropSnapshot { name: "low".to_owned() });
    let next = after(&free, expire(&FIFO, 110, &["w-10"]));
    assert_refused(&next, take("late", 9), "history floor");
    let next = after(&next, take("late", 10));
    assert_eq!(names(&next), ["w-30", "w-20"], "it sees none of the rows that are left");
    after(&next, expire(&FIFO, 120, &["w-20"]));
}

#[test]
fn retention_of_another_mode_is_refused() {
    let longer = CompactionMode::Fifo { retention_us: 101, retention_count: 0 };
    assert_refused(&runs_in(&longer), expire(&FIFO, 9_999, &["w-10"]), "mode has changed");
    let (m, _) = with_runs();
    assert_refused(&m, expire(&CompactionMode::Merge, 9_999, &["w-10"]), "has not ended");
}

fn with_a_run_of_two() -> Manifest {
    let m = with_log(&[(1, 10), (11, 20)]);
    let two = vec![table("w-1", "a", "g", 1, 8), table("w-2", "h", "m", 2, 10)];
    let m = after(&m, flush(10, two, None));
    let m = after(&m, flush(20, vec![table("w-3", "a", "m", 11, 20)], None));
    after(&m, Change::SetCompaction { compaction: FIFO })
}

/// A merge that read the run before it lost a table would write that table's rows again.
#[test]
fn a_run_that_has_lost_tables_is_another_run() {
    let m = with_a_run_of_two();
    let (new, old) = (m.runs[0].id.0, m.runs[1].id.0);
    let next = after(&m, expire(&FIFO, 108, &["w-1"]));
    assert_eq!(names(&next), ["w-3", "w-2"]);
    assert!(next.runs[1].l0, "no merge has touched it");
    let Change::Merge { inputs, tables, snapshots, dropped, judged, .. } =
        merge(&[new, old], vec![table("j-1", "a", "m", 1, 20)])
    else {
        panic!()
    };
    let job = Change::Merge { inputs, tables, snapshots, planned_mode: FIFO, dropped, judged, expiry: None };
    assert_refused(&next, job, "no longer neighbours");
}

/// The newest table gone, numbers go on where they were.
#[test]
fn numbers_do_not_depend_on_which_tables_are_left() {
    let m = runs_in(&FIFO);
    let m = after(&m, expire(&FIFO, 9_999, &["w-30", "w-20", "w-10"]));
    assert!(m.runs.is_empty());
    assert_eq!((m.last_seq, m.flushed_seq, m.history_floor), (SeqNo(40), SeqNo(30), SeqNo(30)));
    let m = after(&m, append(vec![segment(1, 41, 50)]));
    assert_eq!(m.last_seq, SeqNo(50));
}

#[test]
fn a_blob_file_leaves_with_the_last_table_that_points_at_it() {
    let m = with_log(&[(1, 10)]);
    let m = after(&m, Change::AddBlobs { blobs: [("b-1".to_owned(), 111)].into() });
    let t = TableEntry { blobs: vec!["b-1".into()], ..table("w-1", "a", "m", 1, 10) };
    let m = after(&after(&m, flush(10, vec![t], None)), Change::SetCompaction { compaction: FIFO });
    let next = after(&m, expire(&FIFO, 110, &["w-1"]));
    assert!(next.blobs.is_empty());
    assert_eq!(next.retired.len(), 2);
}

#[test]
fn a_change_that_an_older_program_cannot_apply_says_so() {
    let features = |c: Change| c.required_feature();
    assert_eq!(features(expire(&FIFO, 1, &["w-1"])), Some("expire"));
    assert_eq!(features(Change::SetCompaction { compaction: FIFO }), Some("fifo"));
    assert_eq!(features(Change::SetCompaction { compaction: CompactionMode::Leveled }), Some("leveled"));
    assert_eq!(features(Change::SetCompaction { compaction: CompactionMode::Merge }), None);
}
