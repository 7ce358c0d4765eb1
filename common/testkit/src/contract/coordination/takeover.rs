//! Taking over: what is rolled forward, what is void, and when work may be accepted.

use isle_storage::coordination::claim::TakeoverError;
use isle_storage::coordination::commit::{self, Resolved};
use isle_storage::coordination::{CommitOutcome, CoordinationError, epoch};
use isle_storage::ids::{Epoch, Version};
use isle_storage::manifest::judge::Judgement;
use isle_storage::manifest::{Author, Change};
use isle_storage::names;

use super::world::{World, Writer, deadline, edit, soon, tail_of, times_in};
use crate::fault::{Op, Rule};

/// Segments that were uploaded and not committed become part of the log, in order, up to the first that is missing.
pub(super) async fn uncommitted_segments_of_the_last_epoch_are_rolled_forward(world: World) {
    let mut old = world.writer().await;
    old.append(3).await;
    let uploaded = old.upload_next(3).await;
    let after_gap = old.segment(Some(tail_of(&old.segment(Some(tail_of(&uploaded[2])), 1).entry)), 1);
    old.upload(&after_gap).await;
    let new = world.writer().await;
    let log = &new.at.manifest.log;
    assert_eq!(log.len(), 4);
    assert!(uploaded.iter().all(|e| times_in(&new.at.manifest, e) == 1), "{log:?}");
    assert_eq!(new.at.manifest.last_seq, uploaded[2].last_seq);
    // Also from a log that was empty, and across an epoch that did nothing.
    let newer = world.writer().await;
    assert_eq!(newer.at.manifest.log, *log);
    let first = newer.upload_next(1).await;
    let newest = world.writer().await;
    assert_eq!(times_in(&newest.at.manifest, &first[0]), 1);
    assert_eq!(world.fresh_load().await.manifest, newest.at.manifest);
}

/// A segment of an epoch that a committed adoption has left out stays out of every later log.
pub(super) async fn segments_voided_by_an_adoption_stay_void(world: World) {
    let mut old = world.writer().await;
    old.append(1).await;
    let late = old.segment(old.at.manifest.tail, 2);
    let middle = world.writer().await;
    assert_eq!(middle.at.manifest.last_seq.0, 1);
    // The upload arrives after the adoption, under the very name that the next takeover computes.
    old.upload(&late).await;
    for _ in 0..2 {
        let mut next = world.writer().await;
        assert_eq!(times_in(&next.at.manifest, &late.entry), 0);
        next.append(1).await;
    }
    let now = world.fresh_load().await.manifest;
    assert_eq!((times_in(&now, &late.entry), now.last_seq.0), (0, 3));
}

/// A segment under the computable name that names another predecessor belongs to another path.
pub(super) async fn a_segment_with_another_predecessor_is_not_rolled_forward(world: World) {
    let mut old = world.writer().await;
    old.append(2).await;
    let tail = old.at.manifest.tail.unwrap();
    let mut other = tail;
    other.id.incarnation.0 ^= 1;
    let stray = old.segment(Some(other), 2);
    assert_eq!(stray.entry.id.first_seq, tail.last_seq.next());
    old.upload(&stray).await;
    let new = world.writer().await;
    assert_eq!(new.at.manifest.last_seq, tail.last_seq);
    // Neither is one of another lineage.
    let mut foreign = world.writer().await;
    let mut at = (*foreign.at.manifest).clone();
    at.lineage.0 ^= 1;
    let whole = std::mem::replace(&mut foreign.at.manifest, at.into());
    let stray = foreign.segment(whole.tail, 2);
    foreign.upload(&stray).await;
    let newest = world.writer().await;
    assert_eq!(newest.at.manifest.last_seq, tail.last_seq);
}

