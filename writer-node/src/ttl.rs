//! The default time to live: how long a put lives that says nothing of it. A property of the database, kept in the
//! manifest, so that every writer that leads it stamps the same.
//!
//! It is set by an edit of the writer's, like a snapshot, and counts for what is accepted after that edit is installed:
//! whoever has the answer in hand and then puts, puts under the new default. What was put before keeps what it was
//! stamped with; an expiry stands in the row.

use std::time::Duration;

use isle_storage::coordination::{CoordinationError, fold};

use crate::error::WriteError;
use crate::snapshots::{SnapshotError, Wish};
use crate::writer::Writer;

/// Why the default was not set. Every variant but [`SetTtlError::OutcomeUnknown`] means: certainly not.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SetTtlError {
    /// It would delete everything at once, or is none.
    #[error("a default ttl must be above zero")]
    Zero,
    /// This writer takes no request, or stopped before it began this one.
    #[error(transparent)]
    Refused(#[from] WriteError),
    /// It may have been done: ask for the default to find out.
    #[error("whether the default ttl was set is unknown: {0}")]
    OutcomeUnknown(String),
}

impl Writer {
    /// From the answer on, puts that say nothing of it live so long; `None`: for ever.
    ///
    /// # Errors
    /// [`SetTtlError`].
    pub async fn set_default_ttl(
        &self,
        ttl: Option<Duration>,
        ack_timeout: Option<Duration>,
    ) -> Result<(), SetTtlError> {
        if ttl.is_some_and(|ttl| ttl.as_micros() == 0) {
            return Err(SetTtlError::Zero);
        }
        match self.ask(ack_timeout, |_| Wish::SetDefaultTtl { ttl }).await {
            Ok(_) => {
                self.checkpoint().await;
                Ok(())
            }
            Err(SnapshotError::Refused(e)) => Err(e.into()),
            Err(SnapshotError::OutcomeUnknown { why, .. }) => Err(SetTtlError::OutcomeUnknown(why)),
            // What only snapshots are refused for.
            Err(other) => Err(SetTtlError::OutcomeUnknown(other.to_string())),
        }
    }

    /// A recover must know the default: of an older checkpoint it would bring back an older one.
    async fn checkpoint(&self) {
        match self.database().load().await {
            Ok(committed) => fold::into_the_bucket(self.database(), &committed, "the default ttl").await,
            Err(error) => {
                tracing::warn!(%error, "the default ttl has no checkpoint yet: a recover would not know it")
            }
        }
    }

    /// The default as the head has it now; on a standby too.
    ///
    /// # Errors
    /// [`CoordinationError`].
    pub async fn default_ttl(&self) -> Result<Option<Duration>, CoordinationError> {
        Ok(self.database().load().await?.manifest.default_ttl())
    }
}
