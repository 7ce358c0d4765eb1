//! Was it committed? Each test names the schedule in which a wrong answer loses or doubles a write.

use isle_storage::ids::{CommitId, DatabaseId, Epoch, Lineage, Position, SeqNo, Version};
use isle_storage::manifest::judge::{self, EpochObject, Judgement, PositionState};
use isle_storage::manifest::{LogTail, Manifest};

use super::build::*;

use Judgement::{Committed, NotCommitted, Unknown};

/// The epoch object that `m`'s newest epoch writes after its adoption.
fn object(m: &Manifest) -> EpochObject {
    EpochObject {
        database: m.database,
        lineage: m.lineage,
        epoch: m.epoch,
        incarnation: incarnation(m.epoch.0),
        head_version: m.version,
        cut: m.epochs.last().unwrap().cut,
        epochs: m.epochs.clone(),
    }
}

fn through(m: &Manifest, segment: &LogTail) -> bool {
    judge::leads_through(&m.epochs, m.last_seq, segment)
}

/// Epoch 1 uploads 11..=12 and commits nothing of it; epoch 2 takes over without it and writes its own 11..=15.
#[test]
fn a_path_leads_only_through_what_the_next_epoch_adopted() {
    let m = with_log(&[(1, 5), (6, 10)]);
    let m = after(&after(&m, adopt(2, vec![])), append(vec![segment(2, 11, 15)]));
    assert!(through(&m, &link(1, 1, 5)) && through(&m, &link(1, 6, 10)));
    assert!(!through(&m, &link(1, 11, 12)), "beyond the cut");
    assert!(through(&m, &link(2, 11, 15)));
    assert!(!through(&m, &link(2, 16, 17)), "not named yet");
    assert!(!through(&m, &link(2, 6, 10)), "an epoch has no segment below its own cut");
    let mut stranger = link(2, 11, 15);
    stranger.id.incarnation.0 += 1;
    assert!(!through(&m, &stranger), "an epoch number issued again by a restored etcd");
    assert!(!through(&m, &link(3, 11, 15)), "an epoch nobody has adopted");
}

/// A flush replaced the segment by a chunk: the entry is gone, the path still leads through it.
#[test]
fn a_flushed_segment_is_still_on_the_path() {
    let m = after(&with_log(&[(1, 5), (6, 10)]), flush(10, vec![], Some(chunk(1, 1, 10))));
    assert!(through(&m, &link(1, 1, 5)) && through(&m, &link(1, 6, 10)));
}

/// The transaction is still queued somewhere: an unchanged head proves nothing.
#[test]
fn an_unchanged_head_decides_nothing() {
    let m = with_log(&[(1, 10)]);
    assert_eq!(judge::log_commit(&m, None, &link(1, 11, 12)), Unknown);
    assert_eq!(judge::log_commit(&m, Some(&object(&m)), &link(1, 11, 12)), Unknown, "its own epoch's object");
}

/// The reply was lost and the commit had been applied, with any number of successors since.
#[test]
fn a_commit_that_the_head_leads_through_was_committed() {
    let mut m = with_log(&[(1, 10), (11, 12)]);
    for epoch in 2..6 {
        assert_eq!(judge::log_commit(&m, None, &link(1, 11, 12)), Committed);
        assert_eq!(judge::log_commit(&m, Some(&object(&m)), &link(1, 11, 12)), Committed);
        m = after(&m, adopt(epoch, vec![]));
    }
}

/// Epoch 2's adoption is in etcd only, and etcd may still be lost: recover would then follow epoch 1's segments.
#[test]
fn a_higher_epoch_in_the_head_alone_does_not_make_a_commit_void() {
    let m = after(&with_log(&[(1, 10)]), adopt(2, vec![]));
    assert_eq!(judge::log_commit(&m, None, &link(1, 11, 12)), Unknown);
    assert_eq!(judge::log_commit(&m, Some(&object(&m)), &link(1, 11, 12)), NotCommitted);
}

/// Epoch 2 rolled the segment forward: told "not committed", its client would send it again and have it twice.
#[test]
fn a_segment_that_was_rolled_forward_was_committed() {
    let m = after(&with_log(&[(1, 10)]), adopt(2, vec![segment(1, 11, 12)]));
    assert_eq!(judge::log_commit(&m, Some(&object(&m)), &link(1, 11, 12)), Committed);
    assert_eq!(judge::log_commit(&m, Some(&object(&m)), &link(1, 13, 13)), NotCommitted);
}

