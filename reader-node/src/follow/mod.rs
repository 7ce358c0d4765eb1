//! Following the head: manifests come in, segments are fetched and applied, views go out.
//!
//! ```text
//!  follow ─▶ targets (manifests not served yet) ─▶ queue (segments) ─▶ flights, in order ─▶ memory
//!                 └──────────────── published as soon as memory covers them ◀──────────────────┘
//! ```
//! One task owns all of this state; readers only ever see whole views through [`Shared`]. Segments of later manifests
//! are fetched while earlier ones still fly, but they are applied in order, and a manifest becomes the view when its
//! last segment is in memory. Of several that could be served only the newest is.
//!
//! A segment that cannot be fetched or does not decode holds the view where it is; the last one goes on serving and
//! the reader says why. It is tried again, until a newer manifest has its rows in tables: then it is stepped over
//! (see [`crate::memory`] for what that means for the generations).
//!
//! The view never moves to a lower version within one lineage. Another lineage (after a recover) starts anew.

mod segment;
mod shared;
mod targets;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use isle_storage::coordination::follow::{Followed, follow};
use isle_storage::coordination::{HeadState, Loaded};
use isle_storage::database::Database;
use isle_storage::ids::{Lineage, SeqNo};
use isle_storage::manifest::{LogEntry, Manifest};
use isle_storage::watch;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::segment::Fetched;
pub(crate) use self::shared::{Shared, Trouble};
use self::targets::{Target, Targets};
use crate::memory::MemoryLog;
use crate::metrics::ReaderMetrics;
use crate::reader::HeldViews;
use crate::settings::ReaderSettings;
use crate::tables::{Catalog, Reads};
use crate::view::View;

/// How often gauges are brought up to date.
const TICK: Duration = Duration::from_secs(1);

/// How long after a definite refusal the head is followed anew: a recover ends such a state, and the reader resumes
/// without a restart.
const FOLLOW_AGAIN: Duration = Duration::from_secs(5);

/// Events taken in one go before flights are looked at.
const EVENTS_PER_TURN: usize = 64;

/// One piece of the log on its way into memory.
#[derive(Debug)]
enum Piece {
    /// A segment.
    Segment(Arc<LogEntry>),
    /// Everything up to here is in tables already.
    Skip(SeqNo),
}

/// The task behind a reader.
pub(crate) struct Follower {
    db: Database,
    settings: Arc<ReaderSettings>,
    shared: Arc<Shared>,
    reads: Arc<Reads>,
    held: Arc<HeldViews>,
    metrics: ReaderMetrics,
    catalog: Catalog,
    lineage: Option<Lineage>,
    memory: MemoryLog,
    targets: Targets,
    queue: VecDeque<Piece>,
    /// The last sequence number queued, flying, or loaded.
    queued: SeqNo,
    flights: FuturesOrdered<BoxFuture<'static, Fetched>>,
    /// Bytes of records in flight.
    flying_bytes: u64,
    /// The newest flushed number known: what need not be fetched.
    floor: watch::Sender<SeqNo>,
}

impl Follower {
    pub(crate) fn new(
        db: Database,
        settings: Arc<ReaderSettings>,
        shared: Arc<Shared>,
        reads: Arc<Reads>,
        held: Arc<HeldViews>,
        metrics: ReaderMetrics,
    ) -> Self {
        let catalog = Catalog::new(Arc::clone(reads.cache()));
        let memory = MemoryLog::new(settings.generation_bytes);
        Self {
            db,
            settings,
            shared,
            reads,
            held,
            metrics,
            catalog,
            lineage: None,
            memory,
            targets: Targets::default(),
            queue: VecDeque::new(),
            queued: SeqNo::ZERO,
            flights: FuturesOrdered::new(),
            flying_bytes: 0,
            floor: watch::Sender::new(SeqNo::ZERO),
        }
    }

