//! The writer's engine against a bucket that fails on command and coordination in memory; no HTTP, no processes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod admission;
mod batches;
mod commits;
mod doubt;
mod flushes;
mod recovery;
mod shutdown;
mod takeover;
mod world;
