//! What a read can end in other than an answer.

use std::time::Duration;

use isle_storage::ids::{InvalidId, Position, SeqNo};

use crate::page::InvalidPage;

/// Why a read has no answer. None of these is ever reported as "not found".
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The reader has no view yet.
    #[error("the reader has no view yet: {0}")]
    NotReady(String),
    /// A key no row can have.
    #[error("a key has 1 to 65536 bytes, not {0}")]
    InvalidKey(usize),
    /// More keys or rows than one request may ask for.
    #[error("{what} is {asked}, above the limit of {limit}")]
    OverLimit {
        /// Which.
        what: &'static str,
        /// What was asked for.
        asked: usize,
        /// The most.
        limit: usize,
    },
    /// A `min_seq` that is none.
    #[error(transparent)]
    InvalidId(#[from] InvalidId),
    /// A page token that is none, or does not belong to this scan.
    #[error(transparent)]
    InvalidPage(#[from] InvalidPage),
    /// The view did not reach `min_seq` in time.
    #[error("the view is at sequence number {seq} and did not reach {wanted} within {waited:?}")]
    ViewBehind {
        /// What was asked for, as text.
        wanted: String,
        /// Where the view is.
        seq: SeqNo,
        /// How long was waited.
        waited: Duration,
    },
    /// The write of that position is not part of the database and never will be.
    #[error("the write at {position} was lost: its epoch ended before it was committed")]
    WriteLost {
        /// The position asked for.
        position: Position,
    },
    /// An object the view names is gone from the bucket, and no newer view came in time.
    #[error("the view names {object}, which is gone from the bucket")]
    ViewExpired {
        /// The object.
        object: String,
    },
    /// The page's view is no longer held and the scan asked for no other.
    #[error("the view of this page is no longer held here: start again, or use a snapshot")]
    PageExpired,
    /// The page was not read at the snapshot that has that name now.
    #[error("snapshot {0:?} is not what this page was read at: it was dropped and taken again; start again")]
    SnapshotChanged(String),
    /// There is no snapshot of that name.
    #[error("there is no snapshot {0:?}")]
    UnknownSnapshot(String),
    /// An object's bytes do not carry what their checksums say.
    #[error("{object} is damaged: {why}")]
    Damaged {
        /// The object.
        object: String,
        /// What contradicts what.
        why: String,
    },
    /// The bucket did not answer.
    #[error("the store did not answer: {0}")]
    Store(String),
    /// The reader was closed.
    #[error("the reader is closed")]
    Closed,
}