    /// Follows until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            // The second receiver stays with the first: following goes on until both are dropped.
            let (mut events, _current) = follow(&self.db);
            self.follow(&mut events, &stop).await;
            let again = tokio::time::sleep(FOLLOW_AGAIN);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = again => {}
            }
        }
    }

    async fn follow(&mut self, events: &mut mpsc::Receiver<Followed>, stop: &CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            self.launch();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // Comes at most once a period, so it keeps nobody waiting.
                _ = tick.tick() => {
                    self.held.sweep();
                    self.show();
                }
                // Events are what launches flights: those that land first run dry first.
                Some(fetched) = self.flights.next(), if !self.flights.is_empty() => self.land(fetched).await,
                event = events.recv() => {
                    let Some(event) = event else { return };
                    self.take(event);
                    for _ in 1..EVENTS_PER_TURN {
                        let Ok(event) = events.try_recv() else { break };
                        self.take(event);
                    }
                }
            }
            self.publish();
        }
    }

    fn take(&mut self, event: Followed) {
        match event {
            Followed::Loaded(loaded) => self.aim(loaded),
            Followed::Advanced { loaded, .. } => self.aim(loaded),
            Followed::Fresh(state, as_of) => self.confirm(&state, as_of),
            Followed::Down(why) => self.shared.set_trouble(Trouble::Coordination, Some(why)),
            Followed::Refused(e) => {
                tracing::error!(error = %e, "following the head was refused; the last view goes on serving");
                self.shared.set_trouble(Trouble::Coordination, Some(e.to_string()));
            }
        }
    }

    /// Takes a manifest as what is to be served next.
    fn aim(&mut self, loaded: Loaded) {
        let manifest = loaded.manifest;
        if self.lineage != Some(manifest.lineage) {
            self.start_anew(manifest.lineage);
        }
        let known = self.targets.newest_version().max(self.shared.version_in(manifest.lineage));
        if known.is_some_and(|known| manifest.version < known) {
            let why = format!("the head went back to version {} of the same history", manifest.version);
            self.shared.set_trouble(Trouble::Coordination, Some(why));
            return;
        }
        self.shared.set_trouble(Trouble::Coordination, None);
        if known == Some(manifest.version) {
            self.confirm(&loaded.state, loaded.as_of);
            return;
        }
        self.enqueue(&manifest);
        self.floor.send_replace(manifest.flushed_seq);
        self.targets.push(Target { manifest, as_of: loaded.as_of });
    }

    fn start_anew(&mut self, lineage: Lineage) {
        self.lineage = Some(lineage);
        self.memory = MemoryLog::new(self.settings.generation_bytes);
        self.targets = Targets::default();
        self.queue.clear();
        self.queued = SeqNo::ZERO;
        self.flights = FuturesOrdered::new();
        self.flying_bytes = 0;
    }

    fn confirm(&mut self, state: &HeadState, as_of: Instant) {
        self.shared.set_trouble(Trouble::Coordination, None);
        self.targets.confirm(state.head.version, as_of);
        self.shared.confirm(state.head.version, as_of);
    }

    /// Queues what the manifest's log holds beyond what is queued already.
    fn enqueue(&mut self, manifest: &Manifest) {
        let missing = manifest.unflushed().iter().filter(|e| e.last_seq > self.queued);
        let pieces: Vec<Arc<LogEntry>> = missing.cloned().collect();
        let begins = pieces.first().map_or(manifest.last_seq.next(), |e| e.id.first_seq);
        if begins > self.queued.next() {
            self.queue.push_back(Piece::Skip(SeqNo(begins.0 - 1)));
        }
        self.queue.extend(pieces.into_iter().map(Piece::Segment));
        self.queued = self.queued.max(manifest.last_seq);
    }

    /// Starts fetching what is queued, as far as the limits allow.
    fn launch(&mut self) {
        while self.flights.len() < self.settings.max_concurrent_segments {
            let Some(piece) = self.queue.front() else { return };
            let bytes = match piece {
                Piece::Segment(entry) if *self.floor.borrow() < entry.last_seq => entry.raw_bytes,
                _ => 0,
            };
            if !self.has_room(bytes) {
                return;
            }
            match self.queue.pop_front() {
                Some(Piece::Segment(entry)) => {
                    self.flying_bytes += entry.raw_bytes;
                    let floor = self.floor.subscribe();
                    let fetch = segment::fetch(self.db.clone(), entry, floor, Arc::clone(&self.shared));
                    self.flights.push_back(Box::pin(fetch));
                }
                Some(Piece::Skip(seq)) => {
                    self.flights
                        .push_back(Box::pin(std::future::ready(Fetched::Skipped { upto: seq, bytes: 0 })));
                }
                None => return,
            }
        }
    }

    /// Whether `bytes` more of records fit into memory. One segment always does, however large.
    fn has_room(&mut self, bytes: u64) -> bool {
        let limit = self.settings.max_unflushed_bytes;
        let fits = |held: u64| held == 0 || held + bytes <= limit;
        if bytes == 0 || fits(self.memory.bytes() + self.flying_bytes) {
            return true;
        }
        // What the newest manifest has in tables need not be held for older ones: they will not be served.
        if let Some(newest) = self.targets.keep_newest() {
            self.memory.release(newest.manifest.flushed_seq);
        }
        let held = self.memory.bytes() + self.flying_bytes;
        if fits(held) {
            return true;
        }
        let why = format!(
            "the unflushed log takes more than max_unflushed_bytes ({held} held, {limit} allowed): \
             the view stays at {} until the writer has flushed",
            self.shared.seq()
        );
        self.shared.set_trouble(Trouble::Memory, Some(why));
        false
    }

    async fn land(&mut self, fetched: Fetched) {
        match fetched {
            Fetched::Segment { entry, blocks } => {
                self.memory.apply(&entry, blocks).await;
                self.flying_bytes = self.flying_bytes.saturating_sub(entry.raw_bytes);
                self.metrics.segments.inc();
            }
            Fetched::Skipped { upto, bytes } => {
                self.memory.skip_to(upto);
                self.flying_bytes = self.flying_bytes.saturating_sub(bytes);
            }
        }
    }

    /// Makes the newest manifest that memory covers the view.
    fn publish(&mut self) {
        let memory = &self.memory;
        let covered = |m: &Manifest| memory.covers(m.flushed_seq, m.last_seq);
        let past = |m: &Manifest| memory.is_past(m.flushed_seq);
        let Some(target) = self.targets.take_newest(covered, past) else { return };
        let manifest = target.manifest;
        let generations = self.memory.release(manifest.flushed_seq);
        let runs = self.catalog.runs(&manifest);
        tracing::debug!(version = %manifest.version, seq = %manifest.last_seq, "view");
        let view = View::new(manifest, generations, runs, target.as_of);
        self.shared.publish(Arc::new(view));
        if self.targets.is_empty() {
            self.shared.set_trouble(Trouble::Segments, None);
            self.shared.set_trouble(Trouble::Memory, None);
        }
        self.show();
    }

    fn show(&self) {
        let Some(view) = self.shared.view() else { return };
        let m = &self.metrics;
        m.view_lag.set(self.shared.age().unwrap_or_default().as_secs_f64());
        m.head_version.set(view.version().0 as i64);
        m.runs.set(view.runs.len() as i64);
        let l0 = view.manifest.runs.iter().filter(|r| r.l0).map(|r| r.tables.len()).sum::<usize>();
        m.l0_tables.set(l0 as i64);
        m.memory_bytes.set(self.memory.bytes() as i64);
        m.cache_bytes.set(self.reads.cache().bytes() as i64);
    }
}
