//! What the commands take that copy a database: backup, restore and clone.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::database::{Database, Reach};

/// `isle backup`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BackupArgs {
    #[command(subcommand)]
    pub(crate) what: Option<BackupCommand>,
    /// The store that takes the copy: a URL, or a directory. It holds the backups of one database.
    #[arg(long)]
    pub(crate) to: Option<String>,
    #[command(flatten)]
    pub(crate) database: Database,
}

/// What can be done with the backups that are there.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// List the finished backups in a store.
    List {
        #[command(flatten)]
        at: Store,
    },
    /// Read a backup whole, and hold every byte against its record; exit code 1 where anything is wrong.
    Verify {
        #[command(flatten)]
        at: Store,
        /// Its number; the newest where it is not given.
        #[arg(long)]
        backup: Option<u64>,
    },
    /// Delete old backups, and what only they need; without --yes, only say what would go.
    Prune(PruneArgs),
}

/// `isle backup prune`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true)))]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) at: Store,
    /// Keep so many of the newest, at least one.
    #[arg(long, value_name = "N", group = "which", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep: Option<u32>,
    /// Delete those that are older than this: `30d`. The newest stays in any case.
    #[arg(long, value_name = "AGE", group = "which")]
    pub(crate) older_than: Option<String>,
    /// Delete them.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// A store with backups.
#[derive(Debug, Clone, Args)]
pub(crate) struct Store {
    /// The store with the backups: a URL, or a directory.
    #[arg(long)]
    pub(crate) from: String,
    /// A configuration file (TOML), for credentials; flags come first.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Print machine-readable JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `isle restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The store with the backups: a URL, or a directory.
    #[arg(long)]
    pub(crate) from: String,
    /// The backup's number; the newest where it is not given.
    #[arg(long)]
    pub(crate) backup: Option<u64>,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// What becomes a new database.
#[derive(Debug, Args)]
#[command(mut_arg("coordination", |a| a.help("What is to coordinate it: `bucket`, or `etcd://host:port`")))]
#[command(mut_arg("database", |a| a.help("The name it gets")))]
pub(crate) struct Target {
    /// The empty prefix that becomes the database: a URL, or a directory.
    #[arg(long)]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// `isle clone`.
#[derive(Debug, Args)]
pub(crate) struct CloneArgs {
    /// The database to clone: a URL, or a directory.
    #[arg(long)]
    pub(crate) from: String,
    /// What coordinates it: `bucket`, or `etcd://host:port`.
    #[arg(long)]
    pub(crate) from_coordination: Option<String>,
    /// Its name.
    #[arg(long)]
    pub(crate) from_database: Option<String>,
    /// What the new database begins with: a named snapshot; everything committed where it is not given.
    #[arg(long, value_name = "NAME")]
    pub(crate) snapshot: Option<String>,
    /// Read and verify every byte, also of what the store copied by reference.
    #[arg(long)]
    pub(crate) verify: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}
