//! The engine's face: open a reader, read.
//!
//! A read chooses its view first ([`Reader::point`]), and is then answered from that view alone, judged at one
//! instant. Where the view names an object that is gone, the read is answered once more from a newer view; where no
//! newer one comes in time, it fails as [`ReadError::ViewExpired`], never as "not found".

mod held;
mod open;
mod point;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use isle_storage::database::Database;
use isle_storage::ids::{SeqNo, Timestamp, Version};
use isle_storage::manifest::Manifest;
use isle_storage::row::{MAX_INLINE_VALUE_LEN, MAX_KEY_LEN, Row, Value};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use self::held::HeldViews;
pub use self::open::OpenAnswer;
use crate::error::ReadError;
use crate::follow::{Follower, Shared};
use crate::get::{self, Lookup, Supply, Turn};
use crate::health::Health;
use crate::metrics::ReaderMetrics;
use crate::mget::Mget;
use crate::options::{ReadOptions, ScanRequest};
use crate::pins::Pins;
use crate::scan::Scan;
use crate::settings::{InvalidSettings, ReaderSettings};
use crate::status::{CacheStatus, Status, TreeStatus};
use crate::tables::{Cache, FetchError, Reads};
use crate::view::{ReadPoint, View};

/// How long a read whose view has expired waits for a newer one.
const RELOAD_WAIT: Duration = Duration::from_secs(2);

/// A value with what is known of its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The value.
    pub value: Bytes,
    /// Length of a value that is too large to come among others, over 8 MiB: [`Found::value`] is empty then, and
    /// [`Reader::open_value`] has it. Only multi-gets leave one out.
    pub elsewhere: Option<u64>,
    /// The row's sequence number.
    pub seq: SeqNo,
    /// When it was written.
    pub time: Timestamp,
    /// When it stops being visible, if ever.
    pub expires: Option<Timestamp>,
}

/// Answer of [`Reader::get`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetAnswer {
    /// The value; `None`: certainly absent in this view.
    pub found: Option<Found>,
    /// The sequence number up to which the answer is true.
    pub view_seq: SeqNo,
}

/// What is known of a row without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headline {
    /// Length of the value in bytes.
    pub value_len: u64,
    /// The row's sequence number.
    pub seq: SeqNo,
    /// When it was written.
    pub time: Timestamp,
    /// When it stops being visible, if ever.
    pub expires: Option<Timestamp>,
}

/// Answer of [`Reader::head`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadAnswer {
    /// The row; `None`: certainly absent in this view.
    pub found: Option<Headline>,
    /// The sequence number up to which the answer is true.
    pub view_seq: SeqNo,
}

/// Answer of [`Reader::mget`]: every key at the same view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MgetAnswer {
    /// In the order of the keys.
    pub found: Vec<Option<Found>>,
    /// The sequence number up to which the answers are true.
    pub view_seq: SeqNo,
}

/// A reader of one database. Clones share everything; when the last one is dropped, following ends.
#[derive(Debug, Clone)]
pub struct Reader {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    db: Database,
    settings: Arc<ReaderSettings>,
    shared: Arc<Shared>,
    reads: Arc<Reads>,
    held: Arc<HeldViews>,
    pins: Arc<Pins>,
    /// The head as it was last read for a snapshot that the view did not know, and when that began.
    looked_up: tokio::sync::Mutex<Option<(Instant, Arc<Manifest>)>>,
    metrics: ReaderMetrics,
    stop: CancellationToken,
    _stops_with_the_last_clone: DropGuard,
}

