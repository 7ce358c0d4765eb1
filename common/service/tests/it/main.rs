//! The shell through real sockets, and the settings through real files.

mod client;
mod config;
mod drain;
mod keys;
mod limits;
mod openapi;
mod program;
mod requests;
mod support;
