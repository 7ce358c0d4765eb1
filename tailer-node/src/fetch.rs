//! Log objects, fetched once and shared by every consumer.
//!
//! A log object is cut into *pieces*: a small one is one piece (one GET of the whole object); a large one has an index
//! (one GET of its tail) and windows of adjacent blocks (one ranged GET each). Pieces live in one weighted cache;
//! concurrent requests for one piece are one fetch, however many consumers wait for it.

use std::sync::Arc;

use bytes::Bytes;
use isle_storage::blob::ValueReader;
use isle_storage::database::Database;
use isle_storage::format::FormatError;
use isle_storage::ids::SeqNo;
use isle_storage::log::{self, LogIndex, RawBlock};
use isle_storage::manifest::LogEntry;
use isle_storage::names::LogId;
use isle_storage::object::StoreError;
use isle_storage::row::{BlobId, BlobPointer};
use isle_storage::values::{self, ValueError};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

use crate::error::TailError;
use crate::metrics::TailerMetrics;
use crate::settings::TailerSettings;

/// Memory an entry takes beside its blocks, about.
const ENTRY_OVERHEAD: u64 = 256;

/// Cached entries the cache is sized for at first; it grows by weight, not by count.
const ESTIMATED_ENTRIES: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum PieceKey {
    Whole(LogId, bool),
    Index(LogId, bool),
    Window(LogId, bool, u32),
    Value(BlobId, u64),
}

#[derive(Debug, Clone)]
enum Piece {
    Blocks(Arc<Vec<RawBlock>>),
    Index(Arc<LogIndex>),
    Value(Bytes),
}

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<PieceKey, Piece> for Weight {
    fn weight(&self, _: &PieceKey, piece: &Piece) -> u64 {
        ENTRY_OVERHEAD
            + match piece {
                Piece::Blocks(blocks) => blocks.iter().map(|b| b.raw.len() as u64 + ENTRY_OVERHEAD).sum(),
                Piece::Index(index) => (index.blocks.len() * size_of::<log::BlockHandle>()) as u64,
                Piece::Value(value) => value.len() as u64,
            }
    }
}

/// The shared, bounded store of log pieces.
#[derive(Debug)]
pub struct Fetcher {
    db: Database,
    cache: Cache<PieceKey, Piece, Weight>,
    admission: Semaphore,
    whole_object_bytes: u64,
    window_bytes: u64,
    metrics: TailerMetrics,
}

impl Fetcher {
    /// An empty cache over `db`'s bucket.
    #[must_use]
    pub fn new(db: &Database, settings: &TailerSettings, metrics: &TailerMetrics) -> Self {
        Self {
            db: db.clone(),
            cache: Cache::with_weighter(ESTIMATED_ENTRIES, settings.cache_bytes, Weight),
            admission: Semaphore::new(settings.max_concurrent_fetches),
            whole_object_bytes: settings.whole_object_bytes,
            window_bytes: settings.window_bytes,
            metrics: metrics.clone(),
        }
    }

    /// The block of `entry` that holds `seq`, which must lie within the entry.
    ///
    /// # Errors
    /// [`TailError::Gone`], [`TailError::Damaged`], [`TailError::Store`].
    pub async fn block(&self, entry: &LogEntry, seq: SeqNo) -> Result<RawBlock, TailError> {
        let blocks = if entry.len <= self.whole_object_bytes {
            self.whole(entry).await?
        } else {
            let index = self.index(entry).await?;
            self.window(entry, &index, seq).await?
        };
        let at = blocks.partition_point(|b| b.last_seq() < seq);
        match blocks.get(at) {
            Some(block) if block.first_seq <= seq => Ok(block.clone()),
            _ => Err(TailError::Damaged(format!("{} does not hold sequence number {seq}", entry.path()))),
        }
    }

    /// The value at `pointer`, whole.
    ///
    /// # Errors
    /// [`TailError::Gone`], [`TailError::Damaged`], [`TailError::Store`].
    pub async fn value(&self, pointer: &BlobPointer) -> Result<Bytes, TailError> {
        let key = PieceKey::Value(pointer.blob.clone(), pointer.offset);
        let piece = self.single_flight(key, async { self.value_once(pointer).await.map(Piece::Value) });
        match piece.await? {
            Piece::Value(value) => Ok(value),
            Piece::Blocks(_) | Piece::Index(_) => {
                Err(TailError::Damaged(format!("a value of {} is cached as something else", pointer.blob)))
            }
        }
    }

    /// As [`Fetcher::value`], past the cache: for those who read everything once.
    ///
    /// # Errors
    /// As [`Fetcher::value`].
    pub async fn value_once(&self, pointer: &BlobPointer) -> Result<Bytes, TailError> {
        let mut reader = ValueReader::whole(pointer, self.window_bytes);
        let mut whole = Vec::with_capacity(usize::try_from(pointer.len).unwrap_or_default());
        while let Some(pieces) = self.value_window(&mut reader).await? {
            pieces.iter().for_each(|p| whole.extend_from_slice(p));
        }
        Ok(whole.into())
    }

    /// The next window of a value; `None` after the last.
    ///
    /// # Errors
    /// As [`Fetcher::value`].
    pub async fn value_window(&self, reader: &mut ValueReader) -> Result<Option<Vec<Bytes>>, TailError> {
        let _permit = self.admission.acquire().await.map_err(|_| TailError::Closing)?;
        values::next_window(self.db.bucket.as_ref(), reader).await.map_err(|e| match e {
            ValueError::Store(e) => store(&e),
            e @ ValueError::Damaged { .. } => TailError::Damaged(e.to_string()),
        })
    }

