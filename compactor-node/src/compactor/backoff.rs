//! Doubling pauses between failures.

use std::time::Duration;

use crate::settings::CompactorSettings;

/// Doubling pauses between failures.
#[derive(Debug)]
pub(super) struct Backoff {
    first: f64,
    longest: f64,
    next: f64,
}

impl Backoff {
    pub(super) fn new(settings: &CompactorSettings) -> Self {
        let (first, longest) = settings.backoff_seconds;
        Self { first, longest, next: first }
    }

    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2.0).min(self.longest);
        Duration::from_secs_f64(pause)
    }
}
