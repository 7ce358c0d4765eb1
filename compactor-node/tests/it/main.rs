//! The compactor over a database in memory, written by a small writer and read back through the formats.

mod collect;
mod http;
mod merge;
mod once;
mod tree;
