//! Isle's roles, all of them and unchanged, over simulated time, a simulated bucket and a simulated coordination
//! service: what a cluster lives through in months, in milliseconds, and again from the same seed.
//!
//! # Determinism
//! A schedule is a function of its seed. For that, everything that could differ from run to run is taken from the seed
//! or made irrelevant:
//!
//! | source of chance | what is done about it |
//! | --- | --- |
//! | threads | one: every process is a runtime of its own on the schedule's thread, polled in turn ([`process`]) |
//! | time | paused clocks, moved by the scheduler; wall clocks are the world's ([`world`]) |
//! | the network | requests are events of the world, their fates drawn from the seed ([`world`]) |
//! | `select!` | `biased;` in the engines, and a test that keeps it so (`e2e/tests/it/layering.rs`) |
//! | tokio's `watch` | wakes in random order: the engines use `isle_storage::watch`, which does not |
//! | threads for heavy work | `Environment::offload` does it in place |
//! | names, ids, jitter | `Environment::entropy`, a stream for every start of every process |
//! | hash maps | their order is nowhere observable in the engines; the run-twice test would show it |
//!
//! The log of everything that happened has a hash, the run's fingerprint; a test runs seeds twice and compares.
//!
//! # Faults
//! Processes crash and stop at any await point, links are cut, requests and replies are lost, late or repeated, services
//! are slow, throttle, stop, lose their leases or all they know, watches go deaf, clocks are off ([`plan`]).
//!
//! # Judgement
//! Clients record what they asked and were told; [`isle_history`] judges it against the committed log. The [`oracle`]
//! judges what happens out of their sight, at the instant it happens.
//!
//! - [`plan`]: what a seed means.
//! - [`run`]: one schedule; [`soak`](mod@soak): many.
//! - [`clients`], [`roles`], [`node`], [`process`]: who takes part.
//! - [`world`], [`store`], [`coordination`]: what is around them.

pub mod clients;
pub mod coordination;
pub mod node;
pub mod oracle;
pub mod plan;
pub mod process;
pub mod rng;
pub mod roles;
pub mod run;
pub mod soak;
pub mod store;
pub mod world;

pub use plan::Plan;
pub use run::{Report, run, run_plan};
pub use soak::{Soak, Summary, soak};
