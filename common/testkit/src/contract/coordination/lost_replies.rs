//! Answers that never arrive: resolved, never guessed, and applied once.

use isle_storage::coordination::commit::{self, Resolved};
use isle_storage::coordination::observe::{self, ObserveError};
use isle_storage::coordination::{ClaimAttempt, CommitOutcome, fold};
use isle_storage::ids::Incarnation;
use isle_storage::manifest::{Change, Manifest, Snapshot};

use super::world::{World, Writer, deadline, node, observe as proposed, observe_until_in, soon, times_in};
use crate::coordination::CommitFault;
use crate::fault::{Fault, Op, Rule};

/// The answer of a commit is lost × {applied, not applied} × {0, 1, many} edits of others before anybody looks.
pub(super) async fn a_lost_answer_is_resolved_and_applied_once(world: World) {
    let (db, lossy) = world.lossy().await;
    let mut writer = world.writer_in(db).await;
    let other = world.process().await;
    for (round, successors) in [0, 1, 5].into_iter().enumerate() {
        for fault in [CommitFault::LoseReply, CommitFault::LoseRequest] {
            let entry = writer.upload_next(1).await.remove(0);
            let proposal = writer.propose(std::slice::from_ref(&entry));
            lossy.inject(fault);
            let lost = writer.db.coordination.commit(&proposal).await;
            assert!(matches!(lost, CommitOutcome::Unknown(_)), "{lost:?}");
            for n in 0..successors {
                observe_until_in(&other, &format!("{round}-{fault:?}"), n).await;
            }
            let resolved = commit::commit(&writer.db, &proposal, deadline()).await;
            match (fault, successors, resolved) {
                (_, 0, Resolved::Committed(state)) => writer.advance(&proposal, state),
                (CommitFault::LoseReply, _, Resolved::CommittedEarlier(loaded)) => writer.at = loaded,
                (CommitFault::LoseRequest, 1.., Resolved::Moved(loaded)) => {
                    assert_eq!(times_in(&loaded.manifest, &entry), 0);
                    writer.at = loaded;
                    writer.commit_segment(&entry).await;
                }
                other => panic!("{other:?}"),
            }
            let now = world.fresh_load().await.manifest;
            assert_eq!(times_in(&now, &entry), 1);
            assert_eq!(now.last_seq, entry.last_seq);
        }
    }
}

/// As above with one or several takeovers in between: what was applied or uploaded is rolled forward, exactly once, and
/// the old writer hears so.
pub(super) async fn a_lost_answer_is_resolved_across_takeovers(world: World) {
    for fault in [CommitFault::LoseReply, CommitFault::LoseRequest] {
        for takeovers in [1, 3] {
            let (db, lossy) = world.lossy().await;
            let writer = world.writer_in(db).await;
            let entry = writer.upload_next(1).await.remove(0);
            let proposal = writer.propose(std::slice::from_ref(&entry));
            lossy.inject(fault);
            writer.db.coordination.commit(&proposal).await;
            for _ in 0..takeovers {
                let mut successor = world.writer().await;
                successor.append(1).await;
            }
            let resolved = commit::commit(&writer.db, &proposal, deadline()).await;
            assert!(matches!(resolved, Resolved::CommittedEarlier(_)), "{resolved:?}");
            assert_eq!(times_in(&world.fresh_load().await.manifest, &entry), 1);
        }
    }
}

/// A transaction without an answer may still be under way while the head stands still. Neither "moved" nor "fenced" may
/// be said then; the identical transaction is sent again, and the late one then applies to nothing.
pub(super) async fn an_unchanged_head_proves_nothing(world: World) {
    let (db, lossy) = world.lossy().await;
    let writer = world.writer_in(db).await;
    let entry = writer.upload_next(1).await.remove(0);
    let proposal = writer.propose(std::slice::from_ref(&entry));
    for _ in 0..200 {
        lossy.inject(CommitFault::Late);
    }
    let resolved = commit::commit(&writer.db, &proposal, soon()).await;
    assert!(matches!(resolved, Resolved::Unknown(_)), "{resolved:?}");
    let copies = lossy.attempts();
    assert!(copies > 1, "it was sent once");
    // An observer's edit is no different.
    let seen = writer.db.load().await.unwrap();
    let resolved = commit::commit(&writer.db, &proposed(&writer.db, &seen, "late", 1), soon()).await;
    assert!(matches!(resolved, Resolved::Unknown(_)), "{resolved:?}");
    lossy.heal();
    let applied = lossy.deliver().await;
    let committed = applied.iter().filter(|o| matches!(o, CommitOutcome::Committed(_))).count();
    assert!(committed >= 1, "{applied:?}");
    let resolved = commit::commit(&writer.db, &proposal, deadline()).await;
    assert!(matches!(resolved, Resolved::Committed(_) | Resolved::CommittedEarlier(_)), "{resolved:?}");
    let now = world.fresh_load().await;
    assert_eq!(times_in(&now.manifest, &entry), 1);
    assert_eq!(now.manifest.version, writer.at.manifest.version.next());
}

