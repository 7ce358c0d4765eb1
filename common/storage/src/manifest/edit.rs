//! Edits: the steps from one manifest version to the next, as values, and the one function that takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::state::{
    CompactionMode, EpochStart, GroupCursor, JobClaim, LogEntry, LogTail, Manifest, RECENT_COMMITS, Retired,
    Run, Snapshot, TableEntry,
};
use super::{Violation, check};
use crate::ids::{CommitId, Epoch, Incarnation, JobId, Lineage, RunId, SeqNo, Version};
use crate::names::{LogKind, ObjectPath};
use crate::row::BlobId;

/// Who made an edit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// The writer of the edit's epoch.
    Writer,
    /// A compaction job.
    Job(JobId),
    /// Somebody who only keeps snapshots, groups or claims.
    Observer(String),
}

/// One change within an edit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// New segments, in order, right after the tail.
    AppendLog {
        /// At least one.
        segments: Vec<Arc<LogEntry>>,
    },
    /// A takeover: epoch `epoch` begins after what it rolled forward. In the bucket backend this is the claim itself.
    Adopt {
        /// The new epoch, above every earlier one.
        epoch: Epoch,
        /// Its incarnation.
        incarnation: Incarnation,
        /// The node, for people.
        node: String,
        /// Segments rolled forward from older epochs, in order, right after the tail.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        rolled: Vec<Arc<LogEntry>>,
    },
    /// A generation is now in tables.
    Flush {
        /// The end of the generation: a segment's last sequence number.
        flushed_seq: SeqNo,
        /// Its rows, ascending and disjoint by key; becomes the newest run.
        tables: Vec<Arc<TableEntry>>,
        /// The same generation rewritten for tailers; replaces its segments.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        chunk: Option<Arc<LogEntry>>,
    },
    /// Neighbouring runs became one, in their place.
    Merge {
        /// The inputs, newest first: neighbours in the manifest.
        inputs: Vec<RunId>,
        /// Ascending and disjoint by key; empty where nothing survived.
        tables: Vec<Arc<TableEntry>>,
        /// Every snapshot the job planned with.
        snapshots: Vec<SeqNo>,
        /// The mode the job planned with.
        planned_mode: CompactionMode,
        /// Whether deletes or expired rows were dropped: then nothing may lie beneath.
        dropped: bool,
        /// Whether superseded versions were dropped: raises the history floor to the inputs' newest number.
        judged: SeqNo,
    },
    /// The log up to and including this number is no longer kept for tailers.
    TrimLog {
        /// The end of a log object at or below the flushed number.
        trimmed_seq: SeqNo,
    },
    /// Retired objects that are gone from the bucket, or are about to be by a collector that has the right.
    Collected {
        /// Their paths.
        paths: Vec<ObjectPath>,
    },
    /// A new named snapshot.
    TakeSnapshot {
        /// Its name.
        name: String,
        /// What it holds.
        #[serde(flatten)]
        snapshot: Snapshot,
    },
    /// A snapshot's end.
    DropSnapshot {
        /// Its name.
        name: String,
    },
    /// A change of compaction mode.
    SetCompaction {
        /// The new mode.
        compaction: CompactionMode,
    },
    /// Blob files that became part of the database.
    AddBlobs {
        /// Their names and lengths.
        blobs: BTreeMap<BlobId, u64>,
    },
    /// A job's claim begins or is renewed (bucket backend).
    ClaimJob {
        /// The job.
        job: JobId,
        /// Who and how lately.
        claim: JobClaim,
    },
    /// A job's claim ends (bucket backend).
    EndJob {
        /// The job.
        job: JobId,
    },
    /// A consumer group's cursor (bucket backend).
    SetGroup {
        /// Its name.
        group: String,
        /// Its cursor; `None` removes the group.
        cursor: Option<GroupCursor>,
    },
}

/// The step from version `version - 1` to `version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// The version this edit makes.
    pub version: Version,
    /// The history it belongs to.
    pub lineage: Lineage,
    /// The writer epoch it was made under (for an `Adopt`, the new one).
    pub epoch: Epoch,
    /// Identity of the commit.
    pub commit: CommitId,
    /// Who made it.
    pub author: Author,
    /// What it changes, in order. Empty: a turn yielded, or a void edit of a fenced writer.
    pub changes: Vec<Change>,
    /// Names a reader must know to apply this edit at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_features: Vec<String>,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Json>,
}

