//! Integration tests of `isle-storage`: one binary, a module per part.

mod log;
mod merges;
mod object;
mod rows;
mod tables;
