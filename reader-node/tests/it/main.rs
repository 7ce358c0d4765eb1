//! The reader against a real bucket, real formats and real coordination, all in memory: behaviour, budgets, damage.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod blobs;
mod budget;
mod damage;
mod fixture;
mod following;
#[cfg(feature = "server")]
mod http;
mod model;
mod paging;
mod pins;
