//! Chaos: a whole cluster of real programs under a load of clients, while faults of every kind are done to it; judged
//! afterwards by what the clients saw.
//!
//! ```text
//!  Plan (from a seed) ──▶ Nemesis ──▶ kills, pauses, partitions, refusals, …
//!                                        │
//!  clients ──▶ 2 writers, 2 readers, 2 tailers, compactor ──▶ proxies, one set for each program ──▶ 3 etcd, S3
//!     │
//!     └──▶ isle_history::Recorder ──▶ heal, come to rest, read the log from its beginning ──▶ isle_history::check
//! ```
//!
//! The plan is a function of its seed and is printed; what happens in real time is not. Not done here: jumps of the
//! wall clock (it is the machine's, and shared; clocks that lie are the simulation's), and faults of a disk cache, which
//! Isle does not have yet.

mod clients;
mod cluster;
mod hold;
mod nemesis;
mod plan;
mod read;
mod report;
mod rng;
mod run;
mod tail;

pub use clients::outcome;
pub use cluster::{Actor, ChaosCluster, Tuning};
pub use nemesis::Nemesis;
pub use plan::{Fault, Plan, Planned, Side, Trouble, Who};
pub use read::AtLeast;
pub use report::Report;
pub use run::{Chaos, log_of, run};
