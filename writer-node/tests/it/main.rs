//! The writer's engine against a bucket that fails on command and coordination in memory; no HTTP, no processes.

mod admission;
mod batches;
mod commits;
mod doubt;
mod flushes;
mod recovery;
mod shutdown;
mod takeover;
mod world;
