//! The tailer over a database in memory, written by a small writer.

#![expect(clippy::unwrap_used, reason = "a broken promise ends the test that met it")]

mod bootstrap;
mod consume;
mod groups;
mod http;