/// Why an edit does not fit a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It is for another version.
    #[error("edit {edit} does not follow version {manifest}")]
    WrongVersion {
        /// The edit's.
        edit: Version,
        /// The manifest's.
        manifest: Version,
    },
    /// It belongs to another history.
    #[error("edit {version} is of lineage {edit}, the manifest of {manifest}")]
    WrongLineage {
        /// The edit's version.
        version: Version,
        /// The edit's.
        edit: Lineage,
        /// The manifest's.
        manifest: Lineage,
    },
    /// It was made under another epoch than the manifest's: its maker is fenced, or ahead.
    #[error("edit {version} was made under epoch {edit}, the manifest is at epoch {manifest}")]
    WrongEpoch {
        /// The edit's version.
        version: Version,
        /// The edit's.
        edit: Epoch,
        /// The manifest's.
        manifest: Epoch,
    },
    /// This build does not know something the edit depends on.
    #[error("edit {version} needs the feature {feature:?}, which this build does not know: upgrade it")]
    UnknownFeature {
        /// The edit's version.
        version: Version,
        /// The unknown name.
        feature: String,
    },
    /// A change contradicts the manifest it is applied to; its maker reloads and plans again.
    #[error("edit {version}: {why}")]
    Stale {
        /// The edit's version.
        version: Version,
        /// What contradicts.
        why: String,
    },
    /// The result would break an invariant.
    #[error("edit {version} would break an invariant: {violation}")]
    Violates {
        /// The edit's version.
        version: Version,
        /// Which.
        violation: Violation,
    },
}

impl Edit {
    /// The head's `last_seq` and so on follow from the manifest; this is the edit's serialized form.
    ///
    /// # Errors
    /// None in practice: the type has no map with keys that are not strings.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

impl Manifest {
    /// Takes one step. The whole result is checked before it is handed out.
    ///
    /// # Errors
    /// [`EditError`]: the edit is for another version, lineage or epoch, contradicts this manifest, or would break an
    /// invariant. `self` is untouched.
    pub fn apply(&self, edit: &Edit) -> Result<Self, EditError> {
        let version = edit.version;
        if version != self.version.next() {
            return Err(EditError::WrongVersion { edit: version, manifest: self.version });
        }
        if edit.lineage != self.lineage {
            return Err(EditError::WrongLineage { version, edit: edit.lineage, manifest: self.lineage });
        }
        for feature in &edit.required_features {
            if !super::state::KNOWN_FEATURES.contains(&feature.as_str()) {
                return Err(EditError::UnknownFeature { version, feature: feature.clone() });
            }
        }
        let adopts = edit.changes.iter().any(|c| matches!(c, Change::Adopt { .. }));
        let epoch_fits = if adopts { edit.epoch > self.epoch } else { edit.epoch == self.epoch };
        if !epoch_fits {
            return Err(EditError::WrongEpoch { version, edit: edit.epoch, manifest: self.epoch });
        }
        let mut next = self.clone();
        next.version = version;
        for feature in &edit.required_features {
            if !next.required_features.contains(feature) {
                next.required_features.push(feature.clone());
            }
        }
        for change in &edit.changes {
            next.take(edit, change).map_err(|why| EditError::Stale { version, why })?;
        }
        next.remember(version, edit.commit);
        check::step(self, &next).map_err(|violation| EditError::Violates { version, violation })?;
        Ok(next)
    }

    /// The bucket backend's step over an edit that a fenced writer put under the next number: the number is used up,
    /// nothing changes.
    #[must_use]
    pub fn skip_void(&self, version: Version) -> Self {
        let mut next = self.clone();
        next.version = version;
        next
    }

    fn remember(&mut self, version: Version, commit: CommitId) {
        self.recent.push((version, commit));
        if self.recent.len() > RECENT_COMMITS {
            let surplus = self.recent.len() - RECENT_COMMITS;
            self.recent.drain(..surplus);
        }
    }

