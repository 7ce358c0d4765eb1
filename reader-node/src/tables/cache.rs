//! The cache: decoded blocks and table metadata under one byte budget.
//!
//! Metadata is favoured: it answers "not here" for every key, and one lost costs a whole table's tail to fetch again.
//! So it is not evicted while all metadata together takes less than half of the budget; beyond that it competes like
//! any block. What is cached owns exactly its bytes: a block never keeps the larger buffer alive that it was fetched
//! in (see [`super::reads`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use isle_storage::sst::{Block, TableMeta};
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

/// Smallest share of the budget one shard gets, so that a large table's metadata fits one.
const SHARD_BYTES: u64 = 32 << 20;
const MAX_SHARDS: u64 = 16;

/// What an entry costs beyond its own bytes: key, links, reference counts.
const ENTRY_BYTES: u64 = 96;

/// A block's typical size, from which the number of entries is estimated.
const TYPICAL_BLOCK: u64 = 16 << 10;

/// Name of something cached: a table and which part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    table: u64,
    part: u32,
}

impl Slot {
    pub(crate) fn meta(table: u64) -> Self {
        Self { table, part: u32::MAX }
    }

    /// Data block `i`; a table has far fewer than `u32::MAX` of them.
    pub(crate) fn block(table: u64, i: usize) -> Self {
        Self { table, part: i as u32 }
    }
}

/// Something cached.
#[derive(Debug, Clone)]
pub(crate) enum Cached {
    Meta(Arc<TableMeta>),
    Block(Block),
}

impl Cached {
    fn bytes(&self) -> u64 {
        ENTRY_BYTES
            + match self {
                Self::Meta(m) => m.memory() as u64,
                Self::Block(b) => b.memory() as u64,
            }
    }
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Slot, Cached> for Bytes {
    fn weight(&self, _slot: &Slot, value: &Cached) -> u64 {
        value.bytes()
    }
}

/// Keeps count of metadata and holds on to it while there is little of it.
#[derive(Debug, Clone)]
struct Favour {
    meta_bytes: Arc<AtomicU64>,
    limit: u64,
}

impl Favour {
    fn forget(&self, value: &Cached) {
        if matches!(value, Cached::Meta(_)) {
            self.meta_bytes.fetch_sub(value.bytes(), Ordering::Relaxed);
        }
    }
}

impl Lifecycle<Slot, Cached> for Favour {
    type RequestState = ();

    fn begin_request(&self) -> Self::RequestState {}

    fn is_pinned(&self, _slot: &Slot, value: &Cached) -> bool {
        matches!(value, Cached::Meta(_)) && self.meta_bytes.load(Ordering::Relaxed) <= self.limit
    }

    fn on_evict(&self, (): &mut Self::RequestState, _slot: Slot, value: Cached) {
        self.forget(&value);
    }
}

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    inner: quick_cache::sync::Cache<Slot, Cached, Bytes, quick_cache::DefaultHashBuilder, Favour>,
    favour: Favour,
}

impl Cache {
    /// A cache that holds at most `budget` bytes.
    pub(crate) fn new(budget: u64) -> Self {
        let favour = Favour { meta_bytes: Arc::default(), limit: budget / 2 };
        let shards = (budget / SHARD_BYTES).clamp(1, MAX_SHARDS);
        let items = (budget / TYPICAL_BLOCK).max(16);
        let hasher = quick_cache::DefaultHashBuilder::default();
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items as usize)
            .weight_capacity(budget)
            .shards(shards as usize)
            .build();
        let inner = match options {
            Ok(o) => quick_cache::sync::Cache::with_options(o, Bytes, hasher, favour.clone()),
            Err(_) => quick_cache::sync::Cache::with(items as usize, budget, Bytes, hasher, favour.clone()),
        };
        Self { inner, favour }
    }

    pub(crate) fn meta(&self, table: u64) -> Option<Arc<TableMeta>> {
        match self.inner.get(&Slot::meta(table))? {
            Cached::Meta(meta) => Some(meta),
            Cached::Block(_) => None,
        }
    }

    pub(crate) fn block(&self, table: u64, i: usize) -> Option<Block> {
        match self.inner.get(&Slot::block(table, i))? {
            Cached::Block(block) => Some(block),
            Cached::Meta(_) => None,
        }
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<Cached> {
        self.inner.get(&slot)
    }

    pub(crate) fn insert(&self, slot: Slot, value: Cached) {
        if matches!(value, Cached::Meta(_)) {
            self.favour.meta_bytes.fetch_add(value.bytes(), Ordering::Relaxed);
        }
        self.inner.insert(slot, value);
    }

    pub(crate) fn remove(&self, slot: Slot) {
        if let Some((_, value)) = self.inner.remove(&slot) {
            self.favour.forget(&value);
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        self.inner.weight()
    }

    /// Bytes of metadata held.
    pub(crate) fn meta_bytes(&self) -> u64 {
        self.favour.meta_bytes.load(Ordering::Relaxed)
    }

    /// Things held.
    pub(crate) fn len(&self) -> usize {
        self.inner.len()
    }
}
