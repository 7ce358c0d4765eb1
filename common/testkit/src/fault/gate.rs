//! What can happen to an operation, and where one waits.

use std::sync::Arc;
use std::time::Duration;

use isle_storage::object::StoreErrorKind;
use tokio::sync::watch;

/// What happens to an operation that a rule chooses.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Fails without being applied.
    Fail(StoreErrorKind),
    /// Is applied; the caller is told [`StoreErrorKind::Transient`].
    LoseReply,
    /// Is not applied; the caller is told Ok. A store that lies.
    Swallow,
    /// Begins later, in tokio's time.
    Delay(Duration),
    /// Never begins and never ends.
    Hang,
    /// Waits at the gate before it is applied.
    HoldBefore(Gate),
    /// Is applied, and waits at the gate before the caller is told.
    HoldAfter(Gate),
    /// A get's answer has a bit flipped at this offset (from its end if negative).
    FlipBit(i64),
    /// A get's answer is cut to this length; a listing breaks with [`StoreErrorKind::Transient`] after so many objects.
    Truncate(usize),
}

/// A place where operations wait until a test lets them go on. Dropping every handle but the store's does not open it.
#[derive(Debug, Clone)]
pub struct Gate(Arc<GateState>);

#[derive(Debug)]
struct GateState {
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(GateState { open: watch::Sender::new(false), waiting: watch::Sender::new(0) }))
    }

    /// Waits until at least `n` operations have arrived at the gate (those let through count too).
    pub async fn arrived(&self, n: usize) {
        // The sender lives in this very gate, so waiting cannot fail.
        let mut arrivals = self.0.waiting.subscribe();
        let _alive = arrivals.wait_for(|&arrived| arrived >= n).await;
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        self.0.open.send_replace(true);
    }

    pub(super) async fn pass(&self) {
        self.0.waiting.send_modify(|n| *n += 1);
        let mut opening = self.0.open.subscribe();
        let _alive = opening.wait_for(|&open| open).await;
    }
}
