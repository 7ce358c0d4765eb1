//! The bucket form and names that were deleted: stale creates, ghosts, paused readers, void edits, crashed sweeps.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use isle_storage::coordination::commit::{self, Resolved};
use isle_storage::coordination::{
    CommitOutcome, CoordinationError, HeadState, Loaded, Proposal, WatchEvent, checkpoint, fold, sealed,
};
use isle_storage::database::Database;
use isle_storage::ids::{Epoch, Version};
use isle_storage::names;
use isle_testkit::contract::coordination::World;
use isle_testkit::contract::coordination::world::{deadline, observe, observe_until_in, times_in, within};
use isle_testkit::fault::{Fault, Op, Rule};

use super::services::Objects;

fn world() -> World {
    World::new(Objects::in_memory())
}

/// Commits `count` edits in `db` and folds so that only `keep` of them stay.
async fn bury(db: &Database, series: &str, count: u64, keep: usize) -> Loaded {
    for n in 0..count {
        observe_until_in(db, series, n).await;
    }
    let at = db.load().await.unwrap();
    let written = checkpoint::write_verified(db.bucket.as_ref(), &db.env, &at.manifest).await.unwrap();
    let folded = db.coordination.fold(&at.state, &written, keep).await;
    assert!(matches!(folded, CommitOutcome::Committed(_)), "{folded:?}");
    db.load().await.unwrap()
}

async fn edits_there(db: &Database) -> Vec<Version> {
    let listed: Vec<_> = db.bucket.list("manifest").try_collect().await.unwrap();
    let mut versions: Vec<_> = listed.iter().filter_map(|o| names::parse_edit(&o.path)).collect();
    versions.sort_unstable();
    versions
}

/// A process that was paused while its next number was taken, folded and deleted creates that name again. The create
/// works, and is not believed: the edit is on no path, and its maker is told to reload.
#[tokio::test]
async fn a_stale_create_of_a_deleted_name_is_not_a_commit() {
    let world = world();
    let (stale, other) = (world.process().await, world.process().await);
    let at = stale.load().await.unwrap();
    let prepared = observe(&stale, &at, "stale", 0);
    bury(&other, "others", 20, 5).await;
    assert!(stale.bucket.head(&names::edit(prepared.edit.version)).await.is_err(), "the name is free");
    let outcome = stale.coordination.commit(&prepared).await;
    assert!(matches!(outcome, CommitOutcome::Moved), "{outcome:?}");
    let there = stale.bucket.head(&names::edit(prepared.edit.version)).await;
    assert!(there.is_ok(), "the create went through, so the schedule is the one meant");
    let resolved = commit::commit(&stale, &prepared, deadline()).await;
    let Resolved::Moved(now) = resolved else { panic!("{resolved:?}") };
    assert!(!now.manifest.snapshots.contains_key("stale-0"));
    assert_eq!(now.manifest, world.fresh_load().await.manifest);
    // The next fold sweeps the ghost.
    let after = bury(&other, "more", 10, 2).await;
    let newest = after.manifest.version.0;
    assert_eq!(edits_there(&other).await, [Version(newest - 1), Version(newest)]);
}

/// The same for a writer, whose segment must not be acknowledged; nobody has taken over, so it reloads and goes on.
#[tokio::test]
async fn a_stale_writer_acknowledges_nothing_from_a_deleted_name() {
    let world = world();
    let mut writer = world.writer().await;
    let entry = writer.upload_next(1).await.remove(0);
    let prepared = writer.propose(std::slice::from_ref(&entry));
    bury(&world.process().await, "others", 20, 5).await;
    let resolved = commit::commit(&writer.db, &prepared, deadline()).await;
    let Resolved::Moved(now) = resolved else { panic!("{resolved:?}") };
    assert_eq!(times_in(&now.manifest, &entry), 0);
    writer.at = now;
    writer.commit_segment(&entry).await;
    assert_eq!(times_in(&world.fresh_load().await.manifest, &entry), 1);
}

