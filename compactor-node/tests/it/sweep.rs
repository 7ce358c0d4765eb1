//! The orphan sweep: what a dead owner left goes, and nothing else ever does.

use std::collections::BTreeSet;
use std::time::Duration;

use compactor_node::once::{self, Limits, Outcome};
use compactor_node::sweep::{Sweeper, Swept};
use compactor_node::{Compactor, CompactorSettings, JobError, plan};
use isle_storage::coordination::commit::{self, Resolved};
use isle_storage::coordination::{ClaimAttempt, CoordinationError, JobAttempt};
use isle_storage::ids::{Epoch, Incarnation, JobId};
use isle_storage::manifest::{Author, Change};
use isle_storage::names;
use isle_storage::object::StoreErrorKind;
use isle_testkit::contract::coordination::Writer;
use isle_testkit::contract::coordination::world::{deadline, edit};
use isle_testkit::embedded::Embedded;
use isle_testkit::fault::{Fault, Op, Rule};
use isle_testkit::scribe::Scribe;

use crate::collect::{database_with_garbage, recovered_elsewhere};
use crate::merge::{generation, node, settings};
use crate::objects::{data, jobs_table, named, objects, put, segment, writers_table};
use crate::tree;

const DAY: Duration = Duration::from_secs(24 * 3600 + 1);

async fn sweep(e: &Embedded, settings: &CompactorSettings) -> Swept {
    Sweeper::default().pass(&e.process("compactor"), &node("c"), settings, false).await.unwrap()
}

/// A writer that stops at every step.
async fn writer(e: &Embedded) -> Writer {
    e.coordination.expire_writer();
    let incarnation = Incarnation(e.db.env.entropy.next_u64());
    match e.db.coordination.claim_writer(&node("w"), incarnation).await.unwrap() {
        ClaimAttempt::Won(claim) => Writer::take_over(e.process("writer"), claim).await.unwrap(),
        held => panic!("{held:?}"),
    }
}

/// One of everything that a bucket can hold, beside a database in use.
#[tokio::test]
async fn orphans_of_dead_owners_go_and_nothing_else_does() {
    let (e, first) = database_with_garbage().await;
    e.coordination.expire_writer();
    let scribe = Scribe::take_over(&e.db).await;
    let (old, new) = (Epoch(1), scribe.manifest().epoch);
    assert_eq!(new, Epoch(2));
    let incarnation = scribe.manifest().epochs[0].incarnation;
    let claimed = JobId(0xa11e);
    let attempt = e.db.coordination.claim_job(claimed, &node("other")).await.unwrap();
    assert!(matches!(attempt, JobAttempt::Won(..)));
    let mut orphans = BTreeSet::new();
    for path in [
        writers_table(old, incarnation, 900),
        jobs_table(JobId(0xdead), 0),
        segment(old, incarnation, 1_000_000),
        segment(old, Incarnation(3), 1),
        names::blob(&format!("{}-7", names::writer_owner(old, incarnation))),
    ] {
        orphans.insert(put(&e, &path).await);
    }
    let mut kept = BTreeSet::new();
    for path in [
        writers_table(new, Incarnation(5), 0),
        writers_table(Epoch(3), Incarnation(5), 0),
        segment(new, scribe.manifest().epochs[1].incarnation, 1_000_000),
        jobs_table(claimed, 0),
        names::ObjectPath::new("table/mine.txt").unwrap(),
        names::ObjectPath::new("log/notes").unwrap(),
        names::ObjectPath::new("backup/2026").unwrap(),
    ] {
        kept.insert(put(&e, &path).await);
    }
    let marker = put(&e, &names::marker(9)).await;
    let readme = put(&e, &names::ObjectPath::new("manifest/readme").unwrap()).await;
    e.clock.advance(DAY);
    kept.insert(put(&e, &jobs_table(JobId(0xbaba), 0)).await);
    let (named_before, manifest_before) = (named(&e).await, objects(&e, "manifest").await);

    let swept = sweep(&e, &settings()).await;

    assert_eq!((swept.failed, swept.complete), (0, true), "{swept:?}");
    assert_eq!(swept.unknown_names, ["log/notes", "table/mine.txt"]);
    let expected: BTreeSet<String> = named_before.union(&kept).cloned().collect();
    assert_eq!(data(&e).await, expected);
    let manifest_after = objects(&e, "manifest").await;
    let gone: Vec<&String> = manifest_before.iter().filter(|p| !manifest_after.contains(p)).collect();
    let (checkpoints, others): (Vec<&String>, Vec<_>) =
        gone.into_iter().partition(|p| names::parse_checkpoint(p).is_some());
    assert_eq!(others, [&marker], "and {readme} is nobody's");
    assert_eq!(checkpoints.len(), 1, "behind the two that cover what the merge retired");
    let (now, last) = (e.db.env.clock.now(), scribe.manifest().last_seq);
    let manifest = e.db.load().await.unwrap().manifest;
    assert_eq!(tree::visible_at(&e.db, &manifest, last, now).await, first.visible_at(last, now));
}

