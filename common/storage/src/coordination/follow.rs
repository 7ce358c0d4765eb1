//! Following the head: one task per process turns loads and watch events into an ordered stream of manifests.
//!
//! ```text
//!   load ──► Loaded ──► watch ──► edit, apply ──► Advanced ─┐
//!    ▲                    ▲  └──► folded, alive ► Fresh ────┤
//!    │                    └────────────────────────────────-┘
//!    └──── reset, or an edit that does not fit: nothing is guessed, everything is read anew
//! ```
//! A manifest handed out never goes back within one lineage. A head that does go back is a coordination service that
//! was set back: it is refused, said once, and asked again slowly, while the last manifest goes on serving. (Names are
//! never reused, so an old view is right or fails, and is never wrong.) The same holds for a head that is gone.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::{CoordinationError, HeadState, Loaded, WatchEvent};
use crate::database::Database;
use crate::manifest::{Edit, Manifest};
use crate::watch;

/// How many events wait for a slow consumer; at the limit the follower waits for it.
const QUEUE: usize = 64;

/// Pauses between loads that fail in passing.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Pauses between loads that are refused: somebody has to mend something first.
const REFUSED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What a follower sees happen.
#[derive(Debug, Clone)]
pub enum Followed {
    /// A whole manifest: the first one, or after a reset. Never of a lower version within one lineage.
    Loaded(Loaded),
    /// The next version, made by this edit (`None`: a void one).
    Advanced {
        /// The edit.
        edit: Option<Arc<Edit>>,
        /// What it led to.
        loaded: Loaded,
    },
    /// The same version, known to be fresh as of this instant (or under a new checkpoint).
    Fresh(HeadState, Instant),
    /// Coordination is away; the last manifest still serves.
    Down(String),
    /// A definite refusal (lost, regressed, wrong database): serving goes on, and the follower looks again slowly in
    /// case somebody mends it. Sent once for each new reason.
    Refused(CoordinationError),
}

/// The newest manifest a process knows, for whoever only needs that.
#[derive(Debug, Clone)]
pub struct Current {
    /// Head of the manifest.
    pub state: HeadState,
    /// The manifest.
    pub manifest: Arc<Manifest>,
    /// Known to be the newest as of this instant.
    pub as_of: Instant,
    /// Why it may be stale, if it may.
    pub trouble: Option<String>,
}

/// Follows the head of `db` until both returned receivers are dropped: every event in order (bounded; the follower
/// waits for a slow consumer), and the newest manifest. The second is `None` until the first load succeeds. Either
/// receiver may be dropped alone.
#[must_use]
pub fn follow(db: &Database) -> (mpsc::Receiver<Followed>, watch::Receiver<Option<Current>>) {
    let (events, events_rx) = mpsc::channel(QUEUE);
    let (current, current_rx) = watch::channel(None);
    let follower = Follower { db: db.clone(), events, current };
    tokio::spawn(follower.run());
    (events_rx, current_rx)
}

struct Follower {
    db: Database,
    events: mpsc::Sender<Followed>,
    current: watch::Sender<Option<Current>>,
}

/// Nobody listens any more.
struct Unheard;

impl Follower {
    async fn run(mut self) {
        let (events, current) = (self.events.clone(), self.current.clone());
        tokio::select! {
            biased;
            _ = self.follow() => {}
            () = async { tokio::join!(events.closed(), current.closed()); } => {}
        }
    }

