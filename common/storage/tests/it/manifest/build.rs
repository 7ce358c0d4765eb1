//! Entries and edits to build manifests from.

use std::collections::BTreeMap;
use std::sync::Arc;

use isle_storage::ids::{
    CommitId, DatabaseId, Epoch, Incarnation, Lineage, RunId, SeqNo, Timestamp, Version,
};
use isle_storage::manifest::{
    Author, Change, CompactionMode, Edit, EditError, Key, LogEntry, LogTail, Manifest, Snapshot, TableEntry,
};
use isle_storage::names::{LogId, LogKind};

/// The incarnation that `epoch` has in these tests.
pub(crate) fn incarnation(epoch: u64) -> Incarnation {
    Incarnation(0xab00 + epoch)
}

pub(crate) fn log_id(epoch: u64, first: u64) -> LogId {
    LogId { epoch: Epoch(epoch), incarnation: incarnation(epoch), first_seq: SeqNo(first) }
}

pub(crate) fn link(epoch: u64, first: u64, last: u64) -> LogTail {
    LogTail { id: log_id(epoch, first), last_seq: SeqNo(last) }
}

/// A segment of `epoch` holding `first..=last`, each written at the time that is its number.
pub(crate) fn segment(epoch: u64, first: u64, last: u64) -> LogEntry {
    // At most what fits a length, for the numbers at the end of their range.
    let count = last.saturating_sub(first).saturating_add(1).min(1 << 32);
    LogEntry {
        kind: LogKind::Segment,
        id: log_id(epoch, first),
        last_seq: SeqNo(last),
        len: 100 + 10 * count,
        index_offset: 80,
        crc: 0xc0de,
        first_time: Timestamp(first as i64),
        last_time: Timestamp(last as i64),
        raw_bytes: 10 * count,
        starts_generation: false,
        blobs: Vec::new(),
        extra: BTreeMap::new(),
    }
}

pub(crate) fn chunk(epoch: u64, first: u64, last: u64) -> LogEntry {
    LogEntry { kind: LogKind::Chunk, starts_generation: true, ..segment(epoch, first, last) }
}

/// A table with keys `from..=to` holding the numbers `first..=last`.
pub(crate) fn table(name: &str, from: &str, to: &str, first: u64, last: u64) -> TableEntry {
    TableEntry {
        name: name.to_owned(),
        len: 1000,
        meta_offset: 900,
        crc: 0xdeed,
        smallest: Key(from.to_owned().into()),
        largest: Key(to.to_owned().into()),
        min_seq: SeqNo(first),
        max_seq: SeqNo(last),
        min_time: Timestamp(first as i64),
        max_time: Timestamp(last as i64),
        rows: last.saturating_sub(first).saturating_add(1),
        deletes: 0,
        min_expires: None,
        expiring: None,
        raw_bytes: 500,
        blobs: Vec::new(),
        blob_use: Vec::new(),
        extra: BTreeMap::new(),
    }
}

pub(crate) fn snapshot(seq: u64) -> Snapshot {
    Snapshot {
        seq: SeqNo(seq),
        created: Timestamp(77),
        expires: None,
        holds_log: false,
        extra: BTreeMap::new(),
    }
}

pub(crate) fn genesis() -> Manifest {
    Manifest::genesis(DatabaseId(0xda7a), Lineage(0x11), CompactionMode::Merge)
}

/// The next edit of `m`, by its writer.
pub(crate) fn edit(m: &Manifest, changes: Vec<Change>) -> Edit {
    let epoch = changes.iter().find_map(|c| match c {
        Change::Adopt { epoch, .. } => Some(*epoch),
        _ => None,
    });
    Edit {
        version: m.version.next(),
        lineage: m.lineage,
        epoch: epoch.unwrap_or(m.epoch),
        commit: CommitId(m.version.0.wrapping_add(0x1000)),
        author: Author::Writer,
        changes,
        required_features: Vec::new(),
        extra: BTreeMap::new(),
    }
}

/// `m` after one change, which must fit.
pub(crate) fn after(m: &Manifest, change: Change) -> Manifest {
    let next = m.apply(&edit(m, vec![change]));
    next.unwrap_or_else(|e| panic!("{e}\n{}", isle_storage::manifest::text::print(m)))
}

/// Why `change` does not fit `m`; panics where it does.
pub(crate) fn refused(m: &Manifest, change: Change) -> String {
    match m.apply(&edit(m, vec![change])) {
        Err(e @ (EditError::Stale { .. } | EditError::Violates { .. })) => e.to_string(),
        Err(e) => panic!("refused for another reason: {e}"),
        Ok(next) => panic!("was accepted:\n{}", isle_storage::manifest::text::print(&next)),
    }
}

/// Demands that `change` is refused and that the reason says `why`.
#[track_caller]
pub(crate) fn assert_refused(m: &Manifest, change: Change, why: &str) {
    let said = refused(m, change);
    assert!(said.contains(why), "refused because: {said}");
}

pub(crate) fn adopt(epoch: u64, rolled: Vec<LogEntry>) -> Change {
    Change::Adopt {
        epoch: Epoch(epoch),
        incarnation: incarnation(epoch),
        node: format!("node-{epoch}"),
        rolled: rolled.into_iter().map(Arc::new).collect(),
    }
}

pub(crate) fn append(segments: Vec<LogEntry>) -> Change {
    Change::AppendLog { segments: segments.into_iter().map(Arc::new).collect() }
}

pub(crate) fn flush(to: u64, tables: Vec<TableEntry>, chunk: Option<LogEntry>) -> Change {
    Change::Flush {
        flushed_seq: SeqNo(to),
        tables: tables.into_iter().map(Arc::new).collect(),
        chunk: chunk.map(Arc::new),
    }
}

/// A merge that drops nothing, planned in `merge` mode without snapshots.
pub(crate) fn merge(inputs: &[u64], tables: Vec<TableEntry>) -> Change {
    Change::Merge {
        inputs: inputs.iter().copied().map(RunId).collect(),
        tables: tables.into_iter().map(Arc::new).collect(),
        snapshots: Vec::new(),
        planned_mode: CompactionMode::Merge,
        dropped: false,
        judged: SeqNo::ZERO,
        expiry: None,
    }
}

/// A manifest at epoch 1 whose log is one segment per given `first..=last`.
pub(crate) fn with_log(segments: &[(u64, u64)]) -> Manifest {
    let m = after(&genesis(), adopt(1, vec![]));
    after(&m, append(segments.iter().map(|(first, last)| segment(1, *first, *last)).collect()))
}

/// Three flushed runs of one table each, holding 1..=10, 11..=20 and 21..=30, newest first, and 31..=40 unflushed.
/// Returns the run ids, newest first.
pub(crate) fn with_runs() -> (Manifest, [u64; 3]) {
    let mut m = with_log(&[(1, 10), (11, 20), (21, 30), (31, 40)]);
    let mut ids = [0; 3];
    for (i, last) in [10, 20, 30].into_iter().enumerate() {
        m = after(&m, flush(last, vec![table(&format!("w-{last}"), "a", "m", last - 9, last)], None));
        ids[2 - i] = m.version.0;
    }
    (m, ids)
}

/// The version as it would be after `n` more.
pub(crate) fn later(m: &Manifest, n: u64) -> Version {
    Version(m.version.0 + n)
}
