//! The pipeline: from the sequencer's open batch to the head, for one epoch.
//!
//! ```text
//!             seat lock                       this task                             head
//! put ─▶ [open batch] ─▶ seal ─▶ dispatch ─▶ upload ─┐
//!        [  next ...]          (id, predecessor,      ├─▶ line ─▶ one edit names every ready ─▶ commit ─▶ wake waiters
//!                               generation: in order) │   (in     segment at its front,
//!                               ─▶ upload ────────────┘    order)  and one finished flush
//! ```
//!
//! **Order.** Whatever must be in sequence order happens in this one task: a segment's identity is minted at dispatch,
//! in order, and names its predecessor; uploads run at once and end in any order; the *line* keeps dispatch order,
//! and only its ready front is published. So sequence order = commit order = tail order, without gaps.
//!
//! **When to seal** ([`seal`]). A batch that somebody waits for goes at once when nothing is on its way; otherwise it
//! gathers company until the linger ends, what is on its way is committed, or it is full. One client alone thus pays no
//! linger; many share one upload and one commit, and those who were answered together are expected back together.
//!
//! **One commit at a time**, since each compares the head that the one before it made. An edit carries all that is
//! ready, so a slow head makes larger edits, not a longer queue.
//!
//! **What may go wrong**
//! * *An upload fails*: the same bytes go to the same name again until they are there. Numbers are never skipped. A
//!   lost reply is no different: the retry puts what is already there.
//! * *The head has moved* (a compactor): the edit is checked against the new manifest and proposed again.
//! * *A commit's reply is lost*: the identical proposal is sent again until the truth is known. Its callers wait; those
//!   whose own deadline passes are told `outcome_unknown`, never a failure.
//! * *The right is gone* (lease lost, another epoch): what was never dispatched is definitely refused. What was
//!   dispatched may be adopted by the successor, and is judged later ([`crate::leadership::limbo`]).
//! * *A request is cancelled*: nothing changes; what was accepted is the pipeline's.
//! * *This task's owner is dropped*: dispatched work is left to the next takeover, its callers are told
//!   `outcome_unknown`.

mod commit;
mod end;
mod fold;
mod line;
mod pace;
mod publish;
mod seal;
mod snapshots;
mod upload;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use isle_storage::coordination::{Authority, Claim, Loaded};
use isle_storage::ids::{DatabaseId, Epoch, Incarnation, Lineage, Timestamp};
use isle_storage::manifest::LogTail;
use isle_storage::sabotage::{Rule, broken};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

use crate::engine::Engine;
use crate::generation::{Flushed, Generations, Part, TableRules, flush};
use crate::intake::Sealed;
use crate::snapshots::{Asks, MAX_ASKS};
pub(crate) use end::{End, InDoubt, Leftovers};
use fold::Folding;
use line::{InFlight, Line};
use pace::Pace;
use publish::{Publishing, Turn};
use seal::Rhythm;
pub(crate) use upload::put_until_done;
use upload::{Uploaded, upload};

/// How often figures that only tick are brought up to date.
const GAUGE_PERIOD: Duration = Duration::from_secs(1);

/// What is fixed for one epoch of leadership.
#[derive(Debug)]
pub(crate) struct Term {
    pub(crate) database: DatabaseId,
    pub(crate) lineage: Lineage,
    pub(crate) epoch: Epoch,
    pub(crate) incarnation: Incarnation,
    pub(crate) authority: Authority,
    /// The connection to coordination under which the bucket was last asked for higher epochs.
    pub(crate) connection: AtomicU64,
    names: AtomicU64,
}

impl Term {
    pub(crate) fn new(database: DatabaseId, lineage: Lineage, claim: &Claim, connection: u64) -> Self {
        Self {
            database,
            lineage,
            epoch: claim.epoch,
            incarnation: claim.incarnation,
            authority: claim.authority.clone(),
            connection: AtomicU64::new(connection),
            names: AtomicU64::new(0),
        }
    }

