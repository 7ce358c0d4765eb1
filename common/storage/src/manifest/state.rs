//! The manifest's state: what a database consists of at one version.
//!
//! # Shape
//! ```text
//! log:   [chunk 1..=900] [chunk 901..=1800] | [seg 1801..=1810] [seg 1811..=1811] …    ascending, dense
//!                                 flushed_seq ^                                  ^ tail / last_seq
//! runs:  newest first; each run's tables ascend by key and do not overlap;
//!        each run's sequence numbers lie wholly above the next one's
//! ```
//! A flush makes a run (`l0 = true`); a merge replaces neighbouring runs by one in exactly their place.
//!
//! # Evolution
//! Every JSON object may carry fields this version does not know: they are kept in `extra` and written back. A field
//! that an older reader must not ignore is announced by a name in [`Manifest::required_features`]; an unknown name
//! there is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::ids::{
    CommitId, DatabaseId, Epoch, Incarnation, JobId, Lineage, RunId, SeqNo, Timestamp, Version,
};
use crate::names::ObjectPath;
use crate::row::BlobId;

pub use super::entry::{Expiring, Key, LogEntry, LogTail, Run, TableEntry};
use super::expiry::EXPIRY_FEATURE;
pub use super::group::{GroupCursor, MaxLag};
use super::staged::{PARTS_FEATURE, PAUSE_FEATURE, Pause, StagedMerge};

/// Version of the manifest's own format.
pub const FORMAT: u32 = 1;

/// How many recent commit ids a manifest remembers, so that an unknown commit can be judged later.
pub const RECENT_COMMITS: usize = 256;

/// How many epochs a manifest remembers. A segment of a forgotten one can no longer be judged: its writer would have to
/// have slept through this many takeovers.
pub const MAX_EPOCHS: usize = 1024;

/// Features this build understands beyond format 1.
pub const KNOWN_FEATURES: &[&str] = &[
    "blobs",
    "snapshots",
    "fifo",
    "time_window",
    "leveled",
    "expire",
    "default_ttl",
    PARTS_FEATURE,
    PAUSE_FEATURE,
    EXPIRY_FEATURE,
];

pub(super) fn is_false(b: &bool) -> bool {
    !*b
}

fn none_inside<K, V>(map: &BTreeMap<K, V>) -> bool {
    map.is_empty()
}

/// What keeps the tree in shape; a property of the database, so that every role agrees on it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "mode")]
pub enum CompactionMode {
    /// L0 merges into runs; neighbouring runs of similar size merge (mode `merge`, policy `tiered`): each row is written
    /// few times.
    #[default]
    Merge,
    /// Each run is a level, many times larger than the one above it (mode `merge`, policy `leveled`): few runs to look in
    /// and little space, for more writes.
    Leveled,
    /// The oldest tables are deleted by age.
    Fifo {
        /// Microseconds a table lives at least.
        retention_us: i64,
        /// How many newest tables are kept in any case.
        retention_count: u64,
    },
    /// Tables are grouped into windows of write time; whole windows are deleted by age.
    TimeWindow {
        /// Length of a window in microseconds.
        segment_us: i64,
        /// Microseconds a window lives at least.
        retention_us: i64,
        /// A tenth of this, and at least one, is how many newest windows are kept in any case.
        retention_count: u64,
    },
}

/// A named hold on one sequence number. It ends only by an edit that removes it, never by a clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What the holder sees: every mutation up to and including this one.
    pub seq: SeqNo,
    /// When it was taken.
    pub created: Timestamp,
    /// After this instant the compactor removes it by an edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// Whether the log after `seq` is held too, so that a consumer can go on from this snapshot.
    #[serde(default, skip_serializing_if = "is_false")]
    pub holds_log: bool,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Json>,
}

/// An object no longer needed by this version and waiting for its grace to pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// The object.
    pub path: ObjectPath,
    /// Its length in bytes.
    pub len: u64,
    /// The version whose edit retired it: older versions still name it.
    pub version: Version,
    /// Blob files it points at, which may go only after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<BlobId>,
}