    fn take(&mut self, edit: &Edit, change: &Change) -> Result<(), String> {
        match change {
            Change::AppendLog { segments } => self.append_log(segments),
            Change::Adopt { epoch, incarnation, rolled, .. } => self.adopt(*epoch, *incarnation, rolled),
            Change::Flush { flushed_seq, tables, chunk } => {
                self.flush(edit.version, *flushed_seq, tables, chunk.as_ref())
            }
            Change::Merge { inputs, tables, snapshots, planned_mode, dropped, judged } => {
                self.merge(edit.version, inputs, tables, snapshots, planned_mode, *dropped, *judged)
            }
            Change::TrimLog { trimmed_seq } => self.trim_log(edit.version, *trimmed_seq),
            Change::Collected { paths } => self.collected(paths),
            Change::TakeSnapshot { name, snapshot } => self.take_snapshot(name, snapshot),
            Change::DropSnapshot { name } => {
                self.snapshots.remove(name).map(drop).ok_or_else(|| format!("there is no snapshot {name:?}"))
            }
            Change::SetCompaction { compaction } => {
                self.compaction = compaction.clone();
                Ok(())
            }
            Change::AddBlobs { blobs } => {
                self.blobs.extend(blobs.iter().map(|(name, len)| (name.clone(), *len)));
                Ok(())
            }
            Change::ClaimJob { job, claim } => match self.jobs.get(job) {
                Some(other) if other.node != claim.node => {
                    Err(format!("job {job} is claimed by {}, not by {}", other.node, claim.node))
                }
                _ => {
                    self.jobs.insert(*job, claim.clone());
                    Ok(())
                }
            },
            Change::EndJob { job } => {
                self.jobs.remove(job);
                Ok(())
            }
            Change::SetGroup { group, cursor } => {
                match cursor {
                    Some(c) => self.groups.insert(group.clone(), c.clone()),
                    None => self.groups.remove(group),
                };
                Ok(())
            }
        }
    }

    fn append_log(&mut self, segments: &[Arc<LogEntry>]) -> Result<(), String> {
        for s in segments {
            if s.kind != LogKind::Segment {
                return Err(format!("log object {} is appended but is no segment", s.id));
            }
            if s.id.first_seq != self.last_seq.next() {
                return Err(format!("segment {} does not follow sequence number {}", s.id, self.last_seq));
            }
            if s.last_seq < s.id.first_seq {
                return Err(format!("segment {} is empty", s.id));
            }
            self.last_seq = s.last_seq;
            self.last_write_time = self.last_write_time.max(s.last_time);
            self.tail = Some(LogTail { id: s.id, last_seq: s.last_seq });
            self.log.push(Arc::clone(s));
        }
        Ok(())
    }

    fn adopt(
        &mut self,
        epoch: Epoch,
        incarnation: Incarnation,
        rolled: &[Arc<LogEntry>],
    ) -> Result<(), String> {
        self.append_log(rolled)?;
        self.epoch = epoch;
        self.epochs.push(EpochStart { epoch, incarnation, cut: self.tail });
        Ok(())
    }

