//! What the log refuses: each test fails where its rule is taken out.

use isle_storage::ids::{Epoch, Incarnation, Lineage, SeqNo, Timestamp, Version};
use isle_storage::manifest::{Author, EditError, LogEntry, LogTail, text};
use isle_storage::names::LogId;

use super::build::*;

#[test]
fn a_segment_that_leaves_a_gap_or_overlaps_is_refused() {
    let m = with_log(&[(1, 10)]);
    assert_refused(&m, append(vec![segment(1, 12, 15)]), "does not follow sequence number 10");
    assert_refused(&m, append(vec![segment(1, 10, 15)]), "does not follow sequence number 10");
    assert_refused(
        &m,
        append(vec![segment(1, 11, 12), segment(1, 14, 15)]),
        "does not follow sequence number 12",
    );
    assert_refused(&m, append(vec![segment(1, 11, 10)]), "is empty");
    assert_eq!(after(&m, append(vec![segment(1, 11, 12), segment(1, 13, 15)])).last_seq, SeqNo(15));
}

#[test]
fn only_segments_are_appended() {
    let m = with_log(&[(1, 10)]);
    assert_refused(&m, append(vec![chunk(1, 11, 12)]), "is no segment");
}

/// A writer names only objects of its own epoch: what another epoch uploaded beyond the cut is void.
#[test]
fn a_segment_of_another_epoch_or_incarnation_is_refused() {
    let m = after(&with_log(&[(1, 10)]), adopt(2, vec![]));
    assert_refused(&m, append(vec![segment(1, 11, 12)]), "not of the newest epoch");
    assert_refused(&m, append(vec![segment(3, 11, 12)]), "not of the newest epoch");
    let id = LogId { incarnation: Incarnation(1), ..log_id(2, 11) };
    assert_refused(&m, append(vec![LogEntry { id, ..segment(2, 11, 12) }]), "not of the newest epoch");
    after(&m, append(vec![segment(2, 11, 12)]));
}

#[test]
fn nothing_is_appended_before_the_first_adoption() {
    assert_refused(&genesis(), append(vec![segment(0, 1, 2)]), "not of the newest epoch");
}

/// Retention by time rests on write times that ascend with sequence numbers, whatever clocks the writers had.
#[test]
fn write_time_never_goes_back() {
    let m = with_log(&[(1, 10)]);
    let early = LogEntry { first_time: Timestamp(9), ..segment(1, 11, 12) };
    assert_refused(&m, append(vec![early]), "write time goes back");
    let backwards = LogEntry { first_time: Timestamp(20), last_time: Timestamp(19), ..segment(1, 11, 12) };
    assert_refused(&m, append(vec![backwards]), "write time goes back");
    let equal = LogEntry { first_time: Timestamp(10), last_time: Timestamp(10), ..segment(1, 11, 12) };
    after(&m, append(vec![equal]));
}

#[test]
fn only_the_writer_changes_the_log() {
    let m = with_log(&[(1, 10)]);
    for change in [append(vec![segment(1, 11, 12)]), flush(10, vec![], None), adopt(2, vec![])] {
        let e = edit(&m, vec![change]);
        m.apply(&e).unwrap();
        for author in [Author::Observer("somebody".into()), Author::Job(isle_storage::ids::JobId(1))] {
            let error = m.apply(&isle_storage::manifest::Edit { author, ..e.clone() }).unwrap_err();
            assert!(error.to_string().contains("only the writer"), "{error}");
        }
    }
}

#[test]
fn an_adoption_rolls_forward_the_newest_epochs_segments_and_records_the_cut() {
    let m = after(&with_log(&[(1, 10)]), adopt(2, vec![segment(1, 11, 12), segment(1, 13, 13)]));
    assert_eq!((m.epoch, m.last_seq), (Epoch(2), SeqNo(13)));
    assert_eq!(m.epochs.last().unwrap().cut, Some(link(1, 13, 13)));
    assert_eq!(m.tail, Some(link(1, 13, 13)));
}

/// The segment of epoch 1 arrives late, after epoch 2's adoption left it out and its client was told so.
#[test]
fn a_segment_of_an_epoch_that_has_been_adopted_is_void_for_ever() {
    let m = after(&with_log(&[(1, 10)]), adopt(2, vec![]));
    assert_refused(&m, adopt(3, vec![segment(1, 11, 12)]), "is void");
    after(&m, adopt(3, vec![segment(2, 11, 12)]));
}