impl Reader {
    /// Opens a reader: it starts to follow the head at once and answers as soon as it has a view ([`Reader::ready`]).
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`InvalidSettings`].
    pub fn open(db: Database, settings: ReaderSettings) -> Result<Self, InvalidSettings> {
        settings.validate()?;
        let settings = Arc::new(settings);
        let metrics = ReaderMetrics::register(&db.env.metrics);
        let cache = Arc::new(Cache::new(settings.cache_bytes));
        let reads = Arc::new(Reads::new(Arc::clone(&db.bucket), cache, &settings, metrics.clone()));
        let shared = Arc::new(Shared::new(Arc::clone(&db.env.clock)));
        let pins = Pins::new(&db, &settings, &metrics);
        let held = Arc::new(HeldViews::new(&settings));
        let stop = CancellationToken::new();
        let follower = Follower::new(
            db.clone(),
            Arc::clone(&settings),
            Arc::clone(&shared),
            Arc::clone(&reads),
            Arc::clone(&held),
            metrics.clone(),
        );
        tokio::spawn(follower.run(stop.clone()));
        let guard = stop.clone().drop_guard();
        let inner = Inner {
            db,
            settings,
            shared,
            reads,
            held,
            pins,
            looked_up: tokio::sync::Mutex::default(),
            metrics,
            stop,
            _stops_with_the_last_clone: guard,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Resolves once there is a view.
    ///
    /// # Errors
    /// [`ReadError::Closed`].
    pub async fn ready(&self) -> Result<(), ReadError> {
        let mut views = self.inner.shared.subscribe();
        tokio::select! {
            biased;
            () = self.inner.stop.cancelled() => Err(ReadError::Closed),
            there = views.wait_for(Option::is_some) => there.map(drop).map_err(|_| ReadError::Closed),
        }
    }

    /// Resolves once the view has reached `version`.
    ///
    /// # Errors
    /// [`ReadError::Closed`].
    pub async fn reached(&self, version: Version) -> Result<(), ReadError> {
        let mut views = self.inner.shared.subscribe();
        let there = |view: &Option<Arc<View>>| view.as_ref().is_some_and(|v| v.version() >= version);
        tokio::select! {
            biased;
            () = self.inner.stop.cancelled() => Err(ReadError::Closed),
            there = views.wait_for(there) => there.map(drop).map_err(|_| ReadError::Closed),
        }
    }

    /// Stops following. Reads under way end; later ones answer from the last view.
    pub fn close(&self) {
        self.inner.stop.cancel();
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.stop.is_cancelled()
    }

    /// The value of `key`, whole: for one that may be too large to be held there is [`Reader::open_value`].
    ///
    /// # Errors
    /// [`ReadError`]; absence is not an error.
    pub async fn get(&self, key: &[u8], options: &ReadOptions) -> Result<GetAnswer, ReadError> {
        self.inner.metrics.gets.inc();
        if options.is_plain()
            && let Some(answer) = self.get_at_hand(key)
        {
            return answer;
        }
        Box::pin(self.get_from_afar(key, options)).await
    }

    /// The value of `key` from the newest view if that takes no waiting; `None` where something must be fetched.
    #[must_use]
    pub fn try_get_cached(&self, key: &[u8]) -> Option<Result<GetAnswer, ReadError>> {
        self.inner.metrics.gets.inc();
        self.get_at_hand(key)
    }

    fn get_at_hand(&self, key: &[u8]) -> Option<Result<GetAnswer, ReadError>> {
        let point = match check_key(key).and_then(|()| self.newest()) {
            Ok(point) => point,
            Err(e) => return Some(Err(e)),
        };
        let mut lookup = Lookup::new(&point.view, key, point.max_seq);
        let row = match lookup.in_memory() {
            Some(row) => Some(row),
            None => match lookup.advance(&self.inner.reads, Supply::Nothing) {
                Turn::Done(row) => row,
                _ => return None,
            },
        };
        let found = match row.filter(|row| is_visible(row, point.now)) {
            Some(Row { value: Value::Blob(_), .. }) => return None,
            Some(row) => inline(row),
            None => None,
        };
        Some(Ok(GetAnswer { found, view_seq: point.max_seq }))
    }

    async fn get_from_afar(&self, key: &[u8], options: &ReadOptions) -> Result<GetAnswer, ReadError> {
        check_key(key)?;
        let point = self.point(options).await?;
        let found = match self.get_at(&point, key).await {
            Err(FetchError::Gone { object }) => {
                let point = self.reload(&point, object, options).await?;
                return Ok(GetAnswer { found: self.get_at(&point, key).await?, view_seq: point.max_seq });
            }
            other => other?,
        };
        Ok(GetAnswer { found, view_seq: point.max_seq })
    }

    /// What is known of `key` without its value.
    ///
    /// # Errors
    /// [`ReadError`]; absence is not an error.
    pub async fn head(&self, key: &[u8], options: &ReadOptions) -> Result<HeadAnswer, ReadError> {
        check_key(key)?;
        self.inner.metrics.gets.inc();
        let mut point = self.point(options).await?;
        let row = match self.row_at(&point, key).await {
            Err(FetchError::Gone { object }) => {
                point = self.reload(&point, object, options).await?;
                self.row_at(&point, key).await?
            }
            other => other?,
        };
        Ok(HeadAnswer { found: row.and_then(|r| headline(&r)), view_seq: point.max_seq })
    }

    /// The values of several keys, all at the same view.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn mget(&self, keys: &[Bytes], options: &ReadOptions) -> Result<MgetAnswer, ReadError> {
        let mut answers = self.mget_rows(keys.to_vec(), options).await?;
        let mut found = Vec::with_capacity(keys.len());
        while let Some((_, answer)) = answers.next().await? {
            found.push(answer);
        }
        Ok(MgetAnswer { found, view_seq: answers.view_seq() })
    }

    /// The same, answer by answer: for values that together are too large to be held at once.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn mget_rows(&self, keys: Vec<Bytes>, options: &ReadOptions) -> Result<Mget, ReadError> {
        let limit = self.inner.settings.max_mget_keys;
        if keys.len() > limit {
            return Err(ReadError::OverLimit { what: "the number of keys", asked: keys.len(), limit });
        }
        keys.iter().try_for_each(|k| check_key(k))?;
        self.inner.metrics.gets.inc_by(keys.len() as u64);
        let point = self.point(options).await?;
        let mut answers = Mget::new(self.clone(), options.clone(), point, keys);
        answers.begin().await?;
        Ok(answers)
    }

    /// Starts a scan.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn scan(&self, request: &ScanRequest) -> Result<Scan, ReadError> {
        self.inner.metrics.scans.inc();
        let point = self.scan_point(request).await?;
        match self.scan_at(point.clone(), request).await {
            // A page that promised one view does not go on in another.
            Err(FetchError::Gone { .. }) if request.page.is_some() && request.consistent => {
                Err(ReadError::PageExpired)
            }
            Err(FetchError::Gone { object }) => {
                let point = self.reload(&point, object, &request.options).await?;
                Ok(self.scan_at(point, request).await?)
            }
            other => Ok(other?),
        }
    }

    async fn scan_at(&self, point: ReadPoint, request: &ScanRequest) -> Result<Scan, FetchError> {
        let (inner, ahead) = (&self.inner, self.inner.settings.read_ahead_bytes);
        let hold = inner.pins.look_after(&point.view);
        let delivered = inner.metrics.scanned_rows.clone();
        Scan::open(&inner.reads, &inner.held, hold, point, request, ahead, delivered).await
    }

    pub(crate) async fn get_at(&self, point: &ReadPoint, key: &[u8]) -> Result<Option<Found>, FetchError> {
        let Some(row) = self.row_at(point, key).await? else { return Ok(None) };
        if let Value::Blob(pointer) = &row.value {
            let value = self.inner.reads.value(pointer).await?;
            let (seq, time, expires) = (row.seq, row.time, row.expires);
            return Ok(Some(Found { value, elsewhere: None, seq, time, expires }));
        }
        Ok(inline(row))
    }

    /// What a multi-get answers for `row`.
    pub(crate) async fn found_in(&self, row: Row) -> Result<Option<Found>, FetchError> {
        let Value::Blob(pointer) = &row.value else { return Ok(inline(row)) };
        let (value, elsewhere) = if pointer.len > MAX_INLINE_VALUE_LEN as u64 {
            (Bytes::new(), Some(pointer.len))
        } else {
            (self.inner.reads.value(pointer).await?, None)
        };
        Ok(Some(Found { value, elsewhere, seq: row.seq, time: row.time, expires: row.expires }))
    }

    /// The visible row of `key`.
    pub(crate) async fn row_at(&self, point: &ReadPoint, key: &[u8]) -> Result<Option<Row>, FetchError> {
        let mut lookup = Lookup::new(&point.view, key, point.max_seq);
        let row = match lookup.in_memory() {
            Some(row) => Some(row),
            None => {
                let turn = lookup.advance(&self.inner.reads, Supply::Nothing);
                get::lookup(&self.inner.reads, lookup, turn).await?
            }
        };
        Ok(row.filter(|row| is_visible(row, point.now)))
    }

    /// Whether the reader serves, and how well.
    #[must_use]
    pub fn health(&self) -> Health {
        let shared = &self.inner.shared;
        Health::judge(shared.age(), self.inner.settings.max_view_age(), shared.troubles())
    }

    /// The reader at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        let view = self.inner.shared.view();
        let health = self.health();
        let manifest = view.as_ref().map(|v| &v.manifest);
        Status {
            version: manifest.map(|m| m.version).unwrap_or_default(),
            seq: manifest.map(|m| m.last_seq).unwrap_or_default(),
            flushed_seq: manifest.map(|m| m.flushed_seq).unwrap_or_default(),
            epoch: manifest.map(|m| m.epoch).unwrap_or_default(),
            view_age_seconds: health.view_age.map(|age| age.as_secs_f64()),
            reasons: health.reasons,
            tree: view.as_deref().map(TreeStatus::of).unwrap_or_default(),
            cache: CacheStatus::of(&self.inner.reads, self.inner.settings.cache_bytes),
        }
    }

    /// Version and sequence number of the view; zeros before the first.
    #[must_use]
    pub fn position(&self) -> (Version, SeqNo) {
        let view = self.inner.shared.view();
        view.map(|v| (v.version(), v.seq())).unwrap_or_default()
    }

    /// The settings it was opened with.
    #[must_use]
    pub fn settings(&self) -> &ReaderSettings {
        &self.inner.settings
    }

    /// The database it reads.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.inner.db
    }
}

fn check_key(key: &[u8]) -> Result<(), ReadError> {
    if (1..=MAX_KEY_LEN).contains(&key.len()) { Ok(()) } else { Err(ReadError::InvalidKey(key.len())) }
}

fn is_visible(row: &Row, now: Timestamp) -> bool {
    !matches!(row.value, Value::Delete) && row.expires.is_none_or(|e| e > now)
}

/// The answer of a row that carries its value.
fn inline(row: Row) -> Option<Found> {
    let Value::Put(value) = row.value else { return None };
    Some(Found { value, elsewhere: None, seq: row.seq, time: row.time, expires: row.expires })
}

fn headline(row: &Row) -> Option<Headline> {
    let value_len = match &row.value {
        Value::Put(value) => value.len() as u64,
        Value::Blob(pointer) => pointer.len,
        Value::Delete => return None,
    };
    Some(Headline { value_len, seq: row.seq, time: row.time, expires: row.expires })
}