/// A compaction job's claim (bucket backend; etcd keeps claims as leased keys).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobClaim {
    /// Who works on it.
    pub node: String,
    /// Changes with every renewal, so that a watcher can measure silence on its own clock.
    pub beat: u64,
    /// The version whose edit brought this beat, so that the store's clock tells how old it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Version>,
}

/// Where one epoch's own segments begin. The list of them decides which path through the log is the committed one:
/// a segment of epoch `e` is on it iff it ends at or below the cut of the next epoch in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: Epoch,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The last segment it adopted, if there was one: its own segments come after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<LogTail>,
}

impl EpochStart {
    /// The last adopted sequence number; zero where the log was empty.
    #[must_use]
    pub fn cut_seq(&self) -> SeqNo {
        self.cut.map(|c| c.last_seq).unwrap_or_default()
    }
}

/// A checkpoint as the head names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRef {
    /// The object.
    pub path: ObjectPath,
    /// Its length in bytes.
    pub len: u64,
    /// CRC32C of the object.
    pub crc: u32,
    /// The manifest version it holds.
    pub version: Version,
}

/// The only mutable cell: what the coordination service compares and swaps, as one small JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The history this head belongs to.
    pub lineage: Lineage,
    /// The newest adopted writer epoch.
    pub epoch: Epoch,
    /// The newest version.
    pub version: Version,
    /// The newest checkpoint.
    pub checkpoint: CheckpointRef,
    /// The newest committed sequence number.
    pub last_seq: SeqNo,
    /// Its write time.
    pub last_write_time: Timestamp,
    /// The id of the commit that wrote this head.
    pub commit: CommitId,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Json>,
}

/// The complete description of a database at one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`]; a larger number is refused.
    pub format: u32,
    /// Features a reader must know to read this at all; an unknown name is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_features: Vec<String>,
    /// The database.
    pub database: DatabaseId,
    /// The history.
    pub lineage: Lineage,
    /// This version.
    pub version: Version,
    /// The newest adopted writer epoch.
    pub epoch: Epoch,
    /// Where epochs began, ascending, at most [`MAX_EPOCHS`]; the last one is `epoch` (empty before the first claim).
    pub epochs: Vec<EpochStart>,
    /// The newest committed sequence number.
    pub last_seq: SeqNo,
    /// Its write time; later mutations are never earlier.
    pub last_write_time: Timestamp,
    /// Everything up to here is in tables.
    pub flushed_seq: SeqNo,
    /// Everything up to here has left the log by retention: the log's first entry starts right after.
    pub trimmed_seq: SeqNo,
    /// The log, ascending and dense.
    pub log: Vec<Arc<LogEntry>>,
    /// The newest segment, if there ever was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<LogTail>,
    /// Sorted runs, newest first.
    pub runs: Vec<Arc<Run>>,
    /// Merges in parts under way, by the version that began them. Their tables are named and not read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub staged: BTreeMap<Version, Arc<StagedMerge>>,
    /// Set while nobody is to begin a merge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Blob files in use, with their lengths. Shared between versions: most edits leave them alone.
    #[serde(default, skip_serializing_if = "none_inside")]
    pub blobs: Arc<BTreeMap<BlobId, u64>>,
    /// Snapshots by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub snapshots: BTreeMap<String, Snapshot>,
    /// The highest sequence number any rewrite or retention has judged against: a new snapshot lies at or above.
    pub history_floor: SeqNo,
    /// The latest instant by which any merge has taken rows for expired: a new snapshot reads at it or later. Absent: none
    /// has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiry_floor: Option<Timestamp>,
    /// How the tree is kept in shape.
    pub compaction: CompactionMode,
    /// Microseconds after which a put that says nothing of it expires; absent: it never does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_ttl_us: Option<i64>,
    /// Objects waiting to be deleted, in the order they were retired.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<Arc<Retired>>,
    /// Job claims (bucket backend).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub jobs: BTreeMap<JobId, JobClaim>,
    /// Consumer groups. In the bucket form these are the groups; in forms that keep groups themselves they are the copy
    /// that the checkpoint took with it ([`crate::coordination::groups`]), for a recover and for backups: ask
    /// [`crate::coordination::Coordination::groups`] for those that are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, GroupCursor>,
    /// The newest commits, ascending by version, at most [`RECENT_COMMITS`].
    pub recent: Vec<(Version, CommitId)>,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Json>,
}