/// Epoch 3's adoption was committed and lost when the coordination service was set back before it; epoch 4 rolls its
/// segments forward. Without an entry for epoch 3, its own writer would be told "not committed" for what is there.
#[test]
fn a_rolled_forward_epoch_is_entered_where_its_first_segment_starts() {
    let m = after(&with_log(&[(1, 10)]), adopt(2, vec![]));
    let m = after(&m, adopt(4, vec![segment(2, 11, 12), segment(3, 13, 14), segment(3, 15, 15)]));
    let epochs: Vec<(u64, Option<LogTail>)> = m.epochs.iter().map(|e| (e.epoch.0, e.cut)).collect();
    let expected =
        [(1, None), (2, Some(link(1, 1, 10))), (3, Some(link(2, 11, 12))), (4, Some(link(3, 15, 15)))];
    assert_eq!(epochs, expected);
    let other = LogEntry { id: LogId { incarnation: Incarnation(9), ..log_id(2, 11) }, ..segment(2, 11, 12) };
    let m = after(&with_log(&[(1, 10)]), adopt(2, vec![]));
    assert_refused(&m, adopt(4, vec![other]), "is void");
}

#[test]
fn an_adoption_names_its_own_epoch_which_is_above_all_it_adopts() {
    let m = with_log(&[(1, 10)]);
    let mut e = edit(&m, vec![adopt(2, vec![])]);
    e.epoch = Epoch(3);
    assert!(m.apply(&e).unwrap_err().to_string().contains("adopted by an edit of epoch 3"));
    assert_refused(&m, adopt(2, vec![segment(2, 11, 12)]), "not older than");
    let again = m.apply(&edit(&m, vec![adopt(1, vec![])]));
    assert!(matches!(again, Err(EditError::WrongEpoch { .. })), "{again:?}");
}

#[test]
fn an_edit_for_another_version_lineage_or_epoch_is_refused_as_such() {
    let m = with_log(&[(1, 10)]);
    let good = edit(&m, vec![append(vec![segment(1, 11, 12)])]);
    let with = |f: &dyn Fn(&mut isle_storage::manifest::Edit)| {
        let mut e = good.clone();
        f(&mut e);
        m.apply(&e).unwrap_err()
    };
    assert!(matches!(with(&|e| e.version = m.version), EditError::WrongVersion { .. }));
    assert!(matches!(with(&|e| e.version = later(&m, 2)), EditError::WrongVersion { .. }));
    assert!(matches!(with(&|e| e.lineage = Lineage(9)), EditError::WrongLineage { .. }));
    assert!(matches!(with(&|e| e.epoch = Epoch(0)), EditError::WrongEpoch { .. }));
    assert!(matches!(with(&|e| e.epoch = Epoch(2)), EditError::WrongEpoch { .. }));
    assert!(matches!(
        with(&|e| e.required_features.push("time_travel".into())),
        EditError::UnknownFeature { .. }
    ));
    m.apply(&good).unwrap();
}

#[test]
fn the_log_is_trimmed_only_to_a_boundary_below_what_is_flushed() {
    let m = with_log(&[(1, 10), (11, 20), (21, 30)]);
    let m = after(&m, flush(20, vec![], None));
    let trim = |to| isle_storage::manifest::Change::TrimLog { trimmed_seq: SeqNo(to) };
    assert_refused(&m, trim(15), "cannot be trimmed to 15");
    assert_refused(&m, trim(30), "cannot be trimmed to 30");
    assert_refused(&m, trim(0), "cannot be trimmed to 0");
    let m = after(&m, trim(10));
    assert_eq!((m.earliest_seq(), m.log.len()), (SeqNo(11), 2));
    assert_refused(&m, trim(10), "cannot be trimmed to 10");
    assert_eq!(m.retired[0].path, log_id(1, 1).path(isle_storage::names::LogKind::Segment));
    let m = after(&m, trim(20));
    assert_eq!(m.log.len(), 1, "{}", text::print(&m));
}

/// A consumer that starts from a snapshot goes on with the log after it.
#[test]
fn a_snapshot_that_holds_the_log_keeps_it_from_being_trimmed() {
    use isle_storage::manifest::{Change, Snapshot};
    let m = after(&with_log(&[(1, 10), (11, 20), (21, 30)]), flush(20, vec![], None));
    let take = |name: &str, seq, holds_log| Change::TakeSnapshot {
        name: name.to_owned(),
        snapshot: Snapshot { holds_log, ..snapshot(seq) },
    };
    let held = after(&m, take("bootstrap", 10, true));
    let trim = |to| Change::TrimLog { trimmed_seq: SeqNo(to) };
    assert_refused(&held, trim(20), "holds the log after 10");
    let trimmed = after(&held, trim(10));
    assert_refused(&trimmed, take("too-late", 9, true), "no longer kept");
    after(&trimmed, take("no-log", 9, false));
    after(&after(&held, Change::DropSnapshot { name: "bootstrap".into() }), trim(20));
    after(&after(&m, take("plain", 10, false)), trim(20));
}

/// A void edit uses up its number and nothing else; the next edit follows it.
#[test]
fn a_void_number_is_stepped_over() {
    let m = with_log(&[(1, 10)]);
    let next = m.skip_void(later(&m, 1));
    assert_eq!(next.version, Version(m.version.0 + 1));
    assert_eq!(
        text::print(&next).lines().skip(1).collect::<Vec<_>>(),
        text::print(&m).lines().skip(1).collect::<Vec<_>>()
    );
    after(&next, append(vec![segment(1, 11, 12)]));
}