    async fn follow(&mut self) -> Result<(), Unheard> {
        // A watch that ends as soon as it began must not turn into a storm of loads.
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let loaded = self.load().await?;
            let began = Instant::now();
            let why = self.watch(loaded).await?;
            tracing::info!(why, "loading the manifest anew");
            if began.elapsed() > RETRY.1 {
                backoff.reset();
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Loads until it succeeds with something that may be handed out.
    async fn load(&mut self) -> Result<Loaded, Unheard> {
        let mut passing = Backoff::new(RETRY.0, RETRY.1);
        let mut refused = Backoff::new(REFUSED.0, REFUSED.1);
        let mut told = None;
        loop {
            let error = match self.attempt().await {
                Ok(loaded) => {
                    self.publish(&loaded.state, &loaded.manifest, loaded.as_of);
                    self.send(Followed::Loaded(loaded.clone())).await?;
                    return Ok(loaded);
                }
                Err(error) => error,
            };
            self.trouble(&error.to_string());
            let pause = if error.is_passing() { passing.pause() } else { refused.pause() };
            if told.replace(error.to_string()) != Some(error.to_string()) {
                tracing::warn!(%error, "the manifest cannot be loaded; the last one goes on serving");
                let passing = error.is_passing();
                let event =
                    if passing { Followed::Down(error.to_string()) } else { Followed::Refused(error) };
                self.send(event).await?;
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self) -> Result<Loaded, CoordinationError> {
        let loaded = self.db.load().await?;
        self.db.check_lineage(loaded.manifest.lineage).await?;
        if let Some(seen) = self.current.borrow().as_ref() {
            not_back(&seen.manifest, &loaded.manifest)?;
        }
        Ok(loaded)
    }

    /// Follows edits from `at` on; returns why a new load is needed.
    async fn watch(&mut self, mut at: Loaded) -> Result<String, Unheard> {
        let mut events = self.db.coordination.watch(&at.state);
        while let Some(event) = events.next().await {
            match event {
                WatchEvent::Edit { edit, state, as_of } => {
                    at = match step(&at, edit.as_deref(), state, as_of) {
                        Ok(next) => next,
                        Err(why) => return Ok(why),
                    };
                    self.publish(&at.state, &at.manifest, as_of);
                    self.send(Followed::Advanced { edit, loaded: at.clone() }).await?;
                }
                WatchEvent::Folded(state) if state.head.version == at.manifest.version => {
                    at.state = state;
                    self.publish(&at.state, &at.manifest, at.as_of);
                    self.send(Followed::Fresh(at.state.clone(), at.as_of)).await?;
                }
                WatchEvent::Folded(state) => {
                    return Ok(format!(
                        "a fold at version {}, not {}",
                        state.head.version, at.manifest.version
                    ));
                }
                WatchEvent::Alive(as_of) => {
                    at.as_of = as_of;
                    self.publish(&at.state, &at.manifest, as_of);
                    self.send(Followed::Fresh(at.state.clone(), as_of)).await?;
                }
                WatchEvent::Reset(why) => return Ok(why),
                WatchEvent::Down(why) => {
                    self.trouble(&why);
                    self.send(Followed::Down(why)).await?;
                }
            }
        }
        Ok("the watch has ended".to_owned())
    }

    fn publish(&self, state: &HeadState, manifest: &Arc<Manifest>, as_of: Instant) {
        let current = Current { state: state.clone(), manifest: Arc::clone(manifest), as_of, trouble: None };
        self.current.send_replace(Some(current));
    }

    fn trouble(&self, why: &str) {
        self.current.send_if_modified(|current| match current {
            Some(c) if c.trouble.as_deref() != Some(why) => {
                c.trouble = Some(why.to_owned());
                true
            }
            _ => false,
        });
    }

    async fn send(&self, event: Followed) -> Result<(), Unheard> {
        match self.events.send(event).await {
            Err(_) if self.current.is_closed() => Err(Unheard),
            _ => Ok(()),
        }
    }
}

/// A view never moves to a lower version, or to fewer mutations, within one lineage.
fn not_back(seen: &Manifest, read: &Manifest) -> Result<(), CoordinationError> {
    let back = read.version < seen.version || read.last_seq < seen.last_seq || read.epoch < seen.epoch;
    if !back || read.lineage != seen.lineage {
        return Ok(());
    }
    Err(CoordinationError::Regressed(format!(
        "the head is at version {}, epoch {}, sequence number {}; this process has seen version {}, epoch {}, sequence \
         number {}: the coordination service was set back to an older copy; stop every role and run `isle recover`",
        read.version, read.epoch, read.last_seq, seen.version, seen.epoch, seen.last_seq
    )))
}

/// The next manifest, or why the edit does not lead there.
fn step(at: &Loaded, edit: Option<&Edit>, state: HeadState, as_of: Instant) -> Result<Loaded, String> {
    let manifest = match edit {
        Some(edit) => at.manifest.apply(edit).map_err(|e| e.to_string())?,
        None => at.manifest.skip_void(at.manifest.version.next()),
    };
    let head = &state.head;
    if head.version != manifest.version || head.last_seq != manifest.last_seq || head.epoch != manifest.epoch
    {
        return Err(format!(
            "the edit leads to version {}, the head says {}",
            manifest.version, head.version
        ));
    }
    Ok(Loaded { state, manifest: Arc::new(manifest), as_of })
}
