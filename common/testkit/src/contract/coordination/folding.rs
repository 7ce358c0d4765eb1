//! Folding: the same versions under another start.

use std::sync::Arc;

use isle_storage::coordination::commit::{self, Resolved};
use isle_storage::coordination::{CommitOutcome, checkpoint, fold};
use isle_storage::manifest::{Author, EditError};

use super::world::{World, deadline, edit, observe_until_in, times_in};
use crate::fault::{Fault, Op, Rule};

/// After a fold, the load is equal, its head names the new checkpoint, and the commits go on.
pub(super) async fn a_fold_changes_nothing_but_the_start(world: World) {
    let mut writer = world.writer().await;
    for round in 0..3 {
        for _ in 0..10 {
            writer.append(1).await;
        }
        let before = writer.at.state.head.checkpoint.clone();
        let folded = fold::fold(&writer.db, &writer.at).await.unwrap().expect("nobody else folds");
        assert_eq!(folded.head.version, writer.at.manifest.version);
        assert_eq!(folded.head.checkpoint.version, writer.at.manifest.version, "round {round}");
        assert_ne!(folded.head.checkpoint, before);
        let fresh = world.fresh_load().await;
        assert_eq!(fresh.manifest, writer.at.manifest);
        assert_eq!(fresh.state.head, folded.head);
        writer.at = fresh;
    }
    // Folding the same state again is done already, or does no harm.
    fold::fold(&writer.db, &writer.at).await.unwrap();
    writer.at = writer.db.load().await.unwrap();
    writer.append(1).await;
    assert_eq!(world.fresh_load().await.manifest, writer.at.manifest);
    // A few edits only are kept, and the start is where the fold says.
    let kept = writer.db.coordination.fold(&writer.at.state, &new_checkpoint(&writer).await, 1).await;
    assert!(matches!(kept, CommitOutcome::Committed(_)), "{kept:?}");
    assert_eq!(world.fresh_load().await.manifest, writer.at.manifest);
}

async fn new_checkpoint(writer: &super::Writer) -> isle_storage::manifest::CheckpointRef {
    let (bucket, env) = (writer.db.bucket.as_ref(), &writer.db.env);
    checkpoint::write_verified(bucket, env, &writer.at.manifest).await.unwrap()
}

/// A checkpoint that took long to write comes after a newer fold: the start never moves back, for the edits between the
/// two are gone, and nothing could be loaded any more.
pub(super) async fn a_late_fold_does_not_move_the_start_back(world: World) {
    let mut writer = world.writer().await;
    writer.append(1).await;
    let late = new_checkpoint(&writer).await;
    for _ in 0..5 {
        writer.append(1).await;
    }
    let newer = new_checkpoint(&writer).await;
    let state = match writer.db.coordination.fold(&writer.at.state, &newer, 0).await {
        CommitOutcome::Committed(state) => state,
        other => panic!("nobody else folds: {other:?}"),
    };
    let refused = writer.db.coordination.fold(&state, &late, 0).await;
    assert!(matches!(refused, CommitOutcome::Moved), "{refused:?}");
    let fresh = world.fresh_load().await;
    assert_eq!((&fresh.manifest, &fresh.state.head.checkpoint), (&writer.at.manifest, &newer));
}

/// While the checkpoint is being written the head moves on, always under load; the fold goes through all the same, and
/// what was committed meanwhile stays.
pub(super) async fn a_fold_survives_commits_made_meanwhile(world: World) {
    let mut writer = world.writer().await;
    writer.append(1).await;
    let (db, faults) = world.faulty().await;
    let at = db.load().await.unwrap();
    let gate = faults.hold(Rule::on(Op::Put).path("manifest/checkpoint-*"));
    let old = Arc::clone(&at.manifest);
    let folding = tokio::spawn(async move { fold::fold(&db, &at).await });
    gate.arrived(1).await;
    for _ in 0..5 {
        writer.append(1).await;
    }
    gate.open();
    let folded = folding.await.unwrap().unwrap().expect("the fold goes through");
    assert_eq!(folded.head.checkpoint.version.0 + 5, folded.head.version.0);
    let fresh = world.fresh_load().await;
    assert_eq!((&fresh.manifest, &fresh.state.head), (&writer.at.manifest, &folded.head));
    // What was folded meanwhile is not the manifest that the fold began with: an edit on that one, compared with this
    // head, would wipe out the five commits.
    let stale = edit(&writer.db, &old, Author::Writer, Vec::new());
    let refused = commit::propose(&folded, &old, stale, &writer.claim.authority);
    assert!(matches!(refused, Err(EditError::Stale { .. })), "{refused:?}");
}

/// A commit built before a fold is committed once after it, whether its form lets it through or makes it reload.
pub(super) async fn a_commit_in_flight_survives_a_fold(world: World) {
    let mut writer = world.writer().await;
    writer.append(1).await;
    let entry = writer.upload_next(1).await.remove(0);
    let prepared = writer.propose(std::slice::from_ref(&entry));
    let other = world.process().await;
    let at = other.load().await.unwrap();
    assert!(fold::fold(&other, &at).await.unwrap().is_some());
    match commit::commit(&writer.db, &prepared, deadline()).await {
        Resolved::Committed(state) => writer.advance(&prepared, state),
        Resolved::Moved(loaded) => {
            writer.at = loaded;
            writer.commit_segment(&entry).await;
        }
        other => panic!("{other:?}"),
    }
    observe_until_in(&other, "after", 1).await;
    assert_eq!(times_in(&world.fresh_load().await.manifest, &entry), 1);
}

/// The answers around a fold are lost one after the other: the fold is there, or it is not, and the load is the same.
pub(super) async fn a_lost_answer_of_a_fold_is_resolved(world: World) {
    let mut writer = world.writer().await;
    let (db, faults) = world.faulty().await;
    for op in [Op::Create, Op::Put, Op::Get, Op::Delete, Op::List] {
        writer.append(1).await;
        faults.heal();
        faults.inject(Rule::on(op).nth(1), Fault::LoseReply);
        let folded = match db.load().await {
            Ok(at) => fold::fold(&db, &at).await.map(drop),
            Err(e) => Err(e),
        };
        if let Err(e) = folded {
            assert!(e.is_passing(), "{op:?}: {e:?}");
        }
        assert_eq!(world.fresh_load().await.manifest, writer.at.manifest, "{op:?}");
        writer.at = world.fresh_load().await;
    }
}
