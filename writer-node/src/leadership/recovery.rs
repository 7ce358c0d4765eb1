//! Recovery: the log beyond the tables, loaded back into generations, before any work is accepted.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use isle_storage::coordination::CoordinationError;
use isle_storage::database::Database;
use isle_storage::log::{LogObject, decode};
use isle_storage::manifest::{LogEntry, LogTail, Manifest};
use tokio::time::Instant;
use tracing::info;

use crate::engine::Engine;
use crate::generation::{Generations, Part};
use crate::intake::RECORD_OVERHEAD;

/// Log objects fetched at once. Nobody can write meanwhile, and a generation of a trickle has hundreds of small ones: at
/// tens of milliseconds each they must not queue. All of them are held in memory afterwards anyway.
const FETCHES_AT_ONCE: usize = 64;

/// Loads every log object that is not in tables. Generations are cut where the segments' marks say; the newest one
/// stays open, so that a writer that restarts often does not leave a tiny table each time.
pub(super) async fn load(
    engine: &Arc<Engine>,
    manifest: &Manifest,
    mut generations: Generations,
) -> Result<Generations, CoordinationError> {
    let began = Instant::now();
    let entries = manifest.unflushed().to_vec();
    let (objects, bytes) = (entries.len(), entries.iter().map(|e| e.len).sum::<u64>());
    let mut loaded = stream::iter(entries)
        .map(|entry| {
            let db = engine.db.clone();
            async move { fetch(&db, entry).await }
        })
        .buffered(FETCHES_AT_ONCE);
    while let Some((entry, object)) = loaded.try_next().await? {
        let starts = entry.starts_generation;
        generations.add(part(&entry, object), starts, Instant::now());
    }
    if objects > 0 {
        info!(objects, bytes, generations = generations.len(), took = ?began.elapsed(), "the log beyond the tables is loaded");
    }
    Ok(generations)
}

async fn fetch(db: &Database, entry: Arc<LogEntry>) -> Result<(Arc<LogEntry>, LogObject), CoordinationError> {
    let path = entry.path();
    let bytes = db.bucket.get(&path).await.map_err(|e| {
        if e.is_transient() {
            CoordinationError::Unavailable(e.to_string())
        } else {
            CoordinationError::Damaged(format!("the log cannot be read: {e}"))
        }
    })?;
    let decoded = db.env.offload.run(move || decode(&bytes)).await;
    let object = decoded
        .map_err(|e| CoordinationError::Unavailable(e.to_string()))?
        .map_err(|e| CoordinationError::Damaged(format!("{path}: {e}")))?;
    let (h, e) = (&object.header, &entry);
    if h.id() != e.id || h.last_seq != e.last_seq || h.kind != e.kind || h.database != db.identity.database {
        return Err(CoordinationError::Damaged(format!("{path} is not the object that the manifest names")));
    }
    Ok((entry, object))
}

fn part(entry: &LogEntry, object: LogObject) -> Part {
    let records = object.blocks.iter().map(|b| u64::from(b.count)).sum::<u64>();
    let raw = object.blocks.iter().map(|b| b.raw.len() as u64).sum::<u64>();
    Part {
        tail: LogTail { id: entry.id, last_seq: entry.last_seq },
        previous: object.header.previous,
        blocks: object.blocks,
        blobs: entry.blobs.clone(),
        charge: raw + records * RECORD_OVERHEAD as u64,
    }
}
