//! Integration tests of `isle-storage`: one binary, a module per part.

mod log;
mod merges;
mod rows;
mod tables;
