//! Isle's writer: takes mutations, gives each its sequence number, groups them into log segments, commits those, and
//! turns finished generations into tables.
//!
//! ```text
//! put ─▶ intake ─▶ pipeline ─▶ head            one writer leads, others stand by (leadership)
//!         │            │
//!         │            └─▶ generation ─▶ tables + one log chunk ─▶ Flush edit
//!         └ admission: bytes held anywhere here are bounded
//! ```
//!
//! * [`Writer`] is the handle: cheap to clone, usable without HTTP.
//! * `intake`: admission by bytes, the sequencer, and what waiters wait on.
//! * `pipeline`: seal, upload, publish, acknowledge (the essay is there).
//! * `blobs`: large values, stored before they are accepted.
//! * `generation`: what is in memory until it is in tables; sort, build, flush.
//! * `leadership`: contest, stand by, take over, recover, step down.
//! * `snapshots`: named snapshots, from a request to the edit that takes or drops them.
//! * `server` (feature `server`): the HTTP face and the program around it.

mod blobs;
mod engine;
mod error;
mod generation;
mod intake;
mod leadership;
mod metrics;
mod pipeline;
#[cfg(feature = "server")]
pub mod server;
mod settings;
mod snapshots;
mod standing;
mod ttl;
mod writer;

pub use blobs::ValueUpload;
pub use error::WriteError;
pub use intake::{Accepted, Ack, Event, Mutation, NEVER, Options, Patience};
pub use settings::{SettingsError, WriterSettings};
pub use snapshots::{NamedSnapshot, SnapshotError, SnapshotOptions};
pub use standing::{Health, Role, Standing, Status};
pub use ttl::SetTtlError;
pub use writer::Writer;
