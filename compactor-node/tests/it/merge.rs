//! Merges: what a reader sees stays the same, and only what nobody can see goes.

use std::time::Duration;

use compactor_node::{Compactor, CompactorSettings};
use isle_storage::coordination::NodeInfo;
use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::manifest::{Change, Snapshot};
use isle_storage::object::StoreErrorKind;
use isle_testkit::embedded::Embedded;
use isle_testkit::fault::{Fault, Op, Rule};
use isle_testkit::scribe::{Entry, Scribe};

use crate::tree;

pub(crate) fn node(name: &str) -> NodeInfo {
    NodeInfo { node: name.to_owned(), advertise: format!("http://{name}") }
}

/// Small enough that a few hundred rows make a real tree.
pub(crate) fn settings() -> CompactorSettings {
    CompactorSettings {
        table_bytes: 64 << 10,
        block_bytes: 512,
        read_ahead_bytes: 2048,
        upload_bytes_in_flight: 64 << 10,
        backoff_seconds: (0.001, 0.01),
        ..CompactorSettings::default()
    }
}

/// Overwrites, deletes and expiries over a small key space, so that every generation touches every other's keys.
pub(crate) fn generation(n: u64, clock: Timestamp) -> Vec<Entry> {
    (0..200u64)
        .map(|i| {
            let key = format!("key/{:03}", (i * 37 + n * 11) % 150);
            match (i + n) % 7 {
                0 => Entry::delete(key),
                1 => Entry {
                    expires: Some(clock.plus(Duration::from_secs(60 * (n + 1)))),
                    ..Entry::put(key, format!("short-lived {n}/{i}"))
                },
                _ => Entry::put(key, format!("value {n}/{i} {}", "x".repeat((i % 50) as usize))),
            }
        })
        .collect()
}

async fn wait_for_runs(compactor: &Compactor, most: usize) {
    let mut view = compactor.current();
    let settled = view.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.runs.len() <= most));
    tokio::time::timeout(Duration::from_secs(60), settled).await.expect("the tree never settled").unwrap();
}

/// A merged run never rises above newer ones, deletes and expired rows never let older versions reappear.
#[tokio::test]
async fn what_a_reader_sees_is_the_same_before_and_after() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    let compactor = Compactor::open(e.process("compactor"), node("c"), settings()).unwrap();
    for n in 0..30 {
        let entries = generation(n, e.db.env.clock.now());
        scribe.append(&entries).await;
        scribe.flush().await;
        e.clock.advance(Duration::from_secs(30));
        let version = scribe.manifest().version;
        compactor
            .current()
            .wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.version >= version))
            .await
            .unwrap();
        wait_for_runs(&compactor, 8).await;
    }
    compactor.close().await;
    let now = e.db.env.clock.now();
    let manifest = e.db.load().await.unwrap().manifest;
    let last = manifest.last_seq;
    assert!(compactor.status().merges > 3, "{:?}", compactor.status());
    assert_eq!(tree::visible_at(&e.db, &manifest, last, now).await, scribe.visible_at(last, now));
}

#[tokio::test]
async fn at_the_bottom_deletes_expired_rows_and_old_versions_are_gone() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    for n in 0..3 {
        let entries = generation(n, e.db.env.clock.now());
        scribe.append(&entries).await;
        scribe.flush().await;
    }
    e.clock.advance(Duration::from_secs(24 * 3600));
    let compactor = Compactor::open(e.process("compactor"), node("c"), settings()).unwrap();
    compactor.compact();
    wait_for_runs(&compactor, 1).await;
    compactor.close().await;
    let now = e.db.env.clock.now();
    let manifest = e.db.load().await.unwrap().manifest;
    let visible = scribe.visible_at(manifest.last_seq, now);
    assert_eq!(tree::rows(&e.db, &manifest).await.len(), visible.len(), "something nobody can see was kept");
    assert_eq!(tree::visible_at(&e.db, &manifest, manifest.last_seq, now).await, visible);
    assert_eq!(manifest.history_floor, manifest.last_seq);
}

/// An expiry that has only just passed may not have passed on another host's clock.
#[tokio::test]
async fn an_expired_row_stays_for_the_clock_skew() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    let expires = Some(e.db.env.clock.now().plus(Duration::from_secs(100)));
    scribe.append(&[Entry { expires, ..Entry::put("k", "v") }]).await;
    scribe.flush().await;
    e.clock.advance(Duration::from_secs(105));
    let compactor = Compactor::open(e.process("compactor"), node("c"), settings()).unwrap();
    compactor.compact();
    let mut view = compactor.current();
    view.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.runs.iter().all(|r| !r.l0))).await.unwrap();
    compactor.close().await;
    let manifest = e.db.load().await.unwrap().manifest;
    assert_eq!(tree::rows(&e.db, &manifest).await.len(), 1);
}

