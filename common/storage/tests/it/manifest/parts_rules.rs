//! Merges in parts: what may begin, what may be staged, what ends them, and what they become.

use isle_storage::ids::{RunId, SeqNo, Timestamp, Version};
use isle_storage::manifest::{Change, CompactionMode, Key, Manifest, StagedPart, TableEntry};
use isle_storage::names;

use super::build::{self, after, assert_refused};

fn begin(inputs: &[u64], splits: &[&str]) -> Change {
    Change::BeginMerge {
        inputs: inputs.iter().copied().map(RunId).collect(),
        splits: splits.iter().map(|k| Key(k.to_string().into())).collect(),
        snapshots: Vec::new(),
        planned_mode: CompactionMode::Merge,
        bottom: false,
        expiry: None,
        at: Timestamp(1),
    }
}

fn stage(merge: Version, part: u32, tables: Vec<TableEntry>) -> Change {
    let tables = tables.into_iter().map(Into::into).collect();
    let made = StagedPart { tables, dropped: false, judged: SeqNo(20), expired_by: None };
    Change::StagePart { merge, part, made, at: Timestamp(2) }
}

fn piece(name: &str, from: &str, to: &str) -> TableEntry {
    TableEntry { rows: 4, ..build::table(name, from, to, 1, 20) }
}

/// The two older runs of three, being merged in two parts that meet at "g".
fn begun() -> (Manifest, [u64; 3], Version) {
    let (m, ids) = build::with_runs();
    let m = after(&m, begin(&ids[1..], &["g"]));
    let merge = m.version;
    (m, ids, merge)
}

fn is_retired(m: &Manifest, name: &str) -> bool {
    m.retired.iter().any(|r| r.path == names::table(name))
}

#[test]
fn the_last_part_puts_the_whole_run_in_the_place_of_its_inputs() {
    let (m, ids, merge) = begun();
    let m = after(&m, stage(merge, 1, vec![piece("p-1", "g", "m")]));
    assert_eq!(m.runs.len(), 3, "a staged table is not read");
    assert!(m.named_tables().any(|t| t.name == "p-1") && !m.tables().any(|t| t.name == "p-1"));
    let m = after(&m, stage(merge, 0, vec![piece("p-0", "a", "f")]));
    assert!(m.staged.is_empty());
    assert_eq!(m.runs.iter().map(|r| r.id.0).collect::<Vec<_>>(), [ids[0], m.version.0]);
    let names: Vec<&str> = m.runs[1].tables.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["p-0", "p-1"], "in the order of keys, not of work");
    assert!(is_retired(&m, "w-10") && is_retired(&m, "w-20"));
    assert_eq!(m.history_floor, SeqNo(20));
}

/// A file that a part's values have moved into is there from that part on, and goes with the merge if that is given up.
#[test]
fn the_blob_files_of_a_part_go_with_a_merge_that_is_given_up() {
    let (m, _, merge) = begun();
    let moved = TableEntry { blobs: vec!["p-9".into()], ..piece("p-1", "g", "m") };
    let add = Change::AddBlobs { blobs: [("p-9".to_owned(), 99)].into() };
    let m = m.apply(&build::edit(&m, vec![add, stage(merge, 1, vec![moved])])).unwrap();
    assert!(m.blobs.contains_key("p-9"));
    let given_up = after(&m, Change::AbandonMerge { merge });
    assert!(given_up.blobs.is_empty());
    assert!(given_up.retired.iter().any(|r| r.path == names::blob("p-9") && r.len == 99));
    let done = after(&m, stage(merge, 0, vec![piece("p-0", "a", "f")]));
    assert!(done.blobs.contains_key("p-9") && done.staged.is_empty());
}

#[test]
fn a_part_is_staged_once_and_a_loser_is_refused() {
    let (m, _, merge) = begun();
    let m = after(&m, stage(merge, 1, vec![piece("p-1", "g", "m")]));
    assert_refused(&m, stage(merge, 1, vec![piece("q-1", "g", "m")]), "staged already");
    assert_refused(&m, stage(merge, 2, vec![]), "of 2 parts");
    assert_refused(&m, stage(merge, 0, vec![piece("p-1", "a", "b")]), "already a table");
    assert_refused(&m, stage(merge, 0, vec![piece("p-0", "a", "g")]), "beyond the keys");
    let newer = TableEntry { max_seq: SeqNo(21), ..piece("p-0", "a", "b") };
    assert_refused(&m, stage(merge, 0, vec![newer]), "its inputs");
}

