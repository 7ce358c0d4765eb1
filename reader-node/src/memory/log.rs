//! The succession of generations.
//!
//! Generations rotate where the writer's do (segments that carry `starts_generation`), so that a flush covers whole
//! ones. They also rotate where a flush ended inside one, and at a size of the reader's own: more borders than the
//! writer's only make the release finer. What never happens is a release by anything but the rule: **a generation
//! leaves a view only when its last row is at or below the flushed number.** A reader that joined late may hold one
//! generation across several of the writer's; its rows that are in tables too are merged with them by number.
//!
//! A generation holds *every* row between its first and last number. Where rows were skipped (they were flushed
//! before they could be fetched), everything before the gap is let go as well: it is in tables, and a lookup that met
//! an older row here before a newer one in a table would answer wrongly.

use std::sync::Arc;

use isle_storage::ids::SeqNo;
use isle_storage::log::RawBlock;
use isle_storage::manifest::LogEntry;

use super::Generation;

/// The rows of the log in `(base, loaded]`, in memory.
#[derive(Debug)]
pub(crate) struct MemoryLog {
    /// Oldest first.
    generations: Vec<Arc<Generation>>,
    base: SeqNo,
    loaded: SeqNo,
    generation_bytes: u64,
    rotate: bool,
}

impl MemoryLog {
    pub(crate) fn new(generation_bytes: u64) -> Self {
        Self {
            generations: Vec::new(),
            base: SeqNo::ZERO,
            loaded: SeqNo::ZERO,
            generation_bytes,
            rotate: true,
        }
    }

    /// Whether a manifest flushed to `flushed` and ending at `last_seq` can be read with what is here.
    pub(crate) fn covers(&self, flushed: SeqNo, last_seq: SeqNo) -> bool {
        self.base <= flushed && last_seq <= self.loaded
    }

    /// Whether a manifest flushed to `flushed` can never be read with what is here: rows it needs were let go.
    pub(crate) fn is_past(&self, flushed: SeqNo) -> bool {
        flushed < self.base
    }

    /// Memory taken, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.generations.iter().map(|g| g.bytes()).sum()
    }

    /// Adds a segment that follows what is loaded.
    pub(crate) async fn apply(&mut self, entry: &LogEntry, blocks: Vec<RawBlock>) {
        let full = self.generations.last().is_none_or(|g| g.bytes() >= self.generation_bytes);
        if full || self.rotate || entry.starts_generation {
            self.generations.push(Arc::new(Generation::new(entry.id.first_seq)));
            self.rotate = false;
        }
        if let Some(newest) = self.generations.last() {
            for block in blocks {
                newest.apply(block).await;
            }
        }
        self.loaded = entry.last_seq;
    }

    /// Steps over rows that are in tables already.
    pub(crate) fn skip_to(&mut self, flushed: SeqNo) {
        if flushed > self.loaded {
            self.generations.clear();
            self.rotate = true;
            self.base = flushed;
            self.loaded = flushed;
        }
    }

    /// Lets go of the generations that are wholly in tables, and hands out the others, newest first.
    pub(crate) fn release(&mut self, flushed: SeqNo) -> Vec<Arc<Generation>> {
        while let Some(oldest) = self.generations.first().filter(|g| g.last_seq() <= flushed) {
            self.base = oldest.last_seq();
            self.generations.remove(0);
        }
        if self.generations.last().is_some_and(|g| g.first_seq() <= flushed) {
            // The flush ended inside the newest generation: close it, so that it can leave with the next one.
            self.rotate = true;
        }
        self.generations.iter().rev().cloned().collect()
    }
}
