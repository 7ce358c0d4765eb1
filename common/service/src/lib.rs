//! The process shell of Isle's programs: everything around an engine that is the same for all of them.
//!
//! | module | holds |
//! | --- | --- |
//! | [`error`] | the one table of error codes, and errors as answers |
//! | [`wire`] | what travels: keys in paths, JSON lines, frames, query parameters, media types, positions |
//! | [`config`] | layered settings: flag, environment, file, default |
//! | [`telemetry`] | logs to stderr |
//! | [`health`] | what a program says of itself at `/readyz` |
//! | [`server`] | listener, limits, request ids, metrics, drain |
//! | [`slot`] | the engine, once it is open |
//! | [`shell`] | from `main` to the exit code |
//! | [`client`] | an HTTP client that sends paths exactly as they are given |
//! | [`openapi`] | the document of all endpoints |
//!
//! No type of an engine appears here; a role brings its own through [`shell::Program`].

pub mod client;
pub mod config;
pub mod error;
pub mod health;
pub mod openapi;
pub mod server;
pub mod shell;
pub mod slot;
pub mod telemetry;
pub mod wire;

pub use error::{ApiError, ErrorCode};
