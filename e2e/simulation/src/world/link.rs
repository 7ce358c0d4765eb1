//! Requests over links that lose, delay and repeat.
//!
//! ```text
//!   fine           ──▶ applied ──▶ answered
//!   refused        ──✗ error                               throttled, or the connection was refused
//!   request lost   ──✗ … error                             never arrives; the sender runs into its timeout
//!   reply lost     ──▶ applied ──✗ … error
//!   late           ──… error … ──▶ applied                 arrives after its sender has given it up
//! ```
//! A link that is down at the instant of sending, of arriving or of answering loses what is on it.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{MILLI, Micros, ProcessId, World};

/// Whom a process talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The bucket.
    Store,
    /// The coordination service.
    Coordination,
}

/// How likely each misfortune is, in a thousand requests, and how slow the service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Odds {
    /// Refused at once.
    pub refused: u64,
    /// The request is lost.
    pub request_lost: u64,
    /// The reply is lost.
    pub reply_lost: u64,
    /// It is applied after its sender was told of an error.
    pub late: u64,
    /// One way takes between these.
    pub delay: (Micros, Micros),
    /// A sender gives up after between these.
    pub timeout: (Micros, Micros),
}

impl Odds {
    /// A good day.
    #[must_use]
    pub fn fair(service: Service) -> Self {
        let delay = match service {
            Service::Store => (2 * MILLI, 12 * MILLI),
            Service::Coordination => (MILLI / 2, 3 * MILLI),
        };
        let timeout = (300 * MILLI, 800 * MILLI);
        Self { refused: 2, request_lost: 1, reply_lost: 2, late: 1, delay, timeout }
    }

    /// Nothing goes wrong.
    #[must_use]
    pub fn perfect(service: Service) -> Self {
        Self { refused: 0, request_lost: 0, reply_lost: 0, late: 0, ..Self::fair(service) }
    }

    /// A bad day.
    #[must_use]
    pub fn storm(service: Service) -> Self {
        let fair = Self::fair(service);
        let delay = (fair.delay.0, fair.delay.1 * 6);
        Self { refused: 120, request_lost: 40, reply_lost: 80, late: 60, delay, ..fair }
    }

    /// A store that says 503 to nearly everything.
    #[must_use]
    pub fn throttling(service: Service) -> Self {
        Self { refused: 850, ..Self::fair(service) }
    }
}

/// Everything that can be wrong with links and clocks at present.
#[derive(Debug, Clone)]
pub struct Weather {
    /// The odds at the store and at coordination.
    pub odds: [Odds; 2],
    /// Which processes are cut off from each.
    pub cut: [Vec<bool>; 2],
    /// By how much each machine's clock is off, in microseconds.
    pub skew: Vec<i64>,
    /// Which processes' watches deliver nothing, without saying so.
    pub deaf: Vec<bool>,
}

impl Weather {
    pub(super) fn fair(processes: usize) -> Self {
        let odds = [Odds::fair(Service::Store), Odds::fair(Service::Coordination)];
        let cut = [vec![false; processes], vec![false; processes]];
        Self { odds, cut, skew: vec![0; processes], deaf: vec![false; processes] }
    }

    /// Everything works again; clocks stay as they are.
    pub fn heal(&mut self) {
        for service in [Service::Store, Service::Coordination] {
            self.odds[service as usize] = Odds::perfect(service);
            self.cut[service as usize].fill(false);
        }
        self.deaf.fill(false);
    }

    /// Whether nothing goes wrong at the services.
    #[must_use]
    pub fn is_perfect(&self) -> bool {
        self.odds == [Odds::perfect(Service::Store), Odds::perfect(Service::Coordination)]
    }

    /// Whether a process reaches a service.
    #[must_use]
    pub fn reaches(&self, process: ProcessId, service: Service) -> bool {
        !self.cut[service as usize][process.0]
    }
}

/// Why a request has no answer. It may have been applied, or may yet be, unless it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// Certainly not applied; the sender is told that it is worth repeating.
    Refused,
    /// Nobody knows.
    Lost,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "503, slow down (simulated)",
            Self::Lost => "no answer in time (simulated)",
        })
    }
}

