//! What reads cost the bucket: one ranged GET for a table's metadata, one for a block, nothing when warm.

use std::collections::HashSet;

use bytes::Bytes;
use isle_testkit::fault::{Op, Rule};
use reader_node::{KeyRange, ReadOptions, ReaderSettings, ScanRequest};

use crate::fixture::{Shape, World};
use crate::model::all;

fn key(n: u32) -> Vec<u8> {
    format!("key-{n:06}").into_bytes()
}

/// One run of one table of a few hundred blocks.
async fn one_table(rows: u32) -> World {
    let shape = Shape { block_bytes: 1024, rows_per_table: usize::MAX, chunks: true };
    let mut world = World::with(shape).await;
    for n in 0..rows {
        world.put(&key(n), &[n as u8; 100]);
    }
    world.commit().await;
    world.flush(1).await;
    world
}

/// A cold get is one GET for the metadata and one for the block; a second key of the table is one; a warm get none,
/// and neither is a key the filter does not admit.
#[tokio::test]
async fn a_get_costs_one_get_for_metadata_and_one_for_the_block() {
    let world = one_table(1000).await;
    let reader = world.reader().await;
    let plain = ReadOptions::default();
    let _open = world.faults.take_history();
    assert!(reader.get(&key(5), &plain).await.unwrap().found.is_some());
    let cold = world.faults.take_history();
    assert_eq!(cold.len(), 2, "{cold:?}");
    assert!(cold.iter().all(|e| e.op == Op::Get && e.path.starts_with("table/")));
    let table = &world.manifest().runs[0].tables[0];
    assert_eq!(cold[0].len, table.len - table.meta_offset);
    assert!(reader.get(&key(5), &plain).await.unwrap().found.is_some());
    assert!(reader.try_get_cached(&key(5)).unwrap().unwrap().found.is_some());
    assert_eq!(world.faults.take_history(), []);
    assert!(reader.get(&key(999), &plain).await.unwrap().found.is_some());
    assert_eq!(world.faults.take_history().len(), 1);
    let absent: usize = (0..200).map(|n| format!("key-{n:06}x")).collect::<Vec<_>>().len();
    for n in 0..absent {
        assert!(reader.get(format!("key-{n:06}x").as_bytes(), &plain).await.unwrap().found.is_none());
    }
    assert!(world.faults.take_history().len() <= 4, "the filter admits hardly any absent key");
}

/// Keys outside every table's bounds, and keys in memory, cost nothing.
#[tokio::test]
async fn memory_and_bounds_answer_without_the_bucket() {
    let mut world = one_table(10).await;
    world.put(b"in memory", b"1");
    world.commit().await;
    let reader = world.reader().await;
    let _open = world.faults.take_history();
    let plain = ReadOptions::default();
    assert!(reader.get(b"in memory", &plain).await.unwrap().found.is_some());
    assert!(reader.get(b"zzz", &plain).await.unwrap().found.is_none());
    assert_eq!(world.faults.take_history(), []);
}

/// Concurrent misses of one range are one request, and one that goes away takes nobody's answer with it.
#[tokio::test]
async fn concurrent_cold_gets_are_one_flight() {
    let world = one_table(100).await;
    let reader = world.reader().await;
    let _open = world.faults.take_history();
    let gate = world.faults.hold(Rule::on(Op::Get).path("table/*"));
    let mut gets: Vec<_> = (0..64)
        .map(|_| {
            let reader = reader.clone();
            tokio::spawn(async move { reader.get(&key(7), &ReadOptions::default()).await })
        })
        .collect();
    gate.arrived(1).await;
    gets.remove(0).abort();
    gate.open();
    for get in gets {
        assert!(get.await.unwrap().unwrap().found.is_some());
    }
    assert_eq!(world.faults.take_history().len(), 2);
}

/// A cold start does not fan out: reads of the bucket have an admission budget.
#[tokio::test]
async fn reads_in_flight_are_bounded() {
    let world = one_table(1000).await;
    let settings = ReaderSettings { max_concurrent_reads: 4, ..ReaderSettings::default() };
    let reader = world.reader_with(settings).await;
    reader.get(&key(0), &ReadOptions::default()).await.unwrap();
    let _open = world.faults.take_history();
    let gate = world.faults.hold(Rule::on(Op::Get).path("table/*"));
    let gets: Vec<_> = (0..64)
        .map(|n| {
            let reader = reader.clone();
            tokio::spawn(async move { reader.get(&key(n * 15 + 14), &ReadOptions::default()).await })
        })
        .collect();
    gate.arrived(4).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.faults.history().len(), 4);
    gate.open();
    for get in gets {
        assert!(get.await.unwrap().unwrap().found.is_some());
    }
}

