//! Creating, loading, committing, and losing a race.

use futures::future::join_all;
use isle_storage::coordination::{CommitOutcome, CoordinationError, Member};
use isle_storage::ids::{SeqNo, Version};
use isle_storage::manifest::{CompactionMode, checkpoint};

use super::world::{World, node, observe};

/// Many creators at once end with one database, and everybody after them finds it.
pub(super) async fn a_database_is_created_once_and_found_again(world: World) {
    let opened = join_all((0..4).map(|_| world.process())).await;
    let first = &opened[0].identity;
    assert!(opened.iter().all(|db| db.identity == *first), "{opened:?}");
    assert_eq!(world.process().await.identity, *first);
    let loaded = world.fresh_load().await;
    assert_eq!((loaded.manifest.version, loaded.manifest.database), (Version(1), first.database));
    assert_eq!(loaded.manifest.lineage, first.lineage);
}

/// What one process commits, the next one loads, and so does one that started before.
pub(super) async fn a_load_sees_every_commit(world: World) {
    let early = world.process().await;
    let mut writer = world.writer().await;
    for n in 1..=5 {
        writer.append(3).await;
        assert_eq!(writer.at.manifest.last_seq, SeqNo(3 * n));
        for seen in [early.load().await.unwrap(), world.fresh_load().await] {
            assert_eq!(seen.manifest, writer.at.manifest);
            assert_eq!(seen.state.head.commit, writer.at.state.head.commit);
            assert_eq!(seen.state.head.last_seq, SeqNo(3 * n));
        }
    }
}

/// Racing proposals on one base: exactly one is committed, every other one is told that the head has moved.
pub(super) async fn of_two_proposals_on_one_base_one_is_committed(world: World) {
    let processes = join_all((0..4).map(|_| world.process())).await;
    for round in 0..5 {
        let loads = join_all(processes.iter().map(|db| async { db.load().await.unwrap() })).await;
        let proposals: Vec<_> = processes
            .iter()
            .zip(&loads)
            .enumerate()
            .map(|(n, (db, at))| observe(db, at, &format!("racer-{n}"), round))
            .collect();
        let attempts = processes.iter().zip(&proposals).map(|(db, p)| db.coordination.commit(p));
        let outcomes = join_all(attempts).await;
        let won: Vec<usize> =
            (0..4).filter(|n| matches!(outcomes[*n], CommitOutcome::Committed(_))).collect();
        assert_eq!(won.len(), 1, "{outcomes:?}");
        let lost = outcomes.iter().filter(|o| matches!(o, CommitOutcome::Moved)).count();
        assert_eq!(lost, 3, "{outcomes:?}");
        assert_eq!(world.fresh_load().await.manifest, proposals[won[0]].manifest);
    }
}

/// A checkpoint that is gone, or damaged, fails the load. (It once was read as an empty database.)
pub(super) async fn a_missing_checkpoint_is_an_error_and_never_an_empty_database(world: World) {
    let mut writer = world.writer().await;
    writer.append(2).await;
    let named = writer.at.state.head.checkpoint.path.clone();
    let bucket = world.bucket();
    let good = bucket.get(&named).await.unwrap();
    let mut other = checkpoint::decode(&good).unwrap();
    other.compaction = CompactionMode::Fifo { retention_us: 1, retention_count: 1 };
    let bad = [
        None,
        Some(good.slice(..good.len() - 1)),
        Some([&good[..], &b"x"[..]].concat().into()),
        // Whole, of the same version, and not the one that the head names.
        Some(checkpoint::encode(&other)),
    ];
    for bad in bad {
        bucket.delete(&named).await.unwrap();
        if let Some(bytes) = bad {
            bucket.put(&named, bytes.into()).await.unwrap();
        }
        let fresh = world.service.connect(bucket.clone()).await;
        let error = fresh.load().await.unwrap_err();
        assert!(matches!(error, CoordinationError::Damaged(_)), "{error:?}");
    }
    bucket.put(&named, good.into()).await.unwrap();
    assert_eq!(world.fresh_load().await.manifest, writer.at.manifest);
}

/// Who is there, and who leads.
pub(super) async fn members_and_leader_are_told(world: World) {
    let writer = world.writer().await;
    let leader = writer.db.coordination.leader().await.unwrap().unwrap();
    assert_eq!(leader.epoch, writer.claim.epoch);
    let member = Member { role: "reader".to_owned(), node: node(), version: Version(3), last_seq: SeqNo(4) };
    writer.db.coordination.register(&member).await.unwrap();
    assert_eq!(writer.db.coordination.members().await.unwrap(), [member]);
    assert!(!writer.db.coordination.describe().is_empty());
}
