//! Roll-forward: what a takeover adopts of the segments that earlier epochs uploaded and did not see committed.
//!
//! ```text
//!   head's log ──► tail ──► s1 ──► s2      s3        each segment's header names its predecessor
//!                  epoch 4, named   epoch 4's,       s2's name follows from s1's last number; s3's upload never
//!                  by the head      uploaded         arrived in time, so the chain ends at s2, for ever
//! ```
//! Three rules decide which segments are on the path:
//! - **A committed adoption is the end of every older epoch.** Only the epoch that the tail was adopted under is
//!   followed (and those after it, none of which has a segment: work is accepted only once an epoch object stands, and
//!   the highest of these is where we start). [A segment of epoch 3 arrives late, after epoch 4's adoption left it out
//!   and its client was told "not committed": following it would bring it back.]
//! - **A later cut in the bucket beats the head.** Where an epoch object above the head's epoch stands, its adoption was
//!   committed and the head has since been set back; the path to its cut is walked backwards, predecessor by
//!   predecessor, and must arrive at the head's tail.
//! - **The predecessor must match**, and so must database, lineage and every checksum. A segment that names another
//!   predecessor belongs to another path. A damaged one is an error: it may be somebody's acknowledged write, if the
//!   head we see is an old one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::CoordinationError;
use super::write_once::get_if_there;
use crate::database::Database;
use crate::ids::{Epoch, Incarnation, Lineage};
use crate::log::{self, LogHeader};
use crate::manifest::judge::EpochObject;
use crate::manifest::{LogEntry, LogTail, Manifest};
use crate::names::{self, LogId, LogKind};
use crate::row::BlobId;

/// How many segments one takeover rolls forward at most. A writer has a few dozen in flight; a chain this long means
/// that something else is wrong, and the takeover refuses.
const MOST_ROLLED: usize = 65_536;

/// Where the path is followed from, and by whose names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Writer {
    epoch: Epoch,
    incarnation: Incarnation,
}

/// The segments to adopt after `head`'s tail, in order. `later` is the highest epoch object above the head's epoch.
///
/// # Errors
/// `Regressed` where `later`'s cut does not extend the head's log; `Damaged`; the store's.
pub(super) async fn roll_forward(
    db: &Database,
    head: &Manifest,
    later: Option<&EpochObject>,
) -> Result<Vec<Arc<LogEntry>>, CoordinationError> {
    let mut rolled = match later {
        Some(object) => path_to_cut(db, head, object).await?,
        None => Vec::new(),
    };
    let Some(writer) = last_writer(head, later) else { return Ok(rolled) };
    let mut tail = rolled.last().map(|s| tail_of(s)).or(head.tail);
    while let Some(next) = successor(db, head, writer, tail).await? {
        tail = Some(tail_of(&next));
        push(&mut rolled, next)?;
    }
    Ok(rolled)
}

/// The blob files that `rolled` points at and `head` does not hold yet, with their lengths. A segment is uploaded only
/// after its blobs are durable, and nobody deletes what an epoch may still commit: so one that is not there was lost.
///
/// # Errors
/// `Damaged` where one is gone; the store's.
pub(super) async fn new_blobs(
    db: &Database,
    head: &Manifest,
    rolled: &[Arc<LogEntry>],
) -> Result<BTreeMap<BlobId, u64>, CoordinationError> {
    let mut added = BTreeMap::new();
    for segment in rolled {
        for blob in segment.blobs.iter().filter(|b| !head.blobs.contains_key(*b)) {
            if added.contains_key(blob) {
                continue;
            }
            let path = names::blob(blob);
            let meta = match db.bucket.head(&path).await {
                Err(e) if e.is_not_found() => {
                    let segment = segment.path();
                    return Err(CoordinationError::Damaged(format!(
                        "{segment} points at {path}, which is gone"
                    )));
                }
                found => found?,
            };
            added.insert(blob.clone(), meta.len);
        }
    }
    Ok(added)
}

