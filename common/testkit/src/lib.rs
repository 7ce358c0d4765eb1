//! What tests share: a store that fails on command, and contract suites that every implementation of a trait runs.
//! Never ships.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a broken promise ends the test that met it")]

pub mod contract;
pub mod coordination;
pub mod embedded;
pub mod fault;
pub mod ports;
pub mod scribe;
