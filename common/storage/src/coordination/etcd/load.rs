//! Loading: head, edits and epoch at one revision, the checkpoint from the bucket, and the edits replayed over it.
//!
//! Between the read and the fetch of the checkpoint somebody may fold, and much later collect the checkpoint that the
//! head no longer names; a hole in the edits or a missing object therefore restarts the load from a fresh read, within
//! a bound. What still does not fit together then is damage.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::KeyValue;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::client::{Answer, get, get_prefix};
use super::edits::{self, EditReadError};
use super::keys::EpochValue;
use super::{EtcdCoordination, edits::EditValue};
use crate::coordination::{CoordinationError, HeadState, Loaded};
use crate::format::FormatError;
use crate::ids::Version;
use crate::manifest::{CheckpointRef, Edit, Head, Manifest, checkpoint};
use crate::object::{Bucket, StoreError, StoreErrorKind};

/// Loads tried before what was found counts as damage.
const LOAD_TRIES: u32 = 5;

/// Pause before the next try, growing with each.
const LOAD_PAUSE: Duration = Duration::from_millis(100);

/// Why a load did not come to its end.
enum Broken {
    /// What was read does not fit together: a fold may have come between.
    Restart(String),
    /// Repeating at once will not help.
    Final(CoordinationError),
}

impl From<CoordinationError> for Broken {
    fn from(error: CoordinationError) -> Self {
        Self::Final(error)
    }
}

impl EtcdCoordination {
    pub(super) async fn load_whole(&self) -> Result<Loaded, CoordinationError> {
        let mut last = String::new();
        for n in 0..LOAD_TRIES {
            sleep(LOAD_PAUSE * n).await;
            match self.load_once().await {
                Ok(loaded) => return Ok(loaded),
                Err(Broken::Restart(why)) => {
                    tracing::debug!(%why, "a load starts over");
                    last = why;
                }
                Err(Broken::Final(e)) => return Err(e),
            }
        }
        Err(CoordinationError::Damaged(last))
    }

    async fn load_once(&self) -> Result<Loaded, Broken> {
        let (as_of, before) = (Instant::now(), self.seen.furthest());
        let reads = vec![get(self.keys.head()), get_prefix(self.keys.edits()), get(self.keys.epoch())];
        let answer = self.kv.read_much(reads).await.map_err(CoordinationError::from)?;
        let state = self.read_head(&answer)?;
        judge_epoch(&state.head, answer.value(2))?;
        judge_progress(before.as_ref(), &state.head).map_err(CoordinationError::Regressed)?;

        let base = self.checkpoint(&state.head.checkpoint).await?;
        let edits = self.edits_between(&answer.reads[1], base.version, state.head.version).await?;
        let manifest = replay(base, edits, &state.head)?;
        self.seen.note(&state.head);
        Ok(Loaded { state, manifest, as_of })
    }

    fn read_head(&self, answer: &Answer) -> Result<HeadState, CoordinationError> {
        let Some(raw) = answer.value(0) else {
            return Err(CoordinationError::NotFound(self.place()));
        };
        let head = decode_head(raw)?;
        Ok(HeadState { head, raw: Bytes::copy_from_slice(raw), revision: answer.revision })
    }

    /// The checkpoint, from the bucket unless it is the one fetched last: objects never change.
    async fn checkpoint(&self, wanted: &CheckpointRef) -> Result<Arc<Manifest>, Broken> {
        if let Some(kept) = self.kept.get(wanted) {
            return Ok(kept);
        }
        let manifest = fetch_checkpoint(self.bucket.as_ref(), wanted).await?;
        self.kept.put(wanted.clone(), Arc::clone(&manifest));
        Ok(manifest)
    }

    /// Every edit above `base` up to `head`, in order.
    async fn edits_between(
        &self,
        kvs: &[KeyValue],
        base: Version,
        head: Version,
    ) -> Result<Vec<Edit>, Broken> {
        let mut edits = Vec::new();
        let mut expected = base.next();
        for kv in kvs {
            let Some(version) = self.keys.parse_edit(kv.key()) else { continue };
            if version < expected || version > head {
                continue;
            }
            if version != expected {
                return Err(Broken::Restart(format!("edit {expected} is missing")));
            }
            let value: Result<EditValue, _> = edits::decode(kv.value(), version);
            edits.push(edits::fetch(self.bucket.as_ref(), value?, version).await?);
            expected = version.next();
        }
        if expected == head.next() {
            Ok(edits)
        } else {
            Err(Broken::Restart(format!("edits {expected} to {head} are missing")))
        }
    }
}

impl From<EditReadError> for Broken {
    fn from(error: EditReadError) -> Self {
        match error {
            EditReadError::Gone(why) => Self::Restart(why),
            EditReadError::Passing(why) => Self::Final(CoordinationError::Unavailable(why)),
            EditReadError::Definite(e) => Self::Final(e),
        }
    }
}

/// Reads a head's bytes.
pub(super) fn decode_head(raw: &[u8]) -> Result<Head, CoordinationError> {
    serde_json::from_slice(raw)
        .map_err(|e| CoordinationError::Damaged(format!("the head in etcd cannot be read: {e}")))
}