/// An unacknowledged tail may be rolled forward by the next claim: it stays, however old. What arrives after the cut is
/// void, and goes once the later epoch has recorded itself.
#[tokio::test]
async fn the_uncommitted_tail_stays_until_a_later_epoch_has_decided() {
    let e = Embedded::new().await;
    let mut old = writer(&e).await;
    old.append(2).await;
    let tail = old.upload_next(2).await;
    e.coordination.expire_writer();
    e.clock.advance(DAY);
    assert_eq!(sweep(&e, &settings()).await.deleted, 0);
    let new = writer(&e).await;
    assert_eq!(new.at.manifest.tail.map(|t| t.id), tail.last().map(|t| t.id), "rolled forward");
    // The old one, which was only asleep, uploads what nobody will ever follow.
    let late = old.segment(new.at.manifest.tail, 3);
    old.upload(&late).await;
    assert_eq!(sweep(&e, &settings()).await.deleted, 0, "young");
    e.clock.advance(DAY);
    let swept = sweep(&e, &settings()).await;
    assert_eq!(swept.deleted, 1);
    assert_eq!(data(&e).await, named(&e).await);
}

/// Adopted in the head is not enough: if coordination is lost now, recover follows the old epoch's record.
#[tokio::test]
async fn a_segment_goes_only_after_the_later_epochs_record_stands() {
    let e = Embedded::new().await;
    let mut old = writer(&e).await;
    old.append(2).await;
    let new = writer(&e).await;
    let late = old.segment(new.at.manifest.tail, 1);
    old.upload(&late).await;
    let record = names::epoch(new.claim.epoch);
    let body = e.db.bucket.get(&record).await.unwrap();
    e.db.bucket.delete(&record).await.unwrap();
    e.clock.advance(DAY);
    assert_eq!(sweep(&e, &settings()).await.deleted, 0);
    e.db.bucket.put(&record, body.into()).await.unwrap();
    assert_eq!(sweep(&e, &settings()).await.deleted, 1);
}

/// Owners asleep past their leases and past every horizon: they wake, commit nothing and disturb nobody.
#[tokio::test]
async fn owners_that_wake_after_the_sweep_commit_nothing() {
    let e = Embedded::new().await;
    let mut sleeper = writer(&e).await;
    sleeper.append(1).await;
    let unacknowledged = sleeper.upload_next(1).await;
    let commit_of_the_sleeper = sleeper.propose(&unacknowledged);
    let job = JobId(0x10b);
    let output = put(&e, &jobs_table(job, 0)).await;
    let JobAttempt::Won(authority, _lease) = e.db.coordination.claim_job(job, &node("j")).await.unwrap()
    else {
        panic!("nobody has it")
    };
    let at = e.db.load().await.unwrap();
    let own = edit(&e.db, &at.manifest, Author::Job(job), Vec::new());
    let commit_of_the_job = commit::propose(&at.state, &at.manifest, own, &authority).unwrap();
    e.coordination.expire_job(job);
    let mut successor = writer(&e).await;
    let rolled = successor.at.manifest.tail.map(|t| t.last_seq);
    assert_eq!(rolled, unacknowledged.last().map(|s| s.last_seq), "the successor has adopted it");
    let void = sleeper.segment(successor.at.manifest.tail, 1);
    sleeper.upload(&void).await;
    successor.append(1).await;
    e.clock.advance(DAY);
    let swept = sweep(&e, &settings()).await;
    assert_eq!(swept.deleted, 2, "{swept:?}");
    assert!(!data(&e).await.contains(&output));

    let outcome = commit::commit(&e.db, &commit_of_the_job, deadline()).await;
    assert!(matches!(outcome, Resolved::Fenced(_)), "{outcome:?}");
    let outcome = commit::commit(&sleeper.db, &commit_of_the_sleeper, deadline()).await;
    assert!(matches!(outcome, Resolved::CommittedEarlier(_)), "it was rolled forward: {outcome:?}");
    let doomed = sleeper.propose_changes(vec![Change::AppendLog { segments: Vec::new() }]);
    let outcome = commit::commit(&sleeper.db, &doomed, deadline()).await;
    assert!(matches!(outcome, Resolved::Fenced(_)), "{outcome:?}");
    assert!(named(&e).await.is_subset(&data(&e).await), "everything named is there");
}

