//! Tables that go up in parts while they are built: the same tables, and nothing left of those that fail.

use bytes::Bytes;
use compactor_node::plan::{self, MergePlan};
use compactor_node::{Compactor, CompactorSettings, JobError};
use isle_storage::environment::Offload;
use isle_storage::object::StoreErrorKind;
use isle_testkit::embedded::Embedded;
use isle_testkit::fault::{Fault, Op, Rule};
use isle_testkit::scribe::{Entry, Scribe};

use crate::merge::node;
use crate::objects::{data, named};
use crate::tree;

/// Tables of 64 KiB, in parts of 16 KiB.
fn in_parts() -> CompactorSettings {
    CompactorSettings { upload_part_bytes: 16 << 10, read_ahead_bytes: 16 << 10, ..crate::merge::settings() }
}

/// Four runs that overlap, of 34 KiB each that do not compress.
async fn four_runs() -> (Embedded, Scribe, MergePlan) {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut noise = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    for n in 0..4u64 {
        let entries: Vec<Entry> = (0..60u64)
            .map(|i| {
                Entry::put(format!("key/{:05}", i * 4 + n), (0..512).map(&mut noise).collect::<Vec<u8>>())
            })
            .collect();
        scribe.append(&entries).await;
        scribe.flush().await;
    }
    let plan = plan::merge(&e.db.load().await.unwrap().manifest, &in_parts()).unwrap();
    (e, scribe, plan)
}

async fn merge(e: &Embedded, plan: &MergePlan, settings: CompactorSettings) -> Result<(), JobError> {
    let mut db = e.process("compactor");
    db.env.offload = Offload::Inline;
    let compactor = Compactor::idle(db, node("c"), settings).unwrap();
    let merged = compactor.merge(plan, None).await;
    compactor.close().await;
    merged.map(drop)
}

/// The tables' objects in key order.
async fn tables(e: &Embedded) -> Vec<Bytes> {
    let manifest = e.db.load().await.unwrap().manifest;
    let mut objects = Vec::new();
    for table in manifest.tables() {
        objects.push(e.db.bucket.get(&table.path()).await.unwrap());
    }
    objects
}

#[tokio::test]
async fn a_table_in_parts_is_the_table_that_one_put_makes() {
    let (e, _scribe, plan) = four_runs().await;
    let _ = e.bucket.take_history();
    merge(&e, &plan, in_parts()).await.unwrap();
    let parts = tables(&e).await;
    // The last table is small: one request.
    assert!(parts.len() > 2 && e.bucket.count(Op::Complete, "table/*") + 1 == parts.len(), "{}", parts.len());
    assert_eq!(e.bucket.count(Op::Put, "table/*"), 1);
    assert!(e.bucket.count(Op::Part, "table/*") > 2 * parts.len());
    let lens: Vec<u64> = e
        .bucket
        .history()
        .iter()
        .filter(|h| h.op == Op::Part)
        .map(|h| h.len)
        .filter(|n| *n != 16 << 10)
        .collect();
    assert!(
        lens.len() < parts.len() && lens.iter().all(|n| *n < 16 << 10),
        "only last parts are short: {lens:?}"
    );

    let (e, _scribe, plan) = four_runs().await;
    merge(&e, &plan, CompactorSettings { upload_part_bytes: 1 << 20, ..in_parts() }).await.unwrap();
    assert_eq!(e.bucket.count(Op::Begin, "table/*"), 0);
    assert!(parts == tables(&e).await);
}

/// Whichever request for a table fails, or has its answer lost: no table, no upload, and the next try does it.
#[tokio::test]
async fn a_failure_at_any_request_leaves_nothing() {
    let mut struck = [0; 5];
    for fault in [Fault::Fail(StoreErrorKind::Transient), Fault::LoseReply] {
        for n in 1.. {
            let (e, scribe, plan) = four_runs().await;
            let _ = e.bucket.take_history();
            // A begin whose reply is lost is nobody's to end.
            let lost = matches!(fault, Fault::LoseReply);
            let writes =
                move |op, _: &str| matches!(op, Op::Put | Op::Part | Op::Complete) || !lost && op != Op::Head;
            e.bucket.inject(Rule::any().path("table/*").when(writes).nth(n), fault.clone());
            let merged = merge(&e, &plan, in_parts()).await;
            let failed = e
                .bucket
                .history()
                .into_iter()
                .find(|h| h.path.starts_with("table/") && matches!(h.told, Some(Err(_))));
            assert_eq!(data(&e).await, named(&e).await, "{n}: {failed:?}");
            assert_eq!(e.objects.open_uploads(), 0, "{n}: {failed:?}");
            let Some(failed) = failed else {
                merged.unwrap();
                break;
            };
            struck[[Op::Get, Op::Put, Op::Begin, Op::Part, Op::Complete]
                .iter()
                .position(|o| *o == failed.op)
                .unwrap()] += 1;
            assert!(matches!(merged, Err(JobError::Store(_))), "{n}: {failed:?}: {merged:?}");
            assert_eq!(e.db.load().await.unwrap().manifest.runs.len(), 4, "{n}");

            merge(&e, &plan, in_parts()).await.unwrap();
            let (manifest, now) = (e.db.load().await.unwrap().manifest, e.db.env.clock.now());
            let last = manifest.last_seq;
            assert_eq!(
                tree::visible_at(&e.db, &manifest, last, now).await,
                scribe.visible_at(last, now),
                "{n}"
            );
        }
    }
    assert!(struck.iter().all(|n| *n > 0), "every kind of request failed once: {struck:?}");
}
