//! What a run says of itself.

use serde::Serialize;

use crate::error::JobError;
use crate::plan;
use crate::sweep::Orphan;

/// How a run ended. Of several that are true the last one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// There was nothing to do.
    NothingToDo,
    /// Everything there was to do is done.
    Done,
    /// Another process works on what is left.
    ClaimedElsewhere,
    /// A limit was reached first, or the run was told to stop.
    WorkLeft,
    /// Something failed, and was left out; everything else had its turn.
    Failed,
}

impl Outcome {
    /// The process's exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Done | Self::NothingToDo => 0,
            Self::Failed => 1,
            Self::WorkLeft => 3,
            Self::ClaimedElsewhere => 4,
        }
    }
}

/// The summary of a run: one JSON object on standard output.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// How it ended.
    pub outcome: Outcome,
    /// The first failure, if there was any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether nothing was changed because of `--dry-run`.
    pub dry_run: bool,
    /// Merges done (or planned, in a dry run).
    pub merges: u64,
    /// Parts of large merges done.
    pub parts: u64,
    /// Whether merges are paused for the whole fleet: then none was begun, and only retention went on.
    pub paused: bool,
    /// The smallest work for which `--max-bytes` had no room, if there was any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub too_large: Option<TooLarge>,
    /// Bytes they read.
    pub bytes_read: u64,
    /// Bytes they wrote.
    pub bytes_written: u64,
    /// Tables whose retention has ended, taken out of the tree (or that would be next, in a dry run).
    pub expired_tables: u64,
    /// Retired objects deleted (or that would be, in a dry run).
    pub deleted_objects: u64,
    /// Orphans deleted (or that would be, in a dry run).
    pub swept_objects: u64,
    /// Garbage that could not be deleted this time.
    pub failed_objects: u64,
    /// Objects under the prefix with names that are none of Isle's: left alone.
    pub unknown_objects: u64,
    /// Objects retired and waiting for their grace.
    pub retired_objects: u64,
    /// Whether a checkpoint was written.
    pub checkpoint: bool,
    /// Manifest version at the end.
    pub version: u64,
    /// How long it took.
    pub seconds: f64,
    /// In a dry run, what would be done and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
}

/// Work that reads more bytes than a run has left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TooLarge {
    /// What it is.
    pub work: String,
    /// Bytes that it reads; of a merge in parts, one part.
    pub bytes: u64,
}

/// What a run would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The next work is this merge; what comes after it depends on its outcome.
    pub merge: Option<PlannedMerge>,
    /// The next work is to let these tables go.
    pub expire: Option<PlannedExpiry>,
    /// Where there is nothing to merge and nothing to let go: when there may be, in microseconds since 1970.
    pub look_again: Option<i64>,
    /// Retired objects, and leftovers of `manifest/`, that would be deleted. Pins are left out of account.
    pub collect: Vec<Orphan>,
    /// Orphans that would be deleted.
    pub sweep: Vec<Orphan>,
}

/// A merge that would be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedMerge {
    /// The runs, newest first.
    pub runs: Vec<u64>,
    /// Bytes to read.
    pub bytes: u64,
    /// Why.
    pub reason: &'static str,
    /// How due it is, in percent.
    pub score: u32,
    /// Where it is only about values that move out of blob files: how many, and of how much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moving: Option<PlannedMove>,
}

/// Values that would move out of blob files of which little is alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedMove {
    /// The blob files.
    pub files: u64,
    /// Tables that would be written again.
    pub tables: u64,
    /// Bytes of values that would be copied.
    pub live_bytes: u64,
    /// Bytes of these files that nothing points at.
    pub garbage_bytes: u64,
}

impl From<&plan::Moving> for PlannedMove {
    fn from(moving: &plan::Moving) -> Self {
        Self {
            files: moving.files.len() as u64,
            tables: moving.tables.len() as u64,
            live_bytes: moving.live,
            garbage_bytes: moving.garbage,
        }
    }
}

/// Tables that would go because their retention has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedExpiry {
    /// How many.
    pub tables: u64,
    /// Rows in them.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why.
    pub reason: &'static str,
    /// How due it is, in percent.
    pub score: u32,
}

impl Summary {
    /// Of a run that has just begun.
    pub(super) fn new(dry_run: bool) -> Self {
        Self {
            outcome: Outcome::NothingToDo,
            error: None,
            dry_run,
            merges: 0,
            parts: 0,
            paused: false,
            too_large: None,
            bytes_read: 0,
            bytes_written: 0,
            expired_tables: 0,
            deleted_objects: 0,
            swept_objects: 0,
            failed_objects: 0,
            unknown_objects: 0,
            retired_objects: 0,
            checkpoint: false,
            version: 0,
            seconds: 0.0,
            plan: None,
        }
    }

    /// This is true of the run as well.
    pub(super) fn ends(&mut self, outcome: Outcome) {
        self.outcome = self.outcome.max(outcome);
    }

    /// Something was done.
    pub(super) fn did(&mut self, something: bool) {
        if something {
            self.ends(Outcome::Done);
        }
    }

    /// Something failed; the first failure is told.
    pub(super) fn fails(&mut self, error: &JobError) {
        self.ends(Outcome::Failed);
        self.error.get_or_insert_with(|| error.to_string());
    }

    /// For this there was no room.
    pub(super) fn had_no_room_for(&mut self, work: TooLarge) {
        if self.too_large.as_ref().is_none_or(|smallest| work.bytes < smallest.bytes) {
            self.too_large = Some(work);
        }
    }
}
