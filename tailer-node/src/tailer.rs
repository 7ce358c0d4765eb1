//! The tailer: follows the head and hands every consumer the committed changes, in order, exactly once each.
//!
//! ```text
//!   follower ──▶ newest manifest (watch) ──▶ consumer: next seq ──▶ log object ──▶ block ──▶ rows ≥ next
//!                                              ▲                        │ shared, single flight
//!                                              └── waits at the head ◀──┘
//! ```
//! A consumer is only a number: the next sequence number it has not seen. Whatever happens to the objects around it
//! (a flush replaces segments by a chunk, the collector deletes the segments), the newest manifest says where that
//! number lies now. There is no queue between writer and consumer that could overflow, and a slow consumer holds back
//! nobody: it is served from the bucket. A gap is impossible: a number below the retained log is `cursor_expired`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use isle_storage::blob::ValueReader;
use isle_storage::coordination::CoordinationError;
use isle_storage::coordination::follow::{self, Current, Followed};
use isle_storage::database::Database;
use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::log::RawBlock;
use isle_storage::manifest::{LogEntry, Manifest};
use isle_storage::row::{BlobPointer, Row, RowRef};
use isle_storage::watch;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cursor::{Cursor, From};
use crate::error::TailError;
use crate::fetch::Fetcher;
use crate::groups::{self, Commits, GroupLags};
use crate::metrics::TailerMetrics;
use crate::settings::TailerSettings;

