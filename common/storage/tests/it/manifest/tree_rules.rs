//! What a merge may not do: each test fails where its rule is taken out.

use std::sync::Arc;

use isle_storage::ids::{JobId, RunId, SeqNo, Timestamp};
use isle_storage::manifest::{
    Author, BlobUse, Change, CompactionMode, Edit, JudgedExpiry, Manifest, TableEntry,
};
use isle_storage::names;

use super::build::*;

/// What a job says of itself besides its inputs and outputs.
struct Plan {
    snapshots: Vec<SeqNo>,
    mode: CompactionMode,
    dropped: bool,
    judged: SeqNo,
    expiry: Option<JudgedExpiry>,
}

/// The merge `change` with another plan.
fn with(change: Change, f: impl FnOnce(&mut Plan)) -> Change {
    let Change::Merge { inputs, tables, snapshots, planned_mode: mode, dropped, judged, expiry } = change
    else {
        panic!("not a merge")
    };
    let mut plan = Plan { snapshots, mode, dropped, judged, expiry };
    f(&mut plan);
    let Plan { snapshots, mode: planned_mode, dropped, judged, expiry } = plan;
    Change::Merge { inputs, tables, snapshots, planned_mode, dropped, judged, expiry }
}

#[test]
fn a_merge_whose_input_is_gone_is_refused() {
    let (m, [new, mid, old]) = with_runs();
    let once = after(&m, merge(&[new, mid], vec![table("j-1", "a", "m", 11, 30)]));
    assert_refused(&once, merge(&[mid, old], vec![table("j-2", "a", "m", 1, 20)]), "is gone");
    assert_refused(&once, merge(&[], vec![]), "without inputs");
}

/// Between planning and commit another run came to lie between the inputs, or one of them went.
#[test]
fn a_merge_of_runs_that_are_not_neighbours_is_refused() {
    let (m, [new, mid, old]) = with_runs();
    for inputs in [&[new, old][..], &[mid, new], &[new, mid, old, 99]] {
        assert_refused(&m, merge(inputs, vec![table("j-1", "a", "m", 1, 30)]), "no longer neighbours");
    }
}

/// A merged run above newer ones would answer with stale rows; below older ones, lookups would miss.
#[test]
fn a_merged_run_takes_exactly_the_place_of_its_inputs() {
    let (m, [new, mid, old]) = with_runs();
    let next = after(&m, merge(&[mid], vec![table("j-1", "a", "m", 11, 20)]));
    let ids: Vec<u64> = next.runs.iter().map(|r| r.id.0).collect();
    assert_eq!(ids, [new, next.version.0, old]);
    assert!(!next.runs[1].l0 && next.runs[0].l0);
    let both = after(&m, merge(&[mid, old], vec![table("j-1", "a", "m", 1, 20)]));
    assert_eq!(both.runs.iter().map(|r| r.id.0).collect::<Vec<_>>(), [new, both.version.0]);
}

/// The job was planned before the snapshot, which needs a version that it dropped.
#[test]
fn a_merge_that_did_not_plan_with_a_snapshot_is_refused() {
    let (m, [new, mid, _]) = with_runs();
    let take = Change::TakeSnapshot { name: "s".into(), snapshot: snapshot(25) };
    let m = after(&m, take);
    let plain = || merge(&[new, mid], vec![table("j-1", "a", "m", 11, 30)]);
    let job = || with(plain(), |p| p.judged = SeqNo(30));
    assert_refused(&m, job(), "taken after the job was planned");
    assert_refused(&m, with(job(), |p| p.snapshots = vec![SeqNo(24)]), "taken after the job was planned");
    after(&m, with(job(), |p| p.snapshots = vec![SeqNo(25), SeqNo(3)]));
    after(&after(&m, Change::DropSnapshot { name: "s".into() }), job());
    after(&m, plain());
}

/// A snapshot of the present sees the newest rows, which a merge keeps: it need not have been planned with.
#[test]
fn a_snapshot_above_a_merge_does_not_stop_it() {
    let (m, [new, mid, _]) = with_runs();
    let job = || with(merge(&[new, mid], vec![table("j-1", "a", "m", 11, 30)]), |p| p.judged = SeqNo(30));
    for (seq, harmed) in [(30, false), (40, false), (29, true), (9, true)] {
        let held = after(&m, Change::TakeSnapshot { name: "s".into(), snapshot: snapshot(seq) });
        match harmed {
            true => assert_refused(&held, job(), "taken after the job was planned"),
            false => drop(after(&held, job())),
        }
    }
}

