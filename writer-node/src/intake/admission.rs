//! Admission: the bound on bytes of mutations in memory, wherever they are: in the open batch, queued, being
//! uploaded, or waiting to be in tables.
//!
//! ```text
//! 0 ────────────── slow down ───────────────── limit
//!   no wait         paced towards the rate       wait, first come first served
//!                   at which memory is freed
//! ```
//!
//! Without the middle part throughput would saw-tooth: full speed until the limit, then nothing until a whole
//! generation is in tables. The pace is that of the recent flushes, a little more of it far from the limit and a
//! little less close to it, so that the amount in memory settles in between.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How far ahead of the pace a caller may run before it is put to sleep: timers have a grain of a millisecond.
const PACE_TOLERANCE: Duration = Duration::from_millis(2);

/// Longest sleep for the pace: a wrong estimate must not look like a stall.
const LONGEST_PACE: Duration = Duration::from_millis(100);

/// What is left of an earlier flush's weight in the estimate of the pace when the next one ends.
const FADE: f64 = 0.75;

#[derive(Debug)]
pub(crate) struct Admission {
    permits: Semaphore,
    limit: u64,
    /// Fewer free permits than this: callers are paced.
    slow_below: u64,
    /// Bytes taken by force beyond what was free: paid back before anything is freed.
    debt: Mutex<u64>,
    pace: Pace,
}

/// The pace at which memory is freed, and how far callers have run ahead of it.
#[derive(Debug)]
struct Pace {
    origin: Instant,
    /// Bytes a second; 0 while unknown.
    rate: AtomicU64,
    /// Nanoseconds since `origin` up to which the pace is used up.
    used_up: AtomicU64,
    learned: Mutex<Learned>,
}

/// What flushes freed and the time they took, older ones fading. The two are kept apart and divided at the end: flushes
/// overlap, and one that ends right after another would by itself look infinitely fast.
#[derive(Debug, Default)]
struct Learned {
    bytes: f64,
    seconds: f64,
    last: Option<Instant>,
}

/// Bytes that were admitted; given back when dropped, unless [`Admitted::keep`] hands them to the writer.
#[derive(Debug)]
#[must_use]
pub(crate) struct Admitted<'a> {
    admission: &'a Admission,
    bytes: u64,
}

impl Admitted<'_> {
    /// The bytes now belong to the writer, which gives them back with [`Admission::free`].
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.admission.free(self.bytes);
    }
}

impl Admission {
    pub(crate) fn new(limit: u64, slow_down_percent: u8) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS as u64);
        Self {
            permits: Semaphore::new(limit as usize),
            limit,
            slow_below: limit - limit / 100 * u64::from(slow_down_percent.min(100)),
            debt: Mutex::new(0),
            pace: Pace {
                origin: Instant::now(),
                rate: AtomicU64::new(0),
                used_up: AtomicU64::new(0),
                learned: Mutex::default(),
            },
        }
    }

    /// Takes `bytes` if they are free and nobody is waiting.
    pub(crate) fn try_take(&self, bytes: u64) -> Option<Admitted<'_>> {
        let permit = self.permits.try_acquire_many(u32::try_from(bytes).ok()?).ok()?;
        permit.forget();
        Some(Admitted { admission: self, bytes })
    }

    /// Takes `bytes` when they are free, first come first served. `None` where `bytes` can never be free.
    pub(crate) async fn take(&self, bytes: u64) -> Option<Admitted<'_>> {
        let permit = self.permits.acquire_many(u32::try_from(bytes).ok()?).await.ok()?;
        permit.forget();
        Some(Admitted { admission: self, bytes })
    }

    /// Takes `bytes` whether they are free or not: rows of the log that a new leader holds in any case.
    pub(crate) fn take_by_force(&self, bytes: u64) {
        let mut debt = self.debt.lock();
        let taken = self.permits.forget_permits(bytes as usize) as u64;
        *debt += bytes - taken;
    }

    /// Gives bytes back.
    pub(crate) fn free(&self, bytes: u64) {
        let mut debt = self.debt.lock();
        let paid = bytes.min(*debt);
        *debt -= paid;
        drop(debt);
        self.permits.add_permits((bytes - paid) as usize);
    }

    /// Gives the bytes of a generation back whose flush began at `began`, and learns the pace from it.
    pub(crate) fn free_flushed(&self, bytes: u64, began: Instant) {
        self.pace.learn(bytes, began, Instant::now());
        self.free(bytes);
    }

    /// How long the caller should sleep, having just taken `bytes`; `None` nearly always.
    pub(crate) fn pause(&self, bytes: u64) -> Option<Duration> {
        let free = self.permits.available_permits() as u64;
        if free >= self.slow_below {
            return None;
        }
        let closeness = 1.0 - free as f64 / self.slow_below as f64;
        self.pace.pause(bytes, closeness, Instant::now())
    }

    /// Bytes taken, forced ones included.
    pub(crate) fn taken(&self) -> u64 {
        self.limit - (self.permits.available_permits() as u64).min(self.limit) + *self.debt.lock()
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }
}

