//! The part of a view that is not in tables yet: the rows of the unflushed log, in memory.
//!
//! [`Generation`] is one sorted set of rows; [`MemoryLog`] is the succession of generations that a follower fills and
//! from which views take their share.

mod generation;
mod log;

pub(crate) use generation::{Generation, MemorySource};
pub(crate) use log::MemoryLog;
