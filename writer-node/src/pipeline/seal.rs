//! When the open batch is closed: a pure decision. (A full batch is closed by the sequencer itself.)

use std::time::Duration;

use tokio::time::Instant;

use crate::intake::OpenState;

/// When the open batch is due. `idle`: nothing is being uploaded, queued, or waiting for a commit.
///
/// With something on its way, waiting costs little: the batch would queue behind it anyway, and gathers company.
pub(super) fn due(open: OpenState, idle: bool, linger: Duration) -> Instant {
    if open.awaited && idle { open.since } else { open.since + linger }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_waiter_does_not_linger_and_the_next_ones_gather() {
        let (since, linger) = (Instant::now(), Duration::from_millis(20));
        let awaited = OpenState { since, awaited: true };
        assert_eq!(due(awaited, true, linger), since);
        assert_eq!(due(awaited, false, linger), since + linger);
        let unawaited = OpenState { since, awaited: false };
        assert_eq!(due(unawaited, true, linger), since + linger, "nobody waits: company first");
    }
}
