//! Old backups taken away: what stays is whole at every moment, whoever else is at work, and wherever a run is cut off.

use std::time::Duration;

use isle_storage::environment::Entropy;
use isle_storage::names;
use isle_storage::transfer::{Keep, PrunePlan, plan_prune};
use isle_testkit::embedded::SeededEntropy;

use super::*;

/// A store for backups whose time the test moves.
fn store_at(clock: &Arc<ManualClock>) -> Arc<FaultBucket> {
    FaultBucket::new(Arc::new(MemoryBucket::new(clock.clone())))
}

/// Three backups, a day apart: of a log, of the tables made of it, and of a log beyond these.
async fn three(e: &Embedded, to: &Arc<FaultBucket>) -> Scribe {
    let mut scribe = filled(e).await;
    back_up(e, to).await.unwrap();
    e.clock.advance(Duration::from_secs(86_400));
    scribe.flush().await;
    back_up(e, to).await.unwrap();
    e.clock.advance(Duration::from_secs(86_400));
    scribe.append(&[Entry::put("more", "rows")]).await;
    back_up(e, to).await.unwrap();
    scribe
}

async fn prune(e: &Embedded, to: &Arc<FaultBucket>, keep: Keep) -> Result<PrunePlan, TransferError> {
    let to: Arc<dyn Bucket> = to.clone();
    transfer::prune(&to, &e.db.env, "test", keep, &|_| {}).await
}

async fn paths(store: &FaultBucket) -> Vec<String> {
    let all: Vec<_> = store.list("").try_collect().await.unwrap();
    all.into_iter().map(|o| o.path).collect()
}

/// Every backup that is there is whole; their numbers.
async fn whole(e: &Embedded, store: &Arc<FaultBucket>) -> Vec<u64> {
    let held: Arc<dyn Bucket> = store.clone();
    let all = transfer::backups(held.as_ref()).await.unwrap();
    for record in &all {
        let checked = transfer::verify(&held, &e.db.env, record, &|_, _| {}).await.unwrap();
        assert!(checked.faults.is_empty(), "backup {}: {:?}", record.number, checked.faults);
    }
    all.iter().map(|r| r.number).collect()
}

/// Nothing is there but what the newest `n` backups name.
async fn holds_only(store: &Arc<FaultBucket>, n: usize) {
    let records = transfer::backups(store.as_ref()).await.unwrap();
    assert_eq!(records.len(), n);
    let mut named: Vec<String> = records
        .iter()
        .flat_map(|r| r.objects.iter().chain([&r.manifest]).map(|o| o.path.to_string()))
        .chain(records.iter().map(|r| names::backup(r.number).to_string()))
        .collect();
    named.sort();
    named.dedup();
    assert_eq!(paths(store).await, named);
}

#[tokio::test]
async fn only_what_no_other_backup_needs_goes() {
    let e = Embedded::new().await;
    let to = store();
    let scribe = three(&e, &to).await;
    let held: Arc<dyn Bucket> = to.clone();
    let before = paths(&to).await;
    let plan = plan_prune(&held, &e.db.env, Keep::Newest(2)).await.unwrap();
    assert_eq!((plan.removed.len(), plan.kept.len()), (1, 2));
    assert!(plan.objects.iter().any(|o| o.path.ends_with(".seg")), "the log before the flush: {plan:?}");
    assert_eq!(paths(&to).await, before, "a plan changes nothing");
    let done = prune(&e, &to, Keep::Newest(2)).await.unwrap();
    assert_eq!(done.objects, plan.objects);
    assert_eq!(whole(&e, &to).await, [2, 3]);
    holds_only(&to, 2).await;
    assert!(prune(&e, &to, Keep::Newest(2)).await.unwrap().is_empty());
    // The newest stays however old it is, and can be restored.
    e.clock.advance(Duration::from_secs(86_400 * 365));
    prune(&e, &to, Keep::Younger(Duration::from_secs(3_600))).await.unwrap();
    assert_eq!(whole(&e, &to).await, [3]);
    let record = transfer::backups(to.as_ref()).await.unwrap().remove(0);
    let target = Target::bucket_form();
    target.restore(&to, &record).await.unwrap();
    target.is_a_copy_of(&scribe).await;
    // The next backup goes on from what is there.
    assert_eq!(back_up(&e, &to).await.unwrap().copied, 0);
}

