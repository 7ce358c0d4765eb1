//! Encodes the rows of one block; the table's builder decides where a block ends.

use super::block::COUNTS_LEN;
use super::entry::{self, Base};
use crate::row::RowRef;

/// Entries from one restart point to the next: searching within costs about as much as one more step to get there.
const RESTART_INTERVAL: usize = 16;

/// Bytes of entries after which the next one is a restart point, however few they were: every step from entry to entry
/// past a large value is a wait for memory, which a search among restart points mostly saves.
const RESTART_BYTES: usize = 1024;

/// The open block.
#[derive(Debug)]
pub(super) struct BlockEncoder {
    out: Vec<u8>,
    restarts: Vec<u32>,
    rows: usize,
    /// Rows since the newest restart point, itself included.
    since_restart: usize,
    base: Base,
}

impl BlockEncoder {
    pub(super) fn new(capacity: usize) -> Self {
        let out = Vec::with_capacity(capacity);
        Self { out, restarts: Vec::new(), rows: 0, since_restart: 0, base: Base::default() }
    }

    /// Appends a row whose key shares `shared` bytes with the key of the row before it in this block.
    pub(super) fn push(&mut self, row: &RowRef<'_>, shared: usize) {
        if self.rows == 0 {
            self.base = Base { seq: row.seq.0, time: row.time.0 };
            self.out.extend_from_slice(&row.seq.0.to_le_bytes());
            self.out.extend_from_slice(&row.time.0.to_le_bytes());
        }
        let restarts_here = self.restarts_here();
        if restarts_here {
            self.restarts.push(self.out.len() as u32);
            self.since_restart = 0;
        }
        entry::encode(&mut self.out, if restarts_here { 0 } else { shared }, row, self.base);
        self.rows += 1;
        self.since_restart += 1;
    }

    /// Whether the next row is a restart point.
    fn restarts_here(&self) -> bool {
        let Some(newest) = self.restarts.last() else { return true };
        self.since_restart >= RESTART_INTERVAL || self.out.len() - *newest as usize >= RESTART_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.out.len() + 4 * self.restarts.len() + COUNTS_LEN
    }

    /// The block's bytes; the encoder is empty again, and wants a buffer to go on.
    pub(super) fn take(&mut self) -> Vec<u8> {
        for restart in &self.restarts {
            self.out.extend_from_slice(&restart.to_le_bytes());
        }
        self.out.extend_from_slice(&(self.restarts.len() as u32).to_le_bytes());
        self.out.extend_from_slice(&(self.rows as u32).to_le_bytes());
        self.restarts.clear();
        self.rows = 0;
        std::mem::take(&mut self.out)
    }

    /// The buffer for the next block; what it holds is dropped.
    pub(super) fn give(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.out = buffer;
    }
}
