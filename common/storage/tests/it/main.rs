//! Integration tests of `isle-storage`: one binary, a module per part.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests"
)]

mod blobs;
mod coordination;
#[cfg(feature = "etcd")]
mod etcd;
mod fuzz;
mod golden;
mod golden_tables;
mod hostile_tables;
mod log;
mod manifest;
mod merges;
mod object;
mod rows;
mod salvage;
mod scan;
mod tables;
mod transfer;
mod verify;
