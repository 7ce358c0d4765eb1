//! Garbage: what is retired goes, after its grace, and nothing else ever does.

use std::time::Duration;

use compactor_node::collector::{self, Collector};
use compactor_node::job::Bounds;
use compactor_node::once::{self, Limits};
use compactor_node::plan;
use compactor_node::{CompactorSettings, JobError};
use isle_storage::coordination::CoordinationError;
use isle_storage::coordination::lineage::{self, LineageObject};
use isle_storage::manifest::state::RECENT_COMMITS;
use isle_storage::names;
use isle_storage::object::StoreErrorKind;
use isle_testkit::embedded::{Embedded, ManualClock};
use isle_testkit::fault::{Fault, Op, Rule};
use isle_testkit::scribe::{Entry, Scribe};

use crate::merge::{generation, node, settings};
use crate::objects::objects;
use crate::tree;

pub(crate) async fn database_with_garbage() -> (Embedded, Scribe) {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    for n in 0..4 {
        scribe.append(&generation(n, e.db.env.clock.now())).await;
        scribe.append(&generation(n + 50, e.db.env.clock.now())).await;
        scribe.flush().await;
    }
    once::once(e.process("compactor"), node("c"), settings(), Limits::default()).await.unwrap();
    (e, scribe)
}

pub(crate) async fn pass(e: &Embedded, settings: &CompactorSettings) -> collector::Pass {
    collector::pass(&e.process("compactor"), &node("c"), settings, false).await.unwrap()
}

#[tokio::test]
async fn retired_objects_go_after_the_grace_and_everything_named_stays() {
    let (e, scribe) = database_with_garbage().await;
    let settings = settings();
    let before = e.db.load().await.unwrap().manifest;
    assert!(before.retired.len() >= 12, "{} retired", before.retired.len());
    for _ in 0..3 {
        pass(&e, &settings).await;
        assert_eq!(e.db.load().await.unwrap().manifest.retired.len(), before.retired.len(), "too early");
    }
    e.clock.advance(Duration::from_secs(settings.grace_seconds + 1));
    let done = pass(&e, &settings).await;
    assert_eq!(done.again, None, "{done:?}");
    let manifest = e.db.load().await.unwrap().manifest;
    assert!(manifest.retired.is_empty());
    let mut tables: Vec<String> = manifest.tables().map(|t| t.path().to_string()).collect();
    tables.sort();
    assert_eq!(objects(&e, "table").await, tables);
    let mut log: Vec<String> = manifest.log.iter().map(|l| l.path().to_string()).collect();
    log.sort();
    assert_eq!(objects(&e, "log").await, log);
    let (now, last) = (e.db.env.clock.now(), manifest.last_seq);
    assert_eq!(tree::visible_at(&e.db, &manifest, last, now).await, scribe.visible_at(last, now));
}

#[tokio::test]
async fn the_newest_two_checkpoints_are_kept_and_the_database_still_loads() {
    let (e, mut scribe) = database_with_garbage().await;
    let settings = CompactorSettings { fold_edits: 1, ..settings() };
    for n in 0..6 {
        scribe.append(&generation(n, e.db.env.clock.now())).await;
        scribe.flush().await;
        once::once(e.process("compactor"), node("c"), settings.clone(), Limits::default()).await.unwrap();
        e.clock.advance(Duration::from_secs(settings.grace_seconds + 1));
    }
    pass(&e, &settings).await;
    let manifest_objects = objects(&e, "manifest").await;
    let checkpoints = manifest_objects.iter().filter(|p| names::parse_checkpoint(p).is_some()).count();
    assert_eq!(checkpoints, 2, "{manifest_objects:?}");
    assert!(!manifest_objects.iter().any(|p| p.contains("marker")), "{manifest_objects:?}");
    e.db.load().await.unwrap();
}

/// A crash between the deletes and the edit that records them: the next pass goes over it again.
#[tokio::test]
async fn an_object_that_cannot_be_deleted_holds_back_no_other() {
    let (e, _scribe) = database_with_garbage().await;
    let settings = settings();
    for _ in 0..2 {
        pass(&e, &settings).await;
    }
    e.clock.advance(Duration::from_secs(settings.grace_seconds + 1));
    let stubborn = e.db.load().await.unwrap().manifest.retired[1].path.clone();
    let rule = Rule::on(Op::Delete).path(stubborn.as_str());
    let fault = e.bucket.inject(rule, Fault::Fail(StoreErrorKind::Permanent));
    let first = pass(&e, &settings).await;
    assert_eq!(first.failed, 1);
    assert!(first.again.is_some());
    let left = e.db.load().await.unwrap().manifest;
    assert_eq!(left.retired.iter().map(|r| r.path.clone()).collect::<Vec<_>>(), [stubborn]);
    e.bucket.remove(fault);
    pass(&e, &settings).await;
    assert!(e.db.load().await.unwrap().manifest.retired.is_empty());
}

