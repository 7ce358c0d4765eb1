//! The manifest: the complete description of a database at one version, and the steps between versions.
//!
//! ```text
//!   Manifest v ──Edit v+1──▶ Manifest v+1 ──Edit v+2──▶ …        every step pure, every result checked
//!       │                         │
//!       └── checkpoint (whole)    └── text (for people and tests)
//! ```
//!
//! Everything here is pure: no tokio, no object store, no clock, no randomness. A manifest is immutable; an [`Edit`]
//! is a value; [`Manifest::apply`] is the one transition and [`check`] judges the whole result before anybody
//! installs it.

mod apply;
mod blobs;
pub mod check;
pub mod checkpoint;
pub mod edit;
mod entry;
pub mod expiry;
pub mod group;
pub mod judge;
mod retention;
pub mod staged;
pub mod state;
pub mod text;

pub use crate::range::KeyRange;
pub use blobs::{BlobFile, BlobUse};
pub use check::Violation;
pub use edit::{Author, Change, Edit, EditError};
pub use expiry::{Held, JudgedExpiry};
pub use group::{GroupCursor, Lag, MaxLag};
pub use staged::{Pause, StagedMerge, StagedPart};
pub use state::{
    CheckpointRef, CompactionMode, EpochStart, Expiring, Head, JobClaim, Key, LogEntry, LogTail, Manifest,
    Retired, Run, Snapshot, TableEntry,
};
