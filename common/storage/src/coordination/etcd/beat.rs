//! The heartbeat of a watch's stream: what was asked of etcd, and by when an answer is due.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{GetOptions, TxnOp};
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::client::{Answer, Kv};
use super::error::CallError;
use super::track::Track;

/// What a probe of the head found.
pub(super) struct Probed {
    pub(super) sent: Instant,
    pub(super) outcome: Result<Answer, CallError>,
}

pub(super) async fn probe(kv: Arc<Kv>, head: String) -> Probed {
    let sent = Instant::now();
    let key_only = TxnOp::get(head, Some(GetOptions::new().with_keys_only()));
    Probed { sent, outcome: kv.read(vec![key_only]).await }
}

/// The heartbeat of one stream: what was asked, and by when an answer is due.
pub(super) struct Beat {
    every: Duration,
    patience: Duration,
    /// When the next one begins.
    pub(super) next: Instant,
    /// When the progress request must have been answered.
    progress: Option<Instant>,
    /// The revision the stream has to reach, and by when.
    expected: Option<(i64, Instant)>,
    /// The read of the head under way.
    pub(super) probe: Option<BoxFuture<'static, Probed>>,
    /// Probes that failed in a row.
    pub(super) probes_failed: u32,
}

impl Beat {
    /// The first one begins at once: it tells the consumer that the watch is there.
    pub(super) fn new(every: Duration, patience: Duration) -> Self {
        let next = Instant::now();
        Self { every, patience, next, progress: None, expected: None, probe: None, probes_failed: 0 }
    }

    /// Begins one; whether a progress request is to be sent.
    pub(super) fn begin(&mut self) -> bool {
        let now = Instant::now();
        self.next = now + self.every;
        let asks = self.progress.is_none();
        if asks {
            self.progress = Some(now + self.patience);
        }
        asks
    }

    /// Something came.
    pub(super) fn heard(&mut self, track: &Track) {
        self.progress = None;
        self.expected = self.expected.filter(|(revision, _)| !track.has_seen(*revision));
    }

    /// Nobody listened to the stream for this long.
    pub(super) fn excuse(&mut self, busy: Duration) {
        self.progress = self.progress.map(|due| due + busy);
        self.expected = self.expected.map(|(revision, due)| (revision, due + busy));
    }

    pub(super) fn expect(&mut self, revision: i64) {
        let due = Instant::now() + self.patience;
        self.expected.get_or_insert((revision, due));
    }

    /// The earliest instant at which the stream counts as dead.
    pub(super) fn due(&self) -> Instant {
        let never = Instant::now() + self.every + self.patience;
        let expected = self.expected.map(|(_, due)| due);
        [self.progress, expected].into_iter().flatten().min().unwrap_or(never)
    }

    pub(super) fn overdue(&self) -> String {
        match self.expected {
            Some((revision, due)) if due <= Instant::now() => {
                format!("the watch is silent although the head has changed at revision {revision}")
            }
            _ => format!("the watch has been silent for {:?}", self.patience),
        }
    }

    /// Resolves with the probe under way, if there is one.
    pub(super) async fn probe(&mut self) -> Probed {
        match &mut self.probe {
            None => std::future::pending().await,
            Some(probe) => {
                let probed = probe.await;
                self.probe = None;
                probed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const EVERY: Duration = Duration::from_secs(5);
    const PATIENCE: Duration = Duration::from_secs(2);

    fn is_overdue(beat: &Beat) -> bool {
        beat.due() <= Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn an_unanswered_request_is_overdue_and_an_answered_one_is_not() {
        let mut beat = Beat::new(EVERY, PATIENCE);
        assert!(beat.begin(), "the first request is sent");
        assert!(!beat.begin(), "and no second one while it is unanswered");
        advance(PATIENCE).await;
        assert!(is_overdue(&beat));
        beat.excuse(PATIENCE);
        assert!(!is_overdue(&beat), "nobody was listening");
        advance(PATIENCE).await;
        beat.heard(&Track::at_revision(1));
        assert!(!is_overdue(&beat));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_lives_and_delivers_nothing_is_overdue() {
        let mut beat = Beat::new(EVERY, PATIENCE);
        beat.expect(7);
        advance(PATIENCE / 2).await;
        beat.heard(&Track::at_revision(6));
        beat.expect(8);
        advance(PATIENCE / 2).await;
        assert!(is_overdue(&beat), "a later expectation does not move the first one's date");
        assert!(beat.overdue().contains("revision 7"), "{}", beat.overdue());
        beat.heard(&Track::at_revision(7));
        assert!(!is_overdue(&beat));
    }
}
