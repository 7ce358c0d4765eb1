//! Consumer groups: cursors that only move on, and the log they hold.

use std::collections::BTreeMap;

use isle_storage::coordination::commit::{self, Resolved};
use isle_storage::coordination::groups::{self, GroupChange, GroupOutcome, Groups};
use isle_storage::coordination::recover::Consent;
use isle_storage::coordination::{Loaded, fold};
use isle_storage::database::Database;
use isle_storage::ids::{Lineage, SeqNo};
use isle_storage::manifest::{GroupCursor, MaxLag};

use super::recovering::recover;
use super::world::{World, deadline, observe};

const NONE: Consent = Consent { loss: false, sound: false };

fn at(seq: u64) -> GroupCursor {
    GroupCursor::after(SeqNo(seq))
}

fn create(seq: u64) -> GroupChange {
    GroupChange::Create { cursor: at(seq), most: 3 }
}

fn advance(seq: u64) -> GroupChange {
    GroupChange::Advance(SeqNo(seq))
}

async fn change(db: &Database, group: &str, change: &GroupChange) -> GroupOutcome {
    let lineage = db.load().await.unwrap().manifest.lineage;
    db.coordination.change_group(lineage, group, change).await.unwrap()
}

async fn read(db: &Database) -> BTreeMap<String, GroupCursor> {
    db.coordination.groups().await.unwrap().cursors
}

/// A writer with ten records, and a process beside it.
async fn ten_records(world: &World) -> (super::Writer, Database) {
    let mut writer = world.writer().await;
    for _ in 0..5 {
        writer.append(2).await;
    }
    (writer, world.process().await)
}

/// The second who creates a group finds it, and how it is; there are no more than there may be.
pub(super) async fn a_group_is_created_once(world: World) {
    let (writer, other) = ten_records(&world).await;
    assert_eq!(read(&other).await, BTreeMap::new());
    assert_eq!(change(&writer.db, "mailers", &create(5)).await, GroupOutcome::Stored(at(5)));
    assert_eq!(change(&other, "mailers", &create(7)).await, GroupOutcome::Exists(at(5)));
    assert_eq!(read(&other).await, [("mailers".to_owned(), at(5))].into());
    for (name, seq) in [("b", 0), ("c", 10)] {
        assert_eq!(change(&other, name, &create(seq)).await, GroupOutcome::Stored(at(seq)));
    }
    assert_eq!(change(&other, "d", &create(1)).await, GroupOutcome::TooMany);
    assert_eq!(change(&other, "b", &create(1)).await, GroupOutcome::Exists(at(0)), "full, and there");
    let found = read(&world.process().await).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), ["b", "c", "mailers"]);
}

/// Nothing is created by the way.
pub(super) async fn an_unknown_group_is_said_to_be_unknown(world: World) {
    let (_writer, db) = ten_records(&world).await;
    let max_lag = GroupChange::SetMaxLag(MaxLag { records: Some(1), ..MaxLag::default() });
    for asked in [advance(1), GroupChange::Rewind(SeqNo(1)), max_lag, GroupChange::Delete] {
        assert_eq!(change(&db, "nobody", &asked).await, GroupOutcome::Unknown, "{asked:?}");
    }
    assert_eq!(read(&db).await, BTreeMap::new());
}

/// A commit that comes late does not make the group consume twice; going back is asked for by name.
pub(super) async fn a_cursor_only_moves_on_unless_it_is_rewound(world: World) {
    let (_writer, db) = ten_records(&world).await;
    change(&db, "g", &create(2)).await;
    assert_eq!(change(&db, "g", &advance(6)).await, GroupOutcome::Stored(at(6)));
    assert_eq!(change(&db, "g", &advance(6)).await, GroupOutcome::Stored(at(6)), "again");
    assert_eq!(change(&db, "g", &advance(4)).await, GroupOutcome::Ahead(at(6)));
    assert_eq!(read(&db).await["g"], at(6));
    assert_eq!(change(&db, "g", &GroupChange::Rewind(SeqNo(3))).await, GroupOutcome::Stored(at(3)));
    assert_eq!(change(&db, "g", &advance(4)).await, GroupOutcome::Stored(at(4)));
    let max_lag = MaxLag { bytes: Some(9), ..MaxLag::default() };
    let bounded = GroupCursor { max_lag, ..at(4) };
    assert_eq!(
        change(&db, "g", &GroupChange::SetMaxLag(max_lag)).await,
        GroupOutcome::Stored(bounded.clone())
    );
    assert_eq!(read(&world.process().await).await["g"], bounded);
    assert_eq!(change(&db, "g", &advance(5)).await, GroupOutcome::Stored(GroupCursor { max_lag, ..at(5) }));
}

/// However many commit at once, the furthest stands, and nobody is told less than was stored.
pub(super) async fn of_many_who_commit_the_furthest_stands(world: World) {
    let (writer, _) = ten_records(&world).await;
    change(&writer.db, "g", &create(0)).await;
    let mut committers = Vec::new();
    for n in 1..=8u64 {
        let db = world.process().await;
        committers.push(async move {
            let told = match change(&db, "g", &advance(n)).await {
                GroupOutcome::Stored(told) | GroupOutcome::Ahead(told) => told,
                other => panic!("{other:?}"),
            };
            assert!(told.seq >= SeqNo(n) && read(&db).await["g"].seq >= told.seq, "{n}: {told:?}");
        });
    }
    futures::future::join_all(committers).await;
    assert_eq!(read(&writer.db).await["g"], at(8));
}