impl Pace {
    /// A flush of `bytes` that began at `began` has ended: flushes overlap, so what it took is counted from its
    /// beginning or from the end of the one before, whichever is later.
    fn learn(&self, bytes: u64, began: Instant, now: Instant) {
        let mut l = self.learned.lock();
        let since = l.last.map_or(began, |last| last.max(began));
        l.last = Some(now);
        l.bytes = l.bytes * FADE + bytes as f64;
        l.seconds = l.seconds * FADE + now.duration_since(since).as_secs_f64();
        self.rate.store((l.bytes / l.seconds.max(0.001)) as u64, Ordering::Relaxed);
    }

    /// `closeness`: 0 where slowing down begins, 1 at the limit.
    fn pause(&self, bytes: u64, closeness: f64, now: Instant) -> Option<Duration> {
        let rate = self.rate.load(Ordering::Relaxed) as f64 * (1.6 - 1.2 * closeness);
        if rate <= 0.0 {
            return None;
        }
        let cost = (bytes as f64 / rate * 1e9) as u64;
        let now = u64::try_from(now.duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX);
        let ceiling = now.saturating_add(LONGEST_PACE.as_nanos() as u64);
        let step = |used: u64| Some((used.max(now) + cost).min(ceiling));
        let before = self.used_up.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).unwrap_or(now);
        let ahead = Duration::from_nanos((before.max(now) + cost).min(ceiling) - now);
        (ahead > PACE_TOLERANCE).then_some(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admitted_bytes_come_back_unless_they_are_kept() {
        let a = Admission::new(100, 100);
        let first = a.try_take(60).unwrap();
        assert!(a.try_take(60).is_none(), "the bound holds");
        drop(first);
        a.try_take(60).unwrap().keep();
        assert_eq!(a.taken(), 60);
        a.free(60);
        assert_eq!(a.taken(), 0);
    }

    #[test]
    fn forced_bytes_are_paid_back_first() {
        let a = Admission::new(100, 100);
        a.take_by_force(150);
        assert_eq!(a.taken(), 150);
        a.free(70);
        assert_eq!(a.taken(), 80);
        assert!(a.try_take(30).is_none());
        assert!(a.try_take(20).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn callers_are_slowed_down_before_the_limit_and_more_so_close_to_it() {
        let a = Admission::new(1000, 50);
        a.try_take(1000).unwrap().keep();
        let began = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        a.free_flushed(1000, began);
        assert_eq!(a.pause(10), None, "far from the limit nobody is paced");
        a.try_take(600).unwrap().keep();
        let far = a.pause(10).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        a.try_take(390).unwrap().keep();
        let close = a.pause(10).unwrap();
        assert!(far < close, "{far:?} against {close:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_are_served_in_the_order_they_came() {
        let a = Admission::new(100, 100);
        a.try_take(100).unwrap().keep();
        let (first, second) = (a.take(80), a.take(10));
        tokio::pin!(first, second);
        assert!(futures::poll!(first.as_mut()).is_pending());
        assert!(futures::poll!(second.as_mut()).is_pending());
        a.free(50);
        assert!(
            futures::poll!(second.as_mut()).is_pending(),
            "the small one must not overtake the large one"
        );
        a.free(50);
        assert!(futures::poll!(first.as_mut()).is_ready());
    }
}