/// The head read is an older copy than the bucket's highest epoch object, whose cut leads through the segment.
#[test]
fn the_highest_epoch_objects_cut_decides_against_an_older_head() {
    let old = with_log(&[(1, 10)]);
    let newer = after(&after(&old, append(vec![segment(1, 11, 12)])), adopt(2, vec![]));
    assert_eq!(judge::log_commit(&old, Some(&object(&newer)), &link(1, 11, 12)), Committed);
    assert_eq!(judge::log_commit(&old, Some(&object(&newer)), &link(1, 13, 14)), NotCommitted);
    let foreign = EpochObject { lineage: Lineage(99), ..object(&newer) };
    assert_eq!(judge::log_commit(&old, Some(&foreign), &link(1, 13, 14)), Unknown, "another history's");
}

/// Epoch 3's adoption was lost with a set-back etcd, and epoch 4 rolled its segments forward.
#[test]
fn a_rolled_forward_epochs_own_writer_is_told_the_truth() {
    let m = after(&with_log(&[(1, 10)]), adopt(4, vec![segment(3, 11, 12)]));
    assert_eq!(judge::log_commit(&m, Some(&object(&m)), &link(3, 11, 12)), Committed);
    assert_eq!(judge::log_commit(&m, Some(&object(&m)), &link(3, 13, 13)), NotCommitted);
    assert_eq!(judge::log_commit(&m, Some(&object(&m)), &link(1, 11, 12)), NotCommitted);
}

#[test]
fn of_a_forgotten_epoch_nothing_is_claimed() {
    let mut m = with_log(&[(1, 10)]);
    for epoch in 2..=isle_storage::manifest::state::MAX_EPOCHS as u64 + 1 {
        m = after(&m, adopt(epoch, vec![]));
    }
    assert_eq!(m.epochs[0].epoch, Epoch(2));
    assert_eq!(judge::log_commit(&m, Some(&object(&m)), &link(1, 6, 10)), Unknown);
    assert_eq!(judge::log_commit(&m, Some(&object(&m)), &link(1, 11, 12)), Unknown);
    let at = |epoch, seq| judge::position(&m, Position { epoch: Epoch(epoch), seq: SeqNo(seq) });
    assert_eq!((at(1, 10), at(1, 11)), (PositionState::Here, PositionState::Lost));
}

/// Two compactors race for one version; each asks later whose edit it was.
#[test]
fn other_edits_are_judged_by_their_commit_id() {
    let m = with_log(&[(1, 10)]);
    let (mine, theirs) = (CommitId(1), CommitId(2));
    let mut e = edit(&m, vec![append(vec![segment(1, 11, 12)])]);
    e.commit = theirs;
    assert_eq!(judge::by_commit_id(&m, e.version, mine), Unknown, "that version is still to come");
    let mut next = m.apply(&e).unwrap();
    assert_eq!(judge::by_commit_id(&next, e.version, theirs), Committed);
    assert_eq!(judge::by_commit_id(&next, e.version, mine), NotCommitted);
    for _ in 0..isle_storage::manifest::state::RECENT_COMMITS {
        next = next.apply(&edit(&next, vec![])).unwrap();
    }
    assert_eq!(judge::by_commit_id(&next, e.version, theirs), Unknown, "forgotten by now");
}

/// A fenced writer's edit took a number of the bucket backend and was stepped over: it is not committed, for ever.
#[test]
fn a_void_edit_is_not_committed() {
    let m = with_log(&[(1, 10)]);
    let void = later(&m, 1);
    let skipped = m.skip_void(void);
    assert_eq!(judge::by_commit_id(&skipped, void, CommitId(5)), NotCommitted);
    let next = after(&skipped, append(vec![segment(1, 11, 12)]));
    assert_eq!(judge::by_commit_id(&next, void, CommitId(5)), NotCommitted);
    assert_eq!(
        judge::by_commit_id(&genesis(), Version(1), CommitId(5)),
        Unknown,
        "nothing is remembered yet"
    );
}

/// An answer given with `ack=memory` was lost with its writer; the number is somebody else's now.
#[test]
fn a_position_whose_epoch_ended_below_it_is_lost() {
    let m = after(&after(&with_log(&[(1, 10)]), adopt(3, vec![])), append(vec![segment(3, 11, 20)]));
    let at = |epoch, seq| judge::position(&m, Position { epoch: Epoch(epoch), seq: SeqNo(seq) });
    assert_eq!(at(1, 10), PositionState::Here);
    assert_eq!(at(1, 11), PositionState::Lost);
    assert_eq!(at(3, 11), PositionState::Here);
    assert_eq!(at(3, 20), PositionState::Here);
    assert_eq!(at(3, 21), PositionState::Ahead);
    assert_eq!(at(2, 11), PositionState::Lost, "claimed and never adopted");
    assert_eq!(at(4, 1), PositionState::Ahead, "a takeover this view has not seen");
    let fresh = Manifest::genesis(DatabaseId(1), Lineage(1), Default::default());
    assert_eq!(judge::position(&fresh, Position { epoch: Epoch(1), seq: SeqNo(1) }), PositionState::Ahead);
}
