//! Edits: the steps from one manifest version to the next, as values. [`super::Manifest::apply`] takes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::Violation;
use super::expiry::{EXPIRY_FEATURE, JudgedExpiry};
use super::staged::{PARTS_FEATURE, PAUSE_FEATURE, Pause, StagedPart};
use super::state::{
    CompactionMode, GroupCursor, JobClaim, KNOWN_FEATURES, Key, LogEntry, Snapshot, TableEntry,
};
use crate::format::FormatError;
use crate::ids::{CommitId, Epoch, Incarnation, JobId, Lineage, RunId, SeqNo, Timestamp, Version};
use crate::names::ObjectPath;
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
        /// Its rows in every version, ascending and disjoint by key; becomes the newest run.
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
        /// How expiry was judged: raises the expiry floor. Absent where no row of the inputs expires, and in edits of
        /// older programs: see [`super::expiry`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expiry: Option<JudgedExpiry>,
    },
    /// Retention: the oldest tables are gone, with every row in them.
    Expire {
        /// Their names: whole runs from the oldest on, and of the next one any.
        tables: Vec<String>,
        /// The mode the job planned with: its retention is what the edit is checked against.
        planned_mode: CompactionMode,
        /// The instant the job judged at: every table's retention has ended by then.
        as_of: Timestamp,
    },
    /// A merge in parts begins: see [`super::staged`]. It is known by the version of this edit.
    BeginMerge {
        /// The inputs, newest first: neighbours in the manifest, held by no other merge.
        inputs: Vec<RunId>,
        /// The keys at which parts meet, ascending; at least one.
        splits: Vec<Key>,
        /// Every snapshot the job planned with.
        snapshots: Vec<SeqNo>,
        /// The mode the job planned with.
        planned_mode: CompactionMode,
        /// Whether nothing lies beneath the inputs.
        bottom: bool,
        /// How every part judges expiry. Absent as in a merge.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expiry: Option<JudgedExpiry>,
        /// The maker's clock.
        at: Timestamp,
    },
    /// A part of a merge is done. The last one puts the merged run in the place of the inputs.
    StagePart {
        /// The merge, by the version that began it.
        merge: Version,
        /// Which part.
        part: u32,
        /// What it made.
        #[serde(flatten)]
        made: StagedPart,
        /// The maker's clock.
        at: Timestamp,
    },
    /// A merge in parts is given up: its staged tables are retired, its inputs are free again.
    AbandonMerge {
        /// The merge, by the version that began it.
        merge: Version,
    },
    /// Merges are paused, or go on.
    SetPause {
        /// `None` ends the pause.
        pause: Option<Pause>,
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
    /// A change of how long a put lives that says nothing of it. The writer's, since only the writer stamps expiries.
    SetDefaultTtl {
        /// In microseconds, above zero; `None`: for ever.
        ttl_us: Option<i64>,
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

impl Change {
    /// What a reader must know to apply this change: goes into [`Edit::required_features`], so that an older program
    /// says that it must be upgraded.
    #[must_use]
    pub fn required_feature(&self) -> Option<&'static str> {
        match self {
            Self::Expire { .. } => Some("expire"),
            // Who knows this one knows merges in parts.
            Self::Merge { expiry: Some(_), .. }
            | Self::BeginMerge { expiry: Some(_), .. }
            | Self::StagePart { made: StagedPart { expired_by: Some(_), .. }, .. } => Some(EXPIRY_FEATURE),
            Self::BeginMerge { .. } | Self::StagePart { .. } | Self::AbandonMerge { .. } => {
                Some(PARTS_FEATURE)
            }
            Self::SetPause { .. } => Some(PAUSE_FEATURE),
            Self::SetCompaction { compaction } => compaction.required_feature(),
            Self::SetDefaultTtl { .. } => Some("default_ttl"),
            Self::AddBlobs { .. } => Some("blobs"),
            _ => None,
        }
    }

    /// Whether only the writer may make this change.
    #[must_use]
    pub fn is_writers(&self) -> bool {
        matches!(
            self,
            Self::AppendLog { .. } | Self::Adopt { .. } | Self::Flush { .. } | Self::SetDefaultTtl { .. }
        )
    }
}

/// What must be known before the rest of an edit is read.
#[derive(Deserialize)]
struct Announced {
    #[serde(default)]
    required_features: Vec<String>,
}

impl Edit {
    /// The head's `last_seq` and so on follow from the manifest; this is the edit's serialized form.
    ///
    /// # Errors
    /// None in practice: the type has no map with keys that are not strings.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads the serialized form. An edit that announces a feature unknown to this build is
    /// [`FormatError::TooNew`], whatever else it holds.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn from_json(json: &[u8]) -> Result<Self, FormatError> {
        let damaged = |e: serde_json::Error| FormatError::damaged("edit", e.to_string());
        let announced: Announced = serde_json::from_slice(json).map_err(damaged)?;
        match announced.required_features.iter().find(|f| !KNOWN_FEATURES.contains(&f.as_str())) {
            Some(f) => Err(FormatError::too_new(
                "edit",
                format!("it needs the feature {f:?}, unknown to this build"),
            )),
            None => serde_json::from_slice(json).map_err(damaged),
        }
    }
}
