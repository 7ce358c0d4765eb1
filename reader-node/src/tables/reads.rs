//! Reading tables: the cache first, then the bucket, never the same range twice at once.
//!
//! A miss becomes a *flight*: one task that fetches, verifies, decodes and caches, joined by everybody who misses the
//! same range meanwhile. The task is its own master: a caller that goes away takes nobody's answer with it. Flights
//! wait for one of a bounded number of permits, so that a cold start asks the bucket for so much at a time and no
//! more.
//!
//! What is cached shares no memory with the read it came from: a block of 16 KiB must not keep a megabyte alive.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use isle_storage::format::FormatError;
use isle_storage::names::ObjectPath;
use isle_storage::object::{Bucket, StoreError};
use isle_storage::sst::{Block, TableMeta};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::cache::{Cache, Cached, Slot};
use super::catalog::Table;
use super::values::UNIT as VALUE_UNIT;
use crate::error::ReadError;
use crate::metrics::ReaderMetrics;
use crate::settings::ReaderSettings;

/// Unit of the read-ahead budget.
const AHEAD_UNIT: u64 = 1 << 10;

/// Why something a view names could not be had.
#[derive(Debug, Clone)]
pub(crate) enum FetchError {
    /// The object is gone: the view is too old.
    Gone { object: String },
    /// The bytes are not what was written.
    Damaged { object: String, why: String },
    /// The store failed.
    Store(String),
}

impl From<FetchError> for ReadError {
    fn from(e: FetchError) -> Self {
        match e {
            FetchError::Gone { object } => Self::ViewExpired { object },
            FetchError::Damaged { object, why } => Self::Damaged { object, why },
            FetchError::Store(why) => Self::Store(why),
        }
    }
}

impl From<StoreError> for FetchError {
    fn from(e: StoreError) -> Self {
        if e.is_not_found() { Self::Gone { object: e.path } } else { Self::Store(e.to_string()) }
    }
}

impl FetchError {
    fn format(path: &ObjectPath, e: &FormatError) -> Self {
        Self::Damaged { object: path.to_string(), why: e.to_string() }
    }
}

type Flight = Shared<BoxFuture<'static, Result<Cached, FetchError>>>;

/// What a flight fetches and how it is decoded.
#[derive(Debug, Clone, Copy)]
enum Part {
    Meta { offset: u64 },
    Block,
}

impl Part {
    fn decode(self, bytes: Bytes) -> Result<Cached, FormatError> {
        match self {
            Self::Meta { offset } => Ok(Cached::Meta(Arc::new(TableMeta::decode(bytes, offset)?))),
            Self::Block => Ok(Cached::Block(Block::decode(&bytes)?)),
        }
    }
}

/// Neighbouring blocks read ahead, in table order, with their share of the read-ahead budget.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) blocks: Vec<Block>,
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// All reading of tables.
#[derive(Debug)]
pub(crate) struct Reads {
    bucket: Arc<dyn Bucket>,
    cache: Arc<Cache>,
    flights: Mutex<HashMap<Slot, Flight>>,
    permits: Semaphore,
    ahead: Arc<Semaphore>,
    /// Bytes of values from blob files, and how many units of them there are.
    values: (Arc<Semaphore>, u64),
    metrics: ReaderMetrics,
}