#[test]
fn inputs_are_held_until_the_end() {
    let (m, ids, merge) = begun();
    assert_refused(&m, build::merge(&ids[..2], vec![piece("x-0", "a", "m")]), "merge in parts");
    assert_refused(&m, begin(&ids[2..], &["c"]), "merge in parts");
    let m = after(&m, Change::AbandonMerge { merge });
    after(&m, begin(&ids[1..], &["c"]));
}

/// A sleeper's part of the merge before must not get into the next one of the same inputs.
#[test]
fn a_part_of_an_abandoned_merge_never_gets_into_a_later_one() {
    let (m, ids, merge) = begun();
    let m = after(&m, stage(merge, 1, vec![piece("p-1", "g", "m")]));
    let m = after(&m, Change::AbandonMerge { merge });
    assert!(is_retired(&m, "p-1"));
    let m = after(&m, begin(&ids[1..], &["c"]));
    assert_refused(&m, stage(merge, 0, vec![piece("p-0", "a", "b")]), "has ended");
    assert_refused(&m, Change::AbandonMerge { merge }, "has ended");
}

#[test]
fn what_makes_a_merge_impossible_ends_it_in_the_same_edit() {
    let (m, _, merge) = begun();
    let m = after(&m, stage(merge, 1, vec![piece("p-1", "g", "m")]));
    let take = |seq| Change::TakeSnapshot { name: "held".to_owned(), snapshot: build::snapshot(seq) };
    let mode =
        Change::SetCompaction { compaction: CompactionMode::Fifo { retention_us: 1, retention_count: 1 } };
    for change in [take(15), mode] {
        let ended = after(&m, change);
        assert!(ended.staged.is_empty() && is_retired(&ended, "p-1"));
        assert_refused(&ended, stage(merge, 0, vec![]), "has ended");
    }
    // At or above the inputs' newest number the parts hide nothing that the snapshot sees.
    for seq in [20, 35] {
        let m = after(&after(&m, take(seq)), stage(merge, 0, vec![piece("p-0", "a", "f")]));
        assert_eq!(m.runs.len(), 2);
    }
}

#[test]
fn a_merge_that_cannot_be_right_does_not_begin() {
    let (m, ids) = build::with_runs();
    assert_refused(&m, begin(&[ids[0], ids[2]], &["g"]), "no longer neighbours");
    assert_refused(&m, begin(&ids[1..], &[]), "0 splits");
    assert_refused(&m, begin(&ids[1..], &["g", "c"]), "do not ascend");
    assert_refused(&m, begin(&ids[1..], &["", "c"]), "do not ascend");
    let mut bottom = begin(&ids[..2], &["g"]);
    let Change::BeginMerge { bottom: at_the_bottom, .. } = &mut bottom else { panic!("a merge begins") };
    *at_the_bottom = true;
    assert_refused(&m, bottom, "lie beneath");
    let snapshot = Change::TakeSnapshot { name: "s".to_owned(), snapshot: build::snapshot(15) };
    assert_refused(&after(&m, snapshot), begin(&ids[1..], &["g"]), "taken after");
}

/// What a merge leaves as it is stays live, whether the merge comes to its end or not.
#[test]
fn an_inputs_table_can_be_kept() {
    let (m, ids) = build::with_runs();
    let m = after(&m, begin(&ids[1..2], &["zz"]));
    let merge = m.version;
    let kept: TableEntry = (*m.runs[1].tables[0]).clone();
    let m = after(&m, stage(merge, 0, vec![kept.clone()]));
    let given_up = after(&m, Change::AbandonMerge { merge });
    assert!(!is_retired(&given_up, &kept.name));
    let done = after(&m, stage(merge, 1, vec![]));
    assert!(!is_retired(&done, &kept.name) && done.tables().any(|t| **t == kept));
    let other = TableEntry { len: kept.len + 1, ..kept };
    assert_refused(&given_up, stage(merge, 0, vec![other.clone()]), "has ended");
    let (m, ids) = build::with_runs();
    let m = after(&m, begin(&ids[1..2], &["zz"]));
    assert_refused(&m, stage(m.version, 0, vec![other]), "another content");
}
