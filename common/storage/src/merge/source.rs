//! One source of a merge: the row at its head, and what it was fed behind it.

use std::cmp::Ordering;
use std::collections::VecDeque;

use bytes::Bytes;

use super::Direction;
use crate::ids::SeqNo;
use crate::row::{Row, RowRef, Value};
use crate::sst::BlockCursor;

/// What a source has at hand: a table's block, or rows in memory.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every feed is a block; a box each would be an allocation each"
)]
pub enum Feed {
    /// A block with its cursor on the first row to deliver (in the merge's direction). A cursor that is off is a
    /// block without rows: the merge asks for the next.
    Block(BlockCursor),
    /// Rows in the merge's direction.
    Rows(Vec<Row>),
    /// The source has no more rows.
    End,
}

/// A source. Its rows must follow one another in the merge's direction, from feed to feed too.
#[derive(Debug)]
pub(super) struct Source {
    head: Head,
    /// The first bytes of the head's key, as a number that is smaller where the row comes earlier: most comparisons
    /// end here, without looking into the source's block.
    rank: u64,
    /// Fed ahead of need; the caller's read-ahead bounds it.
    ahead: VecDeque<Feed>,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every head is a block, and it is read for every row")]
enum Head {
    /// Used up: must be fed before anything else happens.
    Waiting,
    Block(BlockCursor),
    Rows(std::vec::IntoIter<Row>),
    Ended,
}

impl Source {
    pub(super) fn new() -> Self {
        Self { head: Head::Waiting, rank: 0, ahead: VecDeque::new() }
    }

    pub(super) fn feed(&mut self, feed: Feed) {
        self.ahead.push_back(feed);
    }

    /// Takes up what was fed where the head is used up; false where that is not enough.
    pub(super) fn is_ready(&mut self, direction: Direction) -> bool {
        while matches!(self.head, Head::Waiting) {
            self.head = match self.ahead.pop_front() {
                Some(Feed::Block(cursor)) => Head::Block(cursor),
                Some(Feed::Rows(rows)) => Head::Rows(rows.into_iter()),
                Some(Feed::End) => Head::Ended,
                None => return false,
            };
            self.settle(direction);
        }
        true
    }

    /// Whether the caller must feed it before the merge can go on.
    pub(super) fn is_starving(&self) -> bool {
        matches!(self.head, Head::Waiting) && self.ahead.is_empty()
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.head, Head::Ended)
    }

    /// Moves past the head.
    #[inline]
    pub(super) fn advance(&mut self, direction: Direction) {
        match &mut self.head {
            Head::Block(cursor) => match direction {
                Direction::Forward => cursor.next(),
                Direction::Reverse => cursor.prev(),
            },
            Head::Rows(rows) => drop(rows.next()),
            Head::Waiting | Head::Ended => {}
        }
        self.settle(direction);
    }

    /// Ranks the head, or notices that there is none.
    #[inline]
    fn settle(&mut self, direction: Direction) {
        match self.key() {
            Some(key) => self.rank = rank(key, direction),
            None if self.has_ended() => {}
            None => self.head = Head::Waiting,
        }
    }

    #[inline]
    pub(super) fn key(&self) -> Option<&[u8]> {
        match &self.head {
            Head::Block(cursor) => cursor.key(),
            Head::Rows(rows) => rows.as_slice().first().map(|row| &row.key[..]),
            Head::Waiting | Head::Ended => None,
        }
    }

    #[inline]
    pub(super) fn seq(&self) -> Option<SeqNo> {
        match &self.head {
            Head::Block(cursor) => cursor.seq(),
            Head::Rows(rows) => rows.as_slice().first().map(|row| row.seq),
            Head::Waiting | Head::Ended => None,
        }
    }

    #[inline]
    pub(super) fn row(&self) -> Option<RowRef<'_>> {
        match &self.head {
            Head::Block(cursor) => cursor.row(),
            Head::Rows(rows) => rows.as_slice().first().map(Row::as_ref),
            Head::Waiting | Head::Ended => None,
        }
    }

    /// The head's value by reference count, where it is a put.
    pub(super) fn shared_value(&self) -> Option<Bytes> {
        match &self.head {
            Head::Block(cursor) => cursor.shared_value(),
            Head::Rows(rows) => match &rows.as_slice().first()?.value {
                Value::Put(value) => Some(value.clone()),
                Value::Delete | Value::Blob(_) => None,
            },
            Head::Waiting | Head::Ended => None,
        }
    }

    /// Whether this head is delivered before `other`'s; for equal rows, neither is.
    #[inline]
    pub(super) fn order(&self, other: &Self, direction: Direction) -> Ordering {
        match (self.has_ended(), other.has_ended()) {
            (false, false) => {}
            (ended, other_ended) => return ended.cmp(&other_ended),
        }
        self.rank.cmp(&other.rank).then_with(|| {
            let order = self.key().cmp(&other.key()).then_with(|| other.seq().cmp(&self.seq()));
            match direction {
                Direction::Forward => order,
                Direction::Reverse => order.reverse(),
            }
        })
    }
}

/// The first eight bytes of `key`, zeros where it is shorter, so that numbers that differ are ordered as the keys are.
#[inline]
fn rank(key: &[u8], direction: Direction) -> u64 {
    let first = match key.first_chunk::<8>() {
        Some(first) => *first,
        None => {
            let mut padded = [0; 8];
            padded[..key.len()].copy_from_slice(key);
            padded
        }
    };
    let ascending = u64::from_be_bytes(first);
    match direction {
        Direction::Forward => ascending,
        Direction::Reverse => !ascending,
    }
}