/// The job judged a row expired, and dropped it or made it a delete; the snapshot reads at an earlier instant, at which
/// the row was alive.
#[test]
fn a_snapshot_above_a_merge_of_rows_that_expire_stops_it() {
    let m = with_log(&[(1, 10)]);
    let expiring = TableEntry { min_expires: Some(Timestamp(80)), ..table("w-1", "a", "m", 1, 10) };
    let m = after(&m, flush(10, vec![expiring], None));
    let id = m.runs[0].id.0;
    let held = after(&m, Change::TakeSnapshot { name: "s".into(), snapshot: snapshot(10) });
    let as_delete = TableEntry { deletes: 1, ..table("j-1", "a", "m", 1, 10) };
    let job = with(merge(&[id], vec![as_delete]), |p| p.judged = SeqNo(10));
    assert_refused(&held, job.clone(), "taken after the job was planned");
    after(&held, with(job.clone(), |p| p.snapshots = vec![SeqNo(10)]));
    after(&m, job);
}

#[test]
fn a_merge_planned_in_another_mode_is_refused() {
    let (m, [new, mid, _]) = with_runs();
    let fifo = CompactionMode::Fifo { retention_us: 5, retention_count: 0 };
    let job = || merge(&[new, mid], vec![table("j-1", "a", "m", 11, 30)]);
    let changed = after(&m, Change::SetCompaction { compaction: fifo.clone() });
    assert_refused(&changed, job(), "mode has changed");
    let other = CompactionMode::Fifo { retention_us: 6, retention_count: 0 };
    assert_refused(&changed, with(job(), |p| p.mode = other), "mode has changed");
    after(&changed, with(job(), |p| p.mode = fifo));
}

/// A delete dropped while an older value lies beneath brings that value back.
#[test]
fn deletes_and_expired_rows_are_dropped_only_at_the_bottom() {
    let (m, [new, mid, old]) = with_runs();
    let job = |inputs: &[u64], first, last| {
        let smaller = TableEntry { rows: 3, ..table("j-1", "a", "m", first, last) };
        with(merge(inputs, vec![smaller]), |p| (p.dropped, p.judged) = (true, SeqNo(last)))
    };
    assert_refused(&m, job(&[new, mid], 11, 30), "older runs lie beneath");
    let next = after(&m, job(&[mid, old], 1, 20));
    assert_eq!(next.history_floor, SeqNo(20));
}

#[test]
fn a_merge_that_lost_rows_names_the_number_it_judged_against() {
    let (m, [new, mid, _]) = with_runs();
    let job = || merge(&[new, mid], vec![TableEntry { rows: 3, ..table("j-1", "a", "m", 11, 30) }]);
    assert_refused(&m, job(), "names no number");
    assert_refused(&m, with(job(), |p| p.judged = SeqNo(31)), "above its inputs'");
    assert_eq!(after(&m, with(job(), |p| p.judged = SeqNo(28))).history_floor, SeqNo(28));
}

#[test]
fn the_history_floor_never_sinks() {
    let (m, [new, mid, old]) = with_runs();
    let job = |inputs: &[u64], name: &str, first, last: u64| {
        let smaller = TableEntry { rows: 3, ..table(name, "a", "m", first, last) };
        with(merge(inputs, vec![smaller]), |p| p.judged = SeqNo(last))
    };
    let m = after(&m, job(&[new], "j-1", 21, 30));
    assert_eq!(after(&m, job(&[mid, old], "j-2", 1, 20)).history_floor, SeqNo(30));
}

#[test]
fn a_merge_cannot_invent_rows() {
    let (m, [new, mid, _]) = with_runs();
    let job = |t: TableEntry| merge(&[new, mid], vec![t]);
    assert_refused(&m, job(table("j-1", "a", "m", 10, 30)), "holds 10..=30, its inputs 11..=30");
    assert_refused(&m, job(table("j-1", "a", "m", 11, 31)), "holds 11..=31, its inputs 11..=30");
    let more = TableEntry { rows: 21, ..table("j-1", "a", "m", 11, 30) };
    assert_refused(&m, job(more), "made 21 rows of 20");
}

