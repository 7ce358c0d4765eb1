//! Flushing a generation: build its objects on a thread of their own, put them all, hand their entries over for the
//! Flush edit.

use std::sync::Arc;

use isle_storage::ids::SeqNo;
use isle_storage::manifest::{Change, LogEntry, TableEntry};
use isle_storage::names::ObjectPath;
use isle_storage::object::Body;
use tracing::{debug, info};

use super::Part;
use super::build::{TableRules, build};
use crate::engine::Engine;
use crate::pipeline::{Term, put_until_done};
use crate::standing::Trouble;

/// A generation whose objects are in the bucket.
#[derive(Debug)]
pub(crate) struct Flushed {
    pub(crate) last_seq: SeqNo,
    pub(crate) tables: Vec<Arc<TableEntry>>,
    pub(crate) chunk: Option<Arc<LogEntry>>,
}

impl Flushed {
    /// The change that makes it visible.
    pub(crate) fn change(&self) -> Change {
        Change::Flush { flushed_seq: self.last_seq, tables: self.tables.clone(), chunk: self.chunk.clone() }
    }
}

/// Turns `parts` into tables and a chunk in the bucket. Retries until done; the caller gives up by dropping it.
/// `None` where the building thread died.
pub(crate) async fn flush(
    engine: Arc<Engine>,
    term: Arc<Term>,
    parts: Vec<Part>,
    rules: TableRules,
) -> Option<Flushed> {
    let began = tokio::time::Instant::now();
    let first_seq = parts.first()?.tail.id.first_seq;
    let (for_build, segments) = (Arc::clone(&term), parts.len());
    let built = engine.db.env.offload.run(move || build(parts, &for_build, rules)).await.ok()??;
    debug!(epoch = %term.epoch, %first_seq, last_seq = %built.last_seq, tables = built.tables.len(), took = ?began.elapsed(), "generation built");
    let mut puts: Vec<(ObjectPath, Body)> = Vec::with_capacity(built.tables.len() + 1);
    let mut tables = Vec::with_capacity(built.tables.len());
    for table in built.tables {
        puts.push((table.entry.path(), table.body));
        tables.push(Arc::new(table.entry));
    }
    puts.push((built.chunk.entry.path(), built.chunk.body));
    let all = puts.iter().map(|(path, body)| {
        put_until_done(&engine, path, body, Trouble::Flush, &engine.metrics.flush_failures)
    });
    futures::future::join_all(all).await;
    info!(
        epoch = %term.epoch, %first_seq, last_seq = %built.last_seq, segments, tables = tables.len(),
        bytes = puts.iter().map(|(_, b)| b.len()).sum::<u64>(), took = ?began.elapsed(), "generation written to tables"
    );
    Some(Flushed { last_seq: built.last_seq, tables, chunk: Some(Arc::new(built.chunk.entry)) })
}