/// How often a consumer looks again where a named object is gone and no newer manifest has come.
const GONE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a consumer whose cursor is ahead of this tailer waits for it to catch up; then it is told to come again.
const CATCH_UP: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Shared {
    db: Database,
    settings: TailerSettings,
    fetcher: Fetcher,
    commits: Commits,
    metrics: TailerMetrics,
    current: watch::Receiver<Option<Current>>,
    refused: Mutex<Option<CoordinationError>>,
    consumers: AtomicUsize,
    bootstraps: Arc<AtomicUsize>,
    /// Bootstraps at work, and their holds.
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A running tailer. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Tailer(Arc<Shared>);

/// What a tailer knows of itself.
#[derive(Debug, Clone, serde::Serialize)]
pub struct TailerStatus {
    /// Manifest version, 0 before the first load.
    pub version: u64,
    /// Newest committed sequence number known.
    pub head: u64,
    /// First sequence number still in the log.
    pub earliest: u64,
    /// Log objects named by the manifest.
    pub log_objects: usize,
    /// Consumers at present.
    pub consumers: usize,
    /// Bootstraps under way.
    pub bootstraps: usize,
    /// Bytes of log in memory.
    pub cache_bytes: u64,
    /// Age of the view in seconds.
    pub view_age_seconds: f64,
    /// Why the view may be stale, if it may.
    pub trouble: Option<String>,
}

impl Tailer {
    /// Starts following `db`.
    ///
    /// # Errors
    /// A sentence naming the setting that is wrong.
    pub fn open(db: Database, settings: TailerSettings) -> Result<Self, String> {
        settings.validate()?;
        let metrics = TailerMetrics::register(&db.env.metrics);
        let (mut events, current) = follow::follow(&db);
        let stop = CancellationToken::new();
        let commits = Commits::new(&db, &settings, &stop);
        let lags = GroupLags::register(&db.env.metrics);
        let shared = Arc::new(Shared {
            commits,
            fetcher: Fetcher::new(&db, &settings, &metrics),
            db,
            settings,
            metrics,
            current,
            refused: Mutex::new(None),
            consumers: AtomicUsize::new(0),
            bootstraps: Arc::default(),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        });
        let watcher = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    event = events.recv() => event,
                };
                match event {
                    None => return,
                    Some(Followed::Refused(why)) => *watcher.refused.lock() = Some(why),
                    Some(Followed::Loaded(l) | Followed::Advanced { loaded: l, .. }) => {
                        watcher.metrics.head_version.set(l.manifest.version.0);
                        *watcher.refused.lock() = None;
                    }
                    Some(Followed::Fresh(..) | Followed::Down(_)) => {}
                }
            }
        });
        let tailer = Self(shared);
        tokio::spawn(groups::watch(tailer.clone(), lags));
        Ok(tailer)
    }

    /// Resolves once the first manifest has been loaded.
    pub async fn ready(&self) {
        let mut current = self.0.current.clone();
        // An error means that the follower has ended, which happens only at close.
        let _ = current.wait_for(Option::is_some).await;
    }

    /// The settings it was opened with.
    #[must_use]
    pub fn settings(&self) -> &TailerSettings {
        &self.0.settings
    }

    /// The database it follows.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.0.db
    }

    /// Whether [`Tailer::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    /// Resolves once it is closed.
    pub(crate) async fn closed(&self) {
        self.0.stop.cancelled().await;
    }

    /// What it knows of itself.
    #[must_use]
    pub fn status(&self) -> TailerStatus {
        let current = self.0.current.borrow();
        let m = current.as_ref().map(|c| &c.manifest);
        let age = current.as_ref().map_or(0.0, |c| c.as_of.elapsed().as_secs_f64());
        self.0.metrics.view_lag_seconds.set(age);
        TailerStatus {
            version: m.map_or(0, |m| m.version.0),
            head: m.map_or(0, |m| m.last_seq.0),
            earliest: m.map_or(0, |m| m.earliest_seq().0),
            log_objects: m.map_or(0, |m| m.log.len()),
            consumers: self.0.consumers.load(Ordering::Relaxed),
            bootstraps: self.0.bootstraps.load(Ordering::Relaxed),
            cache_bytes: self.0.fetcher.cached_bytes(),
            view_age_seconds: age,
            trouble: self.trouble(current.as_ref()),
        }
    }

    fn trouble(&self, current: Option<&Current>) -> Option<String> {
        if let Some(why) = self.0.refused.lock().as_ref() {
            return Some(why.to_string());
        }
        match current {
            Some(c) => c.trouble.clone(),
            None => Some("the manifest has not been loaded yet".to_owned()),
        }
    }

    /// A consumer that starts at `from`.
    ///
    /// # Errors
    /// [`TailError`]: not ready, a cursor that does not fit or has expired, too many consumers.
    pub async fn consume(&self, from: From) -> Result<Consumer, TailError> {
        let slot = Slot::take(&self.0)?;
        let (next, manifest) = self.resolve(from).await?;
        let consumer = Consumer { tailer: self.clone(), current: self.0.current.clone(), next, _slot: slot };
        consumer.refuse_expired(&manifest)?;
        Ok(consumer)
    }

    /// The number of the first change at or after `from`, and the view that tells it.
    pub(crate) async fn resolve(&self, from: From) -> Result<(SeqNo, Arc<Manifest>), TailError> {
        let mut manifest = self.manifest()?;
        if let From::Cursor(cursor) = from
            && is_ahead(&manifest, cursor)
        {
            manifest = self.caught_up_with(cursor).await?;
        }
        let next = match from {
            From::Earliest => manifest.earliest_seq(),
            From::Latest => manifest.last_seq.next(),
            From::Seq(seq) => SeqNo(seq.0.max(1)),
            From::Cursor(cursor) => after(&manifest, cursor)?,
            From::Time(time) => self.first_at(&manifest, time).await?,
        };
        Ok((next, manifest))
    }

    /// The view that holds a cursor which is ahead of the present one. Whoever handed it out has seen more than this
    /// tailer; only the head itself tells that it has not.
    async fn caught_up_with(&self, cursor: Cursor) -> Result<Arc<Manifest>, TailError> {
        let newest = match self.0.db.load().await {
            Ok(loaded) => loaded.manifest,
            Err(e) if e.is_passing() => {
                let why = format!("{cursor} is ahead of this tailer, and the head cannot be read: {e}");
                return Err(TailError::NotReady(why));
            }
            Err(e) => return Err(TailError::Coordination(e)),
        };
        after(&newest, cursor)?;
        let mut current = self.0.current.clone();
        let holds = |c: &Option<Current>| c.as_ref().is_some_and(|c| after(&c.manifest, cursor).is_ok());
        let reached = tokio::time::timeout(CATCH_UP, current.wait_for(holds)).await;
        match reached {
            Ok(Ok(_)) => self.manifest(),
            Ok(Err(_)) => Err(TailError::Closing),
            Err(_) => {
                Err(TailError::NotReady(format!("{cursor} is ahead of this tailer, which is catching up")))
            }
        }
    }

    /// Ends every consumer and every bootstrap with [`TailError::Closing`].
    pub fn close(&self) {
        self.0.stop.cancel();
    }

    /// Waits, after [`Tailer::close`], until bootstraps that were cut off have let go of what they held.
    pub async fn drained(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    pub(crate) fn metrics(&self) -> &TailerMetrics {
        &self.0.metrics
    }

    pub(crate) fn bootstraps(&self) -> &Arc<AtomicUsize> {
        &self.0.bootstraps
    }

    pub(crate) async fn value_once(&self, pointer: &BlobPointer) -> Result<Bytes, TailError> {
        self.0.fetcher.value_once(pointer).await
    }

    /// The value at `pointer`, small enough to be held: fetched once for all consumers that want it meanwhile.
    ///
    /// # Errors
    /// [`TailError::Gone`], [`TailError::Damaged`], [`TailError::Store`].
    pub async fn value(&self, pointer: &BlobPointer) -> Result<Bytes, TailError> {
        self.0.fetcher.value(pointer).await
    }

    /// The next window of a value that is read piece by piece; `None` after the last.
    ///
    /// # Errors
    /// As [`Tailer::value`].
    pub async fn window(&self, reader: &mut ValueReader) -> Result<Option<Vec<Bytes>>, TailError> {
        self.0.fetcher.value_window(reader).await
    }

    /// The change with this number; `None` above the head.
    ///
    /// # Errors
    /// [`TailError`]; `CursorExpired` where the log no longer holds it.
    pub async fn change(&self, seq: SeqNo) -> Result<Option<Row>, TailError> {
        let manifest = self.manifest()?;
        if seq <= manifest.trimmed_seq {
            let trimmed = manifest.trimmed_seq;
            let earliest = Cursor { database: manifest.database, lineage: manifest.lineage, seq: trimmed };
            return Err(TailError::CursorExpired { trimmed, earliest });
        }
        if seq > manifest.last_seq {
            return Ok(None);
        }
        let mut consumer = self.consume(From::Seq(seq)).await?;
        let delivery = consumer.next().await?;
        Ok(delivery.rows().find(|r| r.seq == seq).map(|r| r.to_row()))
    }

    /// Commits of groups' cursors.
    pub(crate) fn commits(&self) -> &Commits {
        &self.0.commits
    }

    /// The newest manifest known.
    pub(crate) fn manifest(&self) -> Result<Arc<Manifest>, TailError> {
        let current = self.0.current.borrow();
        if let Some(c) = current.as_ref() {
            return Ok(Arc::clone(&c.manifest));
        }
        let why = self.trouble(None).unwrap_or_default();
        Err(TailError::NotReady(why))
    }

    /// The first sequence number written at `time` or later. Write times never decrease with the number.
    async fn first_at(&self, manifest: &Manifest, time: Timestamp) -> Result<SeqNo, TailError> {
        let at = manifest.log.partition_point(|e| e.last_time < time);
        let Some(entry) = manifest.log.get(at) else { return Ok(manifest.last_seq.next()) };
        let (mut low, mut high) = (entry.id.first_seq, entry.last_seq);
        // Blocks, not rows, are what is looked at: a handful of steps even in a large chunk.
        while low < high {
            let middle = SeqNo(low.0.midpoint(high.0));
            let block = self.0.fetcher.block(entry, middle).await?;
            match block.rows().find(|r| r.time >= time) {
                Some(row) if row.seq > block.first_seq || block.first_seq <= low => {
                    return Ok(row.seq.max(low));
                }
                Some(row) => high = row.seq,
                None => low = block.last_seq().next().min(high),
            }
        }
        Ok(low)
    }
}

