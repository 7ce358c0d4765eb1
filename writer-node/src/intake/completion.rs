//! What the callers of one batch wait on: one shared cell a batch, not one a mutation.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use isle_storage::ids::{CommitId, Epoch, Position, SeqNo};
use tokio::sync::Notify;

use super::Numbers;
use crate::error::WriteError;

/// How a batch ended.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// The head names its segment.
    Committed,
    /// It is not part of the database and never will be.
    Refused(Refused),
    /// The writer stopped before it could read the truth.
    Abandoned(String),
}

/// Why a batch was certainly not applied.
#[derive(Debug, Clone)]
pub(crate) enum Refused {
    /// Leadership was lost first.
    SteppedDown(String),
    /// Lost for good in this form of coordination.
    Fenced(String),
    /// The writer stopped first.
    Closing,
}

impl From<Refused> for WriteError {
    fn from(why: Refused) -> Self {
        match why {
            Refused::SteppedDown(why) => Self::NotLeader { leader: None, why },
            Refused::Fenced(why) => Self::Fenced { why },
            Refused::Closing => Self::Closing,
        }
    }
}

/// One batch's end, awaited by any number of callers.
#[derive(Debug, Default)]
pub(crate) struct Completion {
    outcome: OnceLock<Outcome>,
    /// The newest commit that was attempted for it, for the answer of those who cannot wait.
    commit: parking_lot::Mutex<Option<CommitId>>,
    ended: Notify,
}

impl Completion {
    /// Ends the batch and wakes everybody. Only the first call counts.
    pub(crate) fn end(&self, outcome: Outcome) {
        if self.outcome.set(outcome).is_ok() {
            self.ended.notify_waiters();
        }
    }

    pub(crate) fn attempted(&self, commit: CommitId) {
        *self.commit.lock() = Some(commit);
    }

    pub(crate) fn commit(&self) -> Option<CommitId> {
        *self.commit.lock()
    }

    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) -> &Outcome {
        loop {
            let notified = self.ended.notified();
            tokio::pin!(notified);
            // Registered before the look, so that an end in between is not missed.
            notified.as_mut().enable();
            if let Some(outcome) = self.outcome.get() {
                return outcome;
            }
            notified.await;
        }
    }
}

/// Mutations that the writer owns now: their numbers are theirs for good, whatever becomes of the caller.
#[derive(Debug, Clone)]
#[must_use = "accepted is not committed: wait for `committed`, or drop this on purpose"]
pub struct Accepted {
    numbers: Numbers,
    /// The batches they went into, in order, each with the last number it holds of them.
    pieces: Vec<(SeqNo, Arc<Completion>)>,
}

impl Accepted {
    pub(crate) fn new(numbers: Numbers, pieces: Vec<(SeqNo, Arc<Completion>)>) -> Self {
        Self { numbers, pieces }
    }

    /// The epoch that accepted them.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.numbers.epoch
    }

    /// First sequence number.
    #[must_use]
    pub fn first_seq(&self) -> SeqNo {
        self.numbers.first_seq
    }

    /// Last sequence number.
    #[must_use]
    pub fn last_seq(&self) -> SeqNo {
        self.numbers.last_seq
    }

    /// The position of the last one.
    #[must_use]
    pub fn position(&self) -> Position {
        self.numbers.position()
    }

    /// The highest number among them that is known to be committed, if any.
    #[must_use]
    pub fn committed_so_far(&self) -> Option<SeqNo> {
        let done = |c: &Completion| matches!(c.outcome(), Some(Outcome::Committed));
        self.pieces.iter().rev().find(|(_, c)| done(c)).map(|(seq, _)| *seq)
    }

    /// Waits until the head names all of them.
    ///
    /// # Errors
    /// [`WriteError`]: definite refusals where leadership was lost first, `OutcomeUnknown` when `at_most` passes or the
    /// writer stops before the truth could be read.
    pub async fn committed(&self, at_most: Duration) -> Result<(), WriteError> {
        let Some((_, last)) = self.pieces.last() else {
            return Err(self.unknown(None, "the call did not ask for a commit"));
        };
        // Batches commit in order, so the last one stands for all.
        match tokio::time::timeout(at_most, last.ended()).await {
            Ok(Outcome::Committed) => Ok(()),
            Ok(Outcome::Refused(why)) => Err(self.refused(why, last)),
            Ok(Outcome::Abandoned(why)) => Err(self.unknown(last.commit(), why)),
            Err(_) => Err(self.unknown(
                last.commit(),
                &format!("not committed within {:.1} s; it may still be", at_most.as_secs_f64()),
            )),
        }
    }

    fn refused(&self, why: &Refused, last: &Completion) -> WriteError {
        if self.committed_so_far().is_some() {
            // Not an atomic call, and a first part of it stands: "certainly not applied" would be wrong.
            return self.unknown(last.commit(), "its first part is committed, the rest is not");
        }
        why.clone().into()
    }

    fn unknown(&self, commit: Option<CommitId>, why: &str) -> WriteError {
        let Numbers { epoch, first_seq, last_seq } = self.numbers;
        WriteError::OutcomeUnknown { epoch, first_seq, last_seq, commit, why: why.to_owned() }
    }
}
