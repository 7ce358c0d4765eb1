//! Intake: from a caller's mutation to a numbered record in the open batch, and what the caller waits on.
//!
//! ```text
//! caller ─▶ limits ─▶ admission (bytes) ─▶ seat lock: number, time stamp, one copy into the batch ─▶ answer or wait
//! ```
//!
//! Everything before the lock may be given up without a trace; from the lock on the mutation belongs to the writer,
//! and a caller that goes away changes nothing.

mod admission;
mod completion;
mod sequencer;

use std::time::Duration;

use isle_storage::ids::{Epoch, Position, SeqNo};

pub(crate) use admission::{Admission, Admitted};
pub use completion::Accepted;
pub(crate) use completion::{Completion, Outcome, Refused};
pub(crate) use sequencer::{OpenState, SealRules, Sealed, Sequencer, Taken, event_key_into};

/// The time to live of a row that never expires, also where the database has a default.
pub const NEVER: Duration = Duration::MAX;

/// Bytes a record is taken to need in memory beyond its key and value: its share of block, reference and index.
pub(crate) const RECORD_OVERHEAD: usize = 48;

/// When a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ack {
    /// The commit naming it is in the head.
    #[default]
    Bucket,
    /// Fsynced in the node's write-ahead log. Not available: refused, never downgraded.
    Disk,
    /// It is in the writer's memory.
    Memory,
}

/// How long a caller waits for admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Patience {
    /// Until there is room, or the writer steps down or stops.
    #[default]
    Wait,
    /// At most this long; then the answer is `overloaded`.
    AtMost(Duration),
}

/// How one call is to be treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// When it is acknowledged.
    pub ack: Ack,
    /// How long it waits for admission.
    pub patience: Patience,
    /// How long it waits for its commit before the answer is `outcome_unknown`; absent: `ack_timeout_ms`.
    pub ack_timeout: Option<Duration>,
}

impl Options {
    /// The defaults with this acknowledgement.
    #[must_use]
    pub fn ack(ack: Ack) -> Self {
        Self { ack, ..Self::default() }
    }
}

/// One mutation, borrowed from whoever asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation<'a> {
    /// The key gets this value.
    Put {
        /// 1 to 65,536 bytes.
        key: &'a [u8],
        /// Up to `max_value_bytes`.
        value: &'a [u8],
        /// After this time it is no longer visible; over 0. Absent: as the database says; [`NEVER`]: whatever it says.
        ttl: Option<Duration>,
    },
    /// The key is gone.
    Delete {
        /// 1 to 65,536 bytes.
        key: &'a [u8],
    },
}

impl<'a> Mutation<'a> {
    pub(crate) fn key(&self) -> &'a [u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    pub(crate) fn value(&self) -> &'a [u8] {
        match self {
            Self::Put { value, .. } => value,
            Self::Delete { .. } => &[],
        }
    }

    /// What it counts against every byte budget.
    pub(crate) fn charge(&self) -> usize {
        charge(self.key().len(), self.value().len())
    }

    pub(crate) fn value_len(&self) -> usize {
        self.value().len()
    }
}

/// One event to append to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// Up to `max_value_bytes`.
    pub value: &'a [u8],
    /// After this time it is no longer visible; over 0. Absent: as the database says; [`NEVER`]: whatever it says.
    pub ttl: Option<Duration>,
}

/// Bytes of an event's key beyond its stream's name: a slash and 16 hexadecimal digits.
pub(crate) const EVENT_SUFFIX: usize = 17;

/// What a record of these lengths counts against every byte budget.
pub(crate) fn charge(key: usize, value: usize) -> usize {
    key + value + RECORD_OVERHEAD
}

/// The numbers a call was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) epoch: Epoch,
    pub(crate) first_seq: SeqNo,
    pub(crate) last_seq: SeqNo,
}

impl Numbers {
    pub(crate) fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.last_seq }
    }
}
