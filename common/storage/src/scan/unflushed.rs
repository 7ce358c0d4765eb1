//! The log that is not in tables yet, as one sorted source.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::ScanError;
use crate::database::Database;
use crate::ids::SeqNo;
use crate::log::{self, RawBlock};
use crate::manifest::{KeyRange, LogEntry, Manifest};
use crate::row::{Row, RowRef, Value, ValueRef};

/// Log objects fetched at once.
const FETCHES: usize = 8;

/// The newest version at or below `max_seq` of every key of `range` in the log of `manifest` that is not in tables, sorted.
/// Values are slices of the records they came in.
pub(super) async fn rows(
    db: &Database,
    manifest: &Manifest,
    range: &KeyRange,
    max_seq: SeqNo,
    limit: u64,
) -> Result<Vec<Row>, ScanError> {
    let needed = || manifest.unflushed().iter().take_while(|e| e.id.first_seq <= max_seq);
    let bytes: u64 = needed().map(|e| e.raw_bytes).sum();
    if bytes > limit {
        return Err(ScanError::TooMuchLog { bytes, limit });
    }
    let fetches: Vec<_> = needed().map(|entry| blocks(db, entry)).collect();
    let blocks: Vec<Vec<RawBlock>> = futures::stream::iter(fetches).buffered(FETCHES).try_collect().await?;
    let range = range.clone();
    let sorted = db.env.offload.run(move || sorted(&blocks, &range, max_seq));
    sorted.await.map_err(|e| ScanError::CutOff(e.to_string()))
}

async fn blocks(db: &Database, entry: &std::sync::Arc<LogEntry>) -> Result<Vec<RawBlock>, ScanError> {
    let path = entry.path();
    let bytes = db.bucket.get(&path).await?;
    let (entry, database) = (std::sync::Arc::clone(entry), db.identity.database);
    let decoded = db.env.offload.run(move || log::decode_as(&bytes, &entry, database));
    let decoded = decoded.await.map_err(|e| ScanError::CutOff(e.to_string()))?;
    decoded.map(|object| object.blocks).map_err(|e| ScanError::damaged(&path, e))
}

fn sorted(blocks: &[Vec<RawBlock>], range: &KeyRange, max_seq: SeqNo) -> Vec<Row> {
    let mut rows = Vec::new();
    for block in blocks.iter().flatten() {
        let inside = block.rows().take_while(|r| r.seq <= max_seq).filter(|r| range.holds(r.key));
        rows.extend(inside.map(|r| shared(&block.raw, &r)));
    }
    rows.sort_unstable_by(|a, b| a.key.cmp(&b.key).then(b.seq.cmp(&a.seq)));
    rows.dedup_by(|older, newer| older.key == newer.key);
    rows
}

/// The row, its bytes shared with the block they lie in.
fn shared(raw: &Bytes, row: &RowRef<'_>) -> Row {
    let value = match row.value {
        ValueRef::Put(value) => Value::Put(raw.slice_ref(value)),
        ValueRef::Delete => Value::Delete,
        ValueRef::Blob(pointer) => Value::Blob(pointer.to_owned()),
    };
    Row { key: raw.slice_ref(row.key), seq: row.seq, time: row.time, expires: row.expires, value }
}
