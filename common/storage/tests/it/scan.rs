//! Scans of a manifest, against what was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::manifest::{KeyRange, Manifest};
use isle_storage::merge::Visibility;
use isle_storage::row::{Row, Value};
use isle_storage::scan::{BATCH_BYTES, Scan, ScanBounds, ScanError};
use isle_testkit::embedded::Embedded;
use isle_testkit::fault::{Fault, Op, Rule};
use isle_testkit::scribe::{Entry, Scribe};
use proptest::prelude::*;

const ROOMY: ScanBounds = ScanBounds { read_bytes: 8 << 20, log_bytes: 64 << 20 };

/// So tight that every window is one block.
const TIGHT: ScanBounds = ScanBounds { read_bytes: 1, log_bytes: 64 << 20 };

type Seen = BTreeMap<Vec<u8>, (SeqNo, Vec<u8>)>;

async fn rows(
    e: &Embedded,
    m: &Manifest,
    range: &KeyRange,
    at: Visibility,
    bounds: ScanBounds,
) -> Result<Vec<Row>, ScanError> {
    let mut scan = Scan::open(&e.db, m, range, at, bounds).await?;
    let mut all = Vec::new();
    while let Some(rows) = scan.next().await? {
        assert!(!rows.is_empty());
        all.extend(rows);
    }
    assert!(scan.next().await?.is_none(), "the end stays the end");
    assert!(all.windows(2).all(|pair| pair[0].key < pair[1].key), "rows out of order");
    Ok(all)
}

fn seen(rows: Vec<Row>) -> Seen {
    let of = |r: Row| match r.value {
        Value::Put(value) => (r.key.to_vec(), (r.seq, value.to_vec())),
        other => panic!("{other:?} among visible rows"),
    };
    rows.into_iter().map(of).collect()
}

/// What happens to a database: rows of few keys, some of them short-lived, and flushes.
#[derive(Debug, Clone)]
enum Happens {
    Append(Vec<(u8, Option<u16>, bool)>),
    Flush,
}

fn happens() -> impl Strategy<Value = Vec<Happens>> {
    let row = (0u8..40, prop::option::weighted(0.8, any::<u16>()), prop::bool::weighted(0.2));
    let one = prop_oneof![
        3 => prop::collection::vec(row, 1..40).prop_map(Happens::Append),
        1 => Just(Happens::Flush),
    ];
    prop::collection::vec(one, 1..12)
}

fn entry(key: u8, value: Option<u16>, short: bool, now: Timestamp) -> Entry {
    let key = format!("{}/{}", key % 4, key).into_bytes();
    let expires = short.then(|| now.plus(std::time::Duration::from_secs(5)));
    let value = value.map(|v| vec![b'v'; usize::from(v % 300)]);
    Entry { key, value, expires }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Any history, at any number, at any instant, of any prefix, with any budget.
    #[test]
    fn a_scan_shows_what_was_visible(
        history in happens(),
        number in any::<prop::sample::Index>(),
        later in prop::bool::ANY,
        prefix in prop_oneof![Just(""), Just("1/"), Just("2/1"), Just("9")],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let e = Embedded::new().await;
            let now = e.db.env.clock.now();
            let mut scribe = Scribe::take_over(&e.db).await;
            scribe.table_bytes = 2 << 10;
            for step in &history {
                match step {
                    Happens::Append(rows) => {
                        let rows: Vec<_> = rows.iter().map(|(k, v, s)| entry(*k, *v, *s, now)).collect();
                        scribe.append(&rows).await;
                    }
                    Happens::Flush => scribe.flush().await,
                }
            }
            let m = Arc::clone(scribe.manifest());
            let max_seq = SeqNo(number.index(m.last_seq.0 as usize + 1) as u64);
            let now = if later { now.plus(std::time::Duration::from_secs(10)) } else { now };
            let at = Visibility { max_seq, now };
            let mut expected = scribe.visible_at(max_seq, now);
            expected.retain(|key, _| key.starts_with(prefix.as_bytes()));
            for bounds in [ROOMY, TIGHT] {
                let range = KeyRange::prefix(prefix.as_bytes());
                assert_eq!(seen(rows(&e, &m, &range, at, bounds).await.unwrap()), expected);
            }
            // What comes after a key is what is left of the range.
            if let Some(middle) = expected.keys().nth(expected.len() / 2).cloned() {
                let range = KeyRange::prefix(prefix.as_bytes()).after(&middle, false);
                let rest = expected.split_off(&[&middle[..], b"\0"].concat());
                assert_eq!(seen(rows(&e, &m, &range, at, ROOMY).await.unwrap()), rest);
            }
        });
    }
}

