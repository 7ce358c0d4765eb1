//! Every table: every block and row, held against its metadata and its entry in the manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, stream};

use super::Walk;
use super::blobs::Blobs;
use super::fetch::{Fault, Fetch};
use super::report::Damage;
use crate::manifest::{Manifest, TableEntry};
use crate::names::ObjectPath;
use crate::sst::{Block, FOOTER_LEN, Properties, TableAudit, TableMeta, meta_offset};

/// Tables worked on at the same time.
const AT_ONCE: usize = 4;

/// Bytes of data blocks read by one request, about.
const PIECE: u64 = 2 << 20;

/// What one table turned out to be.
#[derive(Debug, Default)]
struct Looked {
    rows: u64,
    keys: u64,
    faults: Vec<String>,
}

/// Walks every table of `manifest`.
pub(super) async fn walk(walk: &mut Walk<'_>, manifest: &Manifest) {
    let unseen: Vec<String> = walk.names.unseen("table/").cloned().collect();
    walk.gone.extend(unseen);
    let Walk { fetch, names, report, gone, folder, progress, done, blobs, .. } = walk;
    let blobs: &Blobs = blobs;
    let of = names.len() as u64 + folder.seen();
    // An input's table that a part of a merge keeps is named twice and read once.
    let named: BTreeMap<&str, &Arc<TableEntry>> =
        manifest.named_tables().map(|t| (t.name.as_str(), t)).collect();
    let there: Vec<Arc<TableEntry>> =
        named.into_values().filter(|t| names.was_seen(t.path().as_str())).cloned().collect();
    let fetch: &Fetch<'_> = fetch;
    let read = |entry: Arc<TableEntry>| async move {
        let named = Some((&*entry, blobs));
        let looked = look(fetch, &entry.path(), named, entry.len, entry.meta_offset).await;
        (entry, looked)
    };
    let mut tables = stream::iter(there).map(read).buffer_unordered(AT_ONCE);
    while let Some((entry, looked)) = tables.next().await {
        let path = entry.path().to_string();
        match looked {
            Ok(looked) => {
                report.counts.tables += 1;
                report.counts.rows += looked.rows;
                report.counts.keys += looked.keys;
                looked.faults.into_iter().for_each(|what| report.damaged(path.clone(), what));
            }
            Err(Fault::Gone) => gone.push(path),
            Err(Fault::Unreadable(what)) => report.unreadable.push(Damage { object: path, what }),
        }
        *done += 1;
        progress.moved(*done, of);
    }
}

/// A table nobody names any more.
pub(super) async fn alone(walk: &mut Walk<'_>, path: &ObjectPath, len: u64) {
    let looked = async {
        let footer = walk.fetch.range(path, len.saturating_sub(FOOTER_LEN as u64)..len).await?;
        match meta_offset(&footer) {
            Ok(at) if at < len => look(&walk.fetch, path, None, len, at).await,
            Ok(at) => Ok(Looked {
                faults: vec![format!("its metadata is said to begin at {at}")],
                ..Looked::default()
            }),
            Err(e) => Ok(Looked { faults: vec![e.to_string()], ..Looked::default() }),
        }
    };
    match looked.await {
        Ok(looked) => {
            walk.report.counts.tables += 1;
            looked.faults.into_iter().for_each(|what| walk.report.damaged(path.as_str(), what));
        }
        Err(Fault::Gone) => walk.report.counts.collected_meanwhile += 1,
        Err(Fault::Unreadable(what)) => {
            walk.report.unreadable.push(Damage { object: path.to_string(), what });
        }
    }
}

/// Looks at one table, `len` bytes long, whose metadata begins at `at`.
async fn look(
    fetch: &Fetch<'_>,
    path: &ObjectPath,
    named: Option<(&TableEntry, &Blobs)>,
    len: u64,
    at: u64,
) -> Result<Looked, Fault> {
    let mut looked = Looked::default();
    let (entry, blobs) = (named.map(|(entry, _)| entry), named.map(|(_, blobs)| blobs));
    let tail = fetch.range(path, at.min(len)..len).await?;
    if entry.is_some_and(|e| e.crc != crc32c::crc32c(&tail)) {
        looked.faults.push("the checksum of its metadata is not the one the manifest records".to_owned());
    }
    let meta = match TableMeta::decode(tail, at) {
        Ok(meta) => meta,
        Err(e) => {
            looked.faults.push(e.to_string());
            return Ok(looked);
        }
    };
    if !meta.has_filter() && entry.is_none() {
        looked.faults.push("its filter is damaged".to_owned());
    }
    let mut audit = TableAudit::new(&meta);
    let before = looked.faults.len();
    let mut block = 0;
    while block < meta.block_count() {
        block = piece(fetch, path, &meta, block, &mut audit, &mut looked, blobs).await?;
        // A large table must not keep the runtime to itself.
        tokio::task::yield_now().await;
    }
    let broken = looked.faults.len() > before;
    let (found, faults) = audit.finish();
    (looked.rows, looked.keys) = (found.rows, found.keys);
    // Where blocks could not be read, their rows are missing: that much is said already.
    if !broken {
        looked.faults.extend(faults);
        looked.faults.extend(entry.and_then(|e| contradiction(e, &found)));
    }
    Ok(looked)
}

/// Looks at the blocks from `first` on that one request brings, and gives the next one's number.
async fn piece(
    fetch: &Fetch<'_>,
    path: &ObjectPath,
    meta: &TableMeta,
    first: usize,
    audit: &mut TableAudit<'_>,
    looked: &mut Looked,
    blobs: Option<&Blobs>,
) -> Result<usize, Fault> {
    let start = meta.block_range(first).start;
    let mut next = first + 1;
    while next < meta.block_count() && meta.block_range(next).end - start <= PIECE {
        next += 1;
    }
    let bytes = fetch.range(path, start..meta.block_range(next - 1).end).await?;
    for i in first..next {
        let range = meta.block_range(i);
        let stored = bytes.slice((range.start - start) as usize..(range.end - start) as usize);
        match Block::decode_shared(&stored) {
            Ok(block) => {
                audit.block(&block);
                looked.faults.extend(blobs.and_then(|blobs| wrong_pointer(blobs, &block)));
            }
            Err(e) => looked.faults.push(format!("block {i} at byte {}: {e}", range.start)),
        }
    }
    Ok(next)
}

/// What is wrong with the first wrong pointer of `block`.
fn wrong_pointer(blobs: &Blobs, block: &Block) -> Option<String> {
    let mut cursor = block.cursor();
    cursor.first();
    while let Some(row) = cursor.row() {
        if let Some(what) = blobs.contradiction(&row) {
            return Some(what);
        }
        cursor.next();
    }
    None
}

/// How the rows contradict the table's entry in the manifest, if they do.
fn contradiction(entry: &TableEntry, found: &Properties) -> Option<String> {
    let mut told = found.to_entry(&entry.name, entry.len, entry.meta_offset, entry.crc);
    told.extra.clone_from(&entry.extra);
    // Entries of an earlier version count neither their expiring rows nor what they point at; those that do must be
    // right.
    told.expiring = told.expiring.filter(|_| entry.expiring.is_some());
    if entry.blob_use.is_empty() {
        told.blob_use.clear();
    }
    (told != *entry).then(|| format!("the manifest says {entry:?}, its rows say {told:?}"))
}
