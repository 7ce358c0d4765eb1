//! A database that a command opens itself, without nodes; and what the commands take that look into one or mend it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// How a database is reached, besides its store, as the nodes' settings say it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Reach {
    /// `bucket`, or `etcd://host:port`.
    #[arg(long)]
    pub(crate) coordination: Option<String>,
    /// The database's name.
    #[arg(long)]
    pub(crate) database: Option<String>,
    /// A configuration file (TOML), as the nodes read it; flags come first.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Print machine-readable JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A database where it lies.
#[derive(Debug, Clone, Args)]
pub(crate) struct Database {
    /// The database's store: a URL, or a directory.
    #[arg(long)]
    pub(crate) store: Option<String>,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// `isle verify`.
#[derive(Debug, Args)]
#[command(mut_arg("store", |a| {
    a.help("The store: a URL, or a directory; `./isle-data` where no setting names one")
}))]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) at: Database,
    /// Ask no coordination service: verify what the bucket alone tells.
    #[arg(long)]
    pub(crate) offline: bool,
}

/// `isle recover`.
#[derive(Debug, Args)]
#[command(mut_arg("coordination", |a| {
    a.help("The coordination that is to hold the new head: `bucket`, or `etcd://host:port`")
}))]
pub(crate) struct RecoverArgs {
    #[command(flatten)]
    pub(crate) at: Database,
    /// Every role, and every coordination service that ever drove this prefix and is not the one named here, is stopped.
    #[arg(long)]
    pub(crate) old_coordination_is_stopped: bool,
    /// End the log before a missing link, and give up everything after it.
    #[arg(long)]
    pub(crate) accept_loss: bool,
    /// Replace a head that is whole, and that the bucket knows nothing beyond.
    #[arg(long)]
    pub(crate) even_if_sound: bool,
    /// Show what would be done, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `isle dump`.
#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// What to print.
    #[command(subcommand)]
    pub(crate) what: Dump,
}

/// What can be dumped.
#[derive(Debug, Subcommand)]
pub(crate) enum Dump {
    /// The newest manifest, or any object below `manifest/`.
    Manifest {
        /// The object's path below the prefix (or a file: `/…`, `./…`); the newest manifest where it is not given.
        reference: Option<String>,
        #[command(flatten)]
        how: HowToDump,
    },
    /// A checkpoint; of a damaged one as much as can be read.
    Checkpoint {
        /// Its path below the prefix, or a file (`/…`, `./…`).
        reference: String,
        #[command(flatten)]
        how: HowToDump,
    },
    /// A table: properties and rows; of a damaged one as much as can be read.
    Table {
        /// Its name or its path below the prefix, or a file (`/…`, `./…`).
        reference: String,
        #[command(flatten)]
        how: HowToDump,
    },
    /// A blob file: its values, and how each begins; of a damaged one as much as can be read.
    Blob {
        /// Its name or its path below the prefix, or a file (`/…`, `./…`).
        reference: String,
        #[command(flatten)]
        how: HowToDump,
    },
    /// A log segment or chunk: header and records; of a damaged one as much as can be read.
    Log {
        /// Its name, its path below the prefix, or a file (`/…`, `./…`).
        reference: String,
        #[command(flatten)]
        how: HowToDump,
    },
}

/// How objects are dumped, and where they lie.
#[derive(Debug, Args)]
pub(crate) struct HowToDump {
    /// The store: a URL, or a directory.
    #[command(flatten)]
    pub(crate) place: Place,
    /// Print one JSON object a line (of a manifest, the manifest as JSON).
    #[arg(long)]
    pub(crate) json: bool,
    /// Leave out the rows.
    #[arg(long)]
    pub(crate) no_rows: bool,
}

/// A database, for commands that open it themselves.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// The store: a URL, or a directory.
    #[arg(long, default_value = "./isle-data")]
    pub(crate) store: String,
    /// `bucket`, or `etcd://host:port`.
    #[arg(long, default_value = "bucket")]
    pub(crate) coordination: String,
    /// The database's name.
    #[arg(long, default_value = "default")]
    pub(crate) database: String,
}