fn last_writer(head: &Manifest, later: Option<&EpochObject>) -> Option<Writer> {
    match later {
        Some(o) => Some(Writer { epoch: o.epoch, incarnation: o.incarnation }),
        None => head.epochs.last().map(|e| Writer { epoch: e.epoch, incarnation: e.incarnation }),
    }
}

fn tail_of(entry: &LogEntry) -> LogTail {
    LogTail { id: entry.id, last_seq: entry.last_seq }
}

fn push(rolled: &mut Vec<Arc<LogEntry>>, entry: LogEntry) -> Result<(), CoordinationError> {
    if rolled.len() == MOST_ROLLED {
        return Err(CoordinationError::Damaged(format!(
            "more than {MOST_ROLLED} uncommitted segments follow the head; run `isle recover`"
        )));
    }
    rolled.push(Arc::new(entry));
    Ok(())
}

/// The writer's segment right after `tail`, if it was uploaded and names `tail` as its predecessor.
async fn successor(
    db: &Database,
    head: &Manifest,
    writer: Writer,
    tail: Option<LogTail>,
) -> Result<Option<LogEntry>, CoordinationError> {
    let first_seq = tail.map(|t| t.last_seq).unwrap_or_default().next();
    let id = LogId { epoch: writer.epoch, incarnation: writer.incarnation, first_seq };
    let path = id.path(LogKind::Segment);
    let Some(bytes) = get_if_there(db.bucket.as_ref(), &path).await? else { return Ok(None) };
    let (header, entry) = read(&path.to_string(), &bytes)?;
    Ok(continues(&header, id, tail, head).then_some(entry))
}

/// Whether a segment, found under `id`'s name, is the next one after `tail` in `head`'s history.
fn continues(header: &LogHeader, id: LogId, tail: Option<LogTail>, head: &Manifest) -> bool {
    is_of(header, head.lineage, head) && header.id() == id && header.previous == tail
}

fn is_of(header: &LogHeader, lineage: Lineage, head: &Manifest) -> bool {
    header.kind == LogKind::Segment && header.database == head.database && header.lineage == lineage
}

fn read(name: &str, bytes: &Bytes) -> Result<(LogHeader, LogEntry), CoordinationError> {
    let damaged = |e| CoordinationError::Damaged(format!("{name}, uncommitted and found by a takeover: {e}"));
    let object = log::decode(bytes).map_err(damaged)?;
    let entry = log::describe(bytes).map_err(damaged)?;
    Ok((object.header, entry))
}

/// The segments between the head's tail and the cut of a later epoch, found backwards.
async fn path_to_cut(
    db: &Database,
    head: &Manifest,
    object: &EpochObject,
) -> Result<Vec<Arc<LogEntry>>, CoordinationError> {
    let mut path = Vec::new();
    let mut at = object.cut;
    while at != head.tail {
        let Some(segment) = at.filter(|s| s.last_seq > head.last_seq) else {
            return Err(contradicts(head, object, "its path does not lead through the head's last segment"));
        };
        let name = segment.id.path(LogKind::Segment);
        let Some(bytes) = get_if_there(db.bucket.as_ref(), &name).await? else {
            return Err(contradicts(head, object, &format!("{name} is gone")));
        };
        let (header, entry) = read(name.as_str(), &bytes)?;
        if !is_of(&header, head.lineage, head)
            || header.id() != segment.id
            || header.last_seq != segment.last_seq
        {
            return Err(contradicts(head, object, &format!("{name} is not the segment it should be")));
        }
        at = header.previous;
        push(&mut path, entry)?;
    }
    path.reverse();
    Ok(path)
}

fn contradicts(head: &Manifest, object: &EpochObject, why: &str) -> CoordinationError {
    CoordinationError::Regressed(format!(
        "the head is at version {} of epoch {}, sequence number {}, but epoch {} was adopted up to {}, and {why}: \
         coordination was set back; run `isle recover`",
        head.version,
        head.epoch,
        head.last_seq,
        object.epoch,
        object.cut.map(|c| c.last_seq).unwrap_or_default(),
    ))
}
