//! What clients did and saw, and whether a database that keeps its promises could have answered so.
//!
//! ```text
//!  clients, readers, consumers ──▶ Recorder ──▶ events, each with its index (the order of real time)
//!                                                  │
//!  the committed log, read at quiescence ──────────▼──────▶ Checker ──▶ Report: violations with their evidence
//! ```
//!
//! The simulation records in process, the chaos tests and `isle stress` record what came over HTTP; all are judged by
//! the same rules ([`Rule`]). Pure: no runtime, no clock, no I/O. It ships with `isle stress`, which is why it is no
//! part of the test kit.
//!
//! - [`event`]: what is recorded. An invocation is recorded before the request leaves, its answer after it arrived.
//! - [`recorder`]: the append-only list of events that many threads share.
//! - [`log`]: the committed log the history is judged against.
//! - [`model`]: an ordered map with all its versions, filled from the log.
//! - [`check`]: the rules.

pub mod check;
pub mod event;
pub mod key;
pub mod log;
pub mod model;
mod print;
pub mod recorder;

pub use check::{Checker, Limits, Report, Rule, Violation, check};
pub use event::{
    Ack, Event, Mutation, Name, OpId, Page, Query, ReadAnswer, SeenRow, Span, Stamped, Start, Target, Want,
    WriteOutcome,
};
pub use key::{Digest, Key};
pub use log::{LogPiece, Op, Record};
pub use recorder::Recorder;
