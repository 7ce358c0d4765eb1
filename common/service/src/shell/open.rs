//! Opening an engine whose bucket or coordination may not be there yet.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::health::{Health, State};
use crate::slot::Slot;

/// Pause after the first failed attempt; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause. Attempts go on for as long as the program runs: a daemon waits for what it needs.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A definite "no" that ends the program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The program's exit code: 2 for what a setting names wrongly, 1 otherwise.
    pub exit: u8,
    /// What was refused, why, and what to do.
    pub message: String,
}

/// Why an engine could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Trying again may help: something cannot be reached.
    #[error("{0}")]
    Passing(String),
    /// It will not.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl OpenError {
    /// A refusal with exit code 2.
    pub fn bad_setting(message: impl Into<String>) -> Self {
        Self::Refused(Refusal { exit: super::EXIT_SETTINGS, message: message.into() })
    }

    /// A refusal with exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Refused(Refusal { exit: super::EXIT_FAILURE, message: message.into() })
    }
}

/// Opens an engine and fills the slot, trying again while the failure is passing. Meanwhile the health component `start`
/// is not ready and the slot says why.
pub async fn open_until_done<E, F>(
    slot: &Slot<E>,
    health: &Health,
    mut open: impl FnMut() -> F,
) -> Result<Arc<E>, Refusal>
where
    F: Future<Output = Result<E, OpenError>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match open().await {
            Ok(engine) => {
                let engine = Arc::new(engine);
                slot.fill(Arc::clone(&engine));
                health.clear("start");
                return Ok(engine);
            }
            Err(OpenError::Refused(refusal)) => return Err(refusal),
            Err(OpenError::Passing(reason)) => {
                slot.waiting_for(&reason);
                health.set("start", State::NotReady(reason));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_passing_failure_is_retried_and_shown_meanwhile() {
        let (slot, health, attempts) = (Slot::new(), Health::new("reader"), Cell::new(0));
        let engine = open_until_done(&slot, &health, || {
            let attempt = attempts.replace(attempts.get() + 1);
            if attempt > 0 {
                assert_eq!(health.reasons(), ["start: etcd is away"]);
                assert!(slot.get().unwrap_err().message.contains("etcd is away"));
            }
            async move { if attempt < 20 { Err(OpenError::Passing("etcd is away".into())) } else { Ok(7) } }
        });
        assert_eq!(*engine.await.unwrap(), 7);
        assert!(health.is_ready());
        assert_eq!(*slot.get().unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_ends_the_attempts() {
        let (slot, health) = (Slot::<u8>::new(), Health::new("reader"));
        let refused =
            open_until_done(&slot, &health, || async { Err(OpenError::bad_setting("wrong database")) });
        assert_eq!(refused.await.unwrap_err(), Refusal { exit: 2, message: "wrong database".into() });
    }
}
