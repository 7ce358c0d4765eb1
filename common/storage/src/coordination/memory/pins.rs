//! Pins in memory: both sides look at the other's number under one lock.

use std::sync::Arc;

use super::lease::{Held, MemoryLease, Right};
use super::{MemoryCoordination, Shared, State};
use crate::coordination::{CoordinationError, PinAttempt};
use crate::ids::Version;

impl State {
    /// Raises the floor as far as pins allow.
    pub(super) fn raise_floor(&mut self, version: Version) -> Version {
        let lowest = self.pins.values().map(|(pinned, _)| *pinned).min();
        self.gc_floor = self.gc_floor.max(lowest.map_or(version, |pinned| pinned.min(version)));
        self.gc_floor
    }
}

pub(super) fn pin(shared: &Arc<Shared>, version: Version) -> Result<PinAttempt, CoordinationError> {
    shared.change(|state| {
        state.available()?;
        // What was retired up to the floor may be gone already.
        if state.gc_floor > version {
            return Ok(PinAttempt::Passed(state.gc_floor));
        }
        let token = state.next_token();
        let held = Held::new(token);
        state.pins.insert(token, (version, held.clone()));
        Ok(PinAttempt::Held(Arc::new(MemoryLease::new(Arc::clone(shared), Right::Pin(token), held))))
    })
}

impl MemoryCoordination {
    /// How many pins stand.
    #[must_use]
    pub fn pins(&self) -> usize {
        self.shared.state.lock().pins.len()
    }

    /// Every pin's lease ends.
    pub fn expire_pins(&self) {
        self.change(|state| {
            for pin in state.pins.keys().copied().collect::<Vec<_>>() {
                state.end(Right::Pin(pin), None, "the lease has expired");
            }
        });
    }
}
