//! A process: a runtime of its own on this thread, which the scheduler polls, leaves alone, or drops.
//!
//! ```text
//!   run      its tasks run until nothing is ready and its clock has reached the world's
//!   pause    it is not polled (SIGSTOP): the world goes on, requests under way arrive, answers wait
//!   resume   its clock jumps to the present: every timer that came due meanwhile fires at once
//!   crash    the runtime is dropped, and with it every task, wherever it waits
//! ```
//! Every task that the engine spawns, however deep, belongs to the runtime, so a crash or a pause meets them all at once
//! and nothing in the engine has to know.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, advance, sleep_until};

use crate::world::{MILLI, Micros};

/// See the head of this file.
#[derive(Debug)]
pub struct Process {
    runtime: Runtime,
    origin: Instant,
    started: Micros,
    /// How far its own clock has come, in microseconds of the world.
    reached: Micros,
    paused: bool,
}

impl Process {
    /// A process that starts at `now` with `main`.
    ///
    /// # Errors
    /// The runtime could not be built.
    pub fn start(now: Micros, main: impl Future<Output = ()> + Send + 'static) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let origin = runtime.block_on(async { Instant::now() });
        runtime.spawn(main);
        Ok(Self { runtime, origin, started: now, reached: now, paused: false })
    }

    /// Runs it until its clock shows `now`. Nothing happens while it is paused.
    pub fn run_until(&mut self, now: Micros) {
        if self.paused || now <= self.reached {
            return;
        }
        let target = self.origin + Duration::from_micros(now - self.started);
        self.reached = now;
        self.runtime.block_on(async { sleep_until(target).await });
    }

    /// Whether it is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Stops polling it.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Polls it again; its clock jumps to `now`.
    pub fn resume(&mut self, now: Micros) {
        self.paused = false;
        let lag = (now - self.reached) / MILLI * MILLI;
        if lag > 0 {
            self.reached += lag;
            self.runtime.block_on(async { advance(Duration::from_micros(lag)).await });
        }
    }

    /// Spawns a task in it.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }
}