/// A head that was set back must not let the collector eat what the newer one names.
#[tokio::test]
async fn nothing_is_deleted_under_a_head_that_went_back() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    let backup = e.coordination.backup();
    for n in 0..4 {
        scribe.append(&generation(n, e.db.env.clock.now())).await;
        scribe.flush().await;
    }
    let settings = settings();
    isle_storage::coordination::fold::fold(&e.db, &scribe.loaded).await.unwrap();
    e.coordination.restore(&backup);
    let before = objects(&e, "").await;
    let refused = collector::pass(&e.process("compactor"), &node("c"), &settings, false).await;
    assert!(matches!(refused, Err(JobError::Coordination(CoordinationError::Regressed(_)))), "{refused:?}");
    assert_eq!(objects(&e, "").await, before);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let (e, _scribe) = database_with_garbage().await;
    let settings = settings();
    for _ in 0..2 {
        pass(&e, &settings).await;
    }
    e.clock.advance(Duration::from_secs(settings.grace_seconds + 1));
    let before = objects(&e, "").await;
    let version = e.db.load().await.unwrap().manifest.version;
    let dry = collector::pass(&e.process("compactor"), &node("c"), &settings, true).await.unwrap();
    assert!(dry.deleted > 0);
    assert_eq!(objects(&e, "").await, before);
    assert_eq!(e.db.load().await.unwrap().manifest.version, version);
}

