//! The writer against a bucket that fails on command and coordination in memory; the HTTP face through a real
//! listener on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
#![allow(unreachable_pub, reason = "one binary: its modules are its only users")]

mod admission;
mod batches;
mod blobs;
mod bucket_form;
mod chaos;
mod commits;
mod doubt;
mod flushes;
#[cfg(feature = "server")]
mod http;
mod recovery;
mod shutdown;
mod snapshots;
mod takeover;
mod ttl;
mod world;
