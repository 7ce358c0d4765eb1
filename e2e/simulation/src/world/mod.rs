//! The world between the processes: simulated time, what is under way in it, and the log of what happened.
//!
//! A request to the store or to coordination is an event of the world, not of the process that sent it: once sent, it
//! arrives, or not, whether its sender still waits, was cancelled, is paused or is gone. Its answer is another event.

mod link;
mod trace;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

pub use link::{Failed, Odds, Request, Service, Weather};
pub use trace::Trace;

use crate::rng::Rng;
use isle_storage::environment::Clock;
use isle_storage::ids::Timestamp;

/// Simulated time in microseconds since the schedule began.
pub type Micros = u64;

/// A millisecond of it.
pub const MILLI: Micros = 1000;

/// A second of it.
pub const SECOND: Micros = 1_000_000;

/// What the wall clock shows when a schedule begins: microseconds since 1970.
const EPOCH: i64 = 1_700_000_000_000_000;

/// A process, counted from 0 in the order of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub usize);

type Action = Box<dyn FnOnce(&Arc<World>) + Send>;

/// The world of one schedule.
pub struct World {
    state: Mutex<State>,
    /// Woken when a connection is cut or mended.
    pub(crate) weather_changed: isle_storage::watch::Sender<u64>,
}

struct State {
    now: Micros,
    rng: Rng,
    /// What is under way, by when it happens and in which order it was sent.
    queue: BTreeMap<(Micros, u64), Action>,
    sent: u64,
    names: Vec<String>,
    weather: Weather,
    trace: Trace,
    faults: BTreeMap<&'static str, u64>,
    violations: Vec<String>,
    events: u64,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World at {} us", self.now())
    }
}

impl World {
    /// A world in which nothing has happened yet; `trace` keeps the lines of its log, not only their hash.
    #[must_use]
    pub fn new(rng: Rng, names: Vec<String>, trace: bool) -> Arc<Self> {
        let weather = Weather::fair(names.len());
        let state = State {
            now: 0,
            rng,
            queue: BTreeMap::new(),
            sent: 0,
            names,
            weather,
            trace: Trace::new(trace),
            faults: BTreeMap::new(),
            violations: Vec::new(),
            events: 0,
        };
        Arc::new(Self { state: Mutex::new(state), weather_changed: isle_storage::watch::Sender::new(0) })
    }

    /// The present instant.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.state.lock().now
    }

    /// The present instant on a perfect wall clock.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        Timestamp(EPOCH + self.now() as i64)
    }

    /// Draws from the world's own stream.
    pub fn draw<T>(&self, f: impl FnOnce(&mut Rng) -> T) -> T {
        f(&mut self.state.lock().rng)
    }

    /// `action` happens `after` from now.
    pub fn later(&self, after: Micros, action: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let mut state = self.state.lock();
        let at = (state.now + after, state.sent);
        state.sent += 1;
        state.queue.insert(at, Box::new(action));
    }

    /// Time moves on to `now`; what is due by then happens, in order, each at its own instant.
    pub fn run_until(self: &Arc<Self>, now: Micros) {
        loop {
            let action = {
                let mut state = self.state.lock();
                let due = state.queue.first_entry().filter(|e| e.key().0 <= now);
                let Some(due) = due else {
                    state.now = now;
                    return;
                };
                let ((at, _), action) = due.remove_entry();
                state.now = at.max(state.now);
                action
            };
            action(self);
        }
    }

    /// Appends a line to the log of what happened.
    pub fn note(&self, line: fmt::Arguments<'_>) {
        let mut state = self.state.lock();
        state.events += 1;
        let now = state.now;
        state.trace.line(now, line);
    }

    /// The same, by a process.
    pub fn note_of(&self, process: ProcessId, line: fmt::Arguments<'_>) {
        let mut state = self.state.lock();
        state.events += 1;
        let State { now, trace, names, .. } = &mut *state;
        trace.line(*now, format_args!("{} {line}", names[process.0]));
    }

    /// Counts a fault, and says so.
    pub fn fault(&self, kind: &'static str, line: fmt::Arguments<'_>) {
        *self.state.lock().faults.entry(kind).or_default() += 1;
        self.note(format_args!("!! {kind}: {line}"));
    }

    /// A promise was broken.
    pub fn violation(&self, why: String) {
        self.note(format_args!("VIOLATION {why}"));
        let mut state = self.state.lock();
        if state.violations.len() < 20 {
            state.violations.push(why);
        }
    }

    /// Promises broken so far.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.state.lock().violations.clone()
    }

    /// Whether any was.
    #[must_use]
    pub fn is_violated(&self) -> bool {
        !self.state.lock().violations.is_empty()
    }

    /// Faults so far, by kind.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.state.lock().faults.clone()
    }

    /// Lines so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.state.lock().events
    }

    /// The hash of everything that happened so far.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.state.lock().trace.fingerprint()
    }

    /// The log, where it was kept.
    #[must_use]
    pub fn log(&self) -> String {
        self.state.lock().trace.text().to_owned()
    }

    /// A process's name.
    #[must_use]
    pub fn name(&self, process: ProcessId) -> String {
        self.state.lock().names[process.0].clone()
    }

    /// Looks at the weather.
    pub fn weather<T>(&self, look: impl FnOnce(&Weather) -> T) -> T {
        look(&self.state.lock().weather)
    }

    /// Changes the weather.
    pub fn set_weather(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.state.lock().weather);
        self.weather_changed.send_modify(|n| *n += 1);
    }
}

/// A process's wall clock: the world's time, and how far this machine's clock lies beside it.
#[derive(Debug)]
pub struct SkewedClock {
    world: Arc<World>,
    process: ProcessId,
}

impl SkewedClock {
    /// The clock of `process`.
    #[must_use]
    pub fn new(world: &Arc<World>, process: ProcessId) -> Arc<Self> {
        Arc::new(Self { world: Arc::clone(world), process })
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> Timestamp {
        let state = self.world.state.lock();
        Timestamp(EPOCH + state.now as i64 + state.weather.skew[self.process.0])
    }
}
