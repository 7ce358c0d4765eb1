//! Pins of long scans: what a view names stays while somebody reads it for long.
//!
//! An ordinary read writes nothing: the collector's grace, minutes, is longer than it takes. A scan that outlives a
//! share of the grace takes a pin on its view's version:
//!
//! ```text
//!   view is the newest ──▶ superseded ────── pin_after ──────▶ pinned, renewed ──▶ scan ends: given back
//!                          the grace begins no earlier                  └─ refused: the floor has passed, go on as it is
//! ```
//! As long as its view is the newest nothing that it names is retired, so the time counts from when the view was last
//! known to be that. A scan that gets no pin (the floor has passed it, this reader may not write, coordination is away)
//! reads on: names are never used twice, so it is right to its end or ends in `view_expired`, never in a hole.
//!
//! Scans of one view share one pin, and so do the pages that continue on a held view.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use isle_storage::coordination::{CoordinationError, Lease, NodeInfo, PinAttempt};
use isle_storage::database::Database;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::metrics::ReaderMetrics;
use crate::settings::ReaderSettings;
use crate::view::View;

/// Pause after an attempt that failed in passing.
const PAUSE: Duration = Duration::from_secs(5);

/// A pin in force. Given back when the last of its holders lets go.
pub(crate) struct Pinned {
    lease: Arc<dyn Lease>,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pinned")
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let lease = Arc::clone(&self.lease);
        // Without a runtime the lease ends by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { lease.give_back().await });
        }
    }
}

/// Takes pins for scans.
#[derive(Debug)]
pub(crate) struct Pins {
    db: Database,
    node: NodeInfo,
    after: Option<Duration>,
    metrics: ReaderMetrics,
}

impl Pins {
    pub(crate) fn new(db: &Database, settings: &ReaderSettings, metrics: &ReaderMetrics) -> Arc<Self> {
        let node = NodeInfo {
            node: format!("reader-{:08x}", db.env.entropy.next_u64() as u32),
            advertise: String::new(),
        };
        let after = (settings.pin_after_ms > 0).then(|| Duration::from_millis(settings.pin_after_ms));
        Arc::new(Self { db: db.clone(), node, after, metrics: metrics.clone() })
    }

    /// Looks after one scan of `view` until what is returned is dropped.
    pub(crate) fn look_after(self: &Arc<Self>, view: &Arc<View>) -> Hold {
        let pinned = Arc::new(Mutex::new(None));
        let task = self.after.map(|after| {
            let (pins, view, pinned) = (Arc::clone(self), Arc::clone(view), Arc::clone(&pinned));
            AbortOnDropHandle::new(tokio::spawn(async move { pins.keep(after, &view, &pinned).await }))
        });
        Hold { pinned, _task: task }
    }

    /// Waits until the view has been superseded for long, then keeps it pinned, as far as that can be had.
    async fn keep(&self, after: Duration, view: &View, pinned: &Mutex<Option<Arc<Pinned>>>) {
        loop {
            let due = view.confirmed() + after;
            if Instant::now() < due {
                sleep_until(due).await;
                continue;
            }
            let pin = match self.pin(view).await {
                Ok(Some(pin)) => pin,
                Ok(None) => return,
                Err(()) => {
                    sleep(PAUSE).await;
                    continue;
                }
            };
            *pinned.lock() = Some(Arc::clone(&pin));
            let why = pin.lease.lost().await;
            tracing::debug!(version = %view.version(), why, "the pin of a long scan was lost; trying to pin again");
            view.forget_pin(&pin);
            *pinned.lock() = None;
        }
    }

    /// The pin of another scan of this view, or a new one; `None` where there is none to be had, `Err` where trying
    /// again may help.
    async fn pin(&self, view: &View) -> Result<Option<Arc<Pinned>>, ()> {
        if let Some(pin) = view.pin() {
            return Ok(Some(pin));
        }
        let version = view.version();
        match self.db.coordination.pin(version, &self.node).await {
            Ok(PinAttempt::Held(lease)) => {
                self.metrics.pins.inc();
                tracing::debug!(%version, "pinned for a long scan");
                let pin = Arc::new(Pinned { lease });
                view.share_pin(&pin);
                Ok(Some(pin))
            }
            Ok(PinAttempt::Passed(floor)) => {
                self.metrics.pins_refused.inc();
                tracing::info!(%version, %floor, "a long scan's version can no longer be pinned; it may expire");
                Ok(None)
            }
            Err(error @ CoordinationError::Unavailable(_)) => {
                tracing::debug!(%version, %error, "a long scan's version could not be pinned yet");
                Err(())
            }
            Err(error) => {
                self.metrics.pins_refused.inc();
                tracing::info!(%version, %error, "this reader cannot pin; long scans may expire");
                Ok(None)
            }
        }
    }
}

/// A scan that is looked after.
#[derive(Debug)]
pub(crate) struct Hold {
    pinned: Arc<Mutex<Option<Arc<Pinned>>>>,
    _task: Option<AbortOnDropHandle<()>>,
}

impl Hold {
    /// The pin in force, to be kept for the next page.
    pub(crate) fn pinned(&self) -> Option<Arc<Pinned>> {
        self.pinned.lock().clone()
    }
}
