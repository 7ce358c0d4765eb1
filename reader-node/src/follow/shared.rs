//! What the follower shares with the readers: the view, its freshness, and why it may be behind.

use std::sync::Arc;
use std::time::Duration;

use isle_storage::environment::Clock;
use isle_storage::ids::{Lineage, SeqNo, Version};
use isle_storage::watch;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::view::View;

/// What can keep a view from moving on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The head cannot be followed.
    Coordination,
    /// A log segment cannot be had.
    Segments,
    /// The unflushed log is larger than memory allows.
    Memory,
}

#[derive(Debug, Default)]
struct State {
    /// When the view was last known to be the newest, and for how long the machine had slept by then.
    as_of: Option<(Instant, Duration)>,
    troubles: [Option<String>; 3],
}

/// The view and its state.
#[derive(Debug)]
pub(crate) struct Shared {
    views: watch::Sender<Option<Arc<View>>>,
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

impl Shared {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { views: watch::Sender::new(None), state: Mutex::default(), clock }
    }

    /// The view, once there is one.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        self.views.borrow().clone()
    }

    /// The view now and whenever it changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Arc<View>>> {
        self.views.subscribe()
    }

    /// The view's version, if it is of this lineage.
    pub(super) fn version_in(&self, lineage: Lineage) -> Option<Version> {
        self.views.borrow().as_ref().filter(|v| v.lineage() == lineage).map(|v| v.version())
    }

    /// The view's sequence number.
    pub(super) fn seq(&self) -> SeqNo {
        self.views.borrow().as_ref().map(|v| v.seq()).unwrap_or_default()
    }

    /// Swaps the view.
    pub(super) fn publish(&self, view: Arc<View>) {
        self.state.lock().as_of = Some((view.as_of, self.clock.suspended()));
        self.views.send_replace(Some(view));
    }

    /// Notes that the view is still the newest, if it is of that version.
    pub(super) fn confirm(&self, version: Version, as_of: Instant) {
        if let Some(view) = self.views.borrow().as_ref().filter(|v| v.version() == version) {
            view.confirm(as_of);
            let mut state = self.state.lock();
            state.as_of = state.as_of.max(Some((as_of, self.clock.suspended())));
        }
    }

    /// How long ago the view was known to be the newest. Time that the machine has slept counts: the clock of timers
    /// stands still then, and the database does not.
    pub(crate) fn age(&self) -> Option<Duration> {
        let (as_of, slept) = self.state.lock().as_of?;
        Some(as_of.elapsed() + self.clock.suspended().saturating_sub(slept))
    }

    pub(super) fn set_trouble(&self, which: Trouble, why: Option<String>) {
        self.state.lock().troubles[which as usize] = why;
    }

    /// Everything that keeps the view from moving on at present.
    pub(crate) fn troubles(&self) -> Vec<String> {
        self.state.lock().troubles.iter().flatten().cloned().collect()
    }
}
