//! Damage and loss: an error or no effect, never a wrong answer.

use std::time::Duration;

use isle_storage::ids::SeqNo;
use isle_storage::names::ObjectPath;
use isle_storage::object::{Bucket, StoreErrorKind};
use isle_testkit::fault::{Fault, Op, Rule};
use reader_node::{MinSeq, ReadError, ReadOptions, ScanRequest};

use crate::fixture::World;
use crate::model::all;

async fn flip(world: &World, path: &ObjectPath, at: u64) {
    let mut bytes = world.store.get(path).await.unwrap().to_vec();
    bytes[at as usize] ^= 0x10;
    world.store.put(path, bytes.into()).await.unwrap();
}

/// Whatever byte of a table is flipped, every read of every key either errs, naming the table, or is right. (A damaged
/// filter only costs its usefulness.)
#[tokio::test]
async fn a_flipped_byte_in_a_table_is_an_error_or_has_no_effect() {
    let mut world = World::new().await;
    for n in 0..40u32 {
        world.put(format!("k{n:02}").as_bytes(), &[n as u8; 30]);
    }
    world.commit().await;
    world.flush(1).await;
    world.merge(0, 1).await;
    let path = world.table_paths()[0].clone();
    let len = world.store.head(&path).await.unwrap().len;
    let model = world.model_now();
    let (mut errors, mut right) = (0, 0);
    for at in 0..len {
        flip(&world, &path, at).await;
        let reader = world.reader().await;
        for key in model.keys().take(12) {
            match reader.get(key, &ReadOptions::default()).await {
                Ok(answer) => {
                    assert_eq!(answer.found.unwrap().seq, model[key].seq, "byte {at}");
                    right += 1;
                }
                Err(ReadError::Damaged { object, .. }) => {
                    assert_eq!(object, path.as_str());
                    errors += 1;
                }
                Err(other) => panic!("byte {at}: {other}"),
            }
        }
        flip(&world, &path, at).await;
    }
    assert!(errors > 0 && right > 0, "{errors} {right}");
}

/// A damaged filter says "may contain": every key is still found.
#[tokio::test]
async fn a_damaged_filter_never_says_absent() {
    let mut world = World::new().await;
    for n in 0..8u32 {
        world.put(format!("k{n:02}").as_bytes(), b"v");
    }
    world.commit().await;
    world.flush(1).await;
    let table = world.manifest().runs[0].tables[0].clone();
    // The filter is the first thing in the metadata.
    flip(&world, &table.path(), table.meta_offset + 8).await;
    let reader = world.reader().await;
    for key in world.model_now().keys() {
        assert!(reader.get(key, &ReadOptions::default()).await.unwrap().found.is_some());
    }
}

/// A scan that meets damage ends in an error after rows that are right; it never goes on past a hole.
#[tokio::test]
async fn a_scan_over_damage_ends_in_an_error() {
    let mut world = World::new().await;
    for n in 0..200u32 {
        world.put(format!("k{n:03}").as_bytes(), &[n as u8; 50]);
    }
    world.commit().await;
    world.flush(1).await;
    let path = world.table_paths()[10].clone();
    flip(&world, &path, 20).await;
    for reverse in [false, true] {
        let reader = world.reader().await;
        let mut scan = reader.scan(&ScanRequest { reverse, ..ScanRequest::default() }).await.unwrap();
        let mut model: Vec<_> = world.model_now().into_keys().collect();
        if reverse {
            model.reverse();
        }
        let mut expected = model.into_iter();
        let error = loop {
            match scan.next().await {
                Ok(Some(record)) => assert_eq!(Some(record.key), expected.next()),
                Ok(None) => panic!("the end was reached past a damaged table"),
                Err(error) => break error,
            }
        };
        assert!(matches!(&error, ReadError::Damaged { object, .. } if object == path.as_str()), "{error}");
        assert_eq!(scan.next().await.unwrap(), None, "nothing comes after an error");
    }
}

/// A damaged segment holds the view where it is, and the reader says why, naming it; once the bytes are right again,
/// or the rows are in tables, the view moves on by itself.
#[tokio::test(start_paused = true)]
async fn a_damaged_segment_holds_the_view_and_says_so() {
    let mut world = World::new().await;
    world.put(b"a", b"1");
    world.commit().await;
    let reader = world.reader().await;
    let flips = world.faults.inject(Rule::on(Op::Get).path("log/*"), Fault::FlipBit(40));
    world.put(b"a", b"2");
    world.commit().await;
    let path = world.manifest().log[1].path();
    wait_for(|| reader.health().reasons.iter().any(|r| r.contains(path.as_str()))).await;
    assert!(reader.health().serving);
    let answer = reader.get(b"a", &ReadOptions::default()).await.unwrap();
    assert_eq!((answer.found.unwrap().value, answer.view_seq), ("1".into(), SeqNo(1)));
    world.faults.remove(flips);
    world.catch_up(&reader).await;
    assert_eq!(reader.get(b"a", &ReadOptions::default()).await.unwrap().found.unwrap().value, "2");
    assert!(reader.health().is_well(), "{:?}", reader.health());

    world.faults.inject(Rule::on(Op::Get).path("log/*"), Fault::FlipBit(40));
    world.put(b"b", b"3");
    world.commit().await;
    wait_for(|| !reader.health().reasons.is_empty()).await;
    world.flush(9).await;
    world.catch_up(&reader).await;
    assert_eq!(reader.get(b"b", &ReadOptions::default()).await.unwrap().found.unwrap().value, "3");
    assert!(reader.health().is_well(), "{:?}", reader.health());
}

