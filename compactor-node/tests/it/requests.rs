//! Requests to merge everything: done in full, done once, and in nobody's way.

use std::time::Duration;

use compactor_node::once::{self, Limits};
use compactor_node::{Compactor, CompactorSettings};
use isle_storage::manifest::{Change, Snapshot};
use isle_testkit::embedded::Embedded;
use isle_testkit::fault::{Fault, Op, Rule};
use isle_testkit::scribe::Scribe;

use crate::merge::{generation, node, settings};
use crate::parts::large;
use crate::tree;

async fn flush(e: &Embedded, scribe: &mut Scribe, generations: std::ops::Range<u64>) {
    for n in generations {
        scribe.append(&generation(n, e.db.env.clock.now())).await;
        scribe.flush().await;
    }
}

async fn assert_same(e: &Embedded, scribe: &Scribe) {
    let (m, now) = (e.db.load().await.unwrap().manifest, e.db.env.clock.now());
    assert_eq!(tree::visible_at(&e.db, &m, m.last_seq, now).await, scribe.visible_at(m.last_seq, now));
}

/// Rows that have yet to expire, and deletes that a snapshot keeps, stay in the one run, which is no reason to write it
/// again.
#[tokio::test(start_paused = true)]
async fn a_request_is_done_once_where_nothing_more_can_be_dropped() {
    for snapshot in [false, true] {
        let e = Embedded::new().await;
        let mut scribe = Scribe::take_over(&e.db).await;
        for n in 0..3 {
            scribe.append(&large(n, &e)).await;
            scribe.flush().await;
            if snapshot && n == 1 {
                let (seq, created) = (scribe.manifest().last_seq, e.db.env.clock.now());
                let held =
                    Snapshot { seq, created, expires: None, holds_log: false, extra: Default::default() };
                scribe.commit(vec![Change::TakeSnapshot { name: "held".to_owned(), snapshot: held }]).await;
            }
        }
        // Whoever goes on for ever comes to rest here.
        e.bucket.inject(Rule::on(Op::Put).path("table/*").after(200), Fault::Hang);
        let settings = CompactorSettings { part_bytes: 64 << 10, ..settings() };
        let compactor = Compactor::open(e.process("compactor"), node("c"), settings).unwrap();
        compactor.compact();
        tokio::time::sleep(Duration::from_secs(600)).await;
        let (m, status) = (e.db.load().await.unwrap().manifest, compactor.status());
        let left = (m.tables().any(|t| t.deletes > 0), m.tables().any(|t| t.min_expires.is_some()));
        assert_eq!(left, (snapshot, true), "what is left cannot go yet");
        assert_eq!((m.runs.len(), status.merges, status.merging), (1, 1, None));
        assert!(status.parts >= 2, "{} parts", status.parts);
        compactor.close().await;
        assert_same(&e, &scribe).await;
    }
}

/// A merge that was under way when the request came is not what was asked for.
#[tokio::test(start_paused = true)]
async fn a_request_is_not_done_by_the_merge_it_finds() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    flush(&e, &mut scribe, 0..4).await;
    once::once(e.process("compactor"), node("c"), settings(), Limits::default()).await.unwrap();
    flush(&e, &mut scribe, 4..8).await;
    let gate = e.bucket.hold(Rule::on(Op::Put).path("table/*"));
    let compactor = Compactor::open(e.process("compactor"), node("c"), settings()).unwrap();
    gate.arrived(1).await;
    compactor.compact();
    gate.open();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!((e.db.load().await.unwrap().manifest.runs.len(), compactor.status().merges), (1, 2));
    compactor.close().await;
    assert_same(&e, &scribe).await;
}

/// More runs than one merge takes: it takes several, and then everything is one run.
#[tokio::test(start_paused = true)]
async fn a_request_is_done_when_everything_is_one_run_however_many_there_were() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    flush(&e, &mut scribe, 0..9).await;
    let narrow = CompactorSettings { max_merge_width: 4, tier_width: 4, merge_workers: 1, ..settings() };
    let compactor = Compactor::open(e.process("compactor"), node("c"), narrow).unwrap();
    compactor.compact();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(e.db.load().await.unwrap().manifest.runs.len(), 1);
    compactor.close().await;
    assert_same(&e, &scribe).await;
}
