//! The merge: many sorted sources into one sorted stream, by a tournament tree, without I/O.
//!
//! A source holds what it was fed; when the tree needs a row from a source that is used up, the merge says so and the
//! caller fetches the next block and feeds it. The same merge serves a reader's scan (both directions) and a
//! compactor's job; what differs stands on top:
//!
//! ```text
//!   source 0 ─┐            ┌─▶ Visible   what a read sees: one row a key, at one sequence number and one instant
//!   source 1 ─┼─▶ Merge ───┤
//!   source 2 ─┘            └─▶ Rewrite   what a compaction keeps: every version somebody can still see
//! ```
//!
//! ```
//! use isle_storage::ids::{SeqNo, Timestamp};
//! use isle_storage::merge::{Direction, Feed, Merge, Step};
//! use isle_storage::row::{Row, Value};
//!
//! let row = |key: &'static str, seq| Row {
//!     key: key.into(), seq: SeqNo(seq), time: Timestamp(0), expires: None, value: Value::Delete,
//! };
//! let mut feeds = [
//!     vec![Feed::Rows(vec![row("a", 4)]), Feed::Rows(vec![row("c", 5)])].into_iter(),
//!     vec![Feed::Rows(vec![row("a", 2), row("b", 1)])].into_iter(),
//! ];
//! let mut merge = Merge::new(2, Direction::Forward);
//! let mut seen = Vec::new();
//! loop {
//!     match merge.step() {
//!         Step::Need(i) => merge.feed(i, feeds[i].next().unwrap_or(Feed::End)),
//!         Step::Row => {
//!             seen.extend(merge.row().map(|row| row.seq.0));
//!             merge.pop();
//!         }
//!         Step::Done => break,
//!     }
//! }
//! assert_eq!(seen, [4, 2, 1, 5]);
//! ```

mod relocate;
mod rewrite;
mod source;
mod tree;
mod visible;

pub use crate::manifest::Held;
pub use relocate::{Move, Relocation};
pub use rewrite::{Rewrite, RewriteCounts};
pub use source::Feed;
pub use tree::{Merge, Step};
pub use visible::{Visibility, Visible};

/// Which way a merge runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Keys ascending, and for one key sequence numbers descending.
    Forward,
    /// Keys descending, and for one key sequence numbers ascending.
    Reverse,
}
