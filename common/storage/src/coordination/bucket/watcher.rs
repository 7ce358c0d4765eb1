//! Watching the bucket form: every watcher keeps its own position in the shared tip; whoever finds that it is time looks
//! for new edits for all of them.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::time::Instant;

use super::read::Progress;
use super::{Inner, Turn};
use crate::coordination::{CoordinationError, HeadState, WatchEvent};
use crate::watch;

struct Watcher {
    inner: Arc<Inner>,
    changed: watch::Receiver<u64>,
    at: HeadState,
    /// How many tips had been dropped when this watcher began.
    dropped: u64,
    /// The freshness last told.
    fresh: Instant,
    /// The trouble last told.
    trouble: Option<String>,
}

pub(super) fn watch(inner: Arc<Inner>, from: HeadState) -> BoxStream<'static, WatchEvent> {
    let changed = inner.changed.subscribe();
    let dropped = inner.seen.lock().dropped;
    let watcher = Watcher { inner, changed, at: from, dropped, fresh: Instant::now(), trouble: None };
    stream::unfold(watcher, |mut watcher| async {
        let event = watcher.next().await;
        Some((event, watcher))
    })
    .boxed()
}

/// What a watcher finds in the tip.
enum Look {
    Event(WatchEvent),
    /// The step after its position is no longer kept in memory.
    Behind,
    /// Nothing; look at the bucket at this instant.
    Nothing(Instant),
}

impl Watcher {
    async fn next(&mut self) -> WatchEvent {
        loop {
            // Marked as seen before looking, so that no change slips in between.
            self.changed.borrow_and_update();
            match self.look() {
                Look::Event(event) => return event,
                Look::Behind => {
                    if let Some(event) = self.read_one().await {
                        return event;
                    }
                }
                Look::Nothing(look_at) => {
                    tokio::select! {
                        biased;
                        _ = self.changed.changed() => {}
                        () = tokio::time::sleep_until(look_at) => self.inner.look_around().await,
                    }
                }
            }
        }
    }

    fn look(&mut self) -> Look {
        let inner = Arc::clone(&self.inner);
        let seen = inner.seen.lock();
        if seen.dropped != self.dropped {
            self.dropped = seen.dropped;
            return Look::Event(WatchEvent::Reset("folds have overtaken this process".to_owned()));
        }
        if seen.trouble != self.trouble {
            self.trouble.clone_from(&seen.trouble);
            if let Some(why) = &seen.trouble {
                return Look::Event(WatchEvent::Down(why.clone()));
            }
        }
        let Some(tip) = &seen.tip else { return Look::Nothing(seen.look_at) };
        if let Some(step) = tip.after(self.at.head.version) {
            self.at = step.state.clone();
            let (edit, state) = (step.edit.clone(), step.state.clone());
            return Look::Event(WatchEvent::Edit { edit, state, as_of: Instant::now() });
        }
        if tip.version() > self.at.head.version {
            return Look::Behind;
        }
        if tip.version() == self.at.head.version && tip.fold() > self.at.revision as u64 {
            self.at = tip.state.clone();
            return Look::Event(WatchEvent::Folded(tip.state.clone()));
        }
        if tip.version() == self.at.head.version && tip.fresh > self.fresh {
            self.fresh = tip.fresh;
            return Look::Event(WatchEvent::Alive(tip.fresh));
        }
        Look::Nothing(seen.look_at)
    }

    /// The next edit, straight from the bucket.
    async fn read_one(&mut self) -> Option<WatchEvent> {
        let inner = Arc::clone(&self.inner);
        let mut turn = inner.turn.lock().await;
        match self.try_read_one(&mut turn).await {
            Ok(event) => Some(event),
            Err(e) if e.is_passing() => {
                inner.in_trouble(&e);
                drop(turn);
                // As long as the bucket is away there is nothing else to do than to wait.
                let look_at = inner.seen.lock().look_at;
                tokio::time::sleep_until(look_at).await;
                (self.trouble.as_deref() != Some(e.to_string().as_str())).then(|| {
                    self.trouble = Some(e.to_string());
                    WatchEvent::Down(e.to_string())
                })
            }
            Err(e) => Some(WatchEvent::Reset(e.to_string())),
        }
    }

    async fn try_read_one(&mut self, turn: &mut Turn) -> Result<WatchEvent, CoordinationError> {
        let version = self.at.head.version.next();
        let as_of = Instant::now();
        let edit = self.inner.edit(version).await?;
        let folds = self.inner.newer_folds().await?;
        turn.proven = Instant::now();
        let Some(edit) = edit.filter(|_| !self.inner.overtaken(version, &folds)) else {
            return Ok(WatchEvent::Reset(format!("edit {version} was folded away")));
        };
        let (edit, state) = edit.step(&self.at);
        self.at = state.clone();
        Ok(WatchEvent::Edit { edit, state, as_of })
    }
}

impl Inner {
    /// Looks for other processes' edits, unless somebody else has just done so.
    async fn look_around(&self) {
        let mut turn = self.turn.lock().await;
        if self.seen.lock().look_at > Instant::now() {
            return;
        }
        let looked = match self.tip(|_| ()) {
            Some(()) => self.advance(&mut turn, false).await,
            None => self.load(&mut turn).await.map(|_| Progress::Edits { count: 0, more: false }),
        };
        match looked {
            Ok(Progress::Edits { count, .. }) => {
                if count > 0 {
                    self.seen.lock().pauses.reset();
                }
                self.looked();
                // Whoever was told of a trouble hears that it is over.
                self.changed.send_modify(|n| *n += 1);
            }
            Ok(Progress::Overtaken) => {}
            Err(e) => {
                if !e.is_passing() {
                    self.install(None);
                }
                self.in_trouble(&e);
            }
        }
    }

    /// The bucket cannot be read at present.
    fn in_trouble(&self, error: &CoordinationError) {
        self.looked();
        self.seen.lock().trouble = Some(error.to_string());
        self.changed.send_modify(|n| *n += 1);
    }
}