/// A job commits and gives its claim back while the sweep is listing: the head that is judged by is read after that.
#[tokio::test]
async fn what_is_committed_during_the_listing_stays() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    for n in 0..4 {
        scribe.append(&generation(n, e.db.env.clock.now())).await;
        scribe.flush().await;
    }
    let settings = CompactorSettings { orphan_age_seconds: 0, ..settings() };
    let gate = e.bucket.hold(Rule::on(Op::List).path("table"));
    let (db, own) = (e.process("compactor"), settings.clone());
    let sweeping =
        tokio::spawn(async move { Sweeper::default().pass(&db, &node("sweeper"), &own, false).await });
    gate.arrived(1).await;
    let limits = Limits { max_bytes: Some(u64::MAX), ..Limits::default() };
    let merging = once::once(e.process("compactor"), node("merger"), settings, limits);
    // Its own sweep finds the claim taken; everything before that is done.
    assert_eq!(merging.await.unwrap().merges, 1);
    gate.open();
    assert_eq!(sweeping.await.unwrap().unwrap().deleted, 0);
    assert!(named(&e).await.is_subset(&data(&e).await));
}

/// The checks come before any delete.
#[tokio::test]
async fn nothing_is_swept_under_a_head_that_is_not_the_newest() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    let backup = e.coordination.backup();
    for n in 0..2 {
        scribe.append(&generation(n, e.db.env.clock.now())).await;
        scribe.flush().await;
    }
    put(&e, &jobs_table(JobId(0xdead), 0)).await;
    isle_storage::coordination::fold::fold(&e.db, &scribe.loaded).await.unwrap();
    let newest = e.coordination.backup();
    e.clock.advance(DAY);
    e.coordination.restore(&backup);
    let before = data(&e).await;
    let (db, settings) = (e.process("compactor"), settings());
    let refused = Sweeper::default().pass(&db, &node("c"), &settings, false).await;
    assert!(matches!(refused, Err(JobError::Coordination(CoordinationError::Regressed(_)))), "{refused:?}");
    e.coordination.restore(&newest);
    recovered_elsewhere(&e).await;
    let refused = Sweeper::default().pass(&db, &node("c"), &settings, false).await;
    assert!(
        matches!(refused, Err(JobError::Coordination(CoordinationError::WrongDatabase(_)))),
        "{refused:?}"
    );
    assert_eq!(data(&e).await, before);
}

/// A pass is bounded and goes on where it stopped; what cannot be deleted holds back nothing and is tried again.
#[tokio::test]
async fn passes_are_bounded_go_on_and_come_to_an_end() {
    let (e, _scribe) = database_with_garbage().await;
    let mut orphans = Vec::new();
    for n in 0..50 {
        orphans.push(put(&e, &jobs_table(JobId(n), n)).await);
    }
    orphans.sort();
    e.clock.advance(DAY);
    for stubborn in &orphans[..7] {
        e.bucket.inject(Rule::on(Op::Delete).path(stubborn), Fault::Fail(StoreErrorKind::Permanent));
    }
    let settings = CompactorSettings { max_deletes_per_pass: 5, max_listed_per_pass: 1, ..settings() };
    let (db, mut sweeper) = (e.process("compactor"), Sweeper::default());
    let (mut deleted, mut failed, mut passes) = (0, 0, 0);
    loop {
        let swept = sweeper.pass(&db, &node("c"), &settings, false).await.unwrap();
        assert!(swept.deleted <= 5 + 1, "{swept:?}");
        (deleted, failed, passes) = (deleted + swept.deleted, failed + swept.failed, passes + 1);
        if swept.complete {
            break;
        }
        assert!(passes < 100, "a round must end");
    }
    // And a checkpoint behind the newest two.
    assert_eq!((deleted, failed), (43 + 1, 7), "{passes} passes");
    e.bucket.heal();
    let mut again = 0;
    for _ in 0..20 {
        again += sweeper.pass(&db, &node("c"), &settings, false).await.unwrap().deleted;
    }
    assert_eq!(again, 7);
    assert_eq!(data(&e).await, named(&e).await);
}