/// What an observer plans is made anew on whatever the head has become, committed once however answers are lost, and
/// refused where the plan says so.
pub(super) async fn an_observers_plan_is_committed_once_on_the_newest_head(world: World) {
    let (db, lossy) = world.lossy().await;
    let mut writer = world.writer().await;
    let take = |name: &str, m: &Manifest| {
        let snapshot = Snapshot {
            seq: m.last_seq,
            created: m.last_write_time,
            expires: None,
            holds_log: true,
            extra: Default::default(),
        };
        vec![Change::TakeSnapshot { name: name.to_owned(), snapshot }]
    };
    let faults = [
        CommitFault::LoseReply,
        CommitFault::LoseRequest,
        CommitFault::AnswerOfTheCopy,
        CommitFault::FalseAnswer,
        CommitFault::Overtaken,
    ];
    for (n, fault) in faults.into_iter().enumerate() {
        writer.append(1).await;
        lossy.inject(fault);
        let name = format!("plan-{n}");
        let plan = |m: &Manifest| Ok::<_, &str>(take(&name, m));
        let done = observe::commit(&db, "test", deadline(), plan).await.unwrap();
        let now = world.fresh_load().await.manifest;
        assert_eq!((done.manifest.version, now.snapshots[&name].seq), (now.version, now.last_seq));
        assert_eq!(now.snapshots.len(), n + 1);
    }
    let refused = observe::commit(&db, "test", deadline(), |_| Err::<Vec<Change>, _>("not now")).await;
    assert!(matches!(refused, Err(ObserveError::Refused("not now"))), "{refused:?}");
    let twice = |m: &Manifest| Ok::<_, &str>(take("plan-0", m));
    let misfit = observe::commit(&db, "test", deadline(), twice).await;
    assert!(matches!(misfit, Err(ObserveError::Misfit(_))), "{misfit:?}");
}

/// "The head is not the base" may be the answer of a copy that a client library sent by itself.
pub(super) async fn the_answer_of_a_copy_is_not_believed(world: World) {
    let (db, lossy) = world.lossy().await;
    let mut writer = world.writer_in(db).await;
    for _ in 0..3 {
        let entry = writer.upload_next(1).await.remove(0);
        lossy.inject(CommitFault::AnswerOfTheCopy);
        writer.commit_segment(&entry).await;
        assert_eq!(times_in(&world.fresh_load().await.manifest, &entry), 1);
    }
    // The head is still the base, whatever the answer says: the commit is sent again, and not given up.
    let entry = writer.upload_next(1).await.remove(0);
    let proposal = writer.propose(std::slice::from_ref(&entry));
    lossy.inject(CommitFault::FalseAnswer);
    let resolved = commit::commit(&writer.db, &proposal, deadline()).await;
    assert!(matches!(resolved, Resolved::Committed(_)), "{resolved:?}");
    let at = writer.db.load().await.unwrap();
    lossy.inject(CommitFault::AnswerOfTheCopy);
    let resolved = commit::commit(&writer.db, &proposed(&writer.db, &at, "copied", 1), deadline()).await;
    assert!(matches!(resolved, Resolved::CommittedEarlier(_)), "{resolved:?}");
}

/// Every write of every kind to the bucket is applied and its answer lost, once: a takeover, commits and folds go
/// through all the same, and nothing happens twice. (A retry that met its own success once fenced its writer.)
pub(super) async fn lost_answers_of_the_store_cost_nothing(world: World) {
    let (db, faults) = world.faulty().await;
    let mut committed = 0;
    for n in 1..=4 {
        faults.heal();
        for op in [Op::Create, Op::Put, Op::Get, Op::Head] {
            faults.inject(Rule::on(op).path("manifest/*").nth(n), Fault::LoseReply);
        }
        let claim = loop {
            world.service.expire_writer().await;
            match db.coordination.claim_writer(&node(), Incarnation(n)).await {
                Ok(ClaimAttempt::Won(claim)) => break claim,
                Ok(_) => {}
                Err(e) => assert!(e.is_passing(), "{e:?}"),
            }
        };
        let mut writer = Writer::take_over(db.clone(), claim).await.unwrap();
        for _ in 0..3 {
            writer.append(1).await;
            committed += 1;
        }
        if let Err(e) = fold::fold(&writer.db, &writer.at).await {
            assert!(e.is_passing(), "{e:?}");
        }
    }
    faults.heal();
    assert_eq!(world.fresh_load().await.manifest.last_seq.0, committed);
}
