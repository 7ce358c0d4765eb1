//! What the commands take that read and write rows.

use clap::Args;

use super::Nodes;

/// `isle put`.
#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// The key, as text.
    pub(crate) key: String,
    /// The value, as text; `-` reads standard input.
    pub(crate) value: String,
    /// Time to live: `30s`, `2h`.
    #[arg(long)]
    pub(crate) ttl: Option<String>,
    /// When the answer comes: `bucket` (durable) or `memory`.
    #[arg(long, default_value = "bucket")]
    pub(crate) ack: String,
    /// Where the nodes are.
    #[command(flatten)]
    pub(crate) nodes: Nodes,
}

/// `isle get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The key, as text.
    pub(crate) key: String,
    /// Answer only from a view that holds this sequence number or position.
    #[arg(long)]
    pub(crate) min_seq: Option<String>,
    /// Read what this named snapshot holds.
    #[arg(long, value_name = "NAME")]
    pub(crate) snapshot: Option<String>,
    /// Where the nodes are.
    #[command(flatten)]
    pub(crate) nodes: Nodes,
}

/// `isle delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The key, as text.
    pub(crate) key: String,
    /// Where the nodes are.
    #[command(flatten)]
    pub(crate) nodes: Nodes,
}

/// `isle scan`.
#[derive(Debug, Args)]
pub(crate) struct ScanArgs {
    /// Only keys that start with this.
    #[arg(long, conflicts_with_all = ["start", "end"])]
    pub(crate) prefix: Option<String>,
    /// Only keys from this on.
    #[arg(long)]
    pub(crate) start: Option<String>,
    /// Only keys below this.
    #[arg(long)]
    pub(crate) end: Option<String>,
    /// At most this many rows; all of them where it is not given.
    #[arg(long)]
    pub(crate) limit: Option<u64>,
    /// Keys descending.
    #[arg(long)]
    pub(crate) reverse: bool,
    /// Leave values out.
    #[arg(long)]
    pub(crate) keys_only: bool,
    /// Answer only from a view that holds this sequence number or position.
    #[arg(long)]
    pub(crate) min_seq: Option<String>,
    /// Read what this named snapshot holds.
    #[arg(long, value_name = "NAME")]
    pub(crate) snapshot: Option<String>,
    /// Where the nodes are.
    #[command(flatten)]
    pub(crate) nodes: Nodes,
}

/// `isle tail`.
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// Where to start: `earliest`, `latest`, a cursor, `seq:<n>`, `time:<RFC 3339>`.
    #[arg(long, default_value = "latest")]
    pub(crate) from: String,
    /// Only keys that start with this.
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// Stop after this many changes.
    #[arg(long)]
    pub(crate) limit: Option<u64>,
    /// Stop once everything committed so far has been printed.
    #[arg(long)]
    pub(crate) until_caught_up: bool,
    /// Where the nodes are.
    #[command(flatten)]
    pub(crate) nodes: Nodes,
}

/// `isle bootstrap`.
#[derive(Debug, Args)]
pub(crate) struct BootstrapArgs {
    /// Only keys that start with this.
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// What this named snapshot holds; without it, everything committed.
    #[arg(long, value_name = "NAME")]
    pub(crate) snapshot: Option<String>,
    /// Where the nodes are.
    #[command(flatten)]
    pub(crate) nodes: Nodes,
}

/// `isle load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The file, or `-` for standard input.
    pub(crate) file: String,
    /// Pass over this many lines: what an interrupted load says it has committed.
    #[arg(long, default_value_t = 0)]
    pub(crate) skip: u64,
    /// Bytes of lines in one request.
    #[arg(long, default_value_t = 8 << 20)]
    pub(crate) piece_bytes: usize,
    /// Give up after this many seconds without progress.
    #[arg(long, default_value_t = 120)]
    pub(crate) patience: u64,
    /// Where the nodes are.
    #[command(flatten)]
    pub(crate) nodes: Nodes,
}