/// Nothing at all is written, claimed or deleted, and everything that would be is told with its reason.
#[tokio::test]
async fn a_dry_run_tells_everything_and_touches_nothing() {
    let (e, mut scribe) = database_with_garbage().await;
    for n in 0..4 {
        scribe.append(&generation(n, e.db.env.clock.now())).await;
        scribe.flush().await;
    }
    let settings = settings();
    for _ in 0..2 {
        crate::collect::pass(&e, &settings).await;
    }
    let orphan = put(&e, &jobs_table(JobId(0xdead), 0)).await;
    e.clock.advance(DAY);
    let (before, version) = (objects(&e, "").await, e.db.load().await.unwrap().manifest.version);
    let _forget = e.bucket.take_history();
    let limits = Limits { dry_run: true, ..Limits::default() };
    let run = once::once(e.process("compactor"), node("c"), settings.clone(), limits).await.unwrap();
    let writes = e.bucket.history().into_iter().filter(|h| matches!(h.op, Op::Put | Op::Create | Op::Delete));
    assert_eq!(writes.count(), 0);
    assert_eq!((objects(&e, "").await, run.version), (before, version.0));
    let planned = run.plan.unwrap();
    assert_eq!(planned.merge.map(|m| (m.runs.len(), m.reason)), Some((4, "l0")));
    assert_eq!(planned.sweep.iter().map(|o| o.object.clone()).collect::<Vec<_>>(), [orphan]);
    assert!(planned.collect.len() as u64 == run.deleted_objects && run.deleted_objects > 10);
    assert!(planned.collect.iter().chain(&planned.sweep).all(|o| !o.reason.is_empty()));
    // And then it is done.
    let done = once::once(e.process("compactor"), node("c"), settings, Limits::default()).await.unwrap();
    assert_eq!((done.merges, done.plan), (1, None));
    assert_eq!(data(&e).await, named(&e).await);
}

/// A merge whose process died: its uploads have no name anywhere but their own, and go.
#[tokio::test]
async fn what_a_dead_merge_left_is_found() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    for n in 0..4 {
        scribe.append(&generation(n, e.db.env.clock.now())).await;
        scribe.flush().await;
    }
    let planned = plan::merge(&e.db.load().await.unwrap().manifest, &settings()).unwrap();
    let gate = isle_testkit::fault::Gate::new();
    e.bucket.inject(Rule::on(Op::Put).path("table/*"), Fault::HoldAfter(gate.clone()));
    let compactor = Compactor::idle(e.process("compactor"), node("dying"), settings()).unwrap();
    let merging = tokio::spawn({
        let (compactor, planned) = (compactor.clone(), planned.clone());
        async move { compactor.merge(&planned, None).await }
    });
    gate.arrived(1).await;
    merging.abort();
    assert!(merging.await.unwrap_err().is_cancelled());
    e.bucket.heal();
    e.clock.advance(DAY);
    let left: Vec<String> = data(&e).await.difference(&named(&e).await).cloned().collect();
    assert!(!left.is_empty());
    assert_eq!(sweep(&e, &settings()).await.deleted, 0, "its claim still stands");
    e.coordination.expire_job(planned.job());
    assert_eq!(sweep(&e, &settings()).await.deleted, left.len() as u64);
    assert_eq!(data(&e).await, named(&e).await);
    compactor.close().await;
}

/// The daemon sweeps at its interval, first one interval after its start.
#[tokio::test(start_paused = true)]
async fn the_daemon_sweeps_at_its_interval() {
    let (e, _scribe) = database_with_garbage().await;
    let orphan = put(&e, &jobs_table(JobId(0xdead), 0)).await;
    e.clock.advance(DAY);
    let compactor = Compactor::open(e.process("compactor"), node("c"), settings()).unwrap();
    tokio::time::sleep(Duration::from_secs(3590)).await;
    assert!(data(&e).await.contains(&orphan));
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!data(&e).await.contains(&orphan));
    let status = compactor.status();
    assert_eq!((status.swept, status.trouble.len()), (1, 0), "{status:?}");
    assert!(compactor.database().env.metrics.encode().contains("outcome=\"swept\""));
    compactor.close().await;
}

/// A run of cron that has nothing but orphans to do says that it did something.
#[tokio::test]
async fn a_single_run_sweeps_too() {
    let e = Embedded::new().await;
    let _scribe = Scribe::take_over(&e.db).await;
    put(&e, &jobs_table(JobId(0xdead), 0)).await;
    e.clock.advance(DAY);
    let run = once::once(e.process("compactor"), node("c"), settings(), Limits::default()).await.unwrap();
    assert_eq!((run.outcome, run.swept_objects), (Outcome::Done, 1));
    let run = once::once(e.process("compactor"), node("c"), settings(), Limits::default()).await.unwrap();
    assert_eq!((run.outcome, run.swept_objects), (Outcome::NothingToDo, 0));
}
