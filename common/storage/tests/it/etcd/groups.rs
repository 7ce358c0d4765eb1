//! Consumer groups as keys of a real etcd: as many as there may be, values that are none, and a revision that repeats.

use std::sync::Arc;

use isle_storage::coordination::groups::{GroupChange, GroupOutcome, MAX_GROUPS};
use isle_storage::coordination::recover::{Consent, Fresh, carry_out, plan, survey};
use isle_storage::coordination::{Authority, CommitOutcome, Coordination, CoordinationError, fold};
use isle_storage::database::Database;
use isle_storage::ids::{CommitId, Incarnation, Lineage, SeqNo};
use isle_storage::manifest::GroupCursor;

use super::scene::{Scene, commit_snapshot, propose};

const BAD: &str = "/isle/default/consumers/bad";

async fn change(db: &Database, group: &str, change: GroupChange) -> GroupOutcome {
    let lineage = db.load().await.unwrap().manifest.lineage;
    db.coordination.change_group(lineage, group, &change).await.unwrap()
}

fn create() -> GroupChange {
    GroupChange::Create { cursor: GroupCursor::after(SeqNo::ZERO), most: MAX_GROUPS }
}

async fn recover(scene: &Scene) {
    let coordination: Arc<dyn Coordination> = scene.connect().await;
    let found = survey(&scene.bucket, &coordination, &scene.env, "default", &|_| ()).await.unwrap();
    let fresh = Fresh { lineage: Lineage(9), incarnation: Incarnation(8), commit: CommitId(7) };
    let plan = plan(&found, Consent { loss: false, sound: true }, fresh).unwrap();
    carry_out(&scene.bucket, &coordination, &scene.env, &plan, &|_| ()).await.unwrap();
}

/// All of them go in one transaction with the head, which etcd bounds at 128 operations.
#[tokio::test(flavor = "multi_thread")]
async fn as_many_groups_as_there_may_be_are_recovered_in_one_step() {
    let (mut scene, db) = Scene::new().await;
    for n in 0..MAX_GROUPS {
        assert!(matches!(change(&db, &format!("g{n}"), create()).await, GroupOutcome::Stored(_)));
    }
    assert_eq!(change(&db, "one-more", create()).await, GroupOutcome::TooMany);
    commit_snapshot(&db, "later").await;
    fold::fold(&db, &db.load().await.unwrap()).await.unwrap();
    let before = db.coordination.groups().await.unwrap();
    scene.etcd.wipe().await;
    recover(&scene).await;
    let after = scene.connect().await.groups().await.unwrap();
    assert_eq!((after.cursors.len(), &after.cursors), (MAX_GROUPS, &before.cursors));
    assert_ne!(after.mark, before.mark);
}

/// A value that is none is named, can be deleted, and stands in the way of no recover and of no other group.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_no_cursor_is_named_and_can_be_deleted() {
    let (scene, db) = Scene::new().await;
    scene.etcd.ctl(&["put", BAD, "nonsense"]);
    let damaged = db.coordination.groups().await.unwrap_err();
    assert!(matches!(&damaged, CoordinationError::Damaged(why) if why.contains(BAD)), "{damaged}");
    assert!(matches!(change(&db, "good", create()).await, GroupOutcome::Stored(_)));
    recover(&scene).await;
    let db = scene.database().await;
    assert!(matches!(change(&db, "bad", GroupChange::Delete).await, GroupOutcome::Deleted(_)));
    assert_eq!(db.coordination.groups().await.unwrap().cursors.keys().collect::<Vec<_>>(), ["good"]);
}

/// The mark compares by value: an etcd that was set back gives the same revisions again, and an edit planned with groups
/// before must not go in beside others.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_does_not_come_back_with_an_older_copy() {
    let (mut scene, db) = Scene::new().await;
    change(&db, "old", create()).await;
    let copy = scene.etcd.backup().await;
    change(&db, "new", create()).await;
    let loaded = db.load().await.unwrap();
    let read = db.coordination.groups().await.unwrap();
    scene.etcd.restore(&copy).await;
    let db = scene.database().await;
    change(&db, "other", create()).await;
    let proposal = propose(&db, &loaded, "planned", &Authority::Observer).with_groups(&read);
    let outcome = db.coordination.commit(&proposal).await;
    assert!(matches!(outcome, CommitOutcome::Regrouped), "{outcome:?}");
}
