//! The command line of `isle`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A key-value store and event log on object storage.
#[derive(Debug, Parser)]
#[command(name = "isle", version, about, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run all four roles in this process on a local bucket, with no other dependency.
    Up(UpArgs),
    /// Put a value; `-` reads it from standard input.
    Put(PutArgs),
    /// Print a value; exit code 5 where the key is absent.
    Get(GetArgs),
    /// Delete a key.
    Delete(DeleteArgs),
    /// Print rows in key order, one JSON object a line.
    Scan(ScanArgs),
    /// Take, list and drop named snapshots.
    Snapshot(crate::snapshot::SnapshotArgs),
    /// Print changes in commit order as they come, one JSON object a line.
    Tail(TailArgs),
    /// Print everything that is in the database, and the cursor from which `isle tail` goes on without gap or repeat.
    Bootstrap(BootstrapArgs),
    /// Consumer groups: durable cursors of consumers of the log.
    Group(crate::group::GroupArgs),
    /// Load mutations from NDJSON, plain, gzip or zstd.
    Load(LoadArgs),
    /// What the running nodes say of themselves.
    Status(StatusArgs),
    /// The compaction mode: how the tree is kept in shape, and whether rows go by age.
    Mode(ModeArgs),
    /// Print what an object or the manifest holds.
    Dump(DumpArgs),
    /// Walk a whole database: every checksum, every invariant; exit code 1 where anything is damaged.
    Verify(VerifyArgs),
    /// How long a put lives that says nothing of it.
    Ttl(TtlArgs),
    /// Many clients, every answer judged against a model while they run; exit code 1 where one is wrong.
    Stress(StressArgs),
    /// Rebuild the head from the bucket alone, after coordination was lost or set back to an older copy.
    Recover(RecoverArgs),
    /// Copy the database to another store, verified, while it is in use; list and verify such copies.
    Backup(crate::backup::BackupArgs),
    /// Make a database of a backup, in an empty prefix.
    Restore(crate::backup::RestoreArgs),
    /// Make a new database of what a named snapshot holds, in an empty prefix.
    Clone(crate::backup::CloneArgs),
    /// Measured workloads.
    Bench(BenchArgs),
}

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

/// `isle status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Where the nodes are.
    #[command(flatten)]
    pub(crate) nodes: Nodes,
}

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
        /// Where the nodes are.
        #[command(flatten)]
        nodes: Nodes,
    },
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

/// `isle verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The store: a URL, or a directory; `./isle-data` where no setting names one.
    #[arg(long)]
    pub(crate) store: Option<String>,
    /// `bucket`, or `etcd://host:port`.
    #[arg(long)]
    pub(crate) coordination: Option<String>,
    /// The database's name.
    #[arg(long)]
    pub(crate) database: Option<String>,
    /// A configuration file (TOML), as the nodes read it; flags come first.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Ask no coordination service: verify what the bucket alone tells.
    #[arg(long)]
    pub(crate) offline: bool,
    /// Print machine-readable JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

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

/// `isle recover`.
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// The store: a URL, or a directory.
    #[arg(long)]
    pub(crate) store: Option<String>,
    /// The coordination that is to hold the new head: `bucket`, or `etcd://host:port`.
    #[arg(long)]
    pub(crate) coordination: Option<String>,
    /// The database's name.
    #[arg(long)]
    pub(crate) database: Option<String>,
    /// A configuration file (TOML), for credentials and certificates; flags come first.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
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
    /// Print machine-readable JSON.
    #[arg(long)]
    pub(crate) json: bool,
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
