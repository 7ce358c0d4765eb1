//! End-to-end tests: one binary, a module per subject.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod freshness;
mod idle;
mod layering;
mod loading;
mod outages;
mod servers;
mod store_contract;
mod stores;
mod takeover;
