//! Holding: named snapshots taken, read again and again at every reader, and dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use isle_history::Event;
use tokio::time::sleep;
use writer_node::{NamedSnapshot, SnapshotError, SnapshotOptions, Writer};

use super::Client;
use super::read::Held;
use crate::plan::Step;

const PATIENCE: Duration = Duration::from_secs(5);

/// How often a request is made before it is given up.
const TRIES: usize = 40;

impl Client {
    pub(super) async fn hold_on(mut self) {
        let mut n = 0;
        while self.holds_on() {
            n += 1;
            let name = format!("{}-{n}", self.name);
            if let Some(taken) = self.take(&name).await {
                self.read_at(&taken).await;
                self.let_go(&name).await;
            }
            sleep(Duration::from_millis(self.rng.between(20, 400))).await;
        }
    }

    pub(super) fn holds_on(&self) -> bool {
        self.goes_on() && !self.shared.quiet.load(Ordering::Relaxed)
    }

    /// Takes a snapshot; one whose outcome was unknown is found under its name.
    async fn take(&mut self, name: &str) -> Option<NamedSnapshot> {
        for _ in 0..TRIES {
            if !self.holds_on() {
                return None;
            }
            let owned = name.to_owned();
            let take =
                move |w: Writer| async move { w.take_snapshot(&owned, SnapshotOptions::default()).await };
            let taken = match self.of_a_writer(take).await {
                Some(Ok(taken) | Err(SnapshotError::Exists(taken))) => taken,
                Some(Err(e)) => {
                    self.shared.world.note(format_args!("{name} is not taken: {e}"));
                    continue;
                }
                None => continue,
            };
            self.shared.world.note(format_args!("{name} is taken at {}", taken.seq));
            self.shared.recorder.record(Event::SnapshotTaken { name: name.into(), seq: taken.seq.0 });
            return Some(taken);
        }
        None
    }

    async fn read_at(&mut self, taken: &NamedSnapshot) {
        // Recover takes snapshots back that no checkpoint holds.
        let recovers = self.shared.plan.steps.iter().any(|(_, s)| matches!(s, Step::Recover(_)));
        let held = Held { name: taken.name.as_str().into(), created: taken.created.0, for_sure: !recovers };
        for _ in 0..self.rng.between(2, 14) {
            if !self.holds_on() {
                return;
            }
            let at = self.rng.below(self.shared.readers.len() as u64) as usize;
            let reader = Arc::clone(&self.shared.readers[at]);
            match self.rng.below(3) {
                0 => {
                    let keys = self.rng.between(1, 4);
                    self.get(&reader, keys, Some(&held)).await;
                }
                _ => self.scan(&reader, Some(&held)).await,
            }
            sleep(Duration::from_millis(self.rng.between(1, 20) * self.rng.between(1, 20))).await;
        }
    }

    async fn let_go(&mut self, name: &str) {
        for _ in 0..TRIES {
            if !self.holds_on() {
                return;
            }
            let owned = name.to_owned();
            match self.of_a_writer(move |w| async move { w.drop_snapshot(&owned, None).await }).await {
                Some(Ok(_) | Err(SnapshotError::NotThere(_))) => {
                    return self.shared.world.note(format_args!("{name} is dropped"));
                }
                Some(Err(e)) => self.shared.world.note(format_args!("{name} is not dropped: {e}")),
                None => {}
            }
        }
    }

    /// Asks whoever may lead; another one next time where it did not answer well.
    async fn of_a_writer<F>(
        &mut self,
        ask: impl FnOnce(Writer) -> F + Send + 'static,
    ) -> Option<Result<NamedSnapshot, SnapshotError>>
    where
        F: Future<Output = Result<NamedSnapshot, SnapshotError>> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let at = self.rng.below(shared.writers.len() as u64) as usize;
        let answer = shared.writers[at].call(&shared.world, PATIENCE, move |seat| ask(seat.engine)).await;
        if !matches!(answer, Ok(Ok(_))) {
            sleep(Duration::from_millis(self.rng.between(10, 120))).await;
        }
        answer.ok()
    }
}