/// The neighbour proves nothing: here the edit below the stale one is there, byte for byte the original, because a copy
/// of its maker's request arrived only now. (A rule that looked at the neighbour would acknowledge the write.)
#[tokio::test]
async fn a_ghost_of_the_neighbour_does_not_make_a_stale_create_a_commit() {
    let world = world();
    let (stale, other) = (world.process().await, world.process().await);
    observe_until_in(&other, "neighbour", 0).await;
    let at = stale.load().await.unwrap();
    let neighbour = names::edit(at.manifest.version);
    let original = other.bucket.get(&neighbour).await.unwrap();
    let prepared = observe(&stale, &at, "stale", 0);
    bury(&other, "others", 20, 5).await;
    other.bucket.create(&neighbour, original.into()).await.unwrap();
    let resolved = commit::commit(&stale, &prepared, deadline()).await;
    assert!(matches!(resolved, Resolved::Moved(_)), "{resolved:?}");
    assert!(!world.fresh_load().await.manifest.snapshots.contains_key("stale-0"));
}

/// A reader that was paused while the path ahead was folded away finds ghosts in its place: it does not follow them.
#[tokio::test]
async fn a_paused_reader_does_not_follow_ghosts() {
    let world = world();
    let (reader, stale, other) = (world.process().await, world.process().await, world.process().await);
    let at = reader.load().await.unwrap();
    let ghost = observe(&stale, &stale.load().await.unwrap(), "ghost", 0);
    let now = bury(&other, "others", 20, 5).await;
    stale.coordination.commit(&ghost).await;
    let mut watch = reader.coordination.watch(&at.state);
    let event = within(next_news(&mut watch)).await;
    assert!(matches!(event, WatchEvent::Reset(_)), "{event:?}");
    assert_eq!(reader.load().await.unwrap().manifest, now.manifest);
    // One that starts its watch from the old position in a process that is up to date is told the same.
    let mut watch = other.coordination.watch(&at.state);
    let event = within(next_news(&mut watch)).await;
    assert!(matches!(event, WatchEvent::Reset(_) | WatchEvent::Edit { .. }), "{event:?}");
    if let WatchEvent::Edit { edit, .. } = event {
        assert_ne!(edit.unwrap().commit, ghost.edit.commit);
    }
}

/// A reader whose next edit was folded away, and whose name nobody took again, is not up to date for ever.
#[tokio::test(start_paused = true)]
async fn a_paused_reader_notices_that_it_was_left_behind() {
    let world = world();
    let (reader, other) = (world.process().await, world.process().await);
    let at = reader.load().await.unwrap();
    let mut watch = reader.coordination.watch(&at.state);
    bury(&other, "others", 20, 5).await;
    let event = within(next_news(&mut watch)).await;
    assert!(matches!(event, WatchEvent::Reset(_)), "{event:?}");
}

async fn next_news(watch: &mut futures::stream::BoxStream<'static, WatchEvent>) -> WatchEvent {
    loop {
        match watch.next().await.unwrap() {
            WatchEvent::Alive(_) | WatchEvent::Folded(_) | WatchEvent::Down(_) => {}
            news => return news,
        }
    }
}

/// A valid edit can be folded away between its create and the question that proves it. The doubt is resolved: committed.
#[tokio::test]
async fn a_commit_folded_away_before_it_was_proven_is_resolved_as_committed() {
    let world = world();
    let (db, faults) = world.faulty().await;
    let other = world.process().await;
    let mut writer = world.writer_in(db).await;
    let entry = writer.upload_next(1).await.remove(0);
    let prepared = writer.propose(std::slice::from_ref(&entry));
    let gate = isle_testkit::fault::Gate::new();
    faults.inject(Rule::on(Op::Create).path("manifest/edit-*").nth(1), Fault::HoldAfter(gate.clone()));
    let db = writer.db.clone();
    let committing = tokio::spawn(async move { commit::commit(&db, &prepared, deadline()).await });
    gate.arrived(1).await;
    bury(&other, "others", 20, 5).await;
    gate.open();
    let resolved = committing.await.unwrap();
    let Resolved::CommittedEarlier(now) = resolved else { panic!("{resolved:?}") };
    assert_eq!(times_in(&now.manifest, &entry), 1);
    writer.at = now;
    writer.append(1).await;
}

