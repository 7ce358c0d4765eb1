//! What happens to real coordination services, done to the memory form on purpose.

use super::lease::Right;
use super::{MemoryCoordination, State};
use crate::ids::JobId;

/// A copy of the service's whole content: a backup.
#[derive(Debug, Clone)]
pub struct Backup(State);

impl MemoryCoordination {
    /// The writer's lease expires. Its holder is told, as by a real keep-alive; fencing does not depend on it.
    pub fn expire_writer(&self) {
        self.change(|state| state.end(Right::Writer, None, "the lease has expired"));
    }

    /// The writer's lease expires without a word to its holder, as for a paused process.
    pub fn expire_writer_silently(&self) {
        self.change(|state| state.writer = None);
    }

    /// A job's claim expires.
    pub fn expire_job(&self, job: JobId) {
        self.change(|state| state.end(Right::Job(job), None, "the lease has expired"));
    }

    /// The service stops (`true`) or goes on answering.
    pub fn set_down(&self, down: bool) {
        self.change(|state| state.down = down);
    }

    /// A backup of everything it holds.
    #[must_use]
    pub fn backup(&self) -> Backup {
        Backup(self.shared.state.lock().clone())
    }

    /// Everything is as it was at the backup, versions, epochs and heads included. Leases are not restored.
    pub fn restore(&self, backup: &Backup) {
        self.replace(backup.0.clone());
    }

    /// The same, and whoever had a lease then has it again, as in a real service, which restores leases too.
    pub fn restore_with_leases(&self, backup: &Backup) {
        self.change(|state| {
            let (token, resets) = (state.token, state.resets + 1);
            *state = State { token, resets, ..backup.0.clone() };
        });
    }

    /// Everything is gone.
    pub fn wipe(&self) {
        self.replace(State::default());
    }

    fn replace(&self, mut new: State) {
        self.change(|state| {
            state.end(Right::Writer, None, "the service was replaced");
            for job in state.jobs.keys().copied().collect::<Vec<_>>() {
                state.end(Right::Job(job), None, "the service was replaced");
            }
            for pin in state.pins.keys().copied().collect::<Vec<_>>() {
                state.end(Right::Pin(pin), None, "the service was replaced");
            }
            new.writer = None;
            new.jobs.clear();
            new.pins.clear();
            new.members.clear();
            new.token = state.token;
            new.resets = state.resets + 1;
            *state = new;
        });
    }
}
