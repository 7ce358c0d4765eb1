//! When the open batch is closed: a pure decision. (A full batch is closed by the sequencer itself.)

use std::time::Duration;

use tokio::time::Instant;

use crate::intake::OpenState;

/// Weight of the newest upload in the estimate of how long one takes.
const NEWEST_WEIGHT: f64 = 0.2;

/// What the decision rests on besides the open batch.
#[derive(Debug)]
pub(super) struct Rhythm {
    /// Longest wait for company.
    linger: Duration,
    /// Callers that were answered together last: clients in step with each other come back together.
    company: u64,
    /// How long an upload takes, about.
    upload: Duration,
}

impl Rhythm {
    pub(super) fn new(linger: Duration) -> Self {
        Self { linger, company: 0, upload: Duration::ZERO }
    }

    /// So many callers were answered together.
    pub(super) fn answered(&mut self, waiters: u64) {
        self.company = waiters;
    }

    /// An upload took so long.
    pub(super) fn uploaded(&mut self, took: Duration) {
        let old = if self.upload.is_zero() { took } else { self.upload };
        self.upload = old.mul_f64(1.0 - NEWEST_WEIGHT) + took.mul_f64(NEWEST_WEIGHT);
    }

    /// How many waiters make a batch complete.
    pub(super) fn company(&self) -> u64 {
        self.company
    }

    /// When the open batch is due. `idle`: nothing is being uploaded, queued, waiting for a commit or being
    /// committed.
    ///
    /// With something on its way, waiting costs little: the batch would queue behind it anyway, and gathers company.
    /// With nothing on its way the first waiter goes at once, unless more were answered together last time: those are
    /// about to come back, and get a fraction of an upload's time to do so. Without that, the first of them would go
    /// alone, and all the others would wait for it.
    pub(super) fn due(&self, open: OpenState, idle: bool) -> Instant {
        let complete = open.waiters >= self.company;
        match (open.waiters > 0 && idle, complete) {
            (true, true) => open.since,
            (true, false) => open.since + (self.upload / 4).min(self.linger),
            (false, _) => open.since + self.linger,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Duration = Duration::from_millis(20);

    #[test]
    fn the_first_waiter_does_not_linger_and_the_next_ones_gather() {
        let (since, rhythm) = (Instant::now(), Rhythm::new(LINGER));
        let awaited = OpenState { since, waiters: 1 };
        assert_eq!(rhythm.due(awaited, true), since);
        assert_eq!(rhythm.due(awaited, false), since + LINGER);
        let unawaited = OpenState { since, waiters: 0 };
        assert_eq!(rhythm.due(unawaited, true), since + LINGER, "nobody waits: company first");
    }

    #[test]
    fn those_answered_together_are_waited_for_a_little() {
        let (since, mut rhythm) = (Instant::now(), Rhythm::new(LINGER));
        rhythm.uploaded(Duration::from_millis(8));
        rhythm.answered(16);
        assert_eq!(rhythm.due(OpenState { since, waiters: 1 }, true), since + Duration::from_millis(2));
        assert_eq!(rhythm.due(OpenState { since, waiters: 16 }, true), since, "they are all back");
        rhythm.uploaded(Duration::from_secs(10));
        assert_eq!(
            rhythm.due(OpenState { since, waiters: 1 }, true),
            since + LINGER,
            "never beyond the linger"
        );
    }
}
