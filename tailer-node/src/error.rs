//! What can go wrong while tailing.

use isle_storage::coordination::CoordinationError;
use isle_storage::ids::{Lineage, SeqNo};

use crate::cursor::Cursor;

/// Why a consumer gets no (further) changes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TailError {
    /// No manifest has been loaded yet.
    #[error("the tailer is not ready: {0}")]
    NotReady(String),
    /// The position lies below the retained log.
    #[error("changes up to {trimmed} are no longer kept; the earliest position is {earliest}")]
    CursorExpired {
        /// The end of what is gone.
        trimmed: SeqNo,
        /// Where the retained log begins.
        earliest: Cursor,
    },
    /// The cursor belongs to another database or history, or lies beyond the head.
    #[error("the cursor {cursor} does not fit: {why}")]
    WrongCursor {
        /// The cursor.
        cursor: Cursor,
        /// This database's history.
        lineage: Lineage,
        /// What does not fit.
        why: String,
    },
    /// A log object named by the newest manifest is not in the bucket.
    #[error("view_expired: {0}")]
    Gone(String),
    /// A log object is damaged.
    #[error("{0}")]
    Damaged(String),
    /// The bucket failed for longer than its retry budget; the position stays good.
    #[error("the bucket is unavailable: {0}")]
    Store(String),
    /// The head refuses: lost, regressed, another database.
    #[error(transparent)]
    Coordination(CoordinationError),
    /// Too many consumers.
    #[error("there are already {0} consumers: try another tailer")]
    Overloaded(usize),
    /// Too many bootstraps, or too much for one.
    #[error("{0}")]
    Busy(String),
    /// No snapshot has this name.
    #[error("there is no snapshot {0:?}")]
    UnknownSnapshot(String),
    /// What a bootstrap copied is no longer held.
    #[error("{0}")]
    HoldEnded(String),
    /// A text that cannot be a consumer group's name.
    #[error("{0}")]
    InvalidGroup(String),
    /// There is no such consumer group, or there is none any more.
    #[error("there is no consumer group {0:?}: create it with PUT /v1/groups/{0}")]
    UnknownGroup(String),
    /// The database has as many consumer groups as it may have.
    #[error("there are already {0} consumer groups: delete one that nobody uses")]
    TooManyGroups(usize),
    /// The tailer stops.
    #[error("the tailer is stopping")]
    Closing,
}
