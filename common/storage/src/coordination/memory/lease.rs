//! Rights in memory: they never end by a clock, only by being given back or taken away on purpose.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Shared, State};
use crate::coordination::Lease;
use crate::ids::JobId;
use crate::watch;

/// What a right is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// The writer's role.
    Writer,
    /// A job.
    Job(JobId),
    /// A pin, by its token.
    Pin(i64),
}

/// A right as the service keeps it: its token, and the line on which its end is announced.
#[derive(Debug, Clone)]
pub(super) struct Held {
    token: i64,
    lost: watch::Sender<Option<String>>,
}

impl Held {
    pub(super) fn new(token: i64) -> Self {
        Self { token, lost: watch::Sender::new(None) }
    }

    pub(super) fn token(&self) -> i64 {
        self.token
    }

    /// Tells the holder.
    pub(super) fn end(&self, why: &str) {
        self.lost.send_replace(Some(why.to_owned()));
    }
}

impl State {
    /// Takes a right away from whoever holds it under `token` (or under any, where `None`).
    pub(super) fn end(&mut self, right: Right, token: Option<i64>, why: &str) {
        let held = match right {
            Right::Writer => self.writer.as_ref().map(|(_, held)| held),
            Right::Job(job) => self.jobs.get(&job).map(|(_, held)| held),
            Right::Pin(pin) => self.pins.get(&pin).map(|(_, held)| held),
        };
        let Some(held) = held.filter(|h| token.is_none_or(|t| h.token == t)).cloned() else { return };
        match right {
            Right::Writer => self.writer = None,
            Right::Job(job) => drop(self.jobs.remove(&job)),
            Right::Pin(pin) => drop(self.pins.remove(&pin)),
        }
        held.end(why);
    }
}

/// A right as its holder has it.
#[derive(Debug)]
pub(super) struct MemoryLease {
    shared: Arc<Shared>,
    right: Right,
    held: Held,
}

impl MemoryLease {
    pub(super) fn new(shared: Arc<Shared>, right: Right, held: Held) -> Self {
        Self { shared, right, held }
    }
}

#[async_trait]
impl Lease for MemoryLease {
    fn valid_until(&self) -> Option<Instant> {
        None
    }

    async fn lost(&self) -> String {
        let mut lost = self.held.lost.subscribe();
        let why = lost.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or_else(|| "the service is gone".to_owned())
    }

    async fn give_back(&self) {
        self.shared.change(|state| state.end(self.right, Some(self.held.token), "given back"));
    }
}
