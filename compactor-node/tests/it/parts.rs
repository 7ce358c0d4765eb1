//! Merges in parts: the same content, whoever does which part, whoever dies when.

use std::sync::Arc;
use std::time::Duration;

use compactor_node::once::{self, Limits, Outcome};
use compactor_node::{Compactor, CompactorSettings, JobError};
use isle_storage::coordination::JobAttempt;
use isle_storage::database::Database;
use isle_storage::ids::Timestamp;
use isle_storage::manifest::{Change, CompactionMode, Manifest, Snapshot};
use isle_testkit::embedded::Embedded;
use isle_testkit::fault::{Fault, Op, Rule};
use isle_testkit::scribe::{Entry, Scribe};

use crate::merge::{generation, node};
use crate::objects::{data, named};
use crate::tree;

/// Parts of a few tables.
fn settings() -> CompactorSettings {
    CompactorSettings { part_bytes: 64 << 10, merge_workers: 1, ..crate::merge::settings() }
}

/// A generation of about 200 KiB that overlaps every other.
pub(crate) fn large(n: u64, e: &Embedded) -> Vec<Entry> {
    let mut entries = generation(n, e.db.env.clock.now());
    entries.extend((0..400u64).map(|i| {
        let noise: String =
            (0..60).map(|j| char::from(b'a' + ((i * 7919 + j * j + n * 31) % 26) as u8)).collect();
        Entry::put(format!("large/{:03}", (i * 13 + n) % 400), format!("{noise}{n}/{i}/{noise}").repeat(4))
    }));
    entries
}

async fn backlog() -> (Embedded, Scribe) {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    for n in 0..4 {
        scribe.append(&large(n, &e)).await;
        scribe.flush().await;
    }
    (e, scribe)
}

async fn manifest(db: &Database) -> Arc<Manifest> {
    db.load().await.unwrap().manifest
}

fn idle(e: &Embedded, name: &str) -> Compactor {
    Compactor::idle(e.process("compactor"), node(name), settings()).unwrap()
}

fn parts_of(bytes: u64) -> Limits {
    Limits { max_bytes: Some(bytes), ..Limits::default() }
}

/// Enough for half of the parts.
async fn half(e: &Embedded) -> Limits {
    parts_of(manifest(&e.db).await.runs.iter().map(|r| r.len_bytes()).sum::<u64>() / 2)
}

async fn run(e: &Embedded, name: &str, limits: Limits) -> once::Summary {
    once::once(e.process("compactor"), node(name), settings(), limits).await.unwrap()
}

async fn assert_same_and_nothing_left(e: &Embedded, scribe: &Scribe) {
    let now = e.db.env.clock.now();
    let m = manifest(&e.db).await;
    assert!(m.staged.is_empty());
    assert_eq!(tree::visible_at(&e.db, &m, m.last_seq, now).await, scribe.visible_at(m.last_seq, now));
    assert_eq!(data(e).await, named(e).await);
}

/// A run whose bytes are used up in the middle of a split merge leaves parts, and says so; the next goes on and does no
/// part again.
#[tokio::test]
async fn a_limit_in_the_middle_leaves_parts_and_the_next_run_goes_on() {
    let (e, scribe) = backlog().await;
    let first = run(&e, "a", half(&e).await).await;
    assert_eq!((first.outcome, first.merges), (Outcome::WorkLeft, 0), "{first:?}");
    let m = manifest(&e.db).await;
    let staged = m.staged.values().next().unwrap();
    assert!(first.parts > 0 && staged.parts.len() as u64 == first.parts, "{first:?}");
    assert_eq!(m.runs.len(), 4, "what is staged is not read");
    let kept: Vec<String> = staged.tables().map(|t| t.name.clone()).collect();
    let left = u64::from(staged.part_count()) - first.parts;
    let second = run(&e, "b", Limits::default()).await;
    assert_eq!((second.outcome, second.merges, second.parts), (Outcome::Done, 1, left), "{second:?}");
    let m = manifest(&e.db).await;
    assert_eq!(m.runs.len(), 1);
    assert!(kept.iter().all(|name| m.tables().any(|t| t.name == *name)), "a part was done again");
    assert_same_and_nothing_left(&e, &scribe).await;
    let third = run(&e, "c", Limits::default()).await;
    assert_eq!((third.outcome.exit_code(), third.merges + third.parts), (0, 0), "{third:?}");
}