/// Rewriting must not make data younger, or it never expires.
#[test]
fn rewriting_does_not_reset_a_tables_age() {
    let (m, [new, mid, _]) = with_runs();
    let younger = TableEntry { max_time: Timestamp(31), ..table("j-1", "a", "m", 11, 30) };
    assert_refused(&m, merge(&[new, mid], vec![younger]), "write times that none of its inputs has");
    let older = TableEntry { min_time: Timestamp(10), ..table("j-1", "a", "m", 11, 30) };
    assert_refused(&m, merge(&[new, mid], vec![older]), "write times that none of its inputs has");
}

/// A table that only changes its run keeps its object; the others' objects are retired.
#[test]
fn a_kept_table_is_not_retired_and_must_be_the_same() {
    let (m, [new, mid, _]) = with_runs();
    let low = table("j-1", "n", "z", 11, 20);
    let kept = TableEntry { ..table("w-30", "a", "m", 21, 30) };
    let changed = TableEntry { crc: 1, ..kept.clone() };
    assert_refused(&m, merge(&[new, mid], vec![changed, low.clone()]), "kept with another content");
    let next = after(&m, merge(&[new, mid], vec![kept, low]));
    let retired: Vec<&str> = next.retired.iter().map(|r| r.path.as_str()).collect();
    assert_eq!(retired.len(), 1);
    assert!(retired[0].ends_with("/w-20.sst"), "{retired:?}");
}

#[test]
fn a_merge_whose_rows_all_vanish_leaves_no_run() {
    let (m, [new, mid, old]) = with_runs();
    let job = with(merge(&[old], vec![]), |p| (p.dropped, p.judged) = (true, SeqNo(10)));
    let next = after(&m, job);
    assert_eq!(next.runs.iter().map(|r| r.id).collect::<Vec<_>>(), [RunId(new), RunId(mid)]);
}

fn with_blobs() -> isle_storage::manifest::Manifest {
    let m = with_log(&[(1, 10), (11, 20)]);
    let m = after(&m, Change::AddBlobs { blobs: [("b-1".to_owned(), 111), ("b-2".to_owned(), 222)].into() });
    let blobs = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    let one = TableEntry { blobs: blobs(&["b-1", "b-2"]), ..table("w-1", "a", "m", 1, 10) };
    let two = TableEntry { blobs: blobs(&["b-2"]), ..table("w-2", "a", "m", 11, 20) };
    after(&after(&m, flush(10, vec![one], None)), flush(20, vec![two], None))
}

#[test]
fn a_blob_file_is_retired_with_its_last_reference_and_not_before() {
    let m = with_blobs();
    let (new, old) = (m.runs[0].id.0, m.runs[1].id.0);
    let next = after(&m, merge(&[old], vec![table("j-1", "a", "m", 1, 10)]));
    assert_eq!(next.blobs.keys().collect::<Vec<_>>(), ["b-2"]);
    let blob = next.retired.iter().find(|r| r.path.as_str().starts_with("blob/")).unwrap();
    assert_eq!((blob.len, blob.version), (111, next.version));
    let last = after(&next, merge(&[new], vec![table("j-2", "a", "m", 11, 20)]));
    assert!(last.blobs.is_empty());
}

/// A blob shared by a table that stays and one that comes with the same edit stays.
#[test]
fn a_blob_file_that_moves_to_a_new_table_stays() {
    let m = with_blobs();
    let old = m.runs[1].id.0;
    let keeps = TableEntry { blobs: vec!["b-1".into()], ..table("j-1", "a", "m", 1, 10) };
    let next = after(&m, merge(&[old], vec![keeps]));
    assert_eq!(next.blobs.keys().collect::<Vec<_>>(), ["b-1", "b-2"]);

    let m = with_log(&[(1, 10)]);
    let m = m.apply(&edit(
        &m,
        vec![
            Change::AddBlobs { blobs: [("b-9".to_owned(), 9)].into() },
            append(vec![isle_storage::manifest::LogEntry {
                blobs: vec!["b-9".into()],
                ..segment(1, 11, 11)
            }]),
        ],
    ));
    let m = m.unwrap();
    let t = TableEntry { blobs: vec!["b-9".into()], ..table("w-1", "a", "b", 1, 11) };
    let flushed = after(&m, flush(11, vec![t], Some(chunk(1, 1, 11))));
    assert!(flushed.blobs.contains_key("b-9"), "only the table points at it now");
}

