//! Isle's reader: point gets, multi-gets and scans at a consistent view.
//!
//! ```text
//!              coordination (watch)                         bucket (ranged GETs)
//!                      │ manifests                                   │
//!                      ▼                                             ▼
//!   follow ── fetches new segments ──▶ memory (generations)   tables (cache, single flight, admission)
//!                      │                       │                     │
//!                      └── swaps the ──▶ View = manifest + generations + runs
//!                                              │
//!                             get: newest source first      scan: all sources merged
//! ```
//!
//! [`Reader`] is the engine; it knows no HTTP. With the feature `server`, [`server`] is its face on the network.

mod error;
mod follow;
mod get;
mod health;
mod memory;
mod metrics;
mod mget;
mod options;
mod page;
mod pins;
mod reader;
mod scan;
#[cfg(feature = "server")]
pub mod server;
mod settings;
mod status;
mod tables;
mod view;

pub use error::ReadError;
pub use health::Health;
pub use isle_storage::range::KeyRange;
pub use mget::Mget;
pub use options::{MinSeq, ReadOptions, ScanRequest};
pub use page::{InvalidPage, PageToken};
pub use reader::{Found, GetAnswer, HeadAnswer, Headline, MgetAnswer, OpenAnswer, Reader};
pub use scan::{Record, Scan};
pub use settings::{InvalidSettings, ReaderSettings};
pub use status::{CacheStatus, RunStatus, Status, TreeStatus};
pub use tables::OpenValue;
