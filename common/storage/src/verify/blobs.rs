//! Every blob file: its directory, every chunk and value in it, and later every pointer into it.
//!
//! **Memory.** The directories stay, 24 bytes a value, until every row has been held against them.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use futures::{StreamExt, stream};

use super::Walk;
use super::fetch::{Fault, Fetch};
use super::report::Damage;
use crate::blob::{BlobDirectory, FOOTER_LEN, START_LEN, Stored, ValueReader, check_start, directory_offset};
use crate::manifest::Manifest;
use crate::names::{self, ObjectPath};
use crate::row::{BlobId, BlobPointer, RowRef, ValueRef};

/// Files worked on at the same time.
const AT_ONCE: usize = 4;

/// Bytes of values read by one request, about.
const PIECE: u64 = 4 << 20;

/// What the blob files hold, as far as they could be read.
#[derive(Debug, Default)]
pub(super) struct Blobs {
    /// `None`: what is wrong with the file was said already.
    files: BTreeMap<BlobId, Option<BlobDirectory>>,
}

impl Blobs {
    /// What is wrong with the pointer of `row`, if it has one.
    pub(super) fn contradiction(&self, row: &RowRef<'_>) -> Option<String> {
        let ValueRef::Blob(p) = row.value else { return None };
        match self.files.get(p.blob) {
            None => Some(format!(
                "row {} points at blob file {}, which the manifest does not hold",
                row.seq, p.blob
            )),
            Some(None) => None,
            Some(Some(directory)) => {
                let value = Stored { offset: p.offset, len: p.len, crc: p.crc };
                (!directory.holds(&value)).then(|| {
                    format!(
                        "row {} points at {value:?} in blob file {}, where no such value lies",
                        row.seq, p.blob
                    )
                })
            }
        }
    }
}

/// Walks every blob file of `manifest`.
pub(super) async fn walk(walk: &mut Walk<'_>, manifest: &Manifest) {
    let unseen: Vec<String> = walk.names.unseen("blob/").cloned().collect();
    walk.gone.extend(unseen);
    let Walk { fetch, names, report, gone, folder, progress, done, blobs, .. } = walk;
    let of = names.len() as u64 + folder.seen();
    let fetch: &Fetch<'_> = fetch;
    let there = manifest.blobs.iter().map(|(blob, len)| (blob.clone(), names::blob(blob), *len));
    let there: Vec<_> = there.filter(|(_, path, _)| names.was_seen(path.as_str())).collect();
    blobs.files = manifest.blobs.keys().map(|b| (b.clone(), None)).collect();
    let read = |(blob, path, len): (BlobId, ObjectPath, u64)| async move {
        let looked = look(fetch, &blob, &path, len).await;
        (blob, path, looked)
    };
    let mut files = stream::iter(there).map(read).buffer_unordered(AT_ONCE);
    while let Some((blob, path, looked)) = files.next().await {
        match looked {
            Ok((directory, faults)) => {
                report.counts.blobs += 1;
                report.counts.values += directory.as_ref().map_or(0, |d| d.values().len() as u64);
                blobs.files.insert(blob, directory);
                faults.into_iter().for_each(|what| report.damaged(path.as_str(), what));
            }
            Err(Fault::Gone) => gone.push(path.to_string()),
            Err(Fault::Unreadable(what)) => {
                report.unreadable.push(Damage { object: path.to_string(), what });
            }
        }
        *done += 1;
        progress.moved(*done, of);
    }
}

/// A blob file nobody names any more.
pub(super) async fn alone(walk: &mut Walk<'_>, path: &ObjectPath, len: u64) {
    match look(&walk.fetch, "", path, len).await {
        Ok((_, faults)) => {
            walk.report.counts.blobs += 1;
            faults.into_iter().for_each(|what| walk.report.damaged(path.as_str(), what));
        }
        Err(Fault::Gone) => walk.report.counts.collected_meanwhile += 1,
        Err(Fault::Unreadable(what)) => {
            walk.report.unreadable.push(Damage { object: path.to_string(), what });
        }
    }
}

async fn look(
    fetch: &Fetch<'_>,
    blob: &str,
    path: &ObjectPath,
    len: u64,
) -> Result<(Option<BlobDirectory>, Vec<String>), Fault> {
    let end = fetch.range(path, len.saturating_sub(FOOTER_LEN as u64)..len).await?;
    let offset = match directory_offset(&end) {
        Ok(offset) if offset < len => offset,
        Ok(offset) => return Ok((None, vec![format!("its directory is said to begin at {offset}")])),
        Err(e) => return Ok((None, vec![e.to_string()])),
    };
    let directory = match BlobDirectory::decode(&fetch.range(path, offset..len).await?, offset) {
        Ok(directory) => directory,
        Err(e) => return Ok((None, vec![e.to_string()])),
    };
    let mut faults = Vec::new();
    if let Err(e) = check_start(&fetch.range(path, 0..START_LEN).await?) {
        faults.push(e.to_string());
    }
    let mut rest = directory.values();
    while let Some(first) = rest.first() {
        let together = rest.iter().take_while(|v| v.end() - first.offset <= PIECE).count().max(1);
        let (now, later) = rest.split_at(together);
        let span = first.offset..now.last().map_or(first.offset, Stored::end);
        let bytes = if span.end - span.start <= PIECE {
            fetch.range(path, span.clone()).await?
        } else {
            Bytes::new()
        };
        for value in now {
            if let Some(what) = damage(fetch, blob, path, value, (&bytes, &span)).await? {
                faults.push(what);
            }
        }
        rest = later;
        tokio::task::yield_now().await;
    }
    Ok((Some(directory), faults))
}

/// What is wrong with one value. Its bytes are among those `at` hand, or are fetched piece by piece.
async fn damage(
    fetch: &Fetch<'_>,
    blob: &str,
    path: &ObjectPath,
    value: &Stored,
    (at_hand, span): (&Bytes, &Range<u64>),
) -> Result<Option<String>, Fault> {
    let Stored { offset, len, crc } = *value;
    let mut reader = ValueReader::whole(&BlobPointer { blob: blob.to_owned(), offset, len, crc }, PIECE);
    while let Some(range) = reader.wants() {
        let stored = if at_hand.is_empty() {
            fetch.range(path, range).await?
        } else {
            at_hand.slice((range.start - span.start) as usize..(range.end - span.start) as usize)
        };
        if let Err(e) = reader.take(&stored) {
            return Ok(Some(e.to_string()));
        }
    }
    Ok(reader.end().err().map(|e| e.to_string()))
}
