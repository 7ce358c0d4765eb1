//! Why a job ended without doing its work.

use isle_storage::coordination::CoordinationError;
use isle_storage::format::FormatError;
use isle_storage::object::StoreError;
use isle_storage::row::BlobId;

/// Why a merge, a fold, a trim or a collection ended without doing its work. Nothing it made is named by anybody.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JobError {
    /// Another process works on the same thing.
    #[error("claimed by {0}")]
    ClaimedElsewhere(String),
    /// The manifest has moved on and the work no longer fits it: plan again.
    #[error("the plan no longer fits: {0}")]
    Stale(String),
    /// The claim was lost while working; the local work has stopped.
    #[error("the claim was lost: {0}")]
    ClaimLost(String),
    /// The commit may or may not have happened; its outputs stay where they are.
    #[error("the commit's outcome is unknown: {0}")]
    Unknown(String),
    /// The store failed for longer than its retry budget, or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An input is damaged: the merge is refused and the inputs stay as they are.
    #[error("{object}: {error}")]
    Damaged {
        /// The object.
        object: String,
        /// What is wrong with it.
        error: FormatError,
    },
    /// A value that was to be moved cannot be read: everything stays as it is, and the file is left alone from now on.
    #[error("a value cannot be moved: {why}")]
    UnreadableValue {
        /// The blob file it lies in.
        blob: BlobId,
        /// What is wrong with it.
        why: String,
    },
    /// Coordination failed.
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    /// What was asked for is refused: it contradicts itself, or would delete everything.
    #[error("{0}")]
    Refused(String),
    /// A limit of this run (`--max-time`) was reached.
    #[error("stopped: {0}")]
    Stopped(&'static str),
    /// The program contradicts itself; a defect to report.
    #[error("internal error: {0}")]
    Internal(String),
}

impl JobError {
    /// Whether the same work may succeed later without anybody's help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::ClaimedElsewhere(_) | Self::Stale(_) | Self::ClaimLost(_) | Self::Unknown(_) => true,
            Self::Store(e) => e.is_transient(),
            Self::Coordination(e) => e.is_passing(),
            Self::Damaged { .. }
            | Self::UnreadableValue { .. }
            | Self::Refused(_)
            | Self::Stopped(_)
            | Self::Internal(_) => false,
        }
    }
}