/// A deleted group is gone for everybody, and one of the same name begins anew.
pub(super) async fn a_deleted_group_is_gone(world: World) {
    let (writer, other) = ten_records(&world).await;
    change(&writer.db, "g", &create(9)).await;
    assert_eq!(change(&other, "g", &GroupChange::Delete).await, GroupOutcome::Deleted(at(9)));
    assert_eq!(change(&writer.db, "g", &advance(10)).await, GroupOutcome::Unknown);
    assert_eq!(change(&writer.db, "g", &GroupChange::Delete).await, GroupOutcome::Unknown);
    assert_eq!(change(&writer.db, "g", &create(1)).await, GroupOutcome::Stored(at(1)));
}

/// Folds, takeovers and a rebuilt head leave groups where they are; what a group had consumed since the last checkpoint it
/// may consume again, and nothing is skipped. The old history moves it no more.
pub(super) async fn groups_survive_what_the_head_survives(world: World) {
    let (mut writer, db) = ten_records(&world).await;
    let max_lag = MaxLag { age_us: Some(5), ..MaxLag::default() };
    let cursor = GroupCursor { max_lag, ..at(3) };
    change(&db, "g", &GroupChange::Create { cursor, most: 9 }).await;
    change(&db, "gone", &create(3)).await;
    change(&db, "gone", &GroupChange::Delete).await;
    writer.at = writer.db.load().await.unwrap();
    fold::fold(&writer.db, &writer.at).await.unwrap();
    change(&db, "g", &advance(7)).await;
    let mut next = world.writer().await;
    next.append(1).await;
    assert_eq!(read(&world.process().await).await["g"], GroupCursor { max_lag, ..at(7) });

    let before = next.at.manifest.lineage;
    world.service.lose_head().await;
    let rebuilt = recover(&world, NONE).await.unwrap().manifest;
    let process = world.process().await;
    let found = read(&process).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), ["g"]);
    assert!((3..=7).contains(&found["g"].seq.0) && found["g"].max_lag == max_lag, "{found:?}");
    let late = process.coordination.change_group(before, "g", &advance(10)).await.unwrap();
    assert_eq!(late, GroupOutcome::OtherLineage(rebuilt.lineage));
    let of_nobody = process.coordination.change_group(Lineage(7), "new", &create(1)).await.unwrap();
    assert_eq!(of_nobody, GroupOutcome::OtherLineage(rebuilt.lineage));
    let moved = change(&process, "g", &advance(10)).await;
    assert_eq!(moved, GroupOutcome::Stored(GroupCursor { max_lag, ..at(10) }));
}

/// Where a recover gives up the end of the log, no group is left beyond it.
pub(super) async fn a_group_is_never_beyond_a_rebuilt_log(world: World) {
    let mut writer = world.writer().await;
    writer.append(2).await;
    let early = writer.at.clone();
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(writer.append(2).await);
    }
    change(&writer.db, "g", &create(10)).await;
    // The checkpoint is older than the copy of the groups that it takes with it.
    fold::fold(&writer.db, &early).await.unwrap();
    world.service.lose_head().await;
    world.bucket().delete(&all[1].path()).await.unwrap();
    let rebuilt = recover(&world, Consent { loss: true, sound: true }).await.unwrap().manifest;
    assert_eq!(rebuilt.last_seq, SeqNo(4));
    let found = read(&world.process().await).await;
    if !world.head_is_in_bucket() {
        assert_eq!(found["g"], at(4));
    }
    assert!(found.values().all(|c| c.seq <= rebuilt.last_seq), "{found:?}");
}

/// An edit that was planned with the groups is not committed once one of them needs more; that one has moved on stops
/// nobody.
pub(super) async fn an_edit_planned_with_groups_gives_way_to_one_that_needs_more(world: World) {
    let (_writer, db) = ten_records(&world).await;
    change(&db, "old", &create(4)).await;
    let rewind = GroupChange::Rewind(SeqNo(2));
    let max_lag = GroupChange::SetMaxLag(MaxLag { records: Some(1), ..MaxLag::default() });
    let holds_more = [("new", create(0)), ("old", rewind), ("old", max_lag)];
    for (n, (group, asked)) in (0u64..).zip(&holds_more) {
        let (loaded, read) = planned(&db).await;
        change(&db, group, asked).await;
        let proposal = observe(&db, &loaded, "held", n).with_groups(&read);
        let resolved = commit::commit(&db, &proposal, deadline()).await;
        let Resolved::Moved(newer) = resolved else { panic!("{asked:?}: {resolved:?}") };
        assert!(!newer.manifest.snapshots.contains_key(&format!("held-{n}")), "{asked:?}");
        // Planned anew it goes in.
        let read = groups::beside(db.coordination.as_ref(), &newer.manifest).await.unwrap();
        let proposal = observe(&db, &newer, "again", n).with_groups(&read);
        let resolved = commit::commit(&db, &proposal, deadline()).await;
        let Resolved::Committed(state) = resolved else { panic!("{asked:?}: {resolved:?}") };
        assert_eq!(state.head.version, proposal.edit.version);
    }
    let (loaded, read) = planned(&db).await;
    change(&db, "old", &advance(9)).await;
    change(&db, "new", &GroupChange::Delete).await;
    let proposal = observe(&db, &loaded, "held", 9).with_groups(&read);
    let resolved = commit::commit(&db, &proposal, deadline()).await;
    match world.head_is_in_bucket() {
        // There every change of a group is a version.
        true => assert!(matches!(resolved, Resolved::Moved(_)), "{resolved:?}"),
        false => assert!(matches!(resolved, Resolved::Committed(_)), "{resolved:?}"),
    }
}

async fn planned(db: &Database) -> (Loaded, Groups) {
    let loaded = db.load().await.unwrap();
    let read = groups::beside(db.coordination.as_ref(), &loaded.manifest).await.unwrap();
    (loaded, read)
}
