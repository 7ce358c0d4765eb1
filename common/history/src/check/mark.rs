//! What is known to be committed, and by which event.

use crate::event::Stamped;

/// A number known to be committed (or held by a view), and the event that told.
#[derive(Debug, Clone, Default)]
pub(super) struct Mark {
    pub(super) seq: u64,
    pub(super) proof: Option<Stamped>,
}

impl Mark {
    /// Raises the mark to `seq`, never lowers it.
    pub(super) fn raise(&mut self, seq: u64, proof: &Stamped) {
        if seq > self.seq || self.proof.is_none() {
            (self.seq, self.proof) = (seq.max(self.seq), Some(proof.clone()));
        }
    }

    /// The events that prove a breach of this mark.
    pub(super) fn with<'a>(&'a self, events: &[&'a Stamped]) -> Vec<&'a Stamped> {
        self.proof.iter().chain(events.iter().copied()).collect()
    }
}