/// Several compactors, each with several workers, take different parts, and readers see one tree all the time.
#[tokio::test]
async fn a_fleet_shares_one_merge() {
    let (e, scribe) = backlog().await;
    let fleet: Vec<Compactor> = (0..3)
        .map(|i| {
            let settings = CompactorSettings { merge_workers: 2, ..settings() };
            Compactor::open(e.process("compactor"), node(&format!("c{i}")), settings).unwrap()
        })
        .collect();
    let mut view = fleet[0].current();
    let done = view.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.runs.len() == 1));
    tokio::time::timeout(Duration::from_secs(60), done).await.expect("never merged").unwrap();
    for compactor in &fleet {
        compactor.close().await;
    }
    let (parts, merges) =
        fleet.iter().map(Compactor::status).fold((0, 0), |sum, s| (sum.0 + s.parts, sum.1 + s.merges));
    assert!(parts >= 3 && merges == 1, "{parts} parts, {merges} merges");
    assert_same_and_nothing_left(&e, &scribe).await;
}

/// A worker dies in the middle of a part: its claim expires, and only that part is done again.
#[tokio::test]
async fn a_dead_workers_part_is_done_by_another_and_no_other_part_is() {
    let (e, scribe) = backlog().await;
    let begun = run(&e, "a", parts_of(100 << 10)).await;
    assert_eq!(begun.outcome, Outcome::WorkLeft);
    let before = manifest(&e.db).await;
    let (merge, staged) = before.staged.iter().next().unwrap();
    let staged_before = staged.parts.len();
    let gate = e.bucket.hold(Rule::on(Op::Put).path("table/*"));
    let dying = Compactor::open(e.process("compactor"), node("dying"), settings()).unwrap();
    gate.arrived(1).await;
    // Its process is gone with everything it has in memory; its claim is not.
    let part = staged.missing().next().unwrap();
    let job = compactor_node::parts::part_job(*merge, part);
    let living = run(&e, "b", parts_of(0)).await;
    assert_eq!(living.outcome, Outcome::WorkLeft);
    assert!(e.db.coordination.job_is_claimed(job).await.unwrap());
    e.coordination.expire_job(job);
    gate.open();
    e.bucket.heal();
    dying.close().await;
    let m = manifest(&e.db).await;
    assert!(m.staged.values().all(|s| s.parts.len() == staged_before), "the dead one staged nothing");
    let rest = run(&e, "b", Limits::default()).await;
    assert_eq!((rest.outcome, rest.merges), (Outcome::Done, 1), "{rest:?}");
    assert_eq!(rest.parts, u64::from(staged.part_count()) - staged_before as u64);
    assert_same_and_nothing_left(&e, &scribe).await;
}

/// Two did the same part (the first had lost its claim and did not know): one is staged, the other takes its tables back.
#[tokio::test]
async fn the_loser_of_a_part_takes_its_own_tables_back() {
    let (e, scribe) = backlog().await;
    run(&e, "a", parts_of(100 << 10)).await;
    let before = manifest(&e.db).await;
    let (merge, staged) = before.staged.iter().next().unwrap();
    let job = compactor_node::parts::part_job(*merge, staged.missing().next().unwrap());
    let gate =
        e.bucket.hold(Rule::on(Op::Put).path("table/*").when(move |_, path| path.contains(&job.to_string())));
    let slow = Compactor::open(e.process("compactor"), node("slow"), settings()).unwrap();
    gate.arrived(1).await;
    e.coordination.expire_job(job);
    let JobAttempt::Won(_, lease) = e.db.coordination.claim_job(job, &node("b")).await.unwrap() else {
        panic!("it has expired")
    };
    lease.give_back().await;
    gate.open();
    e.bucket.heal();
    slow.close().await;
    let rest = run(&e, "b", Limits::default()).await;
    assert!(matches!(rest.outcome, Outcome::Done | Outcome::NothingToDo), "{rest:?}");
    assert_eq!(manifest(&e.db).await.runs.len(), 1);
    assert_same_and_nothing_left(&e, &scribe).await;
}

