//! The handle: what embedders and the HTTP face use.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use isle_storage::coordination::NodeInfo;
use isle_storage::database::Database;
use isle_storage::ids::{Epoch, Position, SeqNo, Version};
use isle_storage::row::MAX_KEY_LEN;
use isle_storage::watch;

use crate::engine::Engine;
use crate::error::WriteError;
use crate::intake::{
    Accepted, Ack, EVENT_SUFFIX, Event, Mutation, Numbers, Options, Patience, Sequencer, Taken, charge,
};
use crate::leadership;
use crate::settings::{SettingsError, WriterSettings};
use crate::standing::{Health, Role, Standing, Status};

/// How soon a caller that was refused for lack of admission may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A writer of one database. Cloning is cheap; the last clone's end stops it at once, without a drain.
#[derive(Debug, Clone)]
pub struct Writer {
    handle: Arc<Handle>,
}

/// Stops the background work when the last clone goes away.
#[derive(Debug)]
struct Handle {
    engine: Arc<Engine>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.engine.stop.cancel();
    }
}

impl Writer {
    /// Starts a writer: it contests the role in the background and is `starting` until it leads or stands by. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// [`SettingsError`] where the settings cannot work.
    pub fn open(db: Database, settings: WriterSettings, node: NodeInfo) -> Result<Self, SettingsError> {
        settings.validate()?;
        let engine = Arc::new(Engine::new(db, settings, node));
        tokio::spawn(leadership::lead(Arc::clone(&engine)));
        Ok(Self { handle: Arc::new(Handle { engine }) })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.handle.engine
    }

    pub(crate) fn shared(&self) -> &Arc<Engine> {
        &self.handle.engine
    }

    /// The settings it runs with.
    #[must_use]
    pub fn settings(&self) -> &WriterSettings {
        &self.engine().settings
    }

