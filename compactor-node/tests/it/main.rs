//! The compactor over a database in memory, written by a small writer and read back through the formats.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a broken promise ends the test that met it")]

mod blobs;
mod collect;
mod costs;
mod files;
mod fleet;
mod http;
mod jobs;
mod log;
mod merge;
mod model;
mod modes;
mod objects;
mod once;
mod parts;
mod pins;
mod requests;
mod shapes;
mod sweep;
mod tree;
mod uploads;
mod verify;