/// Whether a cursor may be of a later state of this database than `manifest`: beyond its head, or of a history that
/// began since.
fn is_ahead(manifest: &Manifest, cursor: Cursor) -> bool {
    cursor.database == manifest.database
        && (cursor.lineage != manifest.lineage || cursor.seq > manifest.last_seq)
}

/// The number after a cursor's, where the cursor fits this history.
fn after(manifest: &Manifest, cursor: Cursor) -> Result<SeqNo, TailError> {
    let wrong = |why: String| TailError::WrongCursor { cursor, lineage: manifest.lineage, why };
    if cursor.database != manifest.database {
        return Err(wrong(format!("it is of database {}, this is {}", cursor.database, manifest.database)));
    }
    if cursor.lineage != manifest.lineage {
        return Err(wrong(format!("it is of lineage {}, this is {}", cursor.lineage, manifest.lineage)));
    }
    if cursor.seq > manifest.last_seq {
        return Err(wrong(format!("it lies beyond the head, which is at {}", manifest.last_seq)));
    }
    Ok(cursor.seq.next())
}

/// A consumer's place among `max_consumers`.
#[derive(Debug)]
struct Slot(Arc<Shared>);

impl Slot {
    fn take(shared: &Arc<Shared>) -> Result<Self, TailError> {
        let most = shared.settings.max_consumers;
        let before = shared.consumers.fetch_add(1, Ordering::Relaxed);
        let slot = Self(Arc::clone(shared));
        if before >= most {
            return Err(TailError::Overloaded(most));
        }
        shared.metrics.consumers.set(before as u64 + 1);
        Ok(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let left = self.0.consumers.fetch_sub(1, Ordering::Relaxed) - 1;
        self.0.metrics.consumers.set(left as u64);
    }
}

/// Changes delivered together: the rows of one block from `from` to `to`, shared with every other consumer of it.
#[derive(Debug, Clone)]
pub struct Delivery {
    block: RawBlock,
    from: SeqNo,
    /// Last sequence number delivered.
    pub to: SeqNo,
}

impl Delivery {
    /// The changes in sequence order.
    pub fn rows(&self) -> impl Iterator<Item = RowRef<'_>> + '_ {
        self.block
            .rows()
            .skip((self.from.0 - self.block.first_seq.0) as usize)
            .take_while(|r| r.seq <= self.to)
    }
}

/// One consumer's place in the log.
#[derive(Debug)]
pub struct Consumer {
    tailer: Tailer,
    current: watch::Receiver<Option<Current>>,
    next: SeqNo,
    _slot: Slot,
}

impl Consumer {
    /// The next changes, waiting at the head until there are some. Cancelling the wait loses nothing.
    ///
    /// # Errors
    /// [`TailError`]; the position stays where it was, and the call may be repeated.
    pub async fn next(&mut self) -> Result<Delivery, TailError> {
        let stop = self.tailer.0.stop.clone();
        let mut gone: Option<(isle_storage::ids::Version, String)> = None;
        loop {
            let manifest = self.tailer.manifest()?;
            self.refuse_expired(&manifest)?;
            let stuck = gone.as_ref().is_some_and(|(v, _)| *v == manifest.version);
            if let Some(entry) = manifest.log_from(self.next).first().filter(|_| !stuck) {
                match self.deliver(entry).await {
                    Err(TailError::Gone(why)) => {
                        // A flush has replaced the object; the manifest that says so is on its way.
                        gone = Some((manifest.version, why));
                        continue;
                    }
                    other => return other,
                }
            }
            let patience = if stuck { GONE_PATIENCE } else { Duration::MAX };
            let newer =
                self.current.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.version > manifest.version));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(TailError::Closing),
                changed = newer => if changed.is_err() { return Err(TailError::Closing) },
                () = tokio::time::sleep(patience) => {
                    let (_, why) = gone.take().unwrap_or_default();
                    return Err(TailError::Gone(why));
                }
            }
        }
    }

    async fn deliver(&mut self, entry: &LogEntry) -> Result<Delivery, TailError> {
        let shared = &self.tailer.0;
        // A start beyond the head (`seq:<n>`) lies in no entry until the log has grown to it.
        let from = self.next.max(entry.id.first_seq);
        let stop = shared.stop.clone();
        let block = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(TailError::Closing),
            block = shared.fetcher.block(entry, from) => block?,
        };
        let to = block.last_seq();
        let delivery = Delivery { block, from, to };
        let count = to.0 + 1 - from.0;
        shared.metrics.delivered.inc_by(count);
        if to == self.head() {
            let now = shared.db.env.clock.now();
            if let Some(last) = delivery.rows().last() {
                let micros = now.micros().saturating_sub(last.time.micros()).max(0);
                shared.metrics.delivery_seconds.observe(micros as f64 / 1e6);
            }
        }
        self.next = to.next();
        Ok(delivery)
    }

    /// Goes back so that the change after `seq` is the next: for a page that was cut before its delivery's end.
    pub fn rewind_to(&mut self, seq: SeqNo) {
        self.next = seq.next();
    }

    /// The position after everything delivered so far.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        let identity = &self.tailer.0.db.identity;
        let lineage = self.current.borrow().as_ref().map_or(identity.lineage, |c| c.manifest.lineage);
        Cursor { database: identity.database, lineage, seq: SeqNo(self.next.0 - 1) }
    }

    /// The cursor of the change `seq`.
    #[must_use]
    pub fn cursor_at(&self, seq: SeqNo) -> Cursor {
        Cursor { seq, ..self.cursor() }
    }

    /// The newest committed sequence number known.
    #[must_use]
    pub fn head(&self) -> SeqNo {
        self.current.borrow().as_ref().map(|c| c.manifest.last_seq).unwrap_or_default()
    }

    /// Whether everything known to be committed has been delivered.
    #[must_use]
    pub fn caught_up(&self) -> bool {
        self.next > self.head()
    }

    fn refuse_expired(&self, manifest: &Manifest) -> Result<(), TailError> {
        if self.next > manifest.trimmed_seq {
            return Ok(());
        }
        let trimmed = manifest.trimmed_seq;
        let earliest = Cursor { database: manifest.database, lineage: manifest.lineage, seq: trimmed };
        Err(TailError::CursorExpired { trimmed, earliest })
    }
}