    fn flush(
        &mut self,
        version: Version,
        flushed_seq: SeqNo,
        tables: &[Arc<TableEntry>],
        chunk: Option<&Arc<LogEntry>>,
    ) -> Result<(), String> {
        if flushed_seq <= self.flushed_seq || flushed_seq > self.last_seq {
            return Err(format!(
                "a flush to {flushed_seq} does not lie between {} (flushed) and {} (committed)",
                self.flushed_seq, self.last_seq
            ));
        }
        let from = self.log.partition_point(|e| e.last_seq <= self.flushed_seq);
        let to = self.log.partition_point(|e| e.last_seq <= flushed_seq);
        if to == from || self.log[to - 1].last_seq != flushed_seq {
            return Err(format!("a flush to {flushed_seq} does not end on a segment's boundary"));
        }
        for t in tables {
            if t.min_seq <= self.flushed_seq || t.max_seq > flushed_seq {
                return Err(format!(
                    "table {} holds {}..={}, outside the flushed {}..={flushed_seq}",
                    t.name,
                    t.min_seq,
                    t.max_seq,
                    self.flushed_seq.next()
                ));
            }
        }
        if let Some(chunk) = chunk {
            if chunk.kind != LogKind::Chunk
                || chunk.id.first_seq != self.flushed_seq.next()
                || chunk.last_seq != flushed_seq
            {
                return Err(format!("chunk {} does not cover exactly the flushed generation", chunk.id));
            }
            let old: Vec<_> = self.log.splice(from..to, [Arc::clone(chunk)]).collect();
            self.retire(version, old.iter().map(|e| (e.path(), e.len, e.blobs.clone())));
        }
        self.flushed_seq = flushed_seq;
        if !tables.is_empty() {
            let run = Run { id: RunId(version.0), l0: true, tables: tables.to_vec() };
            self.runs.insert(0, Arc::new(run));
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one change, taken apart at one place")]
    fn merge(
        &mut self,
        version: Version,
        inputs: &[RunId],
        tables: &[Arc<TableEntry>],
        snapshots: &[SeqNo],
        planned_mode: &CompactionMode,
        dropped: bool,
        judged: SeqNo,
    ) -> Result<(), String> {
        let first = inputs.first().ok_or("a merge without inputs")?;
        let at = self
            .runs
            .iter()
            .position(|r| r.id == *first)
            .ok_or_else(|| format!("run {first} is gone: another job merged it"))?;
        let there: Vec<RunId> = self.runs[at..].iter().take(inputs.len()).map(|r| r.id).collect();
        if there != inputs {
            return Err(format!("runs {inputs:?} are no longer neighbours: {there:?} stand in their place"));
        }
        if *planned_mode != self.compaction {
            return Err("the compaction mode has changed since the job was planned".to_owned());
        }
        let planned: BTreeSet<SeqNo> = snapshots.iter().copied().collect();
        if let Some((name, s)) = self.snapshots.iter().find(|(_, s)| !planned.contains(&s.seq)) {
            return Err(format!("snapshot {name:?} at {} was taken after the job was planned", s.seq));
        }
        if dropped && at + inputs.len() != self.runs.len() {
            return Err("the job dropped deletes or expired rows, and older runs lie beneath it".to_owned());
        }
        let gone: Vec<Arc<Run>> = self.runs.drain(at..at + inputs.len()).collect();
        let newest = gone.iter().map(|r| r.max_seq()).max().unwrap_or_default();
        if judged > newest {
            return Err(format!("the job judged against {judged}, above its inputs' {newest}"));
        }
        if !tables.is_empty() {
            let run = Run { id: RunId(version.0), l0: false, tables: tables.to_vec() };
            self.runs.insert(at, Arc::new(run));
        }
        let kept: BTreeSet<&str> = tables.iter().map(|t| t.name.as_str()).collect();
        let old = gone.iter().flat_map(|r| &r.tables).filter(|t| !kept.contains(t.name.as_str()));
        self.retire(version, old.map(|t| (t.path(), t.len, t.blobs.clone())));
        self.history_floor = self.history_floor.max(judged);
        Ok(())
    }

    fn trim_log(&mut self, version: Version, trimmed_seq: SeqNo) -> Result<(), String> {
        let to = self.log.partition_point(|e| e.last_seq <= trimmed_seq);
        if trimmed_seq > self.flushed_seq || to == 0 || self.log[to - 1].last_seq != trimmed_seq {
            return Err(format!(
                "the log cannot be trimmed to {trimmed_seq}: not the end of a log object at or below {}",
                self.flushed_seq
            ));
        }
        let old: Vec<_> = self.log.drain(..to).collect();
        self.retire(version, old.iter().map(|e| (e.path(), e.len, e.blobs.clone())));
        self.trimmed_seq = trimmed_seq;
        Ok(())
    }

    fn collected(&mut self, paths: &[ObjectPath]) -> Result<(), String> {
        let gone: BTreeSet<&ObjectPath> = paths.iter().collect();
        let before = self.retired.len();
        self.retired.retain(|r| !gone.contains(&r.path));
        if before - self.retired.len() == gone.len() {
            Ok(())
        } else {
            Err("a collected object was not in the retired list".to_owned())
        }
    }

    fn take_snapshot(&mut self, name: &str, snapshot: &Snapshot) -> Result<(), String> {
        if self.snapshots.contains_key(name) {
            return Err(format!("there is already a snapshot {name:?}"));
        }
        if snapshot.seq < self.history_floor || snapshot.seq > self.last_seq {
            return Err(format!(
                "a snapshot at {} does not lie between {} (history floor) and {} (committed)",
                snapshot.seq, self.history_floor, self.last_seq
            ));
        }
        self.snapshots.insert(name.to_owned(), snapshot.clone());
        Ok(())
    }

    /// Puts objects on the retired list, and with them the blob files whose last live reference they were.
    fn retire(&mut self, version: Version, objects: impl Iterator<Item = (ObjectPath, u64, Vec<BlobId>)>) {
        let mut candidates: BTreeSet<BlobId> = BTreeSet::new();
        for (path, len, blobs) in objects {
            candidates.extend(blobs.iter().cloned());
            self.retired.push(Arc::new(Retired { path, len, version, blobs }));
        }
        self.retire_blobs_later(version, candidates);
    }

    fn retire_blobs_later(&mut self, version: Version, candidates: BTreeSet<BlobId>) {
        for blob in candidates {
            let live = self.log.iter().any(|e| e.blobs.contains(&blob))
                || self.tables().any(|t| t.blobs.contains(&blob));
            if !live && let Some(len) = self.blobs.remove(&blob) {
                let path = crate::names::blob(&blob);
                self.retired.push(Arc::new(Retired { path, len, version, blobs: Vec::new() }));
            }
        }
    }
}