    /// A name for a table that nobody has used or will use.
    pub(crate) fn next_name(&self) -> String {
        let n = self.names.fetch_add(1, Ordering::Relaxed);
        format!("{}-{n}", isle_storage::names::writer_owner(self.epoch, self.incarnation))
    }
}

/// One epoch's pipeline.
#[derive(Debug)]
pub(crate) struct Pipeline {
    engine: Arc<Engine>,
    term: Arc<Term>,
    claim: Claim,
    /// The newest manifest known, with its head: what the next commit is built on.
    current: Loaded,
    /// The newest dispatched segment: what the next one names as its predecessor.
    newest: Option<LogTail>,
    /// Its last write time.
    newest_time: Timestamp,
    /// Sealed and not dispatched.
    queue: VecDeque<Sealed>,
    line: Line,
    generations: Generations,
    uploads: JoinSet<Uploaded>,
    flushes: JoinSet<Option<(isle_storage::ids::SeqNo, Flushed)>>,
    turn: Option<Turn>,
    pace: Pace,
    put_pace: Pace,
    rhythm: Rhythm,
    publishing: Publishing,
    /// Requests about snapshots that no edit carries yet.
    asks: Asks,
    folding: Folding,
    /// Takes nothing new.
    draining: bool,
}

impl Pipeline {
    /// A pipeline that continues after `current`; `generations` holds what is committed and not yet in tables.
    pub(crate) fn new(
        engine: Arc<Engine>,
        term: Arc<Term>,
        claim: Claim,
        current: Loaded,
        generations: Generations,
    ) -> Self {
        let backend = engine.db.coordination.backend();
        let pace = Pace::new(engine.settings.commits_per_second(backend));
        let put_pace = Pace::new(engine.settings.max_puts_per_second);
        let rhythm = Rhythm::new(engine.settings.linger());
        let (newest, newest_time) = (current.manifest.tail, current.manifest.last_write_time);
        Self {
            engine,
            term,
            claim,
            current,
            newest,
            newest_time,
            queue: VecDeque::new(),
            line: Line::default(),
            generations,
            uploads: JoinSet::new(),
            flushes: JoinSet::new(),
            turn: None,
            pace,
            put_pace,
            rhythm,
            publishing: Publishing::default(),
            asks: Asks::default(),
            folding: Folding::default(),
            draining: false,
        }
    }

    /// Runs until leadership ends, whichever way, and leaves everything accepted resolved or in doubt.
    pub(crate) async fn run(mut self) -> Leftovers {
        let lease = Arc::clone(&self.claim.lease);
        let lost = lease.lost();
        tokio::pin!(lost);
        let end = loop {
            match self.step(lost.as_mut()).await {
                Ok(()) => {}
                Err(end) => break end,
            }
        };
        self.dissolve(end)
    }

    /// Starts everything that can start, then waits for the next thing to happen.
    async fn step(
        &mut self,
        lost: std::pin::Pin<&mut (impl Future<Output = String> + ?Sized)>,
    ) -> Result<(), End> {
        if self.engine.drain.is_cancelled() && !self.draining {
            self.drain();
        }
        let seal_at = self.gather();
        let dispatch_at = self.dispatch();
        if self.engine.end_generation.swap(false, Ordering::AcqRel) {
            self.generations.close();
        }
        let age_at = self.generations.close_if_over(Instant::now());
        self.begin_flushes();
        let turn_at = self.begin_turn()?;
        self.show();
        if self.draining && self.is_done() {
            return Err(End::Drained);
        }
        let timer = [seal_at, dispatch_at, age_at, turn_at, Some(Instant::now() + GAUGE_PERIOD)]
            .into_iter()
            .flatten()
            .min();
        let timer = timer.unwrap_or_else(Instant::now);
        let engine = Arc::clone(&self.engine);
        tokio::select! {
            biased;
            () = engine.stop.cancelled() => Err(End::Dropped),
            why = lost => Err(End::Fenced(format!("the lease is lost: {why}"))),
            result = Turn::ended(&mut self.turn) => {
                self.end_turn(result)?;
                let_others_run().await;
                Ok(())
            }
            Some(uploaded) = self.uploads.join_next() => self.end_upload(uploaded),
            Some(flushed) = self.flushes.join_next() => self.end_flush(flushed),
            written = self.folding.written() => {
                self.end_checkpoint(written);
                Ok(())
            }
            () = engine.work.notified() => {
                let_others_run().await;
                Ok(())
            }
            () = engine.drain.cancelled(), if !self.draining => Ok(()),
            () = tokio::time::sleep_until(timer) => Ok(()),
        }
    }

