//! The reader against a plain map: whatever is written, flushed and merged, whatever the view.

use std::time::Duration;

use bytes::Bytes;
use isle_storage::ids::SeqNo;
use isle_storage::row::Row;
use proptest::prelude::*;
use reader_node::{KeyRange, MinSeq, ReadOptions, Reader, ReaderSettings, Record, ScanRequest};

use crate::fixture::{World, value_of};

/// Keys that have broken such systems: extensions of one another, zero bytes, runs of 0xFF.
const KEYS: &[&[u8]] = &[
    b"a",
    b"a\0",
    b"a\0\0",
    b"a\x01",
    b"ab",
    b"abc",
    b"b",
    b"ba",
    b"k",
    b"k\0",
    b"k\xff",
    b"l",
    b"\0",
    b"\xff",
    b"\xff\0",
    b"\xff\xff",
    b"\xff\xff\xff",
    b"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
];

#[derive(Debug, Clone)]
enum Step {
    Put(usize, u8),
    PutExpiring(usize, u8),
    Delete(usize),
    Commit { starts_generation: bool },
    Flush(usize),
    Merge(usize, usize),
    Collect,
    TimePasses(u64),
    Join,
    TakeOver,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS.len();
    prop_oneof![
        8 => (key.clone(), any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
        2 => (key.clone(), any::<u8>()).prop_map(|(k, v)| Step::PutExpiring(k, v)),
        3 => key.prop_map(Step::Delete),
        6 => any::<bool>().prop_map(|starts_generation| Step::Commit { starts_generation }),
        2 => (1usize..5).prop_map(Step::Flush),
        2 => (0usize..3, 1usize..4).prop_map(|(at, n)| Step::Merge(at, n)),
        1 => Just(Step::Collect),
        1 => (1u64..20).prop_map(Step::TimePasses),
        1 => Just(Step::Join),
        1 => Just(Step::TakeOver),
    ]
}

async fn act(world: &mut World, step: &Step) {
    match step {
        Step::Put(k, v) => {
            world.put(KEYS[*k], &vec![*v; usize::from(*v)]);
        }
        Step::PutExpiring(k, v) => {
            let expires = world.now().plus(Duration::from_secs(u64::from(*v % 16) + 1));
            world.put_until(KEYS[*k], &[*v], expires);
        }
        Step::Delete(k) => {
            world.delete(KEYS[*k]);
        }
        Step::Commit { starts_generation } => world.commit_marked(*starts_generation).await,
        Step::Flush(n) => world.flush(*n).await,
        Step::Merge(at, n) => world.merge(*at, *n).await,
        Step::Collect => world.collect().await,
        Step::TimePasses(s) => world.clock.advance(Duration::from_secs(*s)),
        Step::TakeOver => world.take_over().await,
        Step::Join => {}
    }
}

fn small() -> ReaderSettings {
    // Everything at its limit: generations of a few rows, read-ahead of a block, a cache that holds little.
    ReaderSettings {
        cache_bytes: 1 << 20,
        read_ahead_bytes: 4096,
        read_ahead_total_bytes: 4096,
        generation_bytes: 2048,
        max_concurrent_reads: 2,
        max_concurrent_segments: 2,
        mget_parallelism: 3,
        ..ReaderSettings::default()
    }
}

pub(crate) async fn all(reader: &Reader, request: &ScanRequest) -> Vec<Record> {
    let mut scan = reader.scan(request).await.unwrap();
    let mut records = Vec::new();
    while let Some(record) = scan.next().await.unwrap() {
        records.push(record);
    }
    records
}

async fn in_pages(reader: &Reader, request: &ScanRequest, limit: usize) -> Vec<Record> {
    let mut records = Vec::new();
    let mut request = ScanRequest { limit: Some(limit), ..request.clone() };
    loop {
        let mut scan = reader.scan(&request).await.unwrap();
        let before = records.len();
        while let Some(record) = scan.next().await.unwrap() {
            records.push(record);
        }
        assert!(records.len() - before <= limit);
        let Some(page) = scan.next_page() else { return records };
        request.page = Some(page.to_string().parse().unwrap());
    }
}

fn record(row: &Row) -> Record {
    Record {
        key: row.key.clone(),
        value: value_of(row).clone(),
        elsewhere: None,
        seq: row.seq,
        time: row.time,
        expires: row.expires,
    }
}

/// Compares everything a reader can be asked with the model.
async fn agree(world: &World, reader: &Reader) {
    world.catch_up(reader).await;
    let model = world.model_now();
    let plain = ReadOptions::default();
    let keys: Vec<Bytes> = KEYS.iter().map(|k| Bytes::from_static(k)).collect();
    let many = reader.mget(&keys, &plain).await.unwrap();
    for (key, found) in keys.iter().zip(&many.found) {
        let wanted = model.get(key).map(|r| (value_of(r).clone(), r.seq));
        let got = reader.get(key, &plain).await.unwrap();
        assert_eq!(got.view_seq, world.manifest().last_seq);
        assert_eq!(got.found.map(|f| (f.value, f.seq)), wanted, "get {key:?}");
        assert_eq!(found.clone().map(|f| (f.value, f.seq)), wanted, "mget {key:?}");
        let head = reader.head(key, &plain).await.unwrap();
        assert_eq!(head.found.map(|h| (h.value_len, h.seq)), wanted.map(|(v, s)| (v.len() as u64, s)));
    }
    let mut ranges = vec![KeyRange::all(), KeyRange { start: keys[5].clone(), end: Some(keys[2].clone()) }];
    ranges.extend([&b"a"[..], b"a\0", b"k", b"\xff", b"\xff\xff", b"nothing"].map(KeyRange::prefix));
    ranges.push(KeyRange { start: keys[1].clone(), end: Some(keys[8].clone()) });
    for range in ranges {
        let inside = |k: &Bytes| *k >= range.start && range.end.as_ref().is_none_or(|e| k < e);
        let mut wanted: Vec<Record> = model.values().filter(|r| inside(&r.key)).map(record).collect();
        for reverse in [false, true] {
            if reverse {
                wanted.reverse();
            }
            let request = ScanRequest { range: range.clone(), reverse, ..ScanRequest::default() };
            assert_eq!(all(reader, &request).await, wanted, "{range:?} reverse {reverse}");
            for limit in [1, 3] {
                assert_eq!(in_pages(reader, &request, limit).await, wanted, "{range:?} by {limit}");
            }
            let request = ScanRequest { keys_only: true, ..request };
            let got: Vec<_> = all(reader, &request).await.into_iter().map(|r| (r.key, r.value)).collect();
            let keys: Vec<_> = wanted.iter().map(|r| (r.key.clone(), Bytes::new())).collect();
            assert_eq!(got, keys);
        }
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Readers that were there from the start, that joined late, and that have hardly any memory, all answer as a map
    /// does, at every version.
    #[test]
    fn readers_answer_as_a_map_does(steps in prop::collection::vec(step(), 1..60)) {
        run(async {
            let mut world = World::new().await;
            let mut readers = vec![world.reader().await, world.reader_with(small()).await];
            for step in &steps {
                let before = world.manifest().version;
                act(&mut world, step).await;
                if matches!(step, Step::Join) && readers.len() < 4 {
                    readers.push(world.reader_with(small()).await);
                }
                if world.manifest().version != before || matches!(step, Step::TimePasses(_) | Step::Join) {
                    for reader in &readers {
                        agree(&world, reader).await;
                    }
                }
            }
        });
    }
}

/// A snapshot reads the same for ever, whatever is written, flushed and merged afterwards; expiry is judged at the
/// instant it was taken.
#[tokio::test]
async fn a_snapshot_reads_the_same_for_ever() {
    let mut world = World::new().await;
    let reader = world.reader().await;
    world.put(b"a", b"1");
    world.put(b"gone", b"x");
    world.put_until(b"short", b"lived", world.now().plus(Duration::from_secs(5)));
    world.commit().await;
    world.snapshot("before").await;
    world.put(b"a", b"2");
    world.delete(b"gone");
    world.commit().await;
    world.flush(9).await;
    world.clock.advance(Duration::from_secs(60));
    world.merge(0, 9).await;
    world.catch_up(&reader).await;
    let options = ReadOptions { snapshot: Some("before".to_owned()), ..ReadOptions::default() };
    let get = async |key: &[u8]| reader.get(key, &options).await.unwrap().found.map(|f| f.value);
    assert_eq!(get(b"a").await.unwrap(), "1");
    assert_eq!(get(b"gone").await.unwrap(), "x");
    assert_eq!(get(b"short").await.unwrap(), "lived");
    let request = ScanRequest { options: options.clone(), ..ScanRequest::default() };
    let keys: Vec<_> = all(&reader, &request).await.into_iter().map(|r| r.key).collect();
    assert_eq!(keys, [&b"a"[..], b"gone", b"short"]);
    assert_eq!(reader.get(b"a", &options).await.unwrap().view_seq, SeqNo(3));
    let newest = reader.get(b"a", &ReadOptions::default()).await.unwrap();
    assert_eq!(newest.found.unwrap().value, "2");
    let unknown = ReadOptions { snapshot: Some("nope".to_owned()), ..ReadOptions::default() };
    assert!(reader.get(b"a", &unknown).await.unwrap_err().to_string().contains("nope"));
}

/// Hundreds of segments in memory do not slow a lookup down to hundreds of looks: they are one sorted set.
#[tokio::test]
async fn many_small_segments_are_few_generations() {
    let mut world = World::new().await;
    let reader = world.reader().await;
    for n in 0..300u32 {
        world.put(format!("key-{}", n % 50).as_bytes(), &n.to_le_bytes());
        world.commit().await;
    }
    world.catch_up(&reader).await;
    assert_eq!(reader.status().tree.generations, 1);
    assert_eq!(reader.status().tree.memory_rows, 300);
    let options = ReadOptions { min_seq: Some(MinSeq::Seq(SeqNo(300))), ..ReadOptions::default() };
    let found = reader.get(b"key-49", &options).await.unwrap().found.unwrap();
    assert_eq!(found.value, &299u32.to_le_bytes()[..]);
}