#[tokio::test]
async fn a_snapshot_keeps_seeing_what_it_saw() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    let now = e.db.env.clock.now();
    let mut held = Vec::new();
    for n in 0..4u64 {
        scribe.append(&generation(n, now)).await;
        scribe.flush().await;
        let seq = scribe.manifest().last_seq;
        let snapshot =
            Snapshot { seq, created: now, expires: None, holds_log: false, extra: Default::default() };
        scribe.commit(vec![Change::TakeSnapshot { name: format!("s{n}"), snapshot }]).await;
        held.push((seq, scribe.visible_at(seq, now)));
    }
    let compactor = Compactor::open(e.process("compactor"), node("c"), settings()).unwrap();
    compactor.compact();
    wait_for_runs(&compactor, 1).await;
    compactor.close().await;
    let manifest = e.db.load().await.unwrap().manifest;
    for (seq, expected) in held {
        assert_eq!(tree::visible_at(&e.db, &manifest, seq, now).await, expected, "at {seq}");
    }
    let stored = tree::rows(&e.db, &manifest).await.len();
    assert!(stored < scribe.history.len(), "versions between snapshots were kept");
}

/// A snapshot reads at the instant at which it was taken: what expires after that stays for it through every merge, and
/// goes with the first one after its end. It ends by itself some time after its own expiry.
#[tokio::test]
async fn rows_that_expire_after_a_snapshot_was_taken_stay_until_it_ends() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    let now = e.db.env.clock.now();
    for n in 0..3u64 {
        scribe.append(&generation(n, now)).await;
        scribe.flush().await;
    }
    let seq = scribe.manifest().last_seq;
    let expires = Some(now.plus(Duration::from_secs(7 * 24 * 3600)));
    let snapshot = Snapshot { seq, created: now, expires, holds_log: false, extra: Default::default() };
    scribe.commit(vec![Change::TakeSnapshot { name: "s".to_owned(), snapshot }]).await;
    let seen = scribe.visible_at(seq, now);
    e.clock.advance(Duration::from_secs(24 * 3600));
    assert!(scribe.visible_at(seq, e.db.env.clock.now()).len() < seen.len(), "much has expired since");
    scribe.append(&[Entry::put("new", "row")]).await;
    scribe.flush().await;

    let compactor = Compactor::open(e.process("compactor"), node("c"), settings()).unwrap();
    compactor.compact();
    wait_for_runs(&compactor, 1).await;
    let manifest = e.db.load().await.unwrap().manifest;
    assert!(manifest.runs.iter().all(|r| !r.l0));
    assert_eq!(tree::visible_at(&e.db, &manifest, seq, now).await, seen);

    e.clock.advance(Duration::from_secs(6 * 24 * 3600 + 60));
    scribe.append(&[Entry::put("newer", "row")]).await;
    scribe.flush().await;
    let mut view = compactor.current();
    let ended = view.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.snapshots.is_empty()));
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the snapshot never ended").unwrap();
    compactor.compact();
    wait_for_runs(&compactor, 1).await;
    compactor.close().await;
    let (manifest, now) = (e.db.load().await.unwrap().manifest, e.db.env.clock.now());
    let visible = scribe.visible_at(manifest.last_seq, now);
    assert_eq!(tree::rows(&e.db, &manifest).await.len(), visible.len(), "what only it held is gone");
}

/// A snapshot taken while a merge is under way: the merge was planned without it and must not be committed.
#[tokio::test]
async fn a_merge_planned_before_a_snapshot_is_thrown_away() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    let now = e.db.env.clock.now();
    for n in 0..4 {
        scribe.append(&generation(n, now)).await;
        scribe.flush().await;
    }
    let seq = scribe.manifest().last_seq;
    let expected = scribe.visible_at(seq, now);
    let gate = e.bucket.hold(Rule::on(Op::Put).path("table/*"));
    let compactor = Compactor::open(e.process("compactor"), node("c"), settings()).unwrap();
    gate.arrived(1).await;
    let snapshot = Snapshot { seq, created: now, expires: None, holds_log: false, extra: Default::default() };
    scribe.commit(vec![Change::TakeSnapshot { name: "late".to_owned(), snapshot }]).await;
    scribe.append(&generation(9, now)).await;
    gate.open();
    scribe.flush().await;
    wait_for_runs(&compactor, 2).await;
    compactor.close().await;
    let manifest = e.db.load().await.unwrap().manifest;
    assert_eq!(tree::visible_at(&e.db, &manifest, seq, now).await, expected);
}

