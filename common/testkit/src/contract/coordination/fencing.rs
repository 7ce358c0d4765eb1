//! Epochs: an old writer can do anything but commit.

use std::time::Duration;

use futures::future::join_all;
use isle_storage::coordination::claim::{self, TakeoverError};
use isle_storage::coordination::commit::{self, Resolved};
use isle_storage::coordination::{ClaimAttempt, CommitOutcome};
use isle_storage::ids::Incarnation;

use super::world::{World, Writer, deadline, node, observe_until_in, soon, times_in, within};

/// A writer that was paused across a takeover: whatever it had prepared is refused, by the transaction and for ever.
pub(super) async fn an_old_writer_never_commits_after_a_takeover(world: World) {
    let mut old = world.writer().await;
    old.append(2).await;
    let next = old.segment(old.at.manifest.tail, 2).entry;
    let prepared = old.propose(std::slice::from_ref(&next));
    let flushless = old.propose_changes(Vec::new());
    let mut new = world.writer().await;
    assert_eq!(new.claim.epoch, old.claim.epoch.next());
    for proposal in [&prepared, &flushless] {
        let outcome = old.db.coordination.commit(proposal).await;
        assert!(matches!(outcome, CommitOutcome::Fenced(_) | CommitOutcome::Moved), "{outcome:?}");
        let resolved = commit::commit(&old.db, proposal, deadline()).await;
        assert!(matches!(resolved, Resolved::Fenced(_)), "{resolved:?}");
    }
    new.append(2).await;
    // Reloading the head does not help: the epoch is compared, too.
    old.at = old.db.load().await.unwrap();
    let outcome = old.db.coordination.commit(&old.propose_changes(Vec::new())).await;
    assert!(matches!(outcome, CommitOutcome::Fenced(_)), "{outcome:?}");
    let now = world.fresh_load().await.manifest;
    assert_eq!(times_in(&now, &next), 0);
    assert_eq!(now, new.at.manifest);
}

/// The commit compares lease and epoch, not only the head: a claim that has not adopted anything yet fences already.
/// (In the bucket form the claim is the adoption.)
pub(super) async fn a_claim_alone_fences_where_there_are_leases(world: World) {
    if world.head_is_in_bucket() {
        return;
    }
    let old = world.writer().await;
    let entries = old.upload_next(1).await;
    let prepared = old.propose(&entries);
    let db = world.process().await;
    let claim = world.claim(&db).await;
    let outcome = old.db.coordination.commit(&prepared).await;
    assert!(matches!(outcome, CommitOutcome::Fenced(_)), "{outcome:?}");
    // Nobody can tell yet: the new epoch may still roll the segment forward.
    let resolved = commit::commit(&old.db, &prepared, soon()).await;
    assert!(matches!(resolved, Resolved::Unknown(_)), "{resolved:?}");
    let new = Writer::take_over(db, claim).await.unwrap();
    assert_eq!(times_in(&new.at.manifest, &entries[0]), 1);
    let resolved = commit::commit(&old.db, &prepared, deadline()).await;
    assert!(matches!(resolved, Resolved::CommittedEarlier(_)), "{resolved:?}");
}

/// Observers need no epoch of their own, and a writer reloads over their edits.
pub(super) async fn an_observer_commits_whoever_writes(world: World) {
    let mut writer = world.writer().await;
    let other = world.process().await;
    for n in 1..=5 {
        observe_until_in(&other, "seen", n).await;
        writer.append(1).await;
    }
    let now = world.fresh_load().await.manifest;
    assert_eq!((now.snapshots["seen-5"].seq.0, now.last_seq.0), (4, 5));
}

/// Claimers that race end with one that is not fenced, each epoch adopted at most once.
pub(super) async fn of_many_claimers_one_ends_as_the_writer(world: World) {
    world.process().await;
    let race = |n: u64| {
        let world = &world;
        async move {
            let db = world.process().await;
            loop {
                let incarnation = Incarnation(n + 1);
                match db.coordination.claim_writer(&node(), incarnation).await.unwrap() {
                    ClaimAttempt::HeldBy(_) => return None,
                    ClaimAttempt::Won(claim) => match claim::take_over(&db, &claim, "racer").await {
                        Ok(at) => return Some((db, claim, at)),
                        Err(TakeoverError::Fenced(_)) => claim.lease.give_back().await,
                        Err(other) => panic!("{other:?}"),
                    },
                }
            }
        }
    };
    let taken: Vec<_> = join_all((0..4).map(race)).await.into_iter().flatten().collect();
    assert!(!taken.is_empty());
    let now = world.fresh_load().await.manifest;
    let mut standing = 0;
    for (db, claim, at) in taken {
        let mut writer = Writer { db, claim, at };
        if writer.claim.epoch == now.epoch {
            writer.append(1).await;
            standing += 1;
        } else {
            let outcome = writer.db.coordination.commit(&writer.propose_changes(Vec::new())).await;
            assert!(matches!(outcome, CommitOutcome::Fenced(_) | CommitOutcome::Moved), "{outcome:?}");
        }
    }
    assert_eq!(standing, 1);
}

/// Whoever stands by can stop at once: neither the wait nor a claim outlives its future.
pub(super) async fn waiting_for_the_role_can_be_cancelled(world: World) {
    let writer = world.writer().await;
    let other = world.process().await;
    let wait = other.coordination.vacancy(Duration::from_secs(3600));
    let cancelled = tokio::time::timeout(Duration::from_millis(50), wait).await;
    assert!(cancelled.is_err(), "nobody has left");
    writer.claim.lease.give_back().await;
    let next = within(world.claim(&other)).await;
    assert_eq!(next.epoch, writer.claim.epoch.next());
}
