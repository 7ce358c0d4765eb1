//! What the commands take that show and change a database's own settings.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Nodes;

/// `isle ttl`.
#[derive(Debug, Args)]
pub(crate) struct TtlArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) what: TtlCommand,
}

/// What can be done with the default time to live.
#[derive(Debug, Subcommand)]
pub(crate) enum TtlCommand {
    /// Print how long a put lives that says nothing of it.
    Show {
        /// Where the nodes are.
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Set it for what is put from now on.
    Set {
        /// `30d`, whole seconds, or `none`: for ever.
        ttl: String,
        /// Where the nodes are.
        #[command(flatten)]
        nodes: Nodes,
    },
}

/// The database itself, for commands that then need no running node.
#[derive(Debug, Clone, Args)]
pub(crate) struct Direct {
    /// Work on the database in this store, without a node: a URL, or a directory.
    #[arg(long)]
    pub(crate) store: Option<String>,
    /// With --store: `bucket`, or `etcd://host:port`.
    #[arg(long, requires = "store")]
    pub(crate) coordination: Option<String>,
    /// With --store: the database's name.
    #[arg(long, requires = "store")]
    pub(crate) database: Option<String>,
    /// With --store: a configuration file (TOML), for credentials and certificates; flags come first.
    #[arg(long, requires = "store")]
    pub(crate) config: Option<PathBuf>,
}

/// `isle pause`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// For how long, as `2h`; without it until `isle resume`.
    #[arg(long = "for", value_name = "DURATION", value_parser = isle_service::wire::duration::parse)]
    pub(crate) lasting: Option<Duration>,
    #[command(flatten)]
    pub(crate) direct: Direct,
    /// Where the nodes are.
    #[command(flatten)]
    pub(crate) nodes: Nodes,
}

/// `isle resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    pub(crate) direct: Direct,
    /// Where the nodes are.
    #[command(flatten)]
    pub(crate) nodes: Nodes,
}

/// `isle compact`.
#[derive(Debug, Args)]
pub(crate) struct CompactArgs {
    /// Where the nodes are.
    #[command(flatten)]
    pub(crate) nodes: Nodes,
}

/// `isle mode`.
#[derive(Debug, Args)]
pub(crate) struct ModeArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) what: ModeCommand,
}

/// What can be done with the mode.
#[derive(Debug, Subcommand)]
pub(crate) enum ModeCommand {
    /// Print the mode and what it means for the database as it is.
    Show {
        #[command(flatten)]
        direct: Direct,
        /// Where the nodes are.
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Change the mode; without --yes, only say what that would mean.
    Set {
        /// `merge`, `fifo` or `time_window`.
        mode: String,
        /// Of merge: `tiered` (few writes) or `leveled` (few runs to read, little space).
        #[arg(long)]
        policy: Option<String>,
        /// Of fifo and time_window: how long rows live at least: `7d`.
        #[arg(long)]
        retention: Option<String>,
        /// Of time_window: how long a window is: `1h`.
        #[arg(long)]
        segment: Option<String>,
        /// Of fifo: so many of the newest tables stay in any case; of time_window: a tenth of it, in windows.
        #[arg(long)]
        keep: Option<u64>,
        /// Only say what it would mean.
        #[arg(long, conflicts_with = "yes")]
        dry_run: bool,
        /// Change it.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        direct: Direct,
        /// Where the nodes are.
        #[command(flatten)]
        nodes: Nodes,
    },
}