    /// The database it writes.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.engine().db
    }

    /// Puts a value. The answer is its position, once it is acknowledged as asked.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn put(
        &self,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
        options: Options,
    ) -> Result<Position, WriteError> {
        self.one(Mutation::Put { key, value, ttl }, options).await
    }

    /// Deletes a key, whether it is there or not: the writer does not read.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn delete(&self, key: &[u8], options: Options) -> Result<Position, WriteError> {
        self.one(Mutation::Delete { key }, options).await
    }

    async fn one(&self, m: Mutation<'_>, options: Options) -> Result<Position, WriteError> {
        if options.ack == Ack::Memory && !self.is_large(m.value_len()) {
            self.check(&m)?;
            let now = self.engine().db.env.clock.now();
            let numbers = self.accept(m.charge(), options.patience, |s| Ok(s.one(&m, now))).await?;
            return Ok(numbers.position());
        }
        let accepted = self.submit(&[m], options).await?;
        self.acknowledge(&accepted, options).await?;
        Ok(accepted.position())
    }

    /// Applies all mutations or none: consecutive numbers, one segment.
    ///
    /// # Errors
    /// [`WriteError`]; `BatchTooLarge` with size and limit where they do not fit one segment.
    pub async fn apply_batch(
        &self,
        batch: &[Mutation<'_>],
        options: Options,
    ) -> Result<Accepted, WriteError> {
        self.available(options.ack)?;
        let total = self.check_all(batch)?;
        if self.has_large(batch) {
            let accepted = self.submit_large(batch, options).await?;
            self.acknowledge(&accepted, options).await?;
            return Ok(accepted);
        }
        self.check_batch(total)?;
        let (now, ack) = (self.engine().db.env.clock.now(), options.ack);
        let accepted = self.accept(total, options.patience, |s| Ok(s.many(batch, now, true, ack))).await?;
        self.acknowledge(&accepted, options).await?;
        Ok(accepted)
    }

    /// Hands mutations over in order, without waiting for their commit: not atomic (unless a value among them is above
    /// `blob_threshold`), many under one lock. With
    /// `ack = bucket` the answer can be waited on.
    ///
    /// # Errors
    /// [`WriteError`]: none of them was accepted.
    pub async fn submit(&self, batch: &[Mutation<'_>], options: Options) -> Result<Accepted, WriteError> {
        self.available(options.ack)?;
        let total = self.check_all(batch)?;
        if self.has_large(batch) {
            return self.submit_large(batch, options).await;
        }
        self.check_batch(total)?;
        let (now, ack) = (self.engine().db.env.clock.now(), options.ack);
        self.accept(total, options.patience, |s| Ok(s.many(batch, now, false, ack))).await
    }

    /// Appends events to a stream, all or none: each one's key is [`event_key`] of its number.
    ///
    /// [`event_key`]: Writer::event_key
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn append(
        &self,
        stream: &[u8],
        events: &[Event<'_>],
        options: Options,
    ) -> Result<Accepted, WriteError> {
        self.available(options.ack)?;
        let key_len = stream.len() + EVENT_SUFFIX;
        if stream.is_empty() || key_len > MAX_KEY_LEN {
            return Err(WriteError::InvalidKey { len: if stream.is_empty() { 0 } else { key_len } });
        }
        if events.is_empty() {
            return Err(WriteError::EmptyBatch);
        }
        let mut total = 0;
        for e in events {
            self.check_value(e.value.len())?;
            total += charge(key_len, e.value.len());
        }
        if events.iter().any(|e| self.is_large(e.value.len())) {
            let accepted = self.append_large(stream, events, options).await?;
            self.acknowledge(&accepted, options).await?;
            return Ok(accepted);
        }
        self.check_batch(total)?;
        let (now, ack) = (self.engine().db.env.clock.now(), options.ack);
        let accepted =
            self.accept(total, options.patience, |s| Ok(s.events(stream, events, now, ack))).await?;
        self.acknowledge(&accepted, options).await?;
        Ok(accepted)
    }

    /// The key of the event of `stream` with this number.
    #[must_use]
    pub fn event_key(stream: &[u8], seq: SeqNo) -> Vec<u8> {
        let mut key = Vec::with_capacity(stream.len() + EVENT_SUFFIX);
        crate::intake::event_key_into(&mut key, stream, seq);
        key
    }

    /// Waits until everything accepted so far is in the head; its last position.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn flush(&self, at_most: Option<Duration>) -> Result<Position, WriteError> {
        let engine = self.engine();
        let (numbers, newest) = {
            let mut seat = engine.seat.lock();
            let sequencer = seat.as_mut().ok_or_else(|| engine.refusal())?;
            let seq = sequencer.accepted();
            (Numbers { epoch: sequencer.epoch(), first_seq: seq, last_seq: seq }, sequencer.seal_all())
        };
        engine.work.notify_one();
        if let Some(newest) = newest {
            let accepted = Accepted::new(numbers, vec![(numbers.last_seq, newest)]);
            let _waiting = engine.gauges.waiting();
            accepted.committed(at_most.unwrap_or_else(|| self.ack_timeout())).await?;
        }
        Ok(numbers.position())
    }

    /// Ends the open generation, so that everything committed is written to tables soon; what has not been dispatched
    /// yet starts the next one.
    pub fn end_generation(&self) {
        self.engine().end_generation.store(true, Ordering::Release);
        self.engine().work.notify_one();
    }

    /// Where the writer stands at present, and every change.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.engine().standing.subscribe()
    }

    /// Waits until the writer leads; the epoch. `None` where it closes or is fenced for good first.
    pub async fn leading(&self) -> Option<Epoch> {
        let mut standing = self.standing();
        let settled = |s: &Standing| matches!(s.role, Role::Leading | Role::Fenced | Role::Closed);
        let s = standing.wait_for(settled).await.ok()?;
        s.epoch.filter(|_| s.role == Role::Leading)
    }

    /// Why mutations are refused here at present, if they are.
    #[must_use]
    pub fn refusal(&self) -> Option<WriteError> {
        let vacant = self.engine().seat.lock().is_none();
        vacant.then(|| self.engine().refusal())
    }

    /// Figures of the moment.
    #[must_use]
    pub fn status(&self) -> Status {
        let e = self.engine();
        let accepted = e.seat.lock().as_ref().map(Sequencer::accepted);
        let s = e.standing.borrow().clone();
        let load = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        Status {
            leader: s.role == Role::Leading,
            role: s.role,
            leader_info: s.leader,
            epoch: s.epoch,
            accepted_seq: accepted.unwrap_or(SeqNo(load(&e.gauges.accepted_seq))),
            committed_seq: SeqNo(load(&e.gauges.committed_seq)),
            flushed_seq: SeqNo(load(&e.gauges.flushed_seq)),
            version: Version(load(&e.gauges.version)),
            queue_bytes: e.admission.taken(),
            queue_limit_bytes: e.admission.limit(),
            waiters: load(&e.gauges.waiters),
            segments_in_flight: load(&e.gauges.segments_in_flight),
            generations: load(&e.gauges.generations),
            in_doubt: e.limbo.len() as u64,
            troubles: e.troubles.list(),
        }
    }

    /// Whether requests should be sent here, and why not.
    #[must_use]
    pub fn health(&self) -> Health {
        let e = self.engine();
        let s = e.standing.borrow().clone();
        let lasting = e.troubles.lasting(Duration::from_millis(e.settings.unready_after_ms));
        let ready = match s.role {
            Role::Leading => lasting.is_empty(),
            Role::Standby => true,
            _ => false,
        };
        let mut reasons =
            if matches!(s.role, Role::Leading | Role::Standby) { Vec::new() } else { Vec::from_iter(s.why) };
        reasons.extend(e.troubles.list());
        Health { ready, role: s.role, reasons }
    }

    /// Takes nothing new, commits what was accepted, gives the lease back. What is not committed after `at_most` is
    /// left to the next takeover, and its callers are told `outcome_unknown`. May be called any number of times, from
    /// anywhere.
    pub async fn close(&self, at_most: Duration) {
        let engine = self.engine();
        engine.drain.cancel();
        let mut standing = self.standing();
        let closed = standing.wait_for(|s| s.role == Role::Closed);
        if tokio::time::timeout(at_most, closed).await.is_err() {
            engine.stop.cancel();
            // The rest is bookkeeping without I/O. An error would mean that it has gone, which is as good.
            let _ = standing.wait_for(|s| s.role == Role::Closed).await;
        }
    }

    /// Admission, then the seat. On return the mutations belong to the writer.
    pub(crate) async fn accept<T>(
        &self,
        charge: usize,
        patience: Patience,
        take: impl FnOnce(&mut Sequencer) -> Result<Taken<T>, WriteError>,
    ) -> Result<T, WriteError> {
        // A caller that is never made to wait must still let others run.
        tokio::task::coop::consume_budget().await;
        let engine = self.engine();
        let bytes = charge as u64;
        let admitted = match engine.admission.try_take(bytes) {
            Some(admitted) => admitted,
            None => self.wait_for_admission(bytes, patience).await?,
        };
        if let Some(pause) = engine.admission.pause(bytes) {
            tokio::time::sleep(pause).await;
        }
        let taken = match engine.seat.lock().as_mut() {
            Some(sequencer) => take(sequencer)?,
            None => return Err(engine.refusal()),
        };
        admitted.keep();
        if taken.wake {
            engine.work.notify_one();
        }
        Ok(taken.answer)
    }

    async fn wait_for_admission(
        &self,
        bytes: u64,
        patience: Patience,
    ) -> Result<crate::intake::Admitted<'_>, WriteError> {
        let engine = self.engine();
        let mut standing = self.standing();
        let _waiting = engine.gauges.waiting();
        let vacated = async {
            // A closed channel would mean that the engine is gone, which `self` rules out.
            let _ = standing.wait_for(|s| s.role != Role::Leading).await;
        };
        let patience = async {
            match patience {
                Patience::Wait => std::future::pending().await,
                Patience::AtMost(d) => tokio::time::sleep(d).await,
            }
        };
        tokio::select! {
            biased;
            () = vacated => Err(engine.refusal()),
            admitted = engine.admission.take(bytes) => admitted.ok_or_else(|| self.overloaded()),
            () = patience => Err(self.overloaded()),
        }
    }

    fn overloaded(&self) -> WriteError {
        let e = self.engine();
        e.metrics.overloaded.inc();
        let mut why = format!(
            "{} of {} bytes are in memory, waiting for uploads, commits and flushes",
            e.admission.taken(),
            e.admission.limit()
        );
        for trouble in e.troubles.list() {
            why.push_str("; ");
            why.push_str(&trouble);
        }
        WriteError::Overloaded { why, retry_after: RETRY_AFTER }
    }

    pub(crate) async fn acknowledge(&self, accepted: &Accepted, options: Options) -> Result<(), WriteError> {
        if options.ack == Ack::Memory {
            return Ok(());
        }
        let _waiting = self.engine().gauges.waiting();
        accepted.committed(options.ack_timeout.unwrap_or_else(|| self.ack_timeout())).await
    }

    pub(crate) fn ack_timeout(&self) -> Duration {
        Duration::from_millis(self.settings().ack_timeout_ms)
    }

    pub(crate) fn available(&self, ack: Ack) -> Result<(), WriteError> {
        match ack {
            Ack::Bucket | Ack::Memory => Ok(()),
            Ack::Disk => Err(WriteError::Unsupported("ack=disk is not available on this node".to_owned())),
        }
    }

    fn check_all(&self, batch: &[Mutation<'_>]) -> Result<usize, WriteError> {
        if batch.is_empty() {
            return Err(WriteError::EmptyBatch);
        }
        let mut total = 0;
        for m in batch {
            self.check(m)?;
            total += m.charge();
        }
        Ok(total)
    }

    fn check(&self, m: &Mutation<'_>) -> Result<(), WriteError> {
        let len = m.key().len();
        if len == 0 || len > MAX_KEY_LEN {
            return Err(WriteError::InvalidKey { len });
        }
        self.check_value(m.value_len())
    }

    fn check_value(&self, len: usize) -> Result<(), WriteError> {
        let limit = self.settings().max_value_bytes;
        if len > limit { Err(WriteError::ValueTooLarge { len, limit }) } else { Ok(()) }
    }

    pub(crate) fn check_batch(&self, len: usize) -> Result<(), WriteError> {
        let limit = self.settings().max_batch_bytes;
        if len > limit { Err(WriteError::BatchTooLarge { len, limit }) } else { Ok(()) }
    }
}