    /// Takes what the sequencer has closed, and closes the open batch if it is due. Returns when it will be.
    fn gather(&mut self) -> Option<Instant> {
        let idle = self.uploads.is_empty()
            && self.queue.is_empty()
            && !self.line.has_ready_waiting()
            && self.turn.is_none();
        let mut seat = self.engine.seat.lock();
        let sequencer = seat.as_mut()?;
        sequencer.expect(self.rhythm.company());
        // Sealed before it may be uploaded, a batch would only stop gathering company.
        let not_before = self.put_pace.next().unwrap_or_else(Instant::now);
        let due = sequencer.open().map(|open| self.rhythm.due(open, idle).max(not_before));
        if let Some(due) = due
            && due <= Instant::now()
            && self.has_room()
        {
            sequencer.seal();
        }
        self.queue.append(&mut sequencer.take_sealed());
        self.asks.extend(sequencer.take_asks(MAX_ASKS.saturating_sub(self.asks.len())));
        self.engine.gauges.accepted_seq.store(sequencer.accepted().0, Ordering::Relaxed);
        // Without room the end of an upload or of a commit is what wakes this task.
        due.filter(|_| sequencer.open().is_some() && self.has_room())
    }

    /// Whether another upload may start.
    fn has_room(&self) -> bool {
        let s = &self.engine.settings;
        let uploading = self.uploads.len();
        uploading < s.uploads_in_flight
            && self.line.len() < s.segments_unpublished
            && (uploading == 0 || self.line.uploading_bytes() < s.upload_bytes_in_flight)
    }

    /// Starts the uploads that may start. Returns when the next one may, where only the rate is in its way.
    fn dispatch(&mut self) -> Option<Instant> {
        while self.has_room() && !self.queue.is_empty() {
            let now = Instant::now();
            if let Some(at) = self.put_pace.next().filter(|at| *at > now) {
                return Some(at);
            }
            let sealed = self.queue.pop_front()?;
            self.put_pace.count(now);
            self.dispatch_one(sealed);
        }
        None
    }

    /// Gives a segment its identity and its place, and starts its upload. In sequence order.
    fn dispatch_one(&mut self, sealed: Sealed) {
        let now = Instant::now();
        let starts = self.generations.starts(sealed.charge, now) || self.enters_a_window(&sealed);
        let header = self.term.segment_header(&sealed.batch, self.newest, starts);
        let tail = LogTail { id: header.id(), last_seq: sealed.batch.last_seq };
        let part = Part {
            tail,
            previous: self.newest,
            blocks: sealed.batch.blocks.to_vec(),
            blobs: sealed.batch.blobs.clone(),
            charge: sealed.charge,
        };
        self.generations.add(part, starts, now);
        self.newest = Some(tail);
        self.newest_time = sealed.batch.last_time;
        self.engine.metrics.observe(crate::metrics::LINGER, sealed.sealed - sealed.since);
        self.line.push(InFlight::new(tail, &sealed));
        debug!(epoch = %self.term.epoch, first_seq = %tail.id.first_seq, last_seq = %tail.last_seq, starts, "segment dispatched");
        self.uploads.spawn(upload(Arc::clone(&self.engine), header, sealed.batch));
    }

