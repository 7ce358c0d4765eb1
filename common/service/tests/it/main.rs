//! The shell through real sockets, and the settings through real files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests are tests")]

mod client;
mod config;
mod drain;
mod keys;
mod limits;
mod openapi;
mod program;
mod requests;
mod support;