/// What others have claimed is left alone, and the summary says so.
#[tokio::test]
async fn parts_claimed_by_others_are_left_to_them() {
    let (e, _scribe) = backlog().await;
    run(&e, "a", parts_of(100 << 10)).await;
    let m = manifest(&e.db).await;
    let (merge, staged) = m.staged.iter().next().unwrap();
    let mut leases = Vec::new();
    for part in staged.missing() {
        let job = compactor_node::parts::part_job(*merge, part);
        match e.db.coordination.claim_job(job, &node("other")).await.unwrap() {
            JobAttempt::Won(_, lease) => leases.push(lease),
            JobAttempt::HeldBy(who) => panic!("held by {who}"),
        }
    }
    let idle = run(&e, "b", Limits::default()).await;
    assert_eq!((idle.outcome, idle.parts), (Outcome::ClaimedElsewhere, 0));
    assert_eq!(idle.outcome.exit_code(), 4);
}

/// A snapshot below the inputs' newest number, or another mode: the merge ends, what it had staged is retired.
#[tokio::test]
async fn a_merge_that_has_become_wrong_ends_and_leaves_nothing() {
    for mode in [false, true] {
        let (e, mut scribe) = backlog().await;
        run(&e, "a", half(&e).await).await;
        let m = manifest(&e.db).await;
        assert!(m.staged.values().any(|s| s.tables().count() > 0));
        let seq = scribe.manifest().runs[2].max_seq();
        let created = e.db.env.clock.now();
        let snapshot = Snapshot { seq, created, expires: None, holds_log: false, extra: Default::default() };
        let change = match mode {
            true => Change::SetCompaction {
                compaction: CompactionMode::Fifo { retention_us: i64::MAX / 2, retention_count: 100 },
            },
            false => Change::TakeSnapshot { name: "old".to_owned(), snapshot },
        };
        let held = scribe.visible_at(seq, created);
        scribe.commit(vec![change]).await;
        let ended = manifest(&e.db).await;
        assert!(ended.staged.is_empty() && ended.runs.len() == 4);
        assert_eq!(data(&e).await, named(&e).await);
        if !mode {
            let again = run(&e, "b", Limits::default()).await;
            assert_eq!((again.outcome, again.merges), (Outcome::Done, 1));
            let m = manifest(&e.db).await;
            assert_eq!(tree::visible_at(&e.db, &m, seq, created).await, held);
        }
        assert_same_and_nothing_left(&e, &scribe).await;
    }
}