#[tokio::test]
async fn age_tells_which_backups_go_and_strangers_stay() {
    let e = Embedded::new().await;
    let to = store();
    three(&e, &to).await;
    let strangers = ["notes.txt", "table/00/readme.md", "backup/readme"];
    for path in strangers {
        to.put(&ObjectPath::new(path).unwrap(), b"x".to_vec().into()).await.unwrap();
    }
    let day_and_a_half = Duration::from_secs(86_400 * 3 / 2);
    let done = prune(&e, &to, Keep::Younger(day_and_a_half)).await.unwrap();
    assert_eq!(done.removed.iter().map(|r| r.number).collect::<Vec<_>>(), [1]);
    assert_eq!(whole(&e, &to).await, [2, 3]);
    let left = paths(&to).await;
    assert!(strangers.iter().all(|s| left.iter().any(|p| p == s)), "{left:?}");
}

#[tokio::test]
async fn cut_off_anywhere_what_stays_is_whole_and_another_run_finishes() {
    let e = Embedded::new().await;
    let model = store();
    three(&e, &model).await;
    let objects: Vec<_> = model.list("").try_collect::<Vec<_>>().await.unwrap();
    for n in 1.. {
        let cut = store();
        for object in &objects {
            let path = ObjectPath::new(object.path.clone()).unwrap();
            cut.put(&path, model.get(&path).await.unwrap().into()).await.unwrap();
        }
        let rule = Rule::any().when(is_write).after(n - 1).times(u64::MAX);
        cut.inject(rule, Fault::Fail(StoreErrorKind::Permanent));
        let failed = prune(&e, &cut, Keep::Newest(1)).await;
        cut.heal();
        assert!(whole(&e, &cut).await.contains(&3));
        prune(&e, &cut, Keep::Newest(1)).await.unwrap();
        assert_eq!(whole(&e, &cut).await, [3]);
        if failed.is_ok() {
            assert!(n > 6, "every write was the last one once");
            return;
        }
        // A mark that could not be taken away stays an hour.
        let marks = paths(&cut).await.iter().filter(|p| names::is_backup_pruning(p)).count();
        assert_eq!(marks, usize::from(n > 1));
    }
}

#[tokio::test]
async fn the_last_good_backup_stays() {
    let e = Embedded::new().await;
    let to = store();
    let none = prune(&e, &to, Keep::Newest(1)).await;
    assert!(matches!(&none, Err(TransferError::Refused(why)) if why.contains("holds no backup")), "{none:?}");
    assert!(paths(&to).await.is_empty());
    three(&e, &to).await;
    let newest = transfer::backups(to.as_ref()).await.unwrap().remove(2);
    let only = newest.objects.iter().find(|o| o.path.as_str().ends_with(".seg")).unwrap();
    to.delete(&only.path).await.unwrap();
    let before = paths(&to).await;
    let refused = prune(&e, &to, Keep::Newest(1)).await;
    assert!(
        matches!(&refused, Err(TransferError::Refused(why)) if why.contains("no backup would stay")),
        "{refused:?}"
    );
    assert_eq!(paths(&to).await, before, "nothing was changed, and no mark stays");
    prune(&e, &to, Keep::Newest(2)).await.unwrap();
    let left = transfer::backups(to.as_ref()).await.unwrap();
    assert_eq!(left.iter().map(|r| r.number).collect::<Vec<_>>(), [2, 3]);
}

