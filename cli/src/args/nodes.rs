//! Running nodes, for the commands that call them.

use clap::Args;

/// Where the nodes are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Nodes {
    /// A writer's address; may be given several times, the first that answers is used.
    #[arg(
        long = "writer",
        env = "ISLE_WRITER",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7301"
    )]
    pub(crate) writers: Vec<String>,
    /// A reader's address; likewise.
    #[arg(
        long = "reader",
        env = "ISLE_READER",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7302"
    )]
    pub(crate) readers: Vec<String>,
    /// A tailer's address; likewise.
    #[arg(
        long = "tailer",
        env = "ISLE_TAILER",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7303"
    )]
    pub(crate) tailers: Vec<String>,
    /// A compactor's address; likewise.
    #[arg(
        long = "compactor",
        env = "ISLE_COMPACTOR",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7304"
    )]
    pub(crate) compactors: Vec<String>,
    /// Print machine-readable JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `isle status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Where the nodes are.
    #[command(flatten)]
    pub(crate) nodes: Nodes,
}