#[tokio::test]
async fn a_failed_upload_is_retried_later_and_leaves_no_orphan() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    let now = e.db.env.clock.now();
    for n in 0..4 {
        scribe.append(&generation(n, now)).await;
        scribe.flush().await;
    }
    e.bucket.inject(Rule::on(Op::Put).path("table/*").times(2), Fault::Fail(StoreErrorKind::Transient));
    let compactor = Compactor::open(e.process("compactor"), node("c"), settings()).unwrap();
    wait_for_runs(&compactor, 1).await;
    compactor.close().await;
    let manifest = e.db.load().await.unwrap().manifest;
    let last = manifest.last_seq;
    assert_eq!(tree::visible_at(&e.db, &manifest, last, now).await, scribe.visible_at(last, now));
    assert_no_orphans(&e).await;
}

/// A damaged input is an error, and the tree stays as it was.
#[tokio::test]
async fn a_damaged_input_is_refused() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    for n in 0..4 {
        scribe.append(&generation(n, e.db.env.clock.now())).await;
        scribe.flush().await;
    }
    e.bucket.inject(Rule::on(Op::Get).path("table/*").nth(5), Fault::FlipBit(3));
    let settings = CompactorSettings { backoff_seconds: (3600.0, 3600.0), ..settings() };
    let compactor = Compactor::open(e.process("compactor"), node("c"), settings).unwrap();
    while !compactor.status().trouble.contains_key("merge") {
        tokio::task::yield_now().await;
    }
    let trouble = compactor.status().trouble["merge"].clone();
    assert!(trouble.contains("table/"), "{trouble}");
    compactor.close().await;
    assert_eq!(e.db.load().await.unwrap().manifest.runs.len(), 4);
    assert_no_orphans(&e).await;
}

/// Two compactors over one database: every merge is done once.
#[tokio::test]
async fn two_compactors_share_the_work_without_harm() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    let now = e.db.env.clock.now();
    let a = Compactor::open(e.process("compactor"), node("a"), settings()).unwrap();
    let b = Compactor::open(e.process("compactor"), node("b"), settings()).unwrap();
    for n in 0..20 {
        scribe.append(&generation(n, now)).await;
        scribe.flush().await;
    }
    wait_for_runs(&a, 8).await;
    a.close().await;
    b.close().await;
    let manifest = e.db.load().await.unwrap().manifest;
    let last = manifest.last_seq;
    assert_eq!(tree::visible_at(&e.db, &manifest, last, now).await, scribe.visible_at(last, now));
}

#[tokio::test]
async fn pause_stops_merges_and_resume_starts_them_again() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    let compactor = Compactor::open(e.process("compactor"), node("c"), settings()).unwrap();
    compactor.pause(None).await.unwrap();
    for n in 0..5 {
        scribe.append(&generation(n, e.db.env.clock.now())).await;
        scribe.flush().await;
    }
    let version = scribe.manifest().version;
    compactor
        .current()
        .wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.version >= version))
        .await
        .unwrap();
    assert_eq!(compactor.status().merges, 0);
    compactor.resume().await.unwrap();
    wait_for_runs(&compactor, 2).await;
    compactor.close().await;
}

async fn assert_no_orphans(e: &Embedded) {
    use futures::TryStreamExt;
    let manifest = e.db.load().await.unwrap().manifest;
    let mut known: Vec<String> = manifest.tables().map(|t| t.path().to_string()).collect();
    known.extend(manifest.retired.iter().map(|r| r.path.to_string()));
    let there: Vec<_> = e.db.bucket.list("table").try_collect().await.unwrap();
    for object in there {
        assert!(known.contains(&object.path), "{} is named by nobody", object.path);
    }
}

/// The newest sequence number survives a tree that has become empty.
#[tokio::test]
async fn a_tree_of_only_deletes_becomes_empty_and_the_counter_stays() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.append(&[Entry::put("a", "1"), Entry::delete("a")]).await;
    scribe.flush().await;
    let compactor = Compactor::open(e.process("compactor"), node("c"), settings()).unwrap();
    compactor.compact();
    let mut view = compactor.current();
    view.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.version > scribe.manifest().version))
        .await
        .unwrap();
    compactor.close().await;
    let manifest = e.db.load().await.unwrap().manifest;
    assert!(manifest.runs.is_empty());
    assert_eq!(manifest.last_seq, SeqNo(2));
}
