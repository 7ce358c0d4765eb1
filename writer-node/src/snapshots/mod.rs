//! Named snapshots: taken and dropped by an edit of the writer's, in commit order with everything else.
//!
//! ```text
//! ask ─▶ seat lock: which number it must reach, open batch closed ─▶ pipeline ─▶ the edit that reaches it ─▶ answer
//! ```
//! A snapshot's number is the last one of the very edit that takes it, and that edit is held back until it holds all
//! that was accepted before the request. Where nothing is under way the edit carries nothing else.
//!
//! A request waits for its edit as a mutation waits for its segment, but its fate is the edit's own: when leadership is
//! lost a successor may adopt the segments of an edit that was never committed, and the snapshot is not part of them. So
//! it is judged by the commit's id, wherever its segments are judged by the path of the log.
//!
//! **Refusals are looked up.** The manifest that the writer holds may be older than the head: a compactor may have
//! ended a snapshot since. A request that this manifest would refuse (the name is taken, or is not there) is refused
//! only by one that was read after the request came; one that it admits needs no such look, since the commit compares
//! the head.

mod asks;
mod weigh;

use std::time::Duration;

use isle_storage::coordination::CoordinationError;
use isle_storage::ids::{Epoch, Position, SeqNo, Timestamp};
use isle_storage::manifest::Snapshot;
use isle_storage::names;

pub(crate) use asks::{Admitted, Ask, Asks, EditInDoubt};
pub(crate) use weigh::{Point, Wish};

use crate::error::WriteError;
use crate::writer::Writer;

/// Requests about snapshots that wait for the pipeline at once; more are answered `overloaded`.
pub(crate) const MAX_ASKS: usize = 64;

/// A snapshot and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedSnapshot {
    /// Its name.
    pub name: String,
    /// What it holds: every mutation up to and including this one.
    pub seq: SeqNo,
    /// The epoch under which it was read or taken; with `seq` the position of what it holds.
    pub epoch: Epoch,
    /// When it was taken: its reads judge expiry at this instant.
    pub created: Timestamp,
    /// The compactor ends it some time after this instant; `None`: it stays until it is dropped.
    pub expires: Option<Timestamp>,
    /// Whether the log after `seq` is kept for it too.
    pub holds_log: bool,
}

impl NamedSnapshot {
    pub(crate) fn new(name: &str, snapshot: &Snapshot, epoch: Epoch) -> Self {
        let Snapshot { seq, created, expires, holds_log, .. } = *snapshot;
        Self { name: name.to_owned(), seq, epoch, created, expires, holds_log }
    }

    /// The position of the newest mutation it holds.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.seq }
    }
}

/// How a snapshot is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SnapshotOptions {
    /// After so long the compactor ends it; absent: it stays until it is dropped.
    pub ttl: Option<Duration>,
    /// Keep the log after it too, so that a consumer can go on from it.
    pub holds_log: bool,
    /// How long to wait for the commit before the answer is `outcome_unknown`; absent: `ack_timeout_ms`.
    pub ack_timeout: Option<Duration>,
}

/// Why a snapshot was not taken or dropped. Every variant but [`SnapshotError::OutcomeUnknown`] means: certainly not.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SnapshotError {
    /// No snapshot can have this name.
    #[error("{0}")]
    InvalidName(String),
    /// The name is taken.
    #[error("there is already a snapshot {:?}, at sequence number {}", .0.name, .0.seq)]
    Exists(NamedSnapshot),
    /// There is no snapshot of this name.
    #[error("there is no snapshot {0:?}")]
    NotThere(String),
    /// The database holds as many as it may.
    #[error("there are {limit} snapshots already, which is max_snapshots: drop one first")]
    TooMany {
        /// `max_snapshots`.
        limit: usize,
    },
    /// Whether the name is taken, or there, could not be looked up.
    #[error("whether there is such a snapshot could not be looked up: {0}")]
    Unavailable(CoordinationError),
    /// This writer takes no request, or stopped before it began this one.
    #[error(transparent)]
    Refused(#[from] WriteError),
    /// It may have been done: ask for the snapshot's name to find out.
    #[error("whether snapshot {name:?} was taken or dropped is unknown: {why}")]
    OutcomeUnknown {
        /// Its name.
        name: String,
        /// What was being waited for.
        why: String,
    },
}