/// A scan reads neighbouring blocks together, every byte once; a limit keeps it from reading much beyond.
#[tokio::test]
async fn scans_coalesce_blocks_and_stop_at_the_limit() {
    let world = one_table(20_000).await;
    let table_len = world.manifest().runs[0].tables[0].meta_offset;
    for reverse in [false, true] {
        let reader = world.reader().await;
        let _open = world.faults.take_history();
        let request = ScanRequest { reverse, ..ScanRequest::default() };
        assert_eq!(all(&reader, &request).await.len(), 20_000);
        let history = world.faults.take_history();
        let bytes: u64 = history.iter().map(|e| e.len).sum();
        assert!(history.len() < 12, "{} GETs", history.len());
        assert!(bytes < table_len + table_len / 2, "{bytes} of {table_len}");

        let reader = world.reader().await;
        let _open = world.faults.take_history();
        let request = ScanRequest { reverse, limit: Some(10), ..ScanRequest::default() };
        assert_eq!(all(&reader, &request).await.len(), 10);
        let history = world.faults.take_history();
        assert!(history.len() <= 3, "{history:?}");
        let data: u64 = history.iter().skip(1).map(|e| e.len).sum();
        assert!(data <= 4096, "{data} bytes for ten rows");
    }
}

/// A short scan repeated is warm; a long one leaves what it displaced in the cache alone.
#[tokio::test]
async fn short_scans_warm_up_and_long_ones_pass_the_cache() {
    let world = one_table(20_000).await;
    let reader = world.reader().await;
    let range = KeyRange { start: key(500).into(), end: Some(key(600).into()) };
    let request = ScanRequest { range, ..ScanRequest::default() };
    assert_eq!(all(&reader, &request).await.len(), 100);
    let _cold = world.faults.take_history();
    assert_eq!(all(&reader, &request).await.len(), 100);
    assert_eq!(world.faults.take_history(), []);
    let before = reader.status().cache.bytes;
    assert_eq!(all(&reader, &ScanRequest::default()).await.len(), 20_000);
    let after = reader.status().cache.bytes;
    assert!(after - before < 1 << 20, "a scan of 2 MB left {} bytes in the cache", after - before);
}

/// The cache stays within its budget, and holds on to metadata while blocks come and go.
#[tokio::test]
async fn the_cache_keeps_its_budget_and_favours_metadata() {
    let world = one_table(20_000).await;
    let settings = ReaderSettings { cache_bytes: 1 << 20, ..ReaderSettings::default() };
    let reader = world.reader_with(settings).await;
    let plain = ReadOptions::default();
    for n in (0..20_000).step_by(7) {
        assert!(reader.get(&key(n), &plain).await.unwrap().found.is_some());
        assert!(reader.status().cache.bytes <= 1 << 20);
    }
    let meta_gets = {
        let table = &world.manifest().runs[0].tables[0];
        let history = world.faults.take_history();
        history.iter().filter(|e| e.len == table.len - table.meta_offset).count()
    };
    assert_eq!(meta_gets, 1);
}

/// All keys of one multi-get are answered at one view, absent ones in their place; too many are refused.
#[tokio::test]
async fn mget_answers_in_order_and_is_bounded() {
    let world = one_table(100).await;
    let settings = ReaderSettings { max_mget_keys: 3, ..ReaderSettings::default() };
    let reader = world.reader_with(settings).await;
    let keys: Vec<Bytes> = [key(3), b"none".to_vec(), key(1)].map(Bytes::from).to_vec();
    let answer = reader.mget(&keys, &ReadOptions::default()).await.unwrap();
    let found: Vec<bool> = answer.found.iter().map(Option::is_some).collect();
    assert_eq!(found, [true, false, true]);
    let many: HashSet<u32> = (0..4).collect();
    let many: Vec<Bytes> = many.into_iter().map(|n| key(n).into()).collect();
    assert!(
        reader.mget(&many, &ReadOptions::default()).await.unwrap_err().to_string().contains("limit of 3")
    );
}