/// A damaged segment right after the tail is an error: it may be an acknowledged write, if the head is an old one.
pub(super) async fn a_damaged_segment_is_refused(world: World) {
    let mut old = world.writer().await;
    old.append(1).await;
    let next = old.segment(old.at.manifest.tail, 2);
    let mut bytes = next.body.to_bytes().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    old.db.bucket.put(&next.entry.path(), bytes.into()).await.unwrap();
    let db = world.process().await;
    let claim = world.claim(&db).await;
    let taken = Writer::take_over(db, claim.clone()).await;
    let refused = matches!(taken, Err(TakeoverError::Coordination(CoordinationError::Damaged(_))));
    assert!(refused, "{taken:?}");
    claim.lease.give_back().await;
    old.upload(&next).await;
    assert_eq!(world.writer().await.at.manifest.last_seq, next.entry.last_seq);
}

/// On return of a takeover the head is at its epoch, and the record with the cut is in the bucket.
pub(super) async fn the_record_stands_before_work_is_accepted(world: World) {
    let mut writer = world.writer().await;
    writer.append(2).await;
    let rolled = writer.upload_next(1).await;
    let next = world.writer().await;
    let object = epoch::read(world.bucket().as_ref(), next.claim.epoch).await.unwrap().unwrap();
    assert_eq!(object.cut, Some(tail_of(&rolled[0])));
    assert_eq!(object.incarnation, next.claim.incarnation);
    assert_eq!((object.head_version, object.epoch), (next.at.manifest.version, next.at.state.head.epoch));
    assert_eq!(object.epochs, next.at.manifest.epochs);
}

/// A higher epoch in the head is not enough to tell a client "not committed": the head may yet be lost, and recover
/// would follow the segment. Only the record in the bucket makes it final. (In the bucket form the adoption is in the
/// bucket.)
pub(super) async fn an_old_writer_is_not_told_no_before_the_record_stands(world: World) {
    let mut old = world.writer().await;
    old.append(1).await;
    let entry = old.segment(old.at.manifest.tail, 2).entry;
    let proposal = old.propose(std::slice::from_ref(&entry));
    let (db, faults) = world.faulty().await;
    let claim = world.claim(&db).await;
    let gate = faults.hold(Rule::on(Op::Create).path("manifest/epoch-*"));
    let epoch = claim.epoch;
    let taking = tokio::spawn(Writer::take_over(db, claim));
    gate.arrived(1).await;
    assert_eq!(world.fresh_load().await.manifest.epoch, epoch);
    let resolved = commit::commit(&old.db, &proposal, soon()).await;
    let judged = commit::judge_segment(&old.db, &tail_of(&entry)).await.unwrap();
    if world.head_is_in_bucket() {
        assert!(matches!(resolved, Resolved::Fenced(_)), "{resolved:?}");
        assert_eq!(judged, Judgement::NotCommitted);
    } else {
        assert!(matches!(resolved, Resolved::Unknown(_)), "{resolved:?}");
        assert_eq!(judged, Judgement::Unknown);
    }
    gate.open();
    taking.await.unwrap().unwrap();
    let resolved = commit::commit(&old.db, &proposal, deadline()).await;
    assert!(matches!(resolved, Resolved::Fenced(_)), "{resolved:?}");
    let judged = commit::judge_segment(&old.db, &tail_of(&entry)).await.unwrap();
    assert_eq!(judged, Judgement::NotCommitted);
}

/// One edit carries three segments, of which two were uploaded in time: these are in, the third never will be, and the
/// old writer hears exactly that.
pub(super) async fn a_writer_learns_which_of_its_segments_were_rolled_forward(world: World) {
    let mut old = world.writer().await;
    old.append(1).await;
    let mut entries = old.upload_next(2).await;
    entries.push(old.segment(Some(tail_of(&entries[1])), 2).entry);
    let proposal = old.propose(&entries);
    world.writer().await;
    let resolved = commit::commit(&old.db, &proposal, deadline()).await;
    let Resolved::CommittedThrough(seq, _) = resolved else { panic!("{resolved:?}") };
    assert_eq!(seq, entries[1].last_seq);
    for (entry, judged) in
        entries.iter().zip([Judgement::Committed, Judgement::Committed, Judgement::NotCommitted])
    {
        assert_eq!(commit::judge_segment(&old.db, &tail_of(entry)).await.unwrap(), judged);
    }
}

