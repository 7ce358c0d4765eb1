//! The engine of a merge: stored blocks in, finished tables out. No I/O and no waiting, so it runs wherever it is put.
//!
//! Everything that costs processor time happens in one turn of it, on one core: a block is verified and opened when the
//! merge reaches it, so it is read while it is still in the cache; its rows go from there into the open block of the
//! table being built; a full block is compressed and checksummed at once. Nothing is allocated for a row. Several cores
//! are used by several engines, each with a range of keys of its own, and never hand rows to one another.

use std::collections::VecDeque;

use bytes::Bytes;
use isle_storage::manifest::KeyRange;
use isle_storage::merge::{Direction, Feed, Merge, Move, Relocation, Rewrite, RewriteCounts, Step};
use isle_storage::sst::{Block, EncodedTable, TableBuilder, TableOptions};

use super::source::{Window, damaged};
use crate::error::JobError;

/// Rows of one turn at most: a few milliseconds.
const ROWS_PER_TURN: u32 = 8192;

/// Tables are built in pieces of about so many bytes: small beside the part of an upload they become.
const PIECE_BYTES: usize = 1 << 20;

/// Why a turn has ended.
#[derive(Debug)]
pub(super) enum Turn {
    /// Lane `.0` wants its next window, or its end.
    Needs(usize),
    /// These pieces of the open table, at least a part of an upload, are as they will be.
    Pieces(Vec<Bytes>),
    /// A table is done, but for what was handed out of it.
    Table(Box<EncodedTable>),
    /// It has run long enough.
    Breath,
    /// Every lane has ended. The last table, if one was open, has been handed out.
    Done,
}

/// How tables are made.
#[derive(Debug, Clone)]
pub(super) struct Making {
    pub(super) options: TableOptions,
    pub(super) table_bytes: u64,
    /// What is finished of an open table is handed out from so many bytes on.
    pub(super) part_bytes: usize,
    /// Tables are named `<owner>-<n>`.
    pub(super) owner: String,
}

impl Making {
    fn table(&self) -> TableBuilder {
        TableBuilder::new(self.options).in_pieces_of(self.part_bytes.min(PIECE_BYTES))
    }
}

/// A merge of some lanes, each a run's blocks.
#[derive(Debug)]
pub(super) struct Engine {
    tree: Merge,
    lanes: Vec<Lane>,
    start: Bytes,
    rewrite: Rewrite,
    relocation: Relocation,
    making: Making,
    next: u64,
    open: Option<TableBuilder>,
    rows_in: u64,
    rows_out: u64,
}

/// What was fetched of one run and not yet opened.
#[derive(Debug, Default)]
struct Lane {
    windows: VecDeque<Window>,
    ended: bool,
    /// Whether its first block has been opened, in which keys below the range may come first.
    begun: bool,
}

impl Engine {
    /// A merge of `lanes` runs over the keys of `range`. Names go on from `next`, places of values from where
    /// `relocation` stands.
    pub(super) fn new(
        lanes: usize,
        range: &KeyRange,
        rewrite: Rewrite,
        relocation: Relocation,
        making: Making,
        next: u64,
    ) -> Self {
        Self {
            tree: Merge::new(lanes, Direction::Forward).bounded(range.end.clone()),
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            start: range.start.clone(),
            rewrite,
            relocation,
            making,
            next,
            open: None,
            rows_in: 0,
            rows_out: 0,
        }
    }

    /// Gives lane `i` its next window; `None` is its end.
    pub(super) fn feed(&mut self, i: usize, window: Option<Window>) {
        let lane = &mut self.lanes[i];
        match window {
            Some(window) => lane.windows.push_back(window),
            None => lane.ended = true,
        }
    }

