//! The decision: from what was found to the one manifest that is to be the head's, or to a refusal. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::base::{Rejected, number_of};
use super::path::{self, Fate, Gap, Segment};
use super::refusal::RecoverError;
use super::survey::Findings;
use super::{EPOCH_STRIDE, Remains, VERSION_STRIDE};
use crate::coordination::groups;
use crate::ids::{CommitId, Epoch, Incarnation, Lineage, SeqNo, Version};
use crate::manifest::{Author, Change, Edit, LogEntry, Manifest, check};
use crate::names;
use crate::row::BlobId;

/// What the person who runs it has agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Consent {
    /// The log may end before a missing link.
    pub loss: bool,
    /// A head that looks sound may be replaced.
    pub sound: bool,
}

/// Random numbers of one recover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fresh {
    /// The new history.
    pub lineage: Lineage,
    /// The recover itself as the holder of its epoch.
    pub incarnation: Incarnation,
    /// Identity of the new head.
    pub commit: CommitId,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The checkpoint it builds on.
    pub base: String,
    /// The version of the manifest read from it: the checkpoint's own, or that of the last edit replayed onto it.
    pub base_version: Version,
    /// The last sequence number that the base holds.
    pub base_seq: SeqNo,
    /// Newer checkpoints that cannot be built on.
    pub rejected: Vec<Rejected>,
    /// Segments that become part of the log, in order.
    pub adopted: Vec<Arc<LogEntry>>,
    /// What is given up.
    pub gap: Option<Gap>,
    /// Objects that nothing will name.
    pub orphans: Orphans,
    /// The place of the new history in the row of histories.
    pub lineage_number: u64,
    /// The manifest that becomes the head's.
    pub manifest: Manifest,
    /// What it replaces.
    pub remains: Remains,
}

/// Objects that the recovered manifest does not name, by folder: for the orphan sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Orphans {
    /// In `log/`.
    pub log: usize,
    /// In `table/`.
    pub tables: usize,
    /// In `blob/`.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Decides.
///
/// # Errors
/// [`RecoverError`]; nothing has been written.
pub fn plan(found: &Findings, consent: Consent, fresh: Fresh) -> Result<Plan, RecoverError> {
    let base = found.base.as_ref().ok_or_else(|| RecoverError::NoBase(found.rejected.clone()))?;
    let anchor = match &found.record {
        Some((epoch, _)) if *epoch <= base.manifest.epoch => None,
        Some((_, Ok(object))) => Some(object),
        Some((epoch, Err(why))) => {
            let path = names::epoch(*epoch);
            return Err(RecoverError::Contradiction(format!(
                "{path}, which says where the log goes on, {why}"
            )));
        }
        None => None,
    };
    let path = path::follow(&base.manifest, anchor, &found.lineages, &found.segments)
        .map_err(RecoverError::Contradiction)?;
    let kept = path.adopted.last().map_or(base.manifest.last_seq, |s| s.header.last_seq);
    let gap = path.gap.or_else(|| ends_early(found, kept));
    if let Some(gap) = gap.clone().filter(|_| !consent.loss) {
        return Err(RecoverError::Loss { gap, kept });
    }
    if let Some(why) = sound(found, kept).filter(|_| !consent.sound) {
        return Err(RecoverError::Sound(why));
    }
    let manifest = build(found, &base.manifest, &path.adopted, fresh)?;
    Ok(Plan {
        base: base.path.clone(),
        base_version: base.manifest.version,
        base_seq: base.manifest.last_seq,
        rejected: found.rejected.clone(),
        adopted: path.adopted.into_iter().map(|s| s.entry).collect(),
        gap,
        orphans: orphans(found, &manifest),
        lineage_number: found.lineages.len() as u64 + 1,
        manifest,
        remains: found.remains.clone(),
    })
}

/// The path ends without a hole, and below what was certainly committed.
fn ends_early(found: &Findings, kept: SeqNo) -> Option<Gap> {
    let head = found.remains.head.as_ref().filter(|h| number_of(&found.lineages, h.lineage).is_some());
    let heads = head.map(|h| (h.last_seq, "the head that is still there names them"));
    let seen = found.seen_seq.map(|seq| (seq, "a checkpoint that cannot be built on names them"));
    let (last, why) = heads.into_iter().chain(seen).max_by_key(|(seq, _)| *seq)?;
    (last > kept).then(|| Gap {
        first: kept.next(),
        last,
        why: why.to_owned(),
        beyond: Vec::new(),
        fate: Fate::Committed,
    })
}

