//! The reader's status: what `/v1/status` shows.

use isle_storage::ids::{Epoch, RunId, SeqNo, Version};
use serde::Serialize;

use crate::tables::Reads;
use crate::view::View;

/// A reader at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Manifest version of the view; zero before the first.
    pub version: Version,
    /// The newest sequence number reads see.
    pub seq: SeqNo,
    /// Everything up to here is in tables.
    pub flushed_seq: SeqNo,
    /// The newest writer epoch.
    pub epoch: Epoch,
    /// How long ago the view was known to be the newest.
    pub view_age_seconds: Option<f64>,
    /// Why the view is behind, old or missing.
    pub reasons: Vec<String>,
    /// The shape of the tree.
    pub tree: TreeStatus,
    /// The cache.
    pub cache: CacheStatus,
}

/// The shape of the tree.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TreeStatus {
    /// In-memory generations.
    pub generations: usize,
    /// Rows in them.
    pub memory_rows: usize,
    /// Memory they take.
    pub memory_bytes: u64,
    /// Sorted runs, newest first.
    pub runs: Vec<RunStatus>,
}

/// One sorted run.
#[derive(Debug, Clone, Serialize)]
pub struct RunStatus {
    /// Its identity.
    pub id: RunId,
    /// Whether no merge has touched it.
    pub l0: bool,
    /// Tables in it.
    pub tables: usize,
    /// Rows in it.
    pub rows: u64,
    /// Stored bytes.
    pub bytes: u64,
}

/// The cache of blocks and metadata.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CacheStatus {
    /// Bytes held.
    pub bytes: u64,
    /// Bytes of metadata among them.
    pub meta_bytes: u64,
    /// Blocks and metadata held.
    pub entries: usize,
    /// The budget.
    pub budget: u64,
    /// Found.
    pub hits: u64,
    /// Not found.
    pub misses: u64,
}

impl TreeStatus {
    pub(crate) fn of(view: &View) -> Self {
        let runs = view.manifest.runs.iter().map(|run| RunStatus {
            id: run.id,
            l0: run.l0,
            tables: run.tables.len(),
            rows: run.tables.iter().map(|t| t.rows).sum(),
            bytes: run.len_bytes(),
        });
        Self {
            generations: view.generations.len(),
            memory_rows: view.generations.iter().map(|g| g.len()).sum(),
            memory_bytes: view.generations.iter().map(|g| g.bytes()).sum(),
            runs: runs.collect(),
        }
    }
}

impl CacheStatus {
    pub(crate) fn of(reads: &Reads, budget: u64) -> Self {
        let (hits, misses) = reads.hits_and_misses();
        let cache = reads.cache();
        Self {
            bytes: cache.bytes(),
            meta_bytes: cache.meta_bytes(),
            entries: cache.len(),
            budget,
            hits,
            misses,
        }
    }
}
