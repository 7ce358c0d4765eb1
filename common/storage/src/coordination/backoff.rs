//! Pauses between attempts: doubling from a first to a longest one.

use std::time::Duration;

use tokio::time::Instant;

/// A pause that doubles with every failure and starts over after a success.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next pause; the one after it is twice as long, up to the longest.
    pub fn pause(&mut self) -> Duration {
        let now = self.next;
        self.next = (now * 2).min(self.longest);
        now
    }

    /// Starts over.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// Sleeps for the next pause, but never past `deadline`.
    pub async fn sleep(&mut self, deadline: Instant) {
        let until = (Instant::now() + self.pause()).min(deadline);
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_over() {
        let mut b = Backoff::new(Duration::from_millis(10), Duration::from_millis(35));
        let three: Vec<u128> = (0..3).map(|_| b.pause().as_millis()).collect();
        assert_eq!(three, [10, 20, 35]);
        b.reset();
        assert_eq!(b.pause().as_millis(), 10);
    }
}