/// A load that is overtaken by folds at every step starts over, and ends with the newest state.
#[tokio::test]
async fn a_load_overtaken_by_a_fold_starts_over() {
    let world = world();
    let other = world.process().await;
    for op in ["manifest/checkpoint-*", "manifest/edit-*"] {
        for n in 0..10 {
            observe_until_in(&other, op.split_at(10).1.trim_end_matches("-*"), n + 100 * op.len() as u64)
                .await;
        }
        let (late, faults) = world.faulty().await;
        let fresh = world.service.connect(faults.clone()).await;
        let gate = faults.hold(Rule::on(Op::Get).path(op).nth(1));
        let loading = tokio::spawn(async move { fresh.load().await });
        gate.arrived(1).await;
        let series = format!("overtaking{}", op.len());
        let now = bury(&other, &series, 20, 3).await;
        // The collector has been here too: the checkpoint that the load wanted is gone.
        let listed: Vec<_> = other.bucket.list("manifest").try_collect().await.unwrap();
        for old in listed.iter().filter(|o| {
            names::parse_checkpoint(&o.path).is_some_and(|v| v < now.state.head.checkpoint.version)
        }) {
            other.bucket.delete(&names::ObjectPath::new(old.path.clone()).unwrap()).await.unwrap();
        }
        gate.open();
        assert_eq!(loading.await.unwrap().unwrap().manifest, now.manifest);
        drop(late);
    }
}

/// An edit that is missing below one that is there is damage, not the end of the log.
#[tokio::test]
async fn a_hole_among_the_edits_is_an_error() {
    let world = world();
    let db = world.process().await;
    for n in 0..6 {
        observe_until_in(&db, "edit", n).await;
    }
    db.bucket.delete(&names::edit(Version(4))).await.unwrap();
    let error = world.service.connect(world.bucket()).await.load().await.unwrap_err();
    assert!(
        matches!(&error, CoordinationError::Damaged(why) if why.contains("edit-00000000000000000004")),
        "{error:?}"
    );
}

/// A damaged edit or fold record is an error for whoever meets it.
#[tokio::test]
async fn damaged_records_are_errors() {
    let world = world();
    let db = world.process().await;
    observe_until_in(&db, "edit", 0).await;
    for path in [names::edit(Version(2)), names::fold(1)] {
        let good = db.bucket.get(&path).await.unwrap();
        let mut bad = good.to_vec();
        let last = bad.len() - 3;
        bad[last] ^= 1;
        db.bucket.put(&path, bad.into()).await.unwrap();
        let error = world.service.connect(world.bucket()).await.load().await.unwrap_err();
        assert!(matches!(error, CoordinationError::Damaged(_)), "{error:?}");
        db.bucket.put(&path, good.into()).await.unwrap();
    }
    assert!(world.fresh_load().await.manifest.snapshots.contains_key("edit-0"));
}

/// An edit under the next number that was made under an older epoch is void: its number is used up, nothing changes, and
/// loads and watches agree on that.
#[tokio::test]
async fn an_edit_of_an_older_epoch_is_void_and_uses_up_its_number() {
    let world = world();
    let old = world.writer().await;
    let stolen = old.upload_next(1).await.remove(0);
    let prepared = old.propose_changes(Vec::new());
    let mut new = world.writer().await;
    let reader = world.process().await;
    let from = reader.load().await.unwrap();
    let watch = reader.coordination.watch(&from.state);
    put_by_force(&new.db, &prepared, from.manifest.version.next(), Epoch(1)).await;
    let loaded = world.fresh_load().await;
    assert_eq!(loaded.manifest.version, from.manifest.version.next());
    assert_eq!(*loaded.manifest, from.manifest.skip_void(loaded.manifest.version));
    let mut watch = watch;
    let WatchEvent::Edit { edit: None, state, .. } = within(next_news(&mut watch)).await else {
        panic!("a void edit is told as such")
    };
    assert_eq!(state.head, loaded.state.head);
    // The new writer goes on after it.
    new.append(2).await;
    assert_eq!(new.at.manifest.version, loaded.manifest.version.next());
    assert_eq!(times_in(&new.at.manifest, &stolen), 1, "rolled forward by the adoption");
}

