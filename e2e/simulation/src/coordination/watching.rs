//! A watch over a link: events arrive late, none arrives while the link is cut, and a watch can go deaf without a word.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use isle_storage::coordination::WatchEvent;
use isle_storage::watch;
use tokio::time::{Instant, sleep};

use crate::world::{ProcessId, Service, World};

/// A watch that hears nothing notices after this long.
const NOTICED: Duration = Duration::from_millis(700);

struct Watching {
    world: Arc<World>,
    process: ProcessId,
    inner: BoxStream<'static, WatchEvent>,
    changed: watch::Receiver<u64>,
    /// An event that is on its way.
    held: Option<WatchEvent>,
    said_down: bool,
}

pub(super) fn watch(
    world: &Arc<World>,
    process: ProcessId,
    inner: BoxStream<'static, WatchEvent>,
) -> BoxStream<'static, WatchEvent> {
    let (world, changed) = (Arc::clone(world), world.weather_changed.subscribe());
    let watching = Watching { world, process, inner, changed, held: None, said_down: false };
    stream::unfold(watching, |mut w| async move {
        let event = w.next().await;
        Some((event, w))
    })
    .boxed()
}

impl Watching {
    async fn next(&mut self) -> WatchEvent {
        loop {
            self.changed.borrow_and_update();
            if !self.hears() {
                if let Some(event) = self.wait_deaf().await {
                    return event;
                }
                continue;
            }
            if self.held.is_none() {
                tokio::select! {
                    biased;
                    _ = self.changed.changed() => continue,
                    event = self.inner.next() => match event {
                        Some(event) => self.held = Some(event),
                        None => return WatchEvent::Reset("the simulated watch has ended".to_owned()),
                    },
                }
                let delay = self.world.draw(|rng| rng.between(0, 4) * rng.between(0, 4));
                sleep(Duration::from_millis(delay)).await;
                continue;
            }
            if let Some(event) = self.held.take() {
                return self.arrived(event);
            }
        }
    }

    fn arrived(&mut self, event: WatchEvent) -> WatchEvent {
        self.said_down = matches!(event, WatchEvent::Down(_));
        match event {
            // What is known to be fresh is so as of when it left, which was before now.
            WatchEvent::Alive(_) => WatchEvent::Alive(Instant::now() - Duration::from_millis(20)),
            other => other,
        }
    }

    fn hears(&self) -> bool {
        let process = self.process;
        self.world.weather(|w| w.reaches(process, Service::Coordination) && !w.deaf[process.0])
    }

    /// Waits until the link is mended, and says that it is not once that is noticed. Afterwards the watch goes on where
    /// it was, or does not know whether it missed something.
    async fn wait_deaf(&mut self) -> Option<WatchEvent> {
        if self.said_down {
            let _changed = self.changed.changed().await;
            if self.hears() && self.world.draw(|rng| rng.per_mille(500)) {
                return Some(WatchEvent::Reset("the simulated watch was broken".to_owned()));
            }
            return None;
        }
        tokio::select! {
            biased;
            _ = self.changed.changed() => None,
            () = sleep(NOTICED) => {
                self.said_down = true;
                Some(WatchEvent::Down("the simulated watch hears nothing".to_owned()))
            }
        }
    }
}