/// The claimed epoch is of the head's history and not behind it: anything else is a subtree put together by hand.
fn judge_epoch(head: &Head, raw: Option<&[u8]>) -> Result<(), CoordinationError> {
    let text = raw.map_or_else(|| "absent".into(), String::from_utf8_lossy);
    match raw.and_then(EpochValue::parse) {
        Some(value) if value.lineage == head.lineage && value.epoch >= head.epoch => Ok(()),
        Some(value) if value.lineage == head.lineage => Err(CoordinationError::Regressed(format!(
            "the head is of epoch {}, the newest claimed is {}",
            head.epoch, value.epoch
        ))),
        _ => Err(CoordinationError::Damaged(format!(
            "the epoch in etcd is {text}, which does not belong to the head's lineage {}",
            head.lineage
        ))),
    }
}

async fn fetch_checkpoint(bucket: &dyn Bucket, wanted: &CheckpointRef) -> Result<Arc<Manifest>, Broken> {
    let bytes = bucket.get(&wanted.path).await.map_err(|e| missing(&e))?;
    if bytes.len() as u64 != wanted.len || crc32c::crc32c(&bytes) != wanted.crc {
        let why = format!("checkpoint {} is damaged: it is not what the head describes", wanted.path);
        return Err(CoordinationError::Damaged(why).into());
    }
    let manifest = decode_off_runtime(bytes, wanted).await?;
    if manifest.version != wanted.version {
        let why = format!("checkpoint {} holds version {}", wanted.path, manifest.version);
        return Err(CoordinationError::Damaged(why).into());
    }
    Ok(Arc::new(manifest))
}

/// Large manifests take their time: decoded where they hold up no heartbeat.
async fn decode_off_runtime(bytes: Bytes, wanted: &CheckpointRef) -> Result<Manifest, CoordinationError> {
    let decoded: Result<Result<Manifest, FormatError>, _> =
        tokio::task::spawn_blocking(move || checkpoint::decode(&bytes)).await;
    let bad = |why: String| CoordinationError::Damaged(format!("checkpoint {}: {why}", wanted.path));
    match decoded {
        Ok(result) => result.map_err(|e| bad(e.to_string())),
        Err(e) => Err(CoordinationError::Unavailable(format!("decoding checkpoint {}: {e}", wanted.path))),
    }
}

fn missing(error: &StoreError) -> Broken {
    match error.kind {
        StoreErrorKind::NotFound => {
            Broken::Restart(format!("the head names a checkpoint that is not in the bucket: {error}"))
        }
        StoreErrorKind::Transient => Broken::Final(CoordinationError::Unavailable(error.to_string())),
        _ => Broken::Final(CoordinationError::Refused(error.to_string())),
    }
}

/// Replays edits over a checkpoint, and holds the result against the head.
fn replay(base: Arc<Manifest>, edits: Vec<Edit>, head: &Head) -> Result<Arc<Manifest>, CoordinationError> {
    let mut manifest = base;
    for edit in &edits {
        let next = manifest.apply(edit).map_err(|e| CoordinationError::Damaged(e.to_string()))?;
        manifest = Arc::new(next);
    }
    let m = &manifest;
    if (m.lineage, m.version, m.epoch, m.last_seq) == (head.lineage, head.version, head.epoch, head.last_seq)
    {
        return Ok(manifest);
    }
    Err(CoordinationError::Damaged(format!(
        "checkpoint and edits lead to version {}, epoch {}, sequence number {} of lineage {}; the head says {}, {}, {} of {}",
        m.version, m.epoch, m.last_seq, m.lineage, head.version, head.epoch, head.last_seq, head.lineage
    )))
}

/// The checkpoint fetched last.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Option<(CheckpointRef, Arc<Manifest>)>>);

impl Kept {
    fn get(&self, wanted: &CheckpointRef) -> Option<Arc<Manifest>> {
        self.0.lock().as_ref().filter(|(r, _)| r == wanted).map(|(_, m)| Arc::clone(m))
    }

    fn put(&self, wanted: CheckpointRef, manifest: Arc<Manifest>) {
        *self.0.lock() = Some((wanted, manifest));
    }
}

/// The furthest head this process has seen: a later read below it means that etcd was set back.
#[derive(Debug, Default)]
pub(super) struct SeenHead(Mutex<Option<Head>>);

impl SeenHead {
    /// Remembers a head, where it is further than what was seen, or of another history.
    pub(super) fn note(&self, head: &Head) {
        let mut seen = self.0.lock();
        if seen.as_ref().is_none_or(|s| s.lineage != head.lineage || s.version <= head.version) {
            *seen = Some(head.clone());
        }
    }

    /// The furthest head so far.
    fn furthest(&self) -> Option<Head> {
        self.0.lock().clone()
    }
}

/// Judges a head against one that was seen before it was asked for (a head seen meanwhile may well be further).
fn judge_progress(before: Option<&Head>, head: &Head) -> Result<(), String> {
    match before {
        Some(s) if s.lineage == head.lineage && (head.version < s.version || head.last_seq < s.last_seq) => {
            Err(format!(
                "the head is at version {} and sequence number {}, and was at {} and {} before: etcd was set back; \
                 stop every role and run `isle recover`",
                head.version, head.last_seq, s.version, s.last_seq
            ))
        }
        _ => Ok(()),
    }
}