/// The daemon's loops come to rest: nothing is requested once there is nothing to do.
#[tokio::test(start_paused = true)]
async fn an_idle_compactor_makes_no_request() {
    let (e, _scribe) = database_with_garbage().await;
    let settings = CompactorSettings { grace_seconds: 1, sweep_interval_seconds: 7200, ..settings() };
    let compactor = compactor_node::Compactor::open(e.process("compactor"), node("c"), settings).unwrap();
    let mut view = compactor.current();
    loop {
        e.clock.advance(Duration::from_secs(2));
        if view.borrow_and_update().as_ref().is_some_and(|c| c.manifest.retired.is_empty()) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let _before = e.bucket.take_history();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(e.bucket.history().is_empty(), "{:?}", e.bucket.history());
    compactor.close().await;
}

/// Deadlines are the store's: a host whose clock runs a year ahead deletes nothing early, one a year behind nothing late.
#[tokio::test]
async fn no_hosts_clock_decides_when_something_goes() {
    for seconds in [1_700_000_000 - 31_536_000, 1_700_000_000 + 31_536_000] {
        let (e, _scribe) = database_with_garbage().await;
        let mut db = e.process("compactor");
        db.env.clock = ManualClock::at(seconds);
        let settings = settings();
        let node = node("c");
        let pass = || collector::pass(&db, &node, &settings, false);
        let retired = e.db.load().await.unwrap().manifest.retired.len();
        for _ in 0..3 {
            pass().await.unwrap();
        }
        assert_eq!(e.db.load().await.unwrap().manifest.retired.len(), retired);
        e.clock.advance(Duration::from_secs(settings.grace_seconds - 1));
        pass().await.unwrap();
        assert_eq!(e.db.load().await.unwrap().manifest.retired.len(), retired);
        e.clock.advance(Duration::from_secs(2));
        pass().await.unwrap();
        assert!(e.db.load().await.unwrap().manifest.retired.is_empty());
    }
}

/// Something is retired all the time: who comes again and again writes a checkpoint for it now and then, and not with every
/// pass; and what was retired goes all the same, little later than the grace.
#[tokio::test]
async fn a_daemons_collector_writes_no_checkpoint_before_it_is_of_use() {
    let (e, mut scribe) = database_with_garbage().await;
    let settings = settings();
    let (db, mut collector) = (e.process("compactor"), Collector::patient(Bounds::default()));
    let first = e.db.load().await.unwrap().manifest.retired[0].path.clone();
    let _before = e.bucket.take_history();
    let (step, longest) = (5, settings.grace_seconds * 5 / 4 + 10);
    for _ in 0..longest / step {
        scribe.append(&[Entry::put("k", "v")]).await;
        scribe.flush().await;
        e.clock.advance(Duration::from_secs(step));
        let pass = collector.pass(&db, &node("c"), &settings, false).await.unwrap();
        assert!(pass.again.is_some_and(|again| again <= Duration::from_secs(settings.grace_seconds / 8 + 1)));
    }
    let written = e.bucket.count(Op::Put, "manifest/checkpoint-*")
        + e.bucket.count(Op::Create, "manifest/checkpoint-*");
    assert!((8..=12).contains(&written), "{written} checkpoints");
    assert!(!e.db.load().await.unwrap().manifest.retired.iter().any(|r| r.path == first), "it never goes");
}

/// The collector dies between its deletes and the edit that records them: the next one goes over it again.
#[tokio::test]
async fn a_collector_that_dies_after_its_deletes_leaks_nothing() {
    let (e, _scribe) = database_with_garbage().await;
    let settings = settings();
    for _ in 0..2 {
        pass(&e, &settings).await;
    }
    e.clock.advance(Duration::from_secs(settings.grace_seconds + 1));
    let last = e.db.load().await.unwrap().manifest.retired.last().unwrap().path.clone();
    let gate = isle_testkit::fault::Gate::new();
    e.bucket.inject(Rule::on(Op::Delete).path(last.as_str()), Fault::HoldAfter(gate.clone()));
    let (db, to_die) = (e.process("compactor"), settings.clone());
    let dying = tokio::spawn(async move { collector::pass(&db, &node("c"), &to_die, false).await });
    gate.arrived(1).await;
    dying.abort();
    assert!(dying.await.unwrap_err().is_cancelled());
    e.bucket.heal();
    assert!(!e.db.load().await.unwrap().manifest.retired.is_empty());
    e.coordination.expire_job(plan::job_named("collect"));
    pass(&e, &settings).await;
    assert!(e.db.load().await.unwrap().manifest.retired.is_empty());
}

/// Deletes take their time, and writers go on meanwhile: further than the manifest remembers who made which version.
#[tokio::test(start_paused = true)]
async fn steady_commits_do_not_keep_a_pass_from_being_recorded() {
    let (e, mut scribe) = database_with_garbage().await;
    let settings = settings();
    for _ in 0..2 {
        pass(&e, &settings).await;
    }
    e.clock.advance(Duration::from_secs(settings.grace_seconds + 1));
    let first = e.db.load().await.unwrap().manifest.retired[0].path.clone();
    let gate = e.bucket.hold(Rule::on(Op::Delete).path(first.as_str()));
    let writing = async {
        gate.arrived(1).await;
        for n in 0..RECENT_COMMITS + 2 {
            scribe.append(&[Entry::put("k", n.to_string())]).await;
        }
        gate.open();
    };
    let (done, ()) = tokio::join!(pass(&e, &settings), writing);
    assert!(done.deleted >= 12, "{done:?}");
    assert!(e.db.load().await.unwrap().manifest.retired.is_empty());
}

/// What two checkpoints must cover is covered by two that can be read.
#[tokio::test]
async fn a_checkpoint_that_is_damaged_covers_nothing() {
    let (e, _scribe) = database_with_garbage().await;
    let settings = settings();
    for _ in 0..2 {
        pass(&e, &settings).await;
    }
    e.clock.advance(Duration::from_secs(settings.grace_seconds + 1));
    let before = e.db.load().await.unwrap();
    let head = before.state.head.checkpoint.path.clone();
    let mut others =
        objects(&e, "manifest").await.into_iter().filter(|p| names::parse_checkpoint(p).is_some());
    let other = others.rfind(|p| *p != head.as_str()).unwrap();
    let other = names::ObjectPath::new(other).unwrap();
    let body = e.db.bucket.get(&other).await.unwrap();
    e.db.bucket.put(&other, body.slice(..body.len() - 1).into()).await.unwrap();
    assert_eq!(pass(&e, &settings).await.deleted, 0);
    assert_eq!(e.db.load().await.unwrap().manifest.retired.len(), before.manifest.retired.len());
    // Another was written instead, and in its time everything goes.
    pass(&e, &settings).await;
    e.clock.advance(Duration::from_secs(settings.grace_seconds + 1));
    for _ in 0..2 {
        pass(&e, &settings).await;
    }
    assert!(e.db.load().await.unwrap().manifest.retired.is_empty());
}

/// Somebody has recovered the database elsewhere: under the old head nothing is deleted any more.
#[tokio::test]
async fn nothing_is_deleted_under_another_lineage() {
    let (e, _scribe) = database_with_garbage().await;
    let settings = settings();
    for _ in 0..2 {
        pass(&e, &settings).await;
    }
    e.clock.advance(Duration::from_secs(settings.grace_seconds + 1));
    recovered_elsewhere(&e).await;
    let before = objects(&e, "").await;
    let refused = collector::pass(&e.process("compactor"), &node("c"), &settings, false).await;
    assert!(
        matches!(refused, Err(JobError::Coordination(CoordinationError::WrongDatabase(_)))),
        "{refused:?}"
    );
    assert_eq!(objects(&e, "").await, before);
}

/// What a recover leaves in the bucket for the roles that still see the old head.
pub(crate) async fn recovered_elsewhere(e: &Embedded) {
    let object = LineageObject {
        database: e.db.identity.database,
        number: 2,
        lineage: isle_storage::ids::Lineage(99),
    };
    lineage::write(e.db.bucket.as_ref(), &object).await.unwrap();
}