/// Who asks whom for what.
#[derive(Debug)]
pub struct Request {
    /// The sender.
    pub process: ProcessId,
    /// The service.
    pub service: Service,
    /// What for, in the log's words.
    pub what: String,
}

/// What becomes of a request.
enum Fate {
    Fine,
    Refused,
    RequestLost,
    ReplyLost,
    Late(Micros),
}

impl World {
    /// Sends a request, and waits for its answer. `apply` happens when it arrives, if it does.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn request<T: Send + 'static>(
        self: &Arc<Self>,
        request: Request,
        apply: impl FnOnce(&Arc<Self>) -> T + Send + 'static,
    ) -> Result<T, Failed> {
        let (tx, rx) = oneshot::channel();
        self.send(request, apply, tx);
        // The sender's end lives in the world's queue until it is used.
        rx.await.unwrap_or(Err(Failed::Lost))
    }

    fn send<T: Send + 'static>(
        self: &Arc<Self>,
        request: Request,
        apply: impl FnOnce(&Arc<Self>) -> T + Send + 'static,
        tx: oneshot::Sender<Result<T, Failed>>,
    ) {
        let Request { process, service, what } = request;
        let (fate, there, back, timeout) = self.fate(process, service);
        let fail = move |world: &Arc<Self>, after: Micros, tx: oneshot::Sender<_>, failed: Failed| {
            world.later(after, move |_| drop(tx.send(Err(failed))));
        };
        match fate {
            Fate::Refused => {
                self.fault("refused request", format_args!("{} {what}", self.name(process)));
                fail(self, there, tx, Failed::Refused);
            }
            Fate::RequestLost => {
                self.fault("lost request", format_args!("{} {what}", self.name(process)));
                fail(self, timeout, tx, Failed::Lost);
            }
            Fate::ReplyLost => {
                self.fault("lost reply", format_args!("{} {what}", self.name(process)));
                self.later(there, move |world| {
                    apply(world);
                });
                fail(self, timeout, tx, Failed::Lost);
            }
            Fate::Late(after) => {
                self.fault("late request", format_args!("{} {what}", self.name(process)));
                fail(self, timeout, tx, Failed::Lost);
                self.later(timeout + after, move |world| {
                    world.note_of(process, format_args!("arrives late: {what}"));
                    apply(world);
                });
            }
            Fate::Fine => self.later(there, move |world| {
                if !world.weather(|w| w.reaches(process, service)) {
                    return fail(world, timeout, tx, Failed::Lost);
                }
                let answer = apply(world);
                world.later(back, move |world| {
                    if world.weather(|w| w.reaches(process, service)) {
                        drop(tx.send(Ok(answer)));
                    } else {
                        fail(world, timeout, tx, Failed::Lost);
                    }
                });
            }),
        }
    }

    fn fate(&self, process: ProcessId, service: Service) -> (Fate, Micros, Micros, Micros) {
        let mut state = self.state.lock();
        let odds = state.weather.odds[service as usize];
        let cut = !state.weather.reaches(process, service);
        let rng = &mut state.rng;
        let (there, back) =
            (rng.between(odds.delay.0, odds.delay.1), rng.between(odds.delay.0, odds.delay.1));
        let timeout = rng.between(odds.timeout.0, odds.timeout.1);
        let roll = rng.below(1000);
        let bounds = [odds.refused, odds.request_lost, odds.reply_lost, odds.late];
        let mut sum = 0;
        let at = bounds.iter().position(|b| {
            sum += b;
            roll < sum
        });
        let fate = match at {
            // A cut link refuses, or swallows.
            _ if cut && roll.is_multiple_of(2) => Fate::Refused,
            _ if cut => Fate::RequestLost,
            None => Fate::Fine,
            Some(0) => Fate::Refused,
            Some(1) => Fate::RequestLost,
            Some(2) => Fate::ReplyLost,
            Some(_) => Fate::Late(rng.between(5 * MILLI, 2_500 * MILLI)),
        };
        (fate, there, back, timeout)
    }
}
