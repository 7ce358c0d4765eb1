//! What `isle up` takes.

use std::path::PathBuf;

use clap::Args;

/// `isle up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// The local bucket; created where it is missing.
    #[arg(long, default_value = "./isle-data")]
    pub(crate) dir: PathBuf,
    /// Another store than the directory: `memory://`, `s3://…` (bucket coordination needs conditional puts).
    #[arg(long, conflicts_with = "dir")]
    pub(crate) store: Option<String>,
    /// Another coordination than the bucket itself.
    #[arg(long, default_value = "bucket")]
    pub(crate) coordination: String,
    /// The database's name.
    #[arg(long, default_value = "default")]
    pub(crate) database: String,
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Port of the writer; reader, tailer and compactor take the next three. 0 lets the system choose all four.
    #[arg(long, default_value_t = 7301)]
    pub(crate) port: u16,
    /// A configuration file (TOML); flags come first.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// How logs are written to standard error.
    #[arg(long, default_value = "text")]
    pub(crate) log_format: String,
    /// How much is logged.
    #[arg(long, default_value = "warn")]
    pub(crate) log_level: String,
}
