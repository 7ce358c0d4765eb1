//! The log, in order: every object, block and record, and what links them.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};

use super::Walk;
use super::blobs::Blobs;
use super::fetch::{Fault, Fetch};
use super::report::Damage;
use crate::log::{self, LogHeader, RawBlock};
use crate::manifest::{LogEntry, LogTail, Manifest, judge};
use crate::names::{self, LogKind, ObjectPath};

/// Log objects read ahead: each is at most one generation of the writer.
const AHEAD: usize = 4;

/// Walks the log of `manifest`.
pub(super) async fn walk(walk: &mut Walk<'_>, manifest: &Manifest) {
    let unseen: Vec<String> = walk.names.unseen("log/").cloned().collect();
    walk.gone.extend(unseen);
    let Walk { fetch, names, report, gone, folder, progress, done, blobs, .. } = walk;
    let of = names.len() as u64 + folder.seen();
    let mut there = manifest.log.clone();
    there.retain(|e| names.was_seen(e.path().as_str()));
    let fetch: &Fetch<'_> = fetch;
    let read = |entry: Arc<LogEntry>| async move {
        let read = fetch.get(&entry.path()).await;
        (entry, read)
    };
    let mut objects = stream::iter(there).map(read).buffered(AHEAD);
    let mut chain = Chain { manifest, before: None };
    while let Some((entry, read)) = objects.next().await {
        let path = entry.path().to_string();
        match read {
            Ok(bytes) => {
                let (header, faults) = judge_object(&entry, &bytes, manifest, blobs);
                faults.into_iter().for_each(|what| report.damaged(path.clone(), what));
                if let Some(header) = header {
                    report.counts.log_objects += 1;
                    report.counts.records += entry.count();
                    if !folder.knows(header.lineage) {
                        let what =
                            format!("it is of lineage {}, which no lineage object names", header.lineage);
                        report.damaged(path.clone(), what);
                    }
                    chain
                        .link(&entry, &header)
                        .into_iter()
                        .for_each(|what| report.damaged(path.clone(), what));
                } else {
                    chain.before = None;
                }
            }
            Err(Fault::Gone) => {
                gone.push(path);
                chain.before = None;
            }
            Err(Fault::Unreadable(what)) => {
                report.unreadable.push(Damage { object: path, what });
                chain.before = None;
            }
        }
        *done += 1;
        progress.moved(*done, of);
    }
    let tail = chain.before.map(|(_, tail)| tail);
    if let (Some(Some(found)), Some(stated)) = (tail, manifest.tail)
        && found != stated
    {
        report.damaged("", format!("the manifest's tail is {stated:?}, the log ends with {found:?}"));
    }
}

/// Decodes an object by itself and holds it against its entry.
fn judge_object(
    entry: &LogEntry,
    bytes: &Bytes,
    manifest: &Manifest,
    blobs: &Blobs,
) -> (Option<LogHeader>, Vec<String>) {
    let mut faults = Vec::new();
    if (bytes.len() as u64, crc32c::crc32c(bytes)) != (entry.len, entry.crc) {
        faults.push("length or checksum are not those the manifest records".to_owned());
    }
    let object = match log::decode(bytes) {
        Ok(object) => object,
        Err(e) => {
            faults.push(e.to_string());
            return (None, faults);
        }
    };
    match log::describe(bytes) {
        Ok(mut described) => {
            described.extra.clone_from(&entry.extra);
            if described != *entry {
                faults.push(format!("the manifest says {entry:?}, the object {described:?}"));
            }
        }
        Err(e) => faults.push(e.to_string()),
    }
    let header = object.header;
    if header.database != manifest.database {
        faults.push(format!("it is of database {}", header.database));
    }
    faults.extend(gaps(&header, &object.blocks));
    let rows = object.blocks.iter().flat_map(RawBlock::rows);
    faults.extend(rows.filter_map(|row| blobs.contradiction(&row)).next());
    (Some(header), faults)
}

/// The records of the blocks are dense and their times never decrease.
fn gaps(header: &LogHeader, blocks: &[RawBlock]) -> Option<String> {
    let (mut next, mut time) = (header.first_seq, None);
    for block in blocks {
        for row in block.rows() {
            if row.seq != next {
                return Some(format!("record {} stands where {next} should", row.seq));
            }
            if time.is_some_and(|before| before > row.time) {
                return Some(format!("the write time of record {} is before its predecessor's", row.seq));
            }
            (next, time) = (next.next(), Some(row.time));
        }
    }
    (next != header.last_seq.next())
        .then(|| format!("its records end before {next}, its header says {}", header.last_seq))
}

/// What links one log object to the next.
struct Chain<'a> {
    manifest: &'a Manifest,
    /// The object before, and the last segment it holds or stands for; `None` where it is not known.
    before: Option<(LogEntry, Option<LogTail>)>,
}

impl Chain<'_> {
    fn link(&mut self, entry: &LogEntry, header: &LogHeader) -> Vec<String> {
        let mut faults = Vec::new();
        let segments: Vec<LogTail> = match header.kind {
            LogKind::Segment => vec![header.tail()],
            LogKind::Chunk => header.parts.clone(),
        };
        if let Some((before, tail)) = &self.before {
            if header.first_seq != before.last_seq.next() {
                faults.push(format!(
                    "it begins with {}, its predecessor ends with {}",
                    header.first_seq, before.last_seq
                ));
            }
            if header.kind == LogKind::Segment && tail.is_some() && header.previous != *tail {
                faults.push(format!("it names {:?} as its predecessor, which is {tail:?}", header.previous));
            }
            if entry.first_time < before.last_time {
                faults.push("its first write is before its predecessor's last".to_owned());
            }
        }
        for segment in &segments {
            let remembered = self.manifest.epochs.iter().any(|e| e.epoch == segment.id.epoch);
            if remembered && !judge::leads_through(&self.manifest.epochs, self.manifest.last_seq, segment) {
                faults.push(format!(
                    "segment {} is not on the path that the epochs' cuts describe",
                    segment.id
                ));
            }
        }
        self.before = Some((entry.clone(), segments.last().copied()));
        faults
    }
}

/// A log object nobody names any more: it decodes by itself and is what its name says.
pub(super) async fn alone(walk: &mut Walk<'_>, path: &ObjectPath) {
    let bytes = match walk.fetch.get(path).await {
        Ok(bytes) => bytes,
        Err(Fault::Gone) => return walk.report.counts.collected_meanwhile += 1,
        Err(Fault::Unreadable(what)) => {
            return walk.report.unreadable.push(Damage { object: path.to_string(), what });
        }
    };
    match log::decode(&bytes) {
        Ok(object) => {
            walk.report.counts.log_objects += 1;
            let says = (object.header.id(), object.header.kind);
            if names::parse_log(path.as_str()) != Some(says) {
                walk.report.damaged(path.as_str(), format!("its header says {} ({:?})", says.0, says.1));
            }
            if let Some(gap) = gaps(&object.header, &object.blocks) {
                walk.report.damaged(path.as_str(), gap);
            }
        }
        Err(e) => walk.report.damaged(path.as_str(), e.to_string()),
    }
}
