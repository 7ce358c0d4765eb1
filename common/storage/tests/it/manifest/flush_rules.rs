//! What a flush may not do: each test fails where its rule is taken out.

use isle_storage::ids::SeqNo;
use isle_storage::manifest::{Change, LogEntry, TableEntry};
use isle_storage::names::LogKind;

use super::build::*;

/// A table made readable before its log is committed would show a write that may still be lost.
#[test]
fn a_flush_beyond_the_committed_log_is_refused() {
    let m = with_log(&[(1, 10), (11, 20)]);
    assert_refused(&m, flush(21, vec![table("w-1", "a", "b", 1, 21)], None), "does not lie between");
    after(&m, flush(20, vec![table("w-1", "a", "b", 1, 20)], None));
}

#[test]
fn a_flush_ends_on_a_segments_boundary() {
    let m = with_log(&[(1, 10), (11, 20)]);
    assert_refused(&m, flush(15, vec![table("w-1", "a", "b", 1, 15)], None), "boundary");
    assert_refused(&m, flush(5, vec![table("w-1", "a", "b", 1, 5)], None), "boundary");
    after(&m, flush(10, vec![table("w-1", "a", "b", 1, 10)], None));
}

/// Flushes publish in order, each going on where the one before ended.
#[test]
fn a_flush_extends_the_one_before() {
    let m = after(&with_log(&[(1, 10), (11, 20)]), flush(10, vec![table("w-1", "a", "b", 1, 10)], None));
    assert_refused(&m, flush(10, vec![], None), "does not lie between");
    assert_refused(&m, flush(20, vec![table("w-2", "a", "b", 10, 20)], None), "outside the flushed 11..=20");
    after(&m, flush(20, vec![table("w-2", "a", "b", 11, 20)], None));
}

#[test]
fn a_flushed_table_holds_only_the_generations_numbers() {
    let m = with_log(&[(1, 10), (11, 20)]);
    assert_refused(&m, flush(10, vec![table("w-1", "a", "b", 1, 11)], None), "outside the flushed 1..=10");
    assert_refused(&m, flush(10, vec![table("w-1", "a", "b", 0, 10)], None), "outside the flushed 1..=10");
}

#[test]
fn flushed_tables_ascend_and_do_not_overlap() {
    let m = with_log(&[(1, 10)]);
    let tables = |b_from: &str| vec![table("w-1", "a", "m", 1, 10), table("w-2", b_from, "z", 1, 10)];
    assert_refused(&m, flush(10, tables("m"), None), "overlap");
    assert_refused(&m, flush(10, tables("n").into_iter().rev().collect(), None), "overlap");
    assert_eq!(after(&m, flush(10, tables("n"), None)).runs[0].tables.len(), 2);
}

/// A key that extends the largest one by a byte lies above it: bounds compare as bytes, not as rounded texts.
#[test]
fn a_table_may_start_right_after_the_one_before() {
    let m = with_log(&[(1, 10)]);
    after(&m, flush(10, vec![table("w-1", "a", "m", 1, 10), table("w-2", "m\0", "z", 1, 10)], None));
}

#[test]
fn a_chunk_covers_exactly_the_flushed_segments_and_replaces_them() {
    let m = with_log(&[(1, 10), (11, 20), (21, 30)]);
    for (first, last) in [(1, 10), (2, 20), (1, 30)] {
        assert_refused(&m, flush(20, vec![], Some(chunk(1, first, last))), "does not cover exactly");
    }
    assert_refused(&m, flush(20, vec![], Some(segment(1, 1, 20))), "does not cover exactly");
    let next = after(&m, flush(20, vec![], Some(chunk(1, 1, 20))));
    let log: Vec<_> = next.log.iter().map(|e| (e.kind, e.id.first_seq, e.last_seq)).collect();
    assert_eq!(log, [(LogKind::Chunk, SeqNo(1), SeqNo(20)), (LogKind::Segment, SeqNo(21), SeqNo(30))]);
    assert_eq!(
        next.retired.iter().map(|r| r.path.clone()).collect::<Vec<_>>(),
        [m.log[0].path(), m.log[1].path()]
    );
    assert_eq!(next.tail, m.tail, "the newest segment stays the one that the next one names");
    let all = after(&m, flush(30, vec![], Some(chunk(1, 1, 30))));
    assert_eq!(all.tail, Some(link(1, 21, 30)));
    after(&all, append(vec![segment(1, 31, 31)]));
}

/// Only what is flushed is unneeded for starting: what is left is exactly the rest.
#[test]
fn what_is_unflushed_shrinks_with_every_flush() {
    let m = with_log(&[(1, 10), (11, 20), (21, 30)]);
    assert_eq!(m.unflushed().len(), 3);
    let m = after(&m, flush(20, vec![], Some(chunk(1, 1, 20))));
    assert_eq!(m.unflushed().iter().map(|e| e.id.first_seq.0).collect::<Vec<_>>(), [21]);
    assert_eq!(m.log_from(SeqNo(5)).len(), 2);
    assert_eq!(m.log_from(SeqNo(21)).len(), 1);
    assert_eq!(m.log_from(SeqNo(31)).len(), 0);
}

#[test]
fn impossible_tables_are_refused() {
    let m = with_log(&[(1, 10)]);
    let good = table("w-1", "a", "b", 1, 10);
    let cases: [(&str, TableEntry); 8] = [
        ("is no table's name", TableEntry { name: "../w-1".into(), ..good.clone() }),
        ("is no table's name", TableEntry { name: String::new(), ..good.clone() }),
        ("ends before it begins", table("w-1", "b", "a", 1, 10)),
        ("impossible key", table("w-1", "", "a", 1, 10)),
        ("is empty", TableEntry { rows: 0, ..good.clone() }),
        ("more deletes than rows", TableEntry { deletes: 11, ..good.clone() }),
        ("metadata beyond its end", TableEntry { meta_offset: 1000, ..good.clone() }),
        ("in time", TableEntry { min_time: isle_storage::ids::Timestamp(11), ..good.clone() }),
    ];
    for (why, bad) in cases {
        assert_refused(&m, flush(10, vec![bad], None), why);
    }
    after(&m, flush(10, vec![good], None));
}

#[test]
fn impossible_log_objects_are_refused() {
    let m = with_log(&[(1, 10)]);
    let good = segment(1, 11, 12);
    assert_refused(
        &m,
        append(vec![LogEntry { index_offset: good.len, ..good.clone() }]),
        "index beyond its end",
    );
    let lost = LogEntry { blobs: vec!["w-7".into()], ..good.clone() };
    assert_refused(&m, append(vec![lost.clone()]), "is not in the manifest");
    let with_blob =
        edit(&m, vec![Change::AddBlobs { blobs: [("w-7".to_owned(), 5)].into() }, append(vec![lost])]);
    m.apply(&with_blob).unwrap();
}

#[test]
fn a_tables_name_is_never_used_again() {
    let (m, [_, _, oldest]) = with_runs();
    assert_refused(&m, flush(40, vec![table("w-20", "a", "b", 31, 40)], None), "already a table");
    assert_refused(
        &m,
        flush(40, vec![table("w-x", "a", "b", 31, 40), table("w-x", "c", "d", 31, 40)], None),
        "one name",
    );
    let merged = after(&m, merge(&[oldest], vec![table("j-1", "a", "m", 1, 10)]));
    assert_refused(&merged, flush(40, vec![table("w-10", "a", "b", 31, 40)], None), "used again");
}