/// Rows expire while a merge is done in parts. All parts judge by the instant of its beginning, so a snapshot of that
/// instant or later leaves it alone and loses nothing; an earlier one ends it.
#[tokio::test]
async fn a_snapshot_of_the_present_does_not_end_a_merge_of_rows_that_expire() {
    for early in [false, true] {
        let (e, mut scribe) = backlog().await;
        let began = e.db.env.clock.now();
        let put = |key: &str, seconds| Entry {
            expires: Some(began.plus(Duration::from_secs(seconds))),
            ..Entry::put(key, "no newer version hides it")
        };
        scribe.append(&[put("a/before", 100), put("a/meanwhile", 200), put("z/meanwhile", 200)]).await;
        scribe.flush().await;
        e.clock.advance(Duration::from_secs(150));
        run(&e, "a", half(&e).await).await;
        let m = manifest(&e.db).await;
        let by = m.staged.values().next().unwrap().expiry.clone().unwrap().by.unwrap();
        assert!(m.runs.iter().flat_map(|r| &r.tables).any(|t| t.min_expires.is_some_and(|e| e <= by)));
        e.clock.advance(Duration::from_secs(80));
        let created = if early { Timestamp(by.0 - 1) } else { by };
        let snapshot =
            Snapshot { seq: m.last_seq, created, expires: None, holds_log: false, extra: Default::default() };
        scribe.commit(vec![Change::TakeSnapshot { name: "s".to_owned(), snapshot }]).await;
        let shown = scribe.visible_at(m.last_seq, created);
        assert_eq!(manifest(&e.db).await.staged.is_empty(), early);
        let rest = run(&e, "b", Limits::default()).await;
        assert_eq!((rest.outcome, rest.merges), (Outcome::Done, 1), "{rest:?}");
        let m = manifest(&e.db).await;
        assert_eq!(tree::visible_at(&e.db, &m, m.last_seq, created).await, shown);
        assert_same_and_nothing_left(&e, &scribe).await;
        if !early {
            assert_eq!(m.expiry_floor, Some(began.plus(Duration::from_secs(100))));
        }
    }
}

/// An input of a merge in parts is damaged: whoever meets it abandons the merge, leaves the run alone for a while, shows it,
/// and goes on with other work. The object put right, everything is merged.
#[tokio::test(start_paused = true)]
async fn a_damaged_input_holds_up_nothing_but_itself() {
    let (e, mut scribe) = backlog().await;
    let before = run(&e, "a", parts_of(100 << 10)).await;
    assert_eq!(before.outcome, Outcome::WorkLeft);
    let m = manifest(&e.db).await;
    for n in 4..8 {
        scribe.append(&large(n, &e)).await;
        scribe.flush().await;
    }
    // Of a part that nobody has done.
    let table = m.runs.last().unwrap().tables.last().unwrap().path();
    e.bucket.inject(Rule::on(Op::Get).path(table.as_str()), Fault::FlipBit(3));
    let settings = CompactorSettings { tier_width: 2, ..settings() };
    let compactor = Compactor::open(e.process("compactor"), node("c"), settings).unwrap();
    let mut view = compactor.current();
    let settled = view
        .wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.runs.len() == 2 && c.manifest.staged.is_empty()));
    tokio::time::timeout(Duration::from_secs(50), settled).await.expect("other work waits").unwrap();
    let status = compactor.status();
    let [damaged] = &status.damaged[..] else { panic!("{status:?}") };
    assert_eq!((&damaged.object[..], damaged.failures), (table.as_str(), 1));
    assert!(damaged.retry_in_seconds > 0.0 && status.trouble.contains_key("damage"), "{status:?}");
    let m = manifest(&e.db).await;
    assert!(m.runs[1].tables.last().is_some_and(|t| t.path() == table));
    e.bucket.heal();
    view.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.runs.len() == 1)).await.unwrap();
    while !compactor.status().damaged.is_empty() {
        tokio::task::yield_now().await;
    }
    compactor.close().await;
    assert_same_and_nothing_left(&e, &scribe).await;
}

/// A run of cron does all that is possible without the damaged table, and fails in the end.
#[tokio::test]
async fn a_run_meets_damage_does_the_rest_and_says_so() {
    let (e, mut scribe) = backlog().await;
    let oldest = manifest(&e.db).await.runs[3].tables[0].path();
    for n in 4..8 {
        scribe.append(&large(n, &e)).await;
        scribe.flush().await;
    }
    e.bucket.inject(Rule::on(Op::Get).path(oldest.as_str()), Fault::FlipBit(3));
    let failed = run(&e, "a", Limits::default()).await;
    assert_eq!((failed.outcome, failed.outcome.exit_code()), (Outcome::Failed, 1));
    assert!(failed.error.as_ref().is_some_and(|why| why.contains(oldest.as_str())), "{failed:?}");
    let m = manifest(&e.db).await;
    assert!(m.staged.is_empty() && m.runs.len() == 2, "{} runs", m.runs.len());
    e.bucket.heal();
    let two = CompactorSettings { tier_width: 2, ..settings() };
    let rest = once::once(e.process("compactor"), node("b"), two, Limits::default()).await.unwrap();
    assert_eq!((rest.outcome, manifest(&e.db).await.runs.len()), (Outcome::Done, 1));
    assert_same_and_nothing_left(&e, &scribe).await;
}

