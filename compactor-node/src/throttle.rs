//! A rate in bytes a second, shared by everything in the process that draws on it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Lets bytes through at a rate: whoever comes waits until those before him have been paid for. What is taken at once
/// may be larger than a second's worth; then the next one waits longer.
#[derive(Debug)]
pub struct Throttle {
    bytes_per_second: u64,
    /// When everything taken so far is paid for.
    paid: Mutex<Option<Instant>>,
}

impl Throttle {
    /// At most this many bytes a second; 0 is no limit.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, paid: Mutex::new(None) }
    }

    /// Takes `bytes`, when their turn has come.
    pub async fn take(&self, bytes: u64) {
        if self.bytes_per_second == 0 {
            return;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let turn = {
            let mut paid = self.paid.lock();
            let now = Instant::now();
            let turn = paid.map_or(now, |paid| paid.max(now));
            *paid = Some(turn + cost);
            turn
        };
        tokio::time::sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_at_the_rate_whoever_takes_them() {
        let throttle = Throttle::new(1 << 20);
        let start = Instant::now();
        let four = (0..4).map(|_| async {
            for _ in 0..4 {
                throttle.take(1 << 20).await;
            }
        });
        futures::future::join_all(four).await;
        // The last is let through when the fifteen before it are paid for.
        let took = start.elapsed().as_secs_f64();
        assert!((14.9..15.1).contains(&took), "{took}");
        let unlimited = Throttle::new(0);
        unlimited.take(u64::MAX).await;
        assert!(start.elapsed().as_secs_f64() < 15.2);
    }
}