    /// In `time_window` mode a generation ends where the window does, so that a flush makes tables of one window. A segment
    /// that crosses the edge belongs to the window of its last row, as the table it comes to will.
    fn enters_a_window(&self, sealed: &Sealed) -> bool {
        let mode = &self.current.manifest.compaction;
        mode.window(self.newest_time) != mode.window(sealed.batch.last_time)
    }

    fn end_upload(&mut self, uploaded: Result<Uploaded, tokio::task::JoinError>) -> Result<(), End> {
        let uploaded = uploaded.map_err(|e| End::Fenced(format!("an upload died: {e}")))?;
        let now = Instant::now();
        if let Some(sealed) = self.line.uploaded(uploaded.tail, uploaded.entry, now) {
            self.engine.metrics.observe(crate::metrics::UPLOAD, now - sealed);
            self.rhythm.uploaded(now - sealed);
        }
        Ok(())
    }

    fn begin_flushes(&mut self) {
        let s = &self.engine.settings;
        let rules = TableRules {
            table_bytes: s.table_bytes,
            block_bytes: s.table_block_bytes,
            chunk_block_bytes: s.block_bytes,
            compression: s.compression,
        };
        let everything = broken(Rule::FlushAfterCommit).then_some(isle_storage::ids::SeqNo(u64::MAX));
        let committed = everything.unwrap_or(self.current.manifest.last_seq);
        while let Some(parts) = self.generations.begin_flush(committed, s.flushes_in_flight, Instant::now()) {
            let (engine, term) = (Arc::clone(&self.engine), Arc::clone(&self.term));
            self.flushes.spawn(async move {
                let first_seq = parts.first()?.tail.id.first_seq;
                flush(engine, term, parts, rules).await.map(|flushed| (first_seq, flushed))
            });
        }
    }

    fn end_flush(
        &mut self,
        flushed: Result<Option<(isle_storage::ids::SeqNo, Flushed)>, tokio::task::JoinError>,
    ) -> Result<(), End> {
        match flushed {
            Ok(Some((first_seq, flushed))) => {
                self.generations.flushed(first_seq, flushed);
                Ok(())
            }
            Ok(None) => Err(End::Fenced("a flush died while building its tables".to_owned())),
            Err(e) => Err(End::Fenced(format!("a flush died: {e}"))),
        }
    }

    /// Takes nothing new from here on, and closes the open batch.
    fn drain(&mut self) {
        self.draining = true;
        self.engine.stand(crate::Role::Draining, Some("the writer is stopping".to_owned()));
        if let Some(mut sequencer) = self.engine.seat.lock().take() {
            sequencer.seal_all();
            self.queue.append(&mut sequencer.take_sealed());
            self.asks.extend(sequencer.take_asks(MAX_ASKS));
        }
    }

    /// Whether everything accepted is committed.
    fn is_done(&self) -> bool {
        self.queue.is_empty() && self.line.is_empty() && self.asks.len() == 0 && self.turn.is_none()
    }

    fn show(&self) {
        let (e, m) = (&self.engine, &self.current.manifest);
        e.gauges.set_head(m.last_seq, m.flushed_seq, m.version);
        e.gauges.segments_in_flight.store(self.line.len() as u64, Ordering::Relaxed);
        e.gauges.generations.store(self.generations.len() as u64, Ordering::Relaxed);
        e.metrics.head_version.set(m.version.0 as i64);
        e.metrics.queue_bytes.set(e.admission.taken() as i64);
        if let Some(until) = self.claim.lease.valid_until() {
            e.metrics.lease_remaining.set(until.saturating_duration_since(Instant::now()).as_secs_f64());
        }
    }
}

/// Callers that are answered together come again together: whoever is ready to run goes first, so that the first of
/// them does not take the next segment for itself alone. Costs nothing where nobody is.
async fn let_others_run() {
    tokio::task::yield_now().await;
}
