//! Why a write was not acknowledged: one enum, as small as what callers branch on.

use std::time::Duration;

use isle_storage::coordination::LeaderInfo;
use isle_storage::ids::{CommitId, Epoch, SeqNo};
use isle_storage::row::MAX_KEY_LEN;

/// Why a write was not acknowledged. Every variant but [`WriteError::OutcomeUnknown`] means: certainly not applied.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// A key must have 1 to [`MAX_KEY_LEN`] bytes.
    #[error("a key has 1 to {MAX_KEY_LEN} bytes, this one has {len}")]
    InvalidKey {
        /// Its length.
        len: usize,
    },
    /// A value over the limit.
    #[error("a value has at most {limit} bytes, this one has {len}")]
    ValueTooLarge {
        /// Its length.
        len: usize,
        /// `max_value_bytes`.
        limit: usize,
    },
    /// A batch over the limit: it would not fit one segment.
    #[error("an atomic batch takes at most {limit} bytes, this one takes {len}")]
    BatchTooLarge {
        /// Its size, a fixed overhead a record included.
        len: usize,
        /// `max_batch_bytes`.
        limit: usize,
    },
    /// A batch without a mutation.
    #[error("there is nothing in the batch")]
    EmptyBatch,
    /// The acknowledgement mode is not available here; it is never downgraded.
    #[error("{0}")]
    Unsupported(String),
    /// Too much is in memory already, and the caller did not want to wait longer.
    #[error("overloaded: {why}")]
    Overloaded {
        /// What is full, and what it waits for.
        why: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The store did not take the value.
    #[error("the value could not be stored: {why}")]
    NotStored {
        /// What the store said.
        why: String,
    },
    /// This node does not lead.
    #[error("this node does not lead: {why}")]
    NotLeader {
        /// Who does, where known.
        leader: Option<LeaderInfo>,
        /// Why this one does not.
        why: String,
    },
    /// Another writer has taken over, and in this form of coordination this one stays down until it is restarted.
    #[error("another writer has taken over, and this one stays down until it is restarted: {why}")]
    Fenced {
        /// How that was noticed.
        why: String,
    },
    /// The writer is stopping.
    #[error("the writer is stopping")]
    Closing,
    /// It may have been applied. Reported only when the caller's deadline passed, or the writer stopped, before the
    /// truth could be read.
    #[error("the outcome of {first_seq}..={last_seq} (epoch {epoch}) is unknown: {why}")]
    OutcomeUnknown {
        /// The epoch that accepted it.
        epoch: Epoch,
        /// First sequence number.
        first_seq: SeqNo,
        /// Last sequence number.
        last_seq: SeqNo,
        /// The commit that would have named it, if one was attempted.
        commit: Option<CommitId>,
        /// What was being waited for.
        why: String,
    },
}
