//! Isle's compactor: merges tables, writes checkpoints, deletes what nothing needs.
//!
//! Planner ([`plan`], pure: manifest in, plan out) and executor ([`execute`]: plan in, edit out) are apart, and so are
//! the judgement of garbage ([`garbage`], pure) and the collector ([`collector`]) that acts on it. What was never named
//! at all is found by the [`sweep`]. [`Compactor`] runs them as a daemon, [`once`] as a bounded run.

pub mod collector;
pub mod compactor;
pub mod deletion;
pub mod error;
pub mod execute;
pub mod garbage;
pub mod house;
pub mod job;
pub mod listing;
pub mod metrics;
pub mod mode;
pub mod once;
pub mod parts;
pub mod pause;
pub mod plan;
pub mod retain;
#[cfg(feature = "server")]
pub mod server;
pub mod settings;
pub mod simulate;
pub mod sweep;
pub mod throttle;

pub use compactor::{Compactor, CompactorStatus, DamagedTable, MergeReport};
pub use error::JobError;
pub use settings::CompactorSettings;
