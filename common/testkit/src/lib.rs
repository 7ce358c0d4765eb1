//! What tests share: a store that fails on command, and contract suites that every implementation of a trait runs.
//! Never ships.

pub mod contract;
pub mod fault;
