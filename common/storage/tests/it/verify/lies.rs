//! Objects whose checksums match and which do not say the truth: what a defect in a builder would leave behind.

use std::sync::Arc;

use isle_storage::blob::{BlobDirectory, Stored};
use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::manifest::{Change, Expiring, TableEntry};
use isle_storage::names;
use isle_storage::object::Bucket;
use isle_storage::row::{BlobPointerRef, RowRef, ValueRef};
use isle_storage::sst::{TableBuilder, TableOptions};
use isle_storage::verify::Report;
use isle_testkit::scribe::Entry;

use super::scene::Scene;

/// Flushes a generation of a hundred rows into one table, whose entry is changed before it is committed.
async fn flushed(lie: impl Fn(&mut TableEntry)) -> Report {
    let mut scene = Scene::new().await;
    // What the scene left unflushed goes first.
    scene.scribe.flush().await;
    let entries: Vec<Entry> = (0..100).map(|i| Entry::put(format!("k{i:03}"), format!("v{i}"))).collect();
    let first = scene.scribe.manifest().last_seq.next();
    let last = scene.scribe.append(&entries).await;
    let time = scene.scribe.manifest().last_write_time;
    let mut builder = TableBuilder::new(TableOptions { block_bytes: 256, ..TableOptions::default() });
    let blob = scene.scribe.manifest().blobs.keys().next().unwrap().clone();
    let file = scene.get(names::blob(&blob).as_str()).await;
    let Stored { offset, len, crc } = BlobDirectory::of(&file.into()).unwrap().values()[0];
    for (i, e) in entries.iter().enumerate() {
        let value = match i {
            50 => ValueRef::Blob(BlobPointerRef { blob: &blob, offset, len, crc }),
            _ => ValueRef::Put(e.value.as_deref().unwrap()),
        };
        let seq = SeqNo(first.0 + i as u64);
        builder.push(RowRef { key: &e.key, seq, time, expires: None, value });
    }
    let start = scene.scribe.manifest().epochs.last().unwrap().clone();
    let table = builder.finish(&format!("{}-{}-900", start.epoch, start.incarnation));
    scene.faults.put(&table.entry.path(), table.body).await.unwrap();
    let mut entry = table.entry;
    lie(&mut entry);
    let change = Change::Flush { flushed_seq: last, tables: vec![Arc::new(entry)], chunk: None };
    scene.scribe.commit(vec![change]).await;
    scene.verify(scene.live()).await
}

#[tokio::test]
async fn entries_that_do_not_say_what_is_in_their_table_are_found() {
    let honest = flushed(|_| {}).await;
    assert!(honest.is_clean(), "{:?}", honest.damage);
    let lies: [fn(&mut TableEntry); 11] = [
        |e| e.rows += 1,
        |e| e.deletes += 1,
        |e| e.raw_bytes -= 1,
        |e| e.smallest.0 = "k".into(),
        |e| e.largest.0 = "k099x".into(),
        |e| e.max_time = Timestamp(e.max_time.0 + 1),
        |e| e.min_expires = Some(Timestamp(5)),
        |e| e.expiring = Some(Expiring { rows: 1, last: Timestamp(5) }),
        |e| e.crc ^= 1,
        |e| e.blob_use[0].values += 1,
        |e| e.blob_use[0].bytes -= 1,
    ];
    for (i, lie) in lies.into_iter().enumerate() {
        let report = flushed(lie).await;
        let named = report.damage.first.iter().any(|d| d.object.starts_with("table/"));
        assert!(named, "lie {i}: {:?}", report.damage);
    }
}

/// What an older program has flushed counts nothing of what it points at, and is sound.
#[tokio::test]
async fn an_entry_that_does_not_count_is_no_lie() {
    let report = flushed(|e| e.blob_use.clear()).await;
    assert!(report.is_clean(), "{:?}", report.damage);
}
