//! Doubling pauses between failures.

use std::time::Duration;

use crate::settings::CompactorSettings;

/// Doubling pauses between failures.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: f64,
    longest: f64,
    next: f64,
}

impl Backoff {
    pub(crate) fn new(settings: &CompactorSettings) -> Self {
        let (first, longest) = settings.backoff_seconds;
        Self { first, longest, next: first }
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    /// The next pause.
    pub(crate) fn pause(&self) -> Duration {
        Duration::from_secs_f64(self.next)
    }

    /// The next pause, and the one after it is twice as long.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.pause();
        self.next = (self.next * 2.0).min(self.longest);
        pause
    }
}
