//! The end of an epoch's leadership: everything accepted is resolved, or handed over as in doubt.

use std::sync::Arc;

use isle_storage::coordination::Claim;
use isle_storage::manifest::LogTail;
use tracing::warn;

use super::Pipeline;
use crate::intake::{Completion, Outcome, Refused, Sealed};
use crate::snapshots::{EditInDoubt, MAX_ASKS};

/// Why leadership ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// The right is gone, or must be given up.
    Fenced(String),
    /// Everything accepted is committed.
    Drained,
    /// Told to stop at once.
    Dropped,
}

/// A segment that was dispatched and whose commit is not known: a successor may adopt it.
#[derive(Debug)]
pub(crate) struct InDoubt {
    pub(crate) tail: LogTail,
    pub(crate) completion: Arc<Completion>,
}

/// What leadership leaves behind.
#[derive(Debug)]
pub(crate) struct Leftovers {
    pub(crate) end: End,
    pub(crate) claim: Claim,
    pub(crate) in_doubt: Vec<InDoubt>,
    /// An edit whose commit is not known, where somebody waits for what it does to snapshots.
    pub(crate) edit_in_doubt: Option<EditInDoubt>,
}

impl Pipeline {
    /// Empties the seat, stops what is under way, gives all memory back.
    pub(super) fn dissolve(mut self, end: End) -> Leftovers {
        if let Some(turn) = self.turn.take() {
            turn.abort();
        }
        self.folding.abort();
        self.uploads.abort_all();
        self.flushes.abort_all();
        if let Some(mut sequencer) = self.engine.seat.lock().take() {
            sequencer.seal_all();
            self.queue.append(&mut sequencer.take_sealed());
            self.asks.extend(sequencer.take_asks(MAX_ASKS));
        }
        self.engine.blobs.end();
        // Only now is nothing accepted any more, so only now may callers waiting for admission be sent away.
        if let End::Fenced(why) = &end {
            warn!(epoch = %self.term.epoch, %why, in_doubt = self.line.len(), "leadership is lost");
            self.engine.metrics.fenced.inc();
        }
        let refused = self.refused(&end);
        self.asks.refuse_all(&refused.clone().into());
        let queued: u64 = self.queue.iter().map(|s| s.charge).sum();
        self.engine.admission.free(queued + self.generations.charge());
        for Sealed { completion, .. } in self.queue.drain(..) {
            completion.end(Outcome::Refused(refused.clone()));
        }
        let n = self.line.len();
        let in_doubt =
            self.line.commit(n).map(|s| InDoubt { tail: s.tail, completion: s.completion }).collect();
        self.engine.gauges.segments_in_flight.store(0, std::sync::atomic::Ordering::Relaxed);
        self.engine.gauges.generations.store(0, std::sync::atomic::Ordering::Relaxed);
        #[cfg(feature = "sabotage")]
        if isle_storage::sabotage::broken(isle_storage::sabotage::Rule::RebuildMemtable) {
            *self.engine.kept.lock() = Some(self.generations);
        }
        let edit_in_doubt = self.publishing.granting.take();
        Leftovers { end, claim: self.claim, in_doubt, edit_in_doubt }
    }

    /// What those are told whose mutations never left this process.
    fn refused(&self, end: &End) -> Refused {
        match end {
            End::Fenced(why) => self.engine.refused(why.clone()),
            End::Drained | End::Dropped => Refused::Closing,
        }
    }
}
