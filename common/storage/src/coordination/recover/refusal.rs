//! Why a recover does not go on. Nothing was changed, unless the message says so.

use std::fmt;

use super::base::Rejected;
use super::path::Gap;
use crate::coordination::CoordinationError;
use crate::ids::SeqNo;

/// Why a recover was refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecoverError {
    /// Coordination or the store failed.
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    /// No checkpoint can be the base.
    #[error("no checkpoint can be built on: {}. Bring one of them, or what it names, back from a copy of the bucket", List(.0))]
    NoBase(Vec<Rejected>),
    /// The bucket contradicts itself.
    #[error("the bucket contradicts itself, and nothing can be rebuilt without guessing: {0}")]
    Contradiction(String),
    /// Something is missing that was, or may have been, acknowledged.
    #[error(
        "{gap}. The log can be rebuilt up to sequence number {kept}; --accept-loss does so and gives up everything after it"
    )]
    Loss {
        /// What is missing.
        gap: Gap,
        /// The last sequence number that would be kept.
        kept: SeqNo,
    },
    /// There is nothing to recover.
    #[error("there is nothing to recover: {0}")]
    Sound(String),
    /// Somebody works on the database.
    #[error("{0}: stop every role, and run `isle recover` again")]
    InUse(String),
}

struct List<'a>(&'a [Rejected]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("there is none in manifest/");
        }
        for (n, rejected) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "; " };
            write!(f, "{comma}{rejected}")?;
        }
        Ok(())
    }
}
