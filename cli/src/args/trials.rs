//! What `isle stress` and `isle bench` take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Nodes;

/// `isle stress`.
#[derive(Debug, Args)]
pub(crate) struct StressArgs {
    /// How long the clients run: `30s`, `2h`.
    #[arg(long, default_value = "30s")]
    pub(crate) duration: String,
    /// Clients side by side.
    #[arg(long, default_value_t = 16)]
    pub(crate) clients: u64,
    /// Keys they write.
    #[arg(long, default_value_t = 2000)]
    pub(crate) keys: u64,
    /// Chooses what each client does; drawn where it is not given.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Run all four roles in this process on a local bucket in this directory, instead of calling running nodes.
    #[arg(long, conflicts_with_all = ["writers", "readers", "tailers"])]
    pub(crate) dir: Option<PathBuf>,
    /// Give up where no node answers, or the end of the log is not reached, for so many seconds.
    #[arg(long, default_value_t = 60)]
    pub(crate) patience: u64,
    /// Where the nodes are, each address that of one process; and `--json`.
    #[command(flatten)]
    pub(crate) nodes: Nodes,
}

/// The workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Puts of random keys.
    Put,
    /// Gets of keys that are there.
    Get,
    /// Scans of a hundred rows from random keys.
    Scan,
    /// One put for every nine gets, side by side.
    Mixed,
    /// The log from its beginning.
    Tail,
}

/// `isle bench`.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// The workload.
    pub(crate) workload: Workload,
    /// Where the objects lie: `memory://`, `null:` (discards bodies; puts only), `file:///…`, `s3://…`.
    #[arg(long, default_value = "memory://")]
    pub(crate) store: String,
    /// What coordinates them; by default the bucket itself, or memory where the store is in memory.
    #[arg(long)]
    pub(crate) coordination: Option<String>,
    /// Drive running nodes over HTTP instead of engines in this process.
    #[arg(long)]
    pub(crate) http: bool,
    /// How long each workload runs.
    #[arg(long, default_value_t = 30)]
    pub(crate) seconds: u64,
    /// Tasks side by side.
    #[arg(long, default_value_t = 4)]
    pub(crate) tasks: usize,
    /// Length of keys in bytes.
    #[arg(long, default_value_t = 16)]
    pub(crate) key_bytes: usize,
    /// Length of values in bytes.
    #[arg(long, default_value_t = 1024)]
    pub(crate) value_bytes: usize,
    /// Records put before gets, scans and tails are measured.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) records: u64,
    /// When a put is answered: `memory` or `bucket`.
    #[arg(long, default_value = "memory")]
    pub(crate) ack: String,
    /// Run the compactor beside the workload.
    #[arg(long = "with-compactor")]
    pub(crate) compactor: bool,
    /// Where the nodes are (with `--http`), and `--json`.
    #[command(flatten)]
    pub(crate) nodes: Nodes,
}
