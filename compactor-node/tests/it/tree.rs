//! Reading a database's tables the slow, obvious way: every row of every run.

use std::collections::BTreeMap;

use isle_storage::database::Database;
use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::manifest::Manifest;
use isle_storage::row::{Row, Value};
use isle_storage::sst::{Block, TableMeta};

/// Every row in tables, as stored.
pub(crate) async fn rows(db: &Database, manifest: &Manifest) -> Vec<Row> {
    let mut rows = Vec::new();
    for table in manifest.tables() {
        let bytes = db.bucket.get(&table.path()).await.unwrap();
        let tail = bytes.slice(table.meta_offset as usize..);
        let meta = TableMeta::decode(tail, table.meta_offset).unwrap();
        for i in 0..meta.block_count() {
            let at = meta.block_range(i);
            let block = Block::decode(&bytes.slice(at.start as usize..at.end as usize)).unwrap();
            let mut cursor = block.cursor();
            cursor.first();
            while let Some(row) = cursor.row() {
                assert!(meta.may_contain(row.key), "the filter denies a key that is there");
                rows.push(row.to_row());
                cursor.next();
            }
        }
    }
    rows
}

/// What the tables show a reader of `at` at the instant `now`: newest version wins, wherever it lies.
pub(crate) async fn visible_at(
    db: &Database,
    manifest: &Manifest,
    at: SeqNo,
    now: Timestamp,
) -> BTreeMap<Vec<u8>, (SeqNo, Vec<u8>)> {
    let mut newest: BTreeMap<Vec<u8>, Row> = BTreeMap::new();
    for row in rows(db, manifest).await.into_iter().filter(|r| r.seq <= at) {
        let slot = newest.entry(row.key.to_vec()).or_insert_with(|| row.clone());
        if row.seq > slot.seq {
            *slot = row;
        }
    }
    let visible = newest.into_iter().filter_map(|(key, row)| match row.value {
        Value::Put(v) if row.expires.is_none_or(|e| e > now) => Some((key, (row.seq, v.to_vec()))),
        _ => None,
    });
    visible.collect()
}