    /// Bytes the cache holds.
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        self.cache.weight()
    }

    async fn whole(&self, entry: &LogEntry) -> Result<Arc<Vec<RawBlock>>, TailError> {
        let key = PieceKey::Whole(entry.id, is_chunk(entry));
        let piece = self.single_flight(key, async {
            let bytes = self.get(entry, 0..entry.len).await?;
            if crc32c::crc32c(&bytes) != entry.crc {
                return Err(damaged(entry, "its checksum is not the one the manifest names"));
            }
            let object = log::decode(&bytes).map_err(|e| broken(entry, &e))?;
            Ok(Piece::Blocks(Arc::new(object.blocks)))
        });
        blocks_of(entry, piece.await?)
    }

    async fn index(&self, entry: &LogEntry) -> Result<Arc<LogIndex>, TailError> {
        let key = PieceKey::Index(entry.id, is_chunk(entry));
        let piece = self.single_flight(key, async {
            let tail = self.get(entry, entry.index_offset..entry.len).await?;
            let index = LogIndex::decode(&tail, entry.index_offset).map_err(|e| broken(entry, &e))?;
            Ok(Piece::Index(Arc::new(index)))
        });
        match piece.await? {
            Piece::Index(index) => Ok(index),
            Piece::Blocks(_) | Piece::Value(_) => {
                Err(damaged(entry, "its index is cached as something else"))
            }
        }
    }

    async fn window(
        &self,
        entry: &LogEntry,
        index: &LogIndex,
        seq: SeqNo,
    ) -> Result<Arc<Vec<RawBlock>>, TailError> {
        let at = index.block_at(seq);
        let (from, to) = window_around(index, at, self.window_bytes)
            .ok_or_else(|| damaged(entry, "its index does not hold the number the manifest says it does"))?;
        let key = PieceKey::Window(entry.id, is_chunk(entry), from as u32);
        let piece = self.single_flight(key, async {
            let handles = &index.blocks[from..to];
            let start = handles[0].offset;
            let last = &handles[handles.len() - 1];
            let bytes = self.get(entry, start..last.offset + u64::from(last.len)).await?;
            let mut blocks = Vec::with_capacity(handles.len());
            for handle in handles {
                let at = (handle.offset - start) as usize;
                // A copy of its own, so that one block kept does not pin the whole window.
                let stored = Bytes::copy_from_slice(&bytes[at..at + handle.len as usize]);
                blocks.push(log::decode_block(handle, &stored).map_err(|e| broken(entry, &e))?);
            }
            Ok(Piece::Blocks(Arc::new(blocks)))
        });
        blocks_of(entry, piece.await?)
    }

    async fn single_flight(
        &self,
        key: PieceKey,
        fetch: impl Future<Output = Result<Piece, TailError>>,
    ) -> Result<Piece, TailError> {
        match self.cache.get_value_or_guard_async(&key).await {
            Ok(piece) => {
                self.metrics.cache_hits.inc();
                Ok(piece)
            }
            Err(guard) => {
                self.metrics.cache_misses.inc();
                let piece = fetch.await?;
                // Refused only where the entry is larger than the whole cache: then it is simply not kept.
                let _ = guard.insert(piece.clone());
                self.metrics.cache_bytes.set(self.cache.weight());
                Ok(piece)
            }
        }
    }

    async fn get(&self, entry: &LogEntry, range: std::ops::Range<u64>) -> Result<Bytes, TailError> {
        let _permit = self.admission.acquire().await.map_err(|_| TailError::Closing)?;
        let path = entry.path();
        let result = if range == (0..entry.len) {
            self.db.bucket.get(&path).await
        } else {
            self.db.bucket.get_range(&path, range).await
        };
        result.map_err(|e| store(&e))
    }
}

/// The fixed window that block `at` falls into: windows are cut from the object's start, so that every consumer asks
/// for the same ones.
fn window_around(index: &LogIndex, at: usize, bytes: u64) -> Option<(usize, usize)> {
    let number = |i: usize| index.blocks[i].offset / bytes;
    let window = number(index.blocks.get(at).map(|_| at)?);
    let from = index.blocks.partition_point(|b| b.offset / bytes < window);
    let to = index.blocks.partition_point(|b| b.offset / bytes <= window);
    Some((from, to))
}

fn is_chunk(entry: &LogEntry) -> bool {
    entry.kind == isle_storage::names::LogKind::Chunk
}

fn blocks_of(entry: &LogEntry, piece: Piece) -> Result<Arc<Vec<RawBlock>>, TailError> {
    match piece {
        Piece::Blocks(blocks) => Ok(blocks),
        Piece::Index(_) | Piece::Value(_) => Err(damaged(entry, "its blocks are cached as something else")),
    }
}

fn broken(entry: &LogEntry, error: &FormatError) -> TailError {
    TailError::Damaged(format!("{}: {error}", entry.path()))
}

fn damaged(entry: &LogEntry, why: &str) -> TailError {
    TailError::Damaged(format!("{} is damaged: {why}", entry.path()))
}

fn store(error: &StoreError) -> TailError {
    if error.is_not_found() {
        TailError::Gone(error.to_string())
    } else {
        TailError::Store(error.to_string())
    }
}