    /// Goes on until something is needed, done, or long enough.
    ///
    /// # Errors
    /// [`JobError::Damaged`] where a block is.
    pub(super) fn turn(&mut self) -> Result<Turn, JobError> {
        for _ in 0..ROWS_PER_TURN {
            match self.tree.step() {
                Step::Need(i) => {
                    if !self.open_next(i)? {
                        return Ok(Turn::Needs(i));
                    }
                }
                Step::Row => {
                    if let Some(table) = self.take_row()? {
                        return Ok(Turn::Table(Box::new(table)));
                    }
                    if let Some(pieces) = self.finished() {
                        return Ok(Turn::Pieces(pieces));
                    }
                }
                Step::Done => {
                    let last = self.open.take().map(|open| self.finish(open));
                    return Ok(last.map_or(Turn::Done, |table| Turn::Table(Box::new(table))));
                }
            }
        }
        Ok(Turn::Breath)
    }

    /// What the table that is open, or comes next, is called.
    pub(super) fn table_name(&self) -> String {
        format!("{}-{}", self.making.owner, self.next)
    }

    /// The values whose rows were written since this was asked last: they must come to lie where their rows say.
    pub(super) fn take_moves(&mut self) -> Vec<Move> {
        self.relocation.take_moves()
    }

    /// The rows read and written, what was decided of them, and the numbers of the next table and the next file.
    pub(super) fn end(self) -> (u64, u64, Rewrite, Relocation, u64) {
        (self.rows_in, self.rows_out, self.rewrite, self.relocation, self.next)
    }

    /// Opens the next block of lane `i`, or tells the tree its end; false where its next window must come first.
    fn open_next(&mut self, i: usize) -> Result<bool, JobError> {
        let lane = &mut self.lanes[i];
        loop {
            let Some(window) = lane.windows.front_mut() else {
                if lane.ended {
                    self.tree.feed(i, Feed::End);
                }
                return Ok(lane.ended);
            };
            let Some(at) = window.blocks.next() else {
                lane.windows.pop_front();
                continue;
            };
            let stored = window.bytes.slice(at);
            let block = Block::decode_shared(&stored).map_err(|e| damaged(&window.table, e))?;
            let mut cursor = block.cursor();
            if lane.begun || self.start.is_empty() {
                cursor.first();
            } else {
                cursor.seek(&self.start);
                // Separators are shortened: the first block may end below the range.
                lane.begun = cursor.is_on();
            }
            self.tree.feed(i, Feed::Block(cursor));
            return Ok(true);
        }
    }

    /// Takes the row at hand over, if it is kept. A full table comes out first, and the row stays where it is.
    fn take_row(&mut self) -> Result<Option<EncodedTable>, JobError> {
        let Some(row) = self.tree.row() else {
            return Err(JobError::Internal("the merge promised a row and had none".to_owned()));
        };
        // The versions of one key stay together, so that a run has one candidate table for a key.
        let full =
            |b: &TableBuilder| b.estimated_len() >= self.making.table_bytes && b.last_key() != Some(row.key);
        if self.open.as_ref().is_some_and(full)
            && let Some(open) = self.open.take()
        {
            return Ok(Some(self.finish(open)));
        }
        self.rows_in += 1;
        if let Some(row) = self.rewrite.judge(row) {
            self.rows_out += 1;
            let row = self.relocation.place(row);
            self.open.get_or_insert_with(|| self.making.table()).push(row);
        }
        self.tree.pop();
        Ok(None)
    }

    /// What is finished of the open table, where it fills a part.
    fn finished(&mut self) -> Option<Vec<Bytes>> {
        let open = self.open.as_mut()?;
        (open.finished_len() >= self.making.part_bytes as u64).then(|| open.take_finished())
    }

    fn finish(&mut self, open: TableBuilder) -> EncodedTable {
        let name = self.table_name();
        self.next += 1;
        open.finish(&name)
    }
}

/// Whether the policy has changed nothing of what it judged.
pub(super) fn untouched(counts: RewriteCounts) -> bool {
    counts.kept == counts.judged && counts.expired_to_deletes == 0
}