/// What an edit has granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Granted {
    /// This snapshot was taken or dropped.
    Snapshot(NamedSnapshot),
    /// The default time to live was set (see `ttl`): the same way through the pipeline, and the same doubts.
    DefaultTtl,
}

/// What an asker is told.
pub(crate) type Answer = Result<Granted, SnapshotError>;

impl Writer {
    /// Takes a snapshot of everything accepted so far; answered once it is committed.
    ///
    /// # Errors
    /// [`SnapshotError`]; `Exists` with the snapshot that has the name, also where an earlier call, whose outcome was
    /// unknown, has taken it.
    pub async fn take_snapshot(
        &self,
        name: &str,
        options: SnapshotOptions,
    ) -> Result<NamedSnapshot, SnapshotError> {
        names::check_snapshot(name).map_err(SnapshotError::InvalidName)?;
        let SnapshotOptions { ttl, holds_log, ack_timeout } = options;
        let name = name.to_owned();
        self.ask_for_one(ack_timeout, |through| Wish::Take { name, ttl, holds_log, through }).await
    }

    /// Drops a snapshot: what only it has held goes with the next merges. Answers what it was.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub async fn drop_snapshot(
        &self,
        name: &str,
        ack_timeout: Option<Duration>,
    ) -> Result<NamedSnapshot, SnapshotError> {
        names::check_snapshot(name).map_err(SnapshotError::InvalidName)?;
        let name = name.to_owned();
        self.ask_for_one(ack_timeout, |_| Wish::Drop { name }).await
    }

    /// Every snapshot, by name, as the head has them now; on a standby too.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn snapshots(&self) -> Result<Vec<NamedSnapshot>, CoordinationError> {
        let manifest = self.database().load().await?.manifest;
        let named = |(name, s): (&String, &Snapshot)| NamedSnapshot::new(name, s, manifest.epoch);
        Ok(manifest.snapshots.iter().map(named).collect())
    }

    async fn ask_for_one(
        &self,
        at_most: Option<Duration>,
        wish: impl FnOnce(SeqNo) -> Wish,
    ) -> Result<NamedSnapshot, SnapshotError> {
        match self.ask(at_most, wish).await? {
            Granted::Snapshot(named) => Ok(named),
            Granted::DefaultTtl => Err(SnapshotError::Unavailable(CoordinationError::Damaged(
                "a request about a snapshot was answered with another one's grant".to_owned(),
            ))),
        }
    }

    pub(crate) async fn ask(&self, at_most: Option<Duration>, wish: impl FnOnce(SeqNo) -> Wish) -> Answer {
        let engine = self.engine();
        let (name, answered) = {
            let mut seat = engine.seat.lock();
            let sequencer = seat.as_mut().ok_or_else(|| engine.refusal())?;
            let (ask, answered) = Ask::new(wish(sequencer.accepted()));
            let name = ask.name().to_owned();
            if !sequencer.ask(ask) {
                let why = format!("{MAX_ASKS} requests about snapshots are waiting");
                let retry_after = Duration::from_secs(1);
                return Err(WriteError::Overloaded { why, retry_after }.into());
            }
            (name, answered)
        };
        engine.work.notify_one();
        let _waiting = engine.gauges.waiting();
        let at_most = at_most.unwrap_or_else(|| self.ack_timeout());
        let why = match tokio::time::timeout(at_most, answered).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(_)) => "the writer stopped before it could read the truth".to_owned(),
            Err(_) => format!("not committed within {:.1} s; it may still be", at_most.as_secs_f64()),
        };
        Err(SnapshotError::OutcomeUnknown { name, why })
    }
}
