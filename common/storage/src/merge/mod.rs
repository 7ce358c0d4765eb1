//! The merge: many sorted sources into one sorted stream, by a tournament tree, without I/O.
//!
//! A source holds at most one block; when the tree needs a row from a source whose block is used up, the merge says
//! so and the caller fetches the next block and feeds it. The same merge serves a reader's scan (both directions) and
//! a compactor's job.

use bytes::Bytes;

use crate::ids::SeqNo;
use crate::row::RowRef;
use crate::sst::BlockCursor;

/// Which way a merge runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Keys ascending, and for one key sequence numbers descending.
    Forward,
    /// Keys descending, and for one key sequence numbers ascending.
    Reverse,
}

/// What a source has at hand: a table's block, or rows in memory.
#[derive(Debug)]
pub enum Feed {
    /// A block with its cursor on the first row to deliver (in the merge's direction).
    Block(BlockCursor),
    /// Rows in the merge's direction.
    Rows(Vec<crate::row::Row>),
    /// The source has no more rows.
    End,
}

/// What a merge can do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The winner is at hand: [`Merge::row`] is it; [`Merge::pop`] moves on.
    Row,
    /// Source `.0` must be fed first.
    Need(usize),
    /// Every source has ended.
    Done,
}

/// The tournament tree over `n` sources.
#[derive(Debug)]
pub struct Merge {}

impl Merge {
    /// A merge of `sources` sources, none of them fed yet. Rows of one key and one sequence number from two sources
    /// are delivered once.
    #[must_use]
    pub fn new(_sources: usize, _direction: Direction) -> Self {
        todo!()
    }

    /// Gives source `i` its next block, rows, or its end.
    pub fn feed(&mut self, _i: usize, _feed: Feed) {
        todo!()
    }

    /// What can be done next.
    pub fn step(&mut self) -> Step {
        todo!()
    }

    /// The winning row after [`Step::Row`].
    #[must_use]
    pub fn row(&self) -> Option<RowRef<'_>> {
        todo!()
    }

    /// Moves past the winning row.
    pub fn pop(&mut self) {
        todo!()
    }
}

/// Which versions of one key a view or a rewrite keeps, judged version by version (newest first).
#[derive(Debug, Clone)]
pub struct Visibility {
    /// Rows above are not seen.
    pub max_seq: SeqNo,
}

/// The key under which two rows are the same: used by callers that collapse versions.
pub type RowKey = (Bytes, SeqNo);
