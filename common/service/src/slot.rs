//! The engine, once it is open: a daemon listens before its engine can answer.

use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::error::{ApiError, ErrorCode};

struct Inner<E> {
    engine: OnceLock<Arc<E>>,
    reason: Mutex<String>,
}

/// A cell that handlers hold from the start and the shell fills when the engine is open.
pub struct Slot<E>(Arc<Inner<E>>);

impl<E> Slot<E> {
    /// An empty slot.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            engine: OnceLock::new(),
            reason: Mutex::new("it has just been started".to_owned()),
        }))
    }

    /// A slot that is filled from the start, as tests and embedded routers need it.
    #[must_use]
    pub fn filled(engine: Arc<E>) -> Self {
        let slot = Self::new();
        slot.fill(engine);
        slot
    }

    /// The engine, or 503 `not_ready` with what is being waited for.
    pub fn get(&self) -> Result<Arc<E>, ApiError> {
        self.peek().cloned().ok_or_else(|| {
            ApiError::new(ErrorCode::NotReady, format!("not ready: {}", self.0.reason.lock()))
                .retry_after(std::time::Duration::from_secs(1))
        })
    }

    /// The engine if it is open.
    #[must_use]
    pub fn peek(&self) -> Option<&Arc<E>> {
        self.0.engine.get()
    }

    /// Says why there is no engine yet.
    pub fn waiting_for(&self, reason: &str) {
        reason.clone_into(&mut self.0.reason.lock());
    }

    /// Puts the engine in. Only the first one counts.
    pub fn fill(&self, engine: Arc<E>) {
        let _first = self.0.engine.set(engine);
    }
}

impl<E> Default for Slot<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Clone for Slot<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E> fmt::Debug for Slot<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("filled", &self.peek().is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_slot_answers_with_its_reason() {
        let slot = Slot::<u8>::new();
        slot.waiting_for("etcd at 127.0.0.1:1 refuses connections");
        let error = slot.get().unwrap_err();
        assert_eq!(error.code, ErrorCode::NotReady);
        assert!(error.message.contains("refuses connections"));
        slot.clone().fill(Arc::new(7));
        assert_eq!(*slot.get().unwrap(), 7);
    }
}