/// A claimer that adopts and then dies has accepted nothing: the next one takes over from it, and what the last working
/// writer had uploaded after that adoption stays void.
pub(super) async fn a_crash_between_adoption_and_record_is_harmless(world: World) {
    let mut old = world.writer().await;
    old.append(2).await;
    let late = old.segment(old.at.manifest.tail, 1);
    let (db, faults) = world.faulty().await;
    let claim = world.claim(&db).await;
    let gate = faults.hold(Rule::on(Op::Create).path("manifest/epoch-*"));
    let dying = claim.clone();
    let taking = tokio::spawn(async move { Writer::take_over(db, dying).await });
    gate.arrived(1).await;
    taking.abort();
    assert!(taking.await.unwrap_err().is_cancelled());
    old.upload(&late).await;
    let mut next = world.writer().await;
    assert_eq!(next.claim.epoch, claim.epoch.next());
    assert_eq!(epoch::read(world.bucket().as_ref(), claim.epoch).await.unwrap(), None);
    assert_eq!((times_in(&next.at.manifest, &late.entry), next.at.manifest.last_seq.0), (0, 2));
    next.append(1).await;
    let resolved = commit::commit(&old.db, &old.propose(&[late.entry]), deadline()).await;
    assert!(matches!(resolved, Resolved::Fenced(_)), "{resolved:?}");
}

/// An epoch object at or above the claimed epoch, with a head that knows nothing of it, gives away a coordination
/// service that was set back. It is left alone.
pub(super) async fn an_epoch_issued_twice_is_refused(world: World) {
    let writer = world.writer().await;
    let object = epoch::read(world.bucket().as_ref(), writer.claim.epoch).await.unwrap().unwrap();
    for ahead in [1, 5] {
        let db = world.process().await;
        let claim = world.claim(&db).await;
        let mut other = object.clone();
        other.epoch = Epoch(claim.epoch.0 + ahead - 1);
        other.incarnation.0 ^= 1;
        epoch::write(world.bucket().as_ref(), &other).await.unwrap();
        let taken = Writer::take_over(db, claim.clone()).await;
        let refused = matches!(taken, Err(TakeoverError::Coordination(CoordinationError::Regressed(_))));
        assert!(refused, "{taken:?}");
        assert_eq!(epoch::read(world.bucket().as_ref(), other.epoch).await.unwrap(), Some(other.clone()));
        assert_eq!(world.fresh_load().await.manifest.epoch, writer.claim.epoch);
        world.bucket().delete(&names::epoch(other.epoch)).await.unwrap();
        claim.lease.give_back().await;
    }
}

/// A checkpoint above the head's version gives away the same. (In the bucket form checkpoints are found through fold
/// records, and one without a record is a crashed fold's.)
pub(super) async fn a_checkpoint_above_the_head_is_refused(world: World) {
    let writer = world.writer().await;
    let path = names::checkpoint(Version(writer.at.manifest.version.0 + 7), 1);
    world.bucket().put(&path, vec![1, 2, 3].into()).await.unwrap();
    let db = world.process().await;
    let claim = world.claim(&db).await;
    let taken = Writer::take_over(db, claim.clone()).await;
    let refused = matches!(taken, Err(TakeoverError::Coordination(CoordinationError::Regressed(_))));
    assert!(refused, "{taken:?}");
    claim.lease.give_back().await;
    world.bucket().delete(&path).await.unwrap();
    // A claim that comes too late for its epoch is another matter: it is fenced, not set back.
    let db = world.process().await;
    let late = world.claim(&db).await;
    let mut newer = world.writer().await;
    if world.head_is_in_bucket() {
        newer = world.writer().await;
    }
    newer.append(1).await;
    let taken = Writer::take_over(db.clone(), late.clone()).await;
    assert!(matches!(taken, Err(TakeoverError::Fenced(_))), "{taken:?}");
    let now = db.load().await.unwrap();
    let nothing = edit(&db, &now.manifest, Author::Writer, Vec::<Change>::new());
    let proposal = commit::propose(&now.state, &now.manifest, nothing, &late.authority).unwrap();
    let outcome = db.coordination.commit(&proposal).await;
    assert!(matches!(outcome, CommitOutcome::Fenced(_) | CommitOutcome::Moved), "{outcome:?}");
}