impl Manifest {
    /// The first manifest of a new database: version 1, nothing in it.
    #[must_use]
    pub fn genesis(database: DatabaseId, lineage: Lineage, compaction: CompactionMode) -> Self {
        Self {
            format: FORMAT,
            required_features: Vec::new(),
            database,
            lineage,
            version: Version(1),
            epoch: Epoch::ZERO,
            epochs: Vec::new(),
            last_seq: SeqNo::ZERO,
            last_write_time: Timestamp(0),
            flushed_seq: SeqNo::ZERO,
            trimmed_seq: SeqNo::ZERO,
            log: Vec::new(),
            tail: None,
            runs: Vec::new(),
            staged: BTreeMap::new(),
            pause: None,
            blobs: Arc::default(),
            snapshots: BTreeMap::new(),
            history_floor: SeqNo::ZERO,
            expiry_floor: None,
            compaction,
            default_ttl_us: None,
            retired: Vec::new(),
            jobs: BTreeMap::new(),
            groups: BTreeMap::new(),
            recent: Vec::new(),
            extra: BTreeMap::new(),
        }
    }

    /// The head that names this manifest.
    #[must_use]
    pub fn head(&self, checkpoint: CheckpointRef, commit: CommitId) -> Head {
        Head {
            lineage: self.lineage,
            epoch: self.epoch,
            version: self.version,
            checkpoint,
            last_seq: self.last_seq,
            last_write_time: self.last_write_time,
            commit,
            extra: BTreeMap::new(),
        }
    }

    /// Log objects not yet in tables, ascending.
    #[must_use]
    pub fn unflushed(&self) -> &[Arc<LogEntry>] {
        &self.log[self.log.partition_point(|e| e.last_seq <= self.flushed_seq)..]
    }

    /// The log objects from the one that holds `seq` (or the first after it) on.
    #[must_use]
    pub fn log_from(&self, seq: SeqNo) -> &[Arc<LogEntry>] {
        &self.log[self.log.partition_point(|e| e.last_seq < seq)..]
    }

    /// How long a put lives that says nothing of it; `None`: for ever.
    #[must_use]
    pub fn default_ttl(&self) -> Option<Duration> {
        self.default_ttl_us.map(|us| Duration::from_micros(us.unsigned_abs()))
    }

    /// The instant of a snapshot that is taken at `now`, by a clock that may be behind: no earlier than one that is there,
    /// than the newest write, or than the expiry floor. Of two that hold one number the later sees no more than the
    /// earlier, and of one before the floor rows are gone.
    #[must_use]
    pub fn snapshot_instant(&self, now: Timestamp) -> Timestamp {
        let there = self.snapshots.values().map(|s| s.created);
        there.chain(self.expiry_floor).fold(now.max(self.last_write_time), Ord::max)
    }

    /// The first sequence number a tailer can still deliver.
    #[must_use]
    pub fn earliest_seq(&self) -> SeqNo {
        self.trimmed_seq.next()
    }

    /// Every table the manifest names: those that are read, and the staged ones. An input's table that a part keeps
    /// as it is stands here twice.
    pub fn named_tables(&self) -> impl Iterator<Item = &Arc<TableEntry>> {
        self.tables().chain(self.staged.values().flat_map(|m| m.tables()))
    }

    /// The merge in parts that holds `run`, if one does.
    #[must_use]
    pub fn held_by(&self, run: RunId) -> Option<Version> {
        self.staged.iter().find(|(_, m)| m.inputs.contains(&run)).map(|(id, _)| *id)
    }

    /// Every table that is read, newest run first.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableEntry>> {
        self.runs.iter().flat_map(|r| &r.tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_kept() {
        let m = Manifest::genesis(DatabaseId(1), Lineage(2), CompactionMode::Merge);
        let mut json = serde_json::to_value(&m).unwrap();
        json["later"] = serde_json::json!({"a": 1});
        let back: Manifest = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&back).unwrap(), json);
    }
}