/// Either stops before it has changed anything, whoever came first.
#[tokio::test]
async fn a_backup_and_a_prune_keep_out_of_each_others_way() {
    let e = Embedded::new().await;
    let to = store();
    let mut scribe = three(&e, &to).await;
    scribe.append(&[Entry::put("again", "more")]).await;
    let gate = to.hold(Rule::on(Op::Put).path("log/*").nth(1));
    let backup = tokio::spawn({
        let (db, to) = (e.db.clone(), Arc::clone(&to) as Arc<dyn Bucket>);
        async move { transfer::backup(&db, &node(), &to, &|_| {}).await }
    });
    gate.arrived(1).await;
    let before = paths(&to).await;
    let refused = prune(&e, &to, Keep::Newest(1)).await;
    let Err(TransferError::Refused(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("a backup is at work") && why.contains("by backup"), "{why}");
    assert_eq!(paths(&to).await, before);
    gate.open();
    backup.await.unwrap().unwrap();

    let gate = to.hold(Rule::on(Op::Delete).path("log/*").nth(1));
    let running = tokio::spawn({
        let (env, to) = (e.db.env.clone(), Arc::clone(&to) as Arc<dyn Bucket>);
        async move { transfer::prune(&to, &env, "test", Keep::Newest(1), &|_| {}).await }
    });
    gate.arrived(1).await;
    let refused = back_up(&e, &to).await;
    assert!(matches!(&refused, Err(TransferError::Refused(why)) if why.contains("a prune is at work")));
    gate.open();
    running.await.unwrap().unwrap();
    assert_eq!(whole(&e, &to).await, [4]);
    holds_only(&to, 1).await;
    back_up(&e, &to).await.unwrap();
    assert_eq!(whole(&e, &to).await, [4, 5]);
}

/// The mark of one that died counts for an hour of the store's time, and then goes.
#[tokio::test]
async fn the_mark_of_the_dead_counts_for_an_hour() {
    let e = Embedded::new().await;
    let clock = ManualClock::at(1_700_000_000);
    let to = store_at(&clock);
    three(&e, &to).await;
    let entropy = SeededEntropy::new(1);
    for mark in [names::backup_running(entropy.next_u64()), names::backup_pruning(entropy.next_u64())] {
        to.put(&mark, b"?".to_vec().into()).await.unwrap();
        for minutes in [0, 59] {
            clock.advance(Duration::from_secs(60 * minutes));
            let refused = match names::is_backup_running(mark.as_str()) {
                true => prune(&e, &to, Keep::Newest(2)).await.map(drop),
                false => back_up(&e, &to).await.map(drop),
            };
            assert!(matches!(&refused, Err(TransferError::Refused(why)) if why.contains(mark.as_str())));
        }
        clock.advance(Duration::from_secs(61));
        match names::is_backup_running(mark.as_str()) {
            true => prune(&e, &to, Keep::Newest(2)).await.map(drop).unwrap(),
            false => back_up(&e, &to).await.map(drop).unwrap(),
        }
        assert!(to.head(&mark).await.unwrap_err().is_not_found(), "it was taken away");
    }
}

/// A backup that stood still for so long that others took it for dead: what it counts on may be gone, and it says so.
#[tokio::test]
async fn a_backup_that_was_taken_for_dead_does_not_count() {
    for held in ["log/*", "backup/*-manifest", "backup/*.json"] {
        let e = Embedded::new().await;
        let clock = ManualClock::at(1_700_000_000);
        let to = store_at(&clock);
        let mut scribe = three(&e, &to).await;
        scribe.append(&[Entry::put("again", "more")]).await;
        let wait = move |op: Op, _: &str| matches!(op, Op::Put | Op::Create);
        let gate = to.hold(Rule::any().path(held).when(wait).nth(1));
        let backup = tokio::spawn({
            let (db, to) = (e.db.clone(), Arc::clone(&to) as Arc<dyn Bucket>);
            async move { transfer::backup(&db, &node(), &to, &|_| {}).await }
        });
        gate.arrived(1).await;
        e.clock.advance(Duration::from_secs(3_601));
        clock.advance(Duration::from_secs(3_601));
        prune(&e, &to, Keep::Newest(1)).await.unwrap();
        gate.open();
        let refused = backup.await.unwrap();
        assert!(
            matches!(&refused, Err(TransferError::Refused(why)) if why.contains("for dead")),
            "{refused:?}"
        );
        assert_eq!(whole(&e, &to).await, [3]);
        assert_eq!(back_up(&e, &to).await.unwrap().record.number, 4);
        assert_eq!(whole(&e, &to).await, [3, 4]);
    }
}