/// Why there is nothing to recover, if there is nothing.
fn sound(found: &Findings, kept: SeqNo) -> Option<String> {
    let head = found.sound.as_ref()?;
    let newest = found.lineages.last().is_some_and(|l| l.lineage == head.lineage);
    let known = found.record.as_ref().is_none_or(|(epoch, _)| *epoch <= head.epoch)
        && found.checkpoint_version <= head.version
        && kept <= head.last_seq;
    (newest && known).then(|| {
        format!(
            "the head is at version {}, epoch {}, sequence number {}, it is whole, and the bucket knows nothing that it \
             does not. Programs that refuse it have seen a newer one: restart them. (--even-if-sound recovers all the \
             same; snapshots and claims made since version {} would be lost)",
            head.version,
            head.epoch,
            head.last_seq,
            found.base.as_ref().map(|b| b.manifest.version).unwrap_or_default()
        )
    })
}

/// The recovered manifest: the base, one takeover that adopts the path, and then another history.
fn build(
    found: &Findings,
    base: &Manifest,
    path: &[Segment],
    fresh: Fresh,
) -> Result<Manifest, RecoverError> {
    let epoch = Epoch(round_up(found.highest_epoch.max(base.epoch).0, EPOCH_STRIDE));
    let adoption = Change::Adopt {
        epoch,
        incarnation: fresh.incarnation,
        node: "isle recover".to_owned(),
        rolled: path.iter().map(|s| Arc::clone(&s.entry)).collect(),
    };
    let edit = Edit {
        version: base.version.next(),
        lineage: base.lineage,
        epoch,
        commit: fresh.commit,
        author: Author::Writer,
        changes: vec![Change::AddBlobs { blobs: blobs(found, base, path)? }, adoption],
        required_features: Vec::new(),
        extra: BTreeMap::new(),
    };
    let unfit = |e: String| RecoverError::Contradiction(format!("the log does not fit the checkpoint: {e}"));
    let mut manifest = base.apply(&edit).map_err(|e| unfit(e.to_string()))?;
    manifest.lineage = fresh.lineage;
    manifest.version = Version(round_up(found.highest_version.max(manifest.version).0, VERSION_STRIDE));
    // Whoever held a claim holds it in the old history.
    manifest.jobs.clear();
    // Merges in parts begin anew: what they had staged may be gone with the edits that were lost, and is an orphan now.
    manifest.staged.clear();
    manifest.groups = groups::recovered(base, &found.remains, &manifest);
    check::whole(&manifest).map_err(|e| unfit(e.to_string()))?;
    Ok(manifest)
}

/// The next multiple of `stride`.
fn round_up(above: u64, stride: u64) -> u64 {
    (above / stride).saturating_add(1).saturating_mul(stride)
}

/// The blob files that the path points at and the base does not hold yet.
fn blobs(found: &Findings, base: &Manifest, path: &[Segment]) -> Result<BTreeMap<BlobId, u64>, RecoverError> {
    let mut added = BTreeMap::new();
    for (segment, blob) in path.iter().flat_map(|s| s.entry.blobs.iter().map(move |b| (s, b))) {
        if base.blobs.contains_key(blob) {
            continue;
        }
        let object = names::blob(blob);
        let Some(len) = found.objects.get(object.as_str()) else {
            let path = segment.entry.path();
            return Err(RecoverError::Contradiction(format!("{path} points at {object}, which is gone")));
        };
        added.insert(blob.clone(), *len);
    }
    Ok(added)
}

fn orphans(found: &Findings, manifest: &Manifest) -> Orphans {
    let log = manifest.log.iter().map(|e| e.path());
    let tables = manifest.tables().map(|t| t.path());
    let blobs = manifest.blobs.keys().map(|b| names::blob(b));
    let retired = manifest.retired.iter().map(|r| r.path.clone());
    let named: BTreeSet<String> = log.chain(tables).chain(blobs).chain(retired).map(String::from).collect();
    let mut orphans = Orphans::default();
    for (path, len) in found.objects.iter().filter(|(path, _)| !named.contains(*path)) {
        match path.split('/').next() {
            Some("log") => orphans.log += 1,
            Some("table") => orphans.tables += 1,
            _ => orphans.blobs += 1,
        }
        orphans.bytes += len;
    }
    orphans
}