/// Values have moved: a job adds the new file in the edit of its merge, and the old one goes with its last reference.
#[test]
fn a_merge_adds_the_file_its_values_have_moved_into() {
    let m = with_blobs();
    let (new, old) = (m.runs[0].id.0, m.runs[1].id.0);
    let moved = |name: &str, to: &str, first, last| TableEntry {
        blobs: vec![to.into()],
        blob_use: vec![BlobUse { bytes: 30, values: 2 }],
        ..table(name, "a", "m", first, last)
    };
    let add = |name: &str| Change::AddBlobs { blobs: [(name.to_owned(), 99)].into() };
    let by_job = |m: &Manifest, changes| m.apply(&Edit { author: Author::Job(JobId(7)), ..edit(m, changes) });
    let job = merge(&[old], vec![moved("j-1", "j-9", 1, 10)]);
    assert_refused(&m, job.clone(), "not in the manifest");
    let next = by_job(&m, vec![add("j-9"), job]).unwrap();
    assert_eq!(
        next.blobs.keys().collect::<Vec<_>>(),
        ["b-2", "j-9"],
        "b-2 is shared, and the other keeps it"
    );
    let last = by_job(&next, vec![add("j-8"), merge(&[new], vec![moved("j-2", "j-8", 11, 20)])]).unwrap();
    assert_eq!(last.blobs.keys().collect::<Vec<_>>(), ["j-8", "j-9"]);
    assert!(last.retired.iter().any(|r| r.path == names::blob("b-2") && r.len == 222));
    // What the tables count, they count of every file they point at.
    let more = TableEntry { blob_use: vec![BlobUse::default(); 2], ..moved("j-1", "b-2", 1, 10) };
    assert_refused(&m, merge(&[old], vec![more]), "counts 2 blob files");
}

#[test]
fn a_blob_file_is_collected_only_after_what_points_at_it() {
    let m = with_blobs();
    let next = after(&m, merge(&[m.runs[1].id.0], vec![table("j-1", "a", "m", 1, 10)]));
    let paths: Vec<_> = next.retired.iter().map(|r| r.path.clone()).collect();
    let blob = paths.iter().find(|p| p.as_str().starts_with("blob/")).unwrap().clone();
    assert_refused(&next, Change::Collected { paths: vec![blob] }, "is collected before");
    assert!(after(&next, Change::Collected { paths }).retired.is_empty());
}

#[test]
fn only_what_is_retired_is_collected() {
    let (m, [new, mid, _]) = with_runs();
    let next = after(&m, merge(&[new, mid], vec![table("j-1", "a", "m", 11, 30)]));
    let live = next.runs[0].tables[0].path();
    assert_refused(&next, Change::Collected { paths: vec![live] }, "was not in the retired list");
    let gone = next.retired[0].path.clone();
    let left = after(&next, Change::Collected { paths: vec![gone.clone()] });
    assert_eq!(left.retired.len(), 1);
    assert_refused(&left, Change::Collected { paths: vec![gone] }, "was not in the retired list");
}

#[test]
fn two_runs_of_one_edit_would_have_one_name() {
    let (m, [new, mid, old]) = with_runs();
    let changes = vec![
        merge(&[new], vec![table("j-1", "a", "m", 21, 30)]),
        merge(&[old], vec![table("j-2", "a", "m", 1, 10)]),
    ];
    assert!(m.apply(&edit(&m, changes)).unwrap_err().to_string().contains("stands twice"));
    let _ = mid;
}

/// Unshared entries are compared by content where a table is kept, so a reader that parsed its own copy agrees.
#[test]
fn a_kept_table_may_be_another_copy() {
    let (m, [new, ..]) = with_runs();
    let copy = TableEntry::clone(&m.runs[0].tables[0]);
    let next = after(&m, merge(&[new], vec![copy]));
    assert!(!Arc::ptr_eq(&m.runs[0], &next.runs[0]));
    assert!(next.retired.is_empty());
}
