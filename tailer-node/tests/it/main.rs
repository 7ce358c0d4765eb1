//! The tailer over a database in memory, written by a small writer.

mod consume;
mod http;
