//! End-to-end tests: one binary, a module per subject.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod freshness;
mod layering;
mod loading;
mod servers;
mod store_contract;
mod takeover;
