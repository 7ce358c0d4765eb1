//! The rate of commits and of uploads: a bucket of tokens, so that a lone one never waits and a steady stream keeps the
//! bound.

use std::time::Duration;

use tokio::time::Instant;

/// How many may be made at once after a pause.
const BURST: u32 = 10;

/// Bounds how many are made a second.
#[derive(Debug)]
pub(super) struct Pace {
    gap: Option<Duration>,
    /// The instant up to which the rate is used up.
    used_up: Instant,
}

impl Pace {
    /// `None`: no bound.
    pub(super) fn new(per_second: Option<u32>) -> Self {
        let gap = per_second.map(|n| Duration::from_secs(1) / n.max(1));
        Self { gap, used_up: Instant::now() }
    }

    /// When the next one may be made; `None`: at any time.
    pub(super) fn next(&self) -> Option<Instant> {
        let gap = self.gap?;
        // `used_up` may run ahead of now by the burst.
        self.used_up.checked_sub(gap * (BURST - 1))
    }

    /// Counts one.
    pub(super) fn count(&mut self, now: Instant) {
        if let Some(gap) = self.gap {
            self.used_up = self.used_up.max(now) + gap;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_a_stream_keeps_the_bound() {
        let mut pace = Pace::new(Some(50));
        let began = Instant::now();
        for _ in 0..110 {
            if let Some(at) = pace.next() {
                tokio::time::sleep_until(at).await;
            }
            pace.count(Instant::now());
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(1980) && took < Duration::from_millis(2100), "{took:?}");
    }
}