/// Puts a proposal's edit under another number and epoch, as a process would that had not read what lies below.
async fn put_by_force(db: &Database, proposal: &Proposal, version: Version, epoch: Epoch) {
    #[derive(serde::Serialize)]
    struct Forced {
        edit: isle_storage::manifest::Edit,
        last_seq: u64,
        last_write_time: i64,
    }
    let mut edit = (*proposal.edit).clone();
    (edit.version, edit.epoch) = (version, epoch);
    let forced = Forced { edit, last_seq: 0, last_write_time: 0 };
    let bytes = sealed::seal("edit", &forced).unwrap();
    db.bucket.create(&names::edit(version), bytes.into()).await.unwrap();
}

/// A fold whose deletes all fail is a fold all the same; the next one deletes what it left.
#[tokio::test]
async fn a_crashed_sweep_is_made_up_for_by_the_next_fold() {
    let world = world();
    let (db, faults) = world.faulty().await;
    faults.inject(Rule::on(Op::Delete), Fault::Fail(isle_storage::object::StoreErrorKind::Transient));
    let before = bury(&db, "first", 10, 2).await;
    assert_eq!(edits_there(&db).await.len() as u64, before.manifest.version.0 - 1);
    assert_eq!(world.fresh_load().await.manifest, before.manifest);
    faults.heal();
    let after = bury(&db, "second", 3, 2).await;
    assert_eq!(edits_there(&db).await.len(), 2);
    assert_eq!(world.fresh_load().await.manifest, after.manifest);
}

/// Two folds that race end with one record after the other, both leading to the same state.
#[tokio::test]
async fn racing_folds_leave_one_sequence_of_records() {
    let world = world();
    let (one, two) = (world.process().await, world.process().await);
    for n in 0..10 {
        observe_until_in(&one, "edit", n).await;
    }
    let (at_one, at_two) = (one.load().await.unwrap(), two.load().await.unwrap());
    let (a, b) = tokio::join!(fold::fold(&one, &at_one), fold::fold(&two, &at_two));
    assert!(a.unwrap().is_some() || b.unwrap().is_some());
    assert_eq!(world.fresh_load().await.manifest, at_one.manifest);
    assert_eq!(position(&world.fresh_load().await.state), 2, "one record, since both checkpoints are equal");
}

fn position(state: &HeadState) -> i64 {
    state.revision
}

/// Roles that share an instance see each other's commits without a look at the bucket.
#[tokio::test(start_paused = true)]
async fn roles_of_one_process_wake_each_other() {
    let world = world();
    let (db, faults) = world.faulty().await;
    let at = db.load().await.unwrap();
    let mut watch = db.coordination.watch(&at.state);
    let mut writer = world.writer_in(db).await;
    let WatchEvent::Edit { .. } = within(next_news(&mut watch)).await else { panic!("the adoption") };
    let _ = faults.take_history();
    for _ in 0..10 {
        writer.append(1).await;
        let WatchEvent::Edit { state, .. } = within(next_news(&mut watch)).await else { panic!("an edit") };
        assert_eq!(state.head.version, writer.at.manifest.version);
    }
    assert_eq!(faults.count(Op::Get, "manifest/edit-*"), 0);
    // A commit is the segment, the edit, and the question.
    let history = faults.take_history();
    assert_eq!(history.len(), 30, "{history:?}");
}

/// While the store is away, a watch says so, and goes on by itself when it is back.
#[tokio::test(start_paused = true)]
async fn a_watch_survives_an_outage_of_the_store() {
    let world = world();
    let (db, faults) = world.faulty().await;
    let other = world.process().await;
    let at = db.load().await.unwrap();
    let mut watch = db.coordination.watch(&at.state);
    faults.inject(Rule::any(), Fault::Fail(isle_storage::object::StoreErrorKind::Transient));
    let down = within(async {
        loop {
            if let WatchEvent::Down(why) = watch.next().await.unwrap() {
                return why;
            }
        }
    });
    assert!(down.await.contains("injected"));
    observe_until_in(&other, "meanwhile", 1).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    faults.heal();
    let WatchEvent::Edit { edit: Some(edit), .. } = within(next_news(&mut watch)).await else {
        panic!("the edit made meanwhile")
    };
    assert_eq!(edit.version, at.manifest.version.next());
    let _: Arc<_> = edit;
}
