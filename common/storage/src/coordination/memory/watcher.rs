//! Watching the memory form: a watcher keeps its own position and looks into the state whenever it has changed.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::time::Instant;

use super::{Shared, State};
use crate::coordination::{HeadState, WatchEvent};
use crate::watch;

/// How often a watcher that sees nothing says that it is alive.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

struct Watcher {
    shared: Arc<Shared>,
    changed: watch::Receiver<u64>,
    at: HeadState,
    resets: u64,
    down: bool,
    alive_at: Instant,
}

pub(super) fn watch(shared: Arc<Shared>, from: HeadState) -> BoxStream<'static, WatchEvent> {
    let changed = shared.changed.subscribe();
    let resets = shared.state.lock().resets;
    let watcher =
        Watcher { shared, changed, at: from, resets, down: false, alive_at: Instant::now() + ALIVE_EVERY };
    stream::unfold(watcher, |mut watcher| async {
        let event = watcher.next().await;
        Some((event, watcher))
    })
    .boxed()
}

impl Watcher {
    async fn next(&mut self) -> WatchEvent {
        loop {
            // Marked as seen before looking, so that no change slips in between.
            self.changed.borrow_and_update();
            if let Some(event) = self.look() {
                return event;
            }
            tokio::select! {
                biased;
                changed = self.changed.changed() => if changed.is_err() {
                    return WatchEvent::Reset("the service is gone".to_owned());
                },
                () = tokio::time::sleep_until(self.alive_at) => {
                    let now = Instant::now();
                    self.alive_at = now + ALIVE_EVERY;
                    if !self.down {
                        return WatchEvent::Alive(now);
                    }
                }
            }
        }
    }

    fn look(&mut self) -> Option<WatchEvent> {
        let shared = Arc::clone(&self.shared);
        let state = shared.state.lock();
        if state.resets != self.resets {
            self.resets = state.resets;
            return Some(WatchEvent::Reset("the service was replaced".to_owned()));
        }
        if state.down != self.down {
            self.down = state.down;
            return Some(match self.down {
                true => WatchEvent::Down("the service is down".to_owned()),
                false => WatchEvent::Alive(Instant::now()),
            });
        }
        if self.down { None } else { self.advance(&state) }
    }

    fn advance(&mut self, state: &State) -> Option<WatchEvent> {
        let Some(head) = &state.head else { return Some(WatchEvent::Reset("there is no head".to_owned())) };
        let version = self.at.head.version;
        if head.head.version < version {
            return Some(WatchEvent::Reset(format!("the head is at {}, below {version}", head.head.version)));
        }
        if let Some((edit, at)) = state.edits.get(&version.next()) {
            self.at = at.clone();
            let (edit, state) = (Some(Arc::clone(edit)), at.clone());
            return Some(WatchEvent::Edit { edit, state, as_of: Instant::now() });
        }
        if head.head.version > version {
            return Some(WatchEvent::Reset(format!("the edits after {version} were folded away")));
        }
        if head.raw != self.at.raw {
            self.at = head.clone();
            return Some(WatchEvent::Folded(head.clone()));
        }
        None
    }
}