fn everything(m: &Manifest) -> Visibility {
    Visibility { max_seq: m.last_seq, now: Timestamp(0) }
}

/// A hundred flushes whose keys follow one another are read one after the other: one window at a time, in few large
/// requests, and a table is opened when it is its turn.
#[tokio::test]
async fn tables_that_share_no_key_are_read_one_after_the_other() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    for run in 0..100 {
        let entries: Vec<_> =
            (0..50).map(|i| Entry::put(format!("{run:03}/{i:03}"), vec![b'x'; 100])).collect();
        scribe.append(&entries).await;
        scribe.flush().await;
    }
    let m = Arc::clone(scribe.manifest());
    let (tables, blocks) = (m.tables().count(), 50 * 100 / 512);
    assert!(tables >= 100 && blocks > 5);
    let _before = e.bucket.take_history();
    let mut scan = Scan::open(&e.db, &m, &KeyRange::all(), everything(&m), ROOMY).await.unwrap();
    let first = scan.next().await.unwrap().unwrap();
    assert!(first.len() > 1000, "a batch is {BATCH_BYTES} bytes, not a block");
    let begun = e.bucket.count(Op::Get, "table/*");
    assert!(begun < 2 * tables, "{begun} requests before the second batch");
    let mut count = first.len();
    while let Some(rows) = scan.next().await.unwrap() {
        count += rows.len();
    }
    assert_eq!(count, 5000);
    assert_eq!(e.bucket.count(Op::Get, "table/*"), 2 * tables, "metadata, and all blocks at once");
}

/// A prefix opens only the tables that reach into it, and reads only their blocks.
#[tokio::test]
async fn a_prefix_reads_what_may_hold_it() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.table_bytes = 1 << 20;
    let entries: Vec<_> = (0..2000).map(|i| Entry::put(format!("{i:05}"), vec![b'x'; 100])).collect();
    scribe.append(&entries).await;
    scribe.flush().await;
    let m = Arc::clone(scribe.manifest());
    let _before = e.bucket.take_history();
    let range = KeyRange::prefix(b"0100");
    assert_eq!(rows(&e, &m, &range, everything(&m), ROOMY).await.unwrap().len(), 10);
    let read: u64 = e.bucket.history().iter().filter(|h| h.path.starts_with("table/")).map(|h| h.len).sum();
    let table = m.tables().next().unwrap();
    assert!(read < table.len - table.meta_offset + 4096, "{read} bytes for ten rows");
}

#[tokio::test]
async fn damage_and_loss_end_a_scan_and_name_the_object() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    let entries: Vec<_> = (0..400).map(|i| Entry::put(format!("{i:05}"), vec![b'x'; 100])).collect();
    scribe.append(&entries).await;
    scribe.flush().await;
    scribe.append(&entries[..10]).await;
    let m = Arc::clone(scribe.manifest());
    for (path, nth) in [("table/*", 1), ("table/*", 2), ("log/*", 1)] {
        e.bucket.inject(Rule::on(Op::Get).path(path).nth(nth), Fault::FlipBit(99));
        let scanned = rows(&e, &m, &KeyRange::all(), everything(&m), ROOMY).await;
        let folder = &path[..path.len() - 1];
        assert!(
            matches!(&scanned, Err(ScanError::Damaged { object, .. }) if object.starts_with(folder)),
            "{scanned:?}"
        );
        e.bucket.heal();
    }
    let lost = m.tables().next().unwrap().path();
    e.db.bucket.delete(&lost).await.unwrap();
    let mut scan = Scan::open(&e.db, &m, &KeyRange::all(), everything(&m), ROOMY).await.unwrap();
    assert!(matches!(scan.next().await, Err(ScanError::Gone(path)) if path == lost.as_str()));
    assert!(matches!(scan.next().await, Err(ScanError::CutOff(_))), "an error is never followed by an end");
    let little = ScanBounds { log_bytes: 100, ..ROOMY };
    let refused = Scan::open(&e.db, &m, &KeyRange::all(), everything(&m), little).await.map(drop);
    assert!(matches!(refused, Err(ScanError::TooMuchLog { limit: 100, .. })), "{refused:?}");
}