/// A segment that was collected before it could be fetched is stepped over: its rows are in tables by then.
#[tokio::test(start_paused = true)]
async fn a_segment_collected_before_it_was_fetched_is_stepped_over() {
    let mut world = World::new().await;
    world.put(b"a", b"1");
    world.put(b"b", b"1");
    world.commit().await;
    let reader = world.reader().await;
    world.faults.inject(Rule::on(Op::Get).path("log/*"), Fault::Fail(StoreErrorKind::Transient));
    world.put(b"a", b"2");
    world.commit().await;
    world.put(b"a", b"3");
    world.commit().await;
    world.flush(3).await;
    world.put(b"c", b"4");
    world.collect().await;
    world.faults.heal();
    world.commit().await;
    world.catch_up(&reader).await;
    for (key, seq) in [(&b"a"[..], 4), (b"b", 2), (b"c", 5)] {
        let found = reader.get(key, &ReadOptions::default()).await.unwrap().found.unwrap();
        assert_eq!(found.seq, SeqNo(seq), "{key:?}");
    }
}

/// An object that the view names and the bucket has lost: the read is tried once more on a newer view; without one it
/// is `view_expired`, never "not found".
#[tokio::test(start_paused = true)]
async fn a_lost_object_is_view_expired_and_never_absence() {
    let mut world = World::new().await;
    world.put(b"a", b"1");
    world.commit().await;
    world.flush(1).await;
    let reader = world.reader().await;
    let path = world.table_paths()[0].clone();
    let bytes = world.store.get(&path).await.unwrap();
    world.store.delete(&path).await.unwrap();
    let plain = ReadOptions::default();
    let expired = |e: ReadError| matches!(e, ReadError::ViewExpired { object } if object == path.as_str());
    assert!(expired(reader.get(b"a", &plain).await.unwrap_err()));
    assert!(expired(reader.head(b"a", &plain).await.unwrap_err()));
    assert!(expired(reader.mget(&["a".into()], &plain).await.unwrap_err()));
    assert!(expired(reader.scan(&ScanRequest::default()).await.unwrap_err()));
    world.store.put(&path, bytes.into()).await.unwrap();
    assert!(reader.get(b"a", &plain).await.unwrap().found.is_some());
}

/// A read that begins on an old view while a merge and a collection pass it by is answered from the new view.
#[tokio::test]
async fn a_read_overtaken_by_a_collection_is_answered_from_a_newer_view() {
    let mut world = World::new().await;
    world.put(b"a", b"1");
    world.commit().await;
    world.flush(1).await;
    let reader = world.reader().await;
    let gate = world.faults.hold(Rule::on(Op::Get).path("table/*").nth(1));
    let get = tokio::spawn({
        let reader = reader.clone();
        async move { reader.get(b"a", &ReadOptions::default()).await }
    });
    gate.arrived(1).await;
    world.merge(0, 1).await;
    world.collect().await;
    gate.open();
    assert_eq!(get.await.unwrap().unwrap().found.unwrap().value, "1");
}

/// A passing failure of the bucket is an error of that read alone: the next one is answered.
#[tokio::test]
async fn a_failed_read_of_the_bucket_is_not_remembered() {
    let mut world = World::new().await;
    world.put(b"a", b"1");
    world.commit().await;
    world.flush(1).await;
    let reader = world.reader().await;
    world.faults.inject(Rule::on(Op::Get).path("table/*").nth(1), Fault::Fail(StoreErrorKind::Transient));
    assert!(matches!(reader.get(b"a", &ReadOptions::default()).await, Err(ReadError::Store(_))));
    assert!(reader.get(b"a", &ReadOptions::default()).await.unwrap().found.is_some());
    assert_eq!(all(&reader, &ScanRequest::default()).await.len(), 1);
}

/// Waits, in tokio's time, until something is so.
pub(crate) async fn wait_for(mut so: impl FnMut() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it never became so");
}

/// `min_seq` and damage together: what cannot be applied is waited for and then reported as behind.
#[tokio::test(start_paused = true)]
async fn min_seq_behind_a_damaged_segment_is_view_behind() {
    let mut world = World::new().await;
    world.put(b"a", b"1");
    world.commit().await;
    let reader = world.reader().await;
    world.faults.inject(Rule::on(Op::Get).path("log/*"), Fault::FlipBit(40));
    world.put(b"a", b"2");
    world.commit().await;
    let options = ReadOptions { min_seq: Some(MinSeq::Seq(SeqNo(2))), ..ReadOptions::default() };
    let error = reader.get(b"a", &options).await.unwrap_err();
    assert!(matches!(error, ReadError::ViewBehind { seq: SeqNo(1), .. }), "{error}");
}