impl Reads {
    pub(crate) fn new(
        bucket: Arc<dyn Bucket>,
        cache: Arc<Cache>,
        settings: &ReaderSettings,
        metrics: ReaderMetrics,
    ) -> Self {
        let values = settings.value_bytes_in_flight.div_ceil(VALUE_UNIT).min(Semaphore::MAX_PERMITS as u64);
        let ahead = (settings.read_ahead_total_bytes / AHEAD_UNIT).min(Semaphore::MAX_PERMITS as u64);
        Self {
            bucket,
            cache,
            flights: Mutex::default(),
            permits: Semaphore::new(settings.max_concurrent_reads),
            ahead: Arc::new(Semaphore::new(ahead as usize)),
            values: (Arc::new(Semaphore::new(values as usize)), values),
            metrics,
        }
    }

    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        (self.metrics.cache_hits.get(), self.metrics.cache_misses.get())
    }

    /// The table's metadata, if it is at hand.
    pub(crate) fn cached_meta(&self, table: &Table) -> Option<Arc<TableMeta>> {
        self.count(self.cache.meta(table.id))
    }

    /// The table's block `i`, if it is at hand.
    pub(crate) fn cached_block(&self, table: &Table, i: usize) -> Option<Block> {
        self.count(self.cache.block(table.id, i))
    }

    fn count<T>(&self, found: Option<T>) -> Option<T> {
        let counter = if found.is_some() { &self.metrics.cache_hits } else { &self.metrics.cache_misses };
        counter.inc();
        found
    }

    /// The table's metadata: one ranged GET where it is not at hand.
    pub(crate) async fn meta(self: &Arc<Self>, table: &Table) -> Result<Arc<TableMeta>, FetchError> {
        let offset = table.entry.meta_offset;
        let range = offset..table.entry.len;
        match self.flight(Slot::meta(table.id), &table.path, range, Part::Meta { offset }).await? {
            Cached::Meta(meta) => Ok(meta),
            Cached::Block(_) => Err(wrong_kind(&table.path)),
        }
    }

    /// The table's block `i`: one ranged GET where it is not at hand.
    pub(crate) async fn block(
        self: &Arc<Self>,
        table: &Table,
        meta: &TableMeta,
        i: usize,
    ) -> Result<Block, FetchError> {
        match self.flight(Slot::block(table.id, i), &table.path, meta.block_range(i), Part::Block).await? {
            Cached::Block(block) => Ok(block),
            Cached::Meta(_) => Err(wrong_kind(&table.path)),
        }
    }

    /// The blocks `range` in one ranged GET; `keep` leaves them in the cache.
    pub(crate) async fn window(
        &self,
        table: &Table,
        meta: &TableMeta,
        range: Range<usize>,
        keep: bool,
    ) -> Result<Window, FetchError> {
        let Some(last) = range.end.checked_sub(1).filter(|last| *last >= range.start) else {
            return Ok(Window { blocks: Vec::new(), permit: None });
        };
        let from = meta.block_range(range.start).start;
        let permit = self.reserve_ahead(meta.block_range(last).end - from);
        let bytes = self.fetch(&table.path, from..meta.block_range(last).end).await?;
        let mut blocks = Vec::with_capacity(range.len());
        for i in range {
            let at = meta.block_range(i);
            let stored = bytes.slice((at.start - from) as usize..(at.end - from) as usize);
            let block = Block::decode(&stored).map_err(|e| FetchError::format(&table.path, &e))?;
            if keep {
                self.cache.insert(Slot::block(table.id, i), Cached::Block(block.clone()));
            }
            blocks.push(block);
        }
        Ok(Window { blocks, permit })
    }

    /// Whether `bytes` may be read ahead at present.
    pub(crate) fn may_read_ahead(&self, bytes: u64) -> bool {
        self.ahead.available_permits() as u64 >= bytes.div_ceil(AHEAD_UNIT)
    }

    fn reserve_ahead(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(AHEAD_UNIT)).ok()?;
        Arc::clone(&self.ahead).try_acquire_many_owned(units).ok()
    }

    pub(super) fn bucket(&self) -> &Arc<dyn Bucket> {
        &self.bucket
    }

    /// The budget of values from blob files, and its size in units.
    pub(super) fn value_budget(&self) -> (&Arc<Semaphore>, u64) {
        (&self.values.0, self.values.1)
    }

    /// The right to one request.
    pub(super) async fn permit(&self) -> Result<SemaphorePermit<'_>, FetchError> {
        self.permits.acquire().await.map_err(|_| FetchError::Store("the reader is closed".to_owned()))
    }

    async fn fetch(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, FetchError> {
        let _permit = self.permit().await?;
        Ok(self.bucket.get_range(path, range).await?)
    }

    async fn flight(
        self: &Arc<Self>,
        slot: Slot,
        path: &ObjectPath,
        range: Range<u64>,
        part: Part,
    ) -> Result<Cached, FetchError> {
        let flight = {
            let mut flights = self.flights.lock();
            if let Some(joined) = flights.get(&slot) {
                joined.clone()
            } else if let Some(landed) = self.cache.get(slot) {
                // It landed between the caller's look and this one.
                return Ok(landed);
            } else {
                let task = Arc::clone(self).fly(slot, path.clone(), range, part);
                let task = tokio::spawn(task).map(|joined| match joined {
                    Ok(result) => result,
                    Err(e) => Err(FetchError::Store(format!("the read was cut off: {e}"))),
                });
                let flight = task.boxed().shared();
                flights.insert(slot, flight.clone());
                flight
            }
        };
        flight.await
    }

    async fn fly(
        self: Arc<Self>,
        slot: Slot,
        path: ObjectPath,
        range: Range<u64>,
        part: Part,
    ) -> Result<Cached, FetchError> {
        let _landing = Landing { reads: &self, slot };
        let bytes = self.fetch(&path, range).await?;
        let decoded = part.decode(bytes).map_err(|e| FetchError::format(&path, &e))?;
        self.cache.insert(slot, decoded.clone());
        Ok(decoded)
    }
}

/// Takes a flight off the list however it ends, after what it brought is in the cache.
struct Landing<'a> {
    reads: &'a Reads,
    slot: Slot,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.reads.flights.lock().remove(&self.slot);
    }
}

fn wrong_kind(path: &ObjectPath) -> FetchError {
    FetchError::Store(format!("the cache holds something else under the name of {path}"))
}