/// Nobody came back to it: its inputs are free again.
#[tokio::test]
async fn a_forsaken_merge_is_given_up() {
    let (e, scribe) = backlog().await;
    run(&e, "a", half(&e).await).await;
    assert!(!manifest(&e.db).await.staged.is_empty());
    e.clock.advance(Duration::from_secs(8 * 24 * 3600));
    run(&e, "b", parts_of(0)).await;
    assert_same_and_nothing_left(&e, &scribe).await;
    assert_eq!(manifest(&e.db).await.runs.len(), 4);
}

/// A pause is the database's: other processes keep to it, runs of cron say so, and it outlives whoever asked.
#[tokio::test(start_paused = true)]
async fn a_pause_holds_for_the_fleet_and_outlives_its_maker() {
    let (e, scribe) = backlog().await;
    let asked = idle(&e, "asked");
    asked.pause(Some(Duration::from_secs(3600))).await.unwrap();
    let paused = e.db.load().await.unwrap();
    assert_eq!(
        paused.state.head.checkpoint.version, paused.manifest.version,
        "a recover would not know the pause"
    );
    assert!(matches!(asked.pause(Some(Duration::MAX)).await, Err(JobError::Refused(_))));
    asked.close().await;
    let daemon = Compactor::open(e.process("compactor"), node("daemon"), settings()).unwrap();
    let cron = run(&e, "cron", Limits::default()).await;
    assert_eq!((cron.outcome, cron.paused, cron.merges), (Outcome::WorkLeft, true, 0));
    let mut view = daemon.current();
    view.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.pause.is_some())).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let status = daemon.status();
    assert!(status.paused && status.merging.is_none() && status.merges == 0, "{status:?}");
    assert_eq!(status.pause.map(|p| p.by), Some("asked".to_owned()));
    // It ends by itself: the wall clock first, or a worker that wakes too early would have to look again.
    e.clock.advance(Duration::from_secs(3600));
    view.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.runs.len() == 1)).await.unwrap();
    assert!(!daemon.status().paused);
    daemon.close().await;
    assert_same_and_nothing_left(&e, &scribe).await;
}

/// Rows that never meet are not written again: the merged run names the inputs' own tables.
#[tokio::test]
async fn tables_that_nothing_overlaps_stay_as_they_are() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.table_bytes = 1 << 20;
    for n in 0..4u64 {
        let mut x = 0x9e37_79b9_7f4a_7c15 + n;
        let mut noise = |_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_le_bytes()
        };
        let entries: Vec<Entry> = (0..200)
            .map(|i| Entry::put(format!("{n}/{i:04}"), (0..50).flat_map(&mut noise).collect::<Vec<u8>>()))
            .collect();
        scribe.append(&entries).await;
        scribe.flush().await;
    }
    let before: Vec<String> = manifest(&e.db).await.tables().map(|t| t.name.clone()).collect();
    let _forget = e.bucket.take_history();
    let whole = CompactorSettings { part_bytes: 1 << 30, ..settings() };
    let done = once::once(e.process("compactor"), node("a"), whole, Limits::default()).await.unwrap();
    assert_eq!((done.outcome, done.bytes_written), (Outcome::Done, 0));
    assert_eq!(e.bucket.count(Op::Put, "table/*"), 0);
    let m = manifest(&e.db).await;
    let mut after: Vec<String> = m.tables().map(|t| t.name.clone()).collect();
    after.reverse();
    assert_eq!((m.runs.len(), after), (1, before));
    assert_same_and_nothing_left(&e, &scribe).await;
}
