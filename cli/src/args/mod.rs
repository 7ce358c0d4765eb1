//! The command line of `isle`: the commands here, what each takes in a file by its kind.

mod backup;
mod data;
mod database;
mod nodes;
mod settings;
mod trials;
mod up;

use clap::{Parser, Subcommand};

pub(crate) use self::backup::{BackupArgs, BackupCommand, CloneArgs, PruneArgs, RestoreArgs, Store, Target};
pub(crate) use self::data::{BootstrapArgs, DeleteArgs, GetArgs, LoadArgs, PutArgs, ScanArgs, TailArgs};
pub(crate) use self::database::{Database, Dump, DumpArgs, HowToDump, Place, Reach, RecoverArgs, VerifyArgs};
pub(crate) use self::nodes::{Nodes, StatusArgs};
pub(crate) use self::settings::{
    CompactArgs, Direct, ModeArgs, ModeCommand, PauseArgs, ResumeArgs, TtlArgs, TtlCommand,
};
pub(crate) use self::trials::{BenchArgs, StressArgs, Workload};
pub(crate) use self::up::UpArgs;

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
    /// Have no compactor begin a merge, runs of cron included, for a while or until `isle resume`.
    Pause(PauseArgs),
    /// End a pause.
    Resume(ResumeArgs),
    /// Ask a compactor to merge everything into one run.
    Compact(CompactArgs),
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
    Backup(BackupArgs),
    /// Make a database of a backup, in an empty prefix.
    Restore(RestoreArgs),
    /// Make a new database of what a named snapshot holds, in an empty prefix.
    Clone(CloneArgs),
    /// Measured workloads.
    Bench(BenchArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn help(command: &str) -> String {
        let mut cli = Cli::command();
        cli.find_subcommand_mut(command).unwrap().render_long_help().to_string()
    }

    /// Every command that opens a database is told where it lies by the same flags.
    #[test]
    fn a_database_is_named_by_the_same_flags_everywhere() {
        for command in ["backup", "verify", "recover", "restore", "clone"] {
            let help = help(command);
            for flag in ["--coordination", "--database", "--config", "--json"] {
                assert!(help.contains(flag), "{command} {flag}: {help}");
            }
            let place = if matches!(command, "restore" | "clone") { "--to <TO>" } else { "--store <STORE>" };
            assert!(help.contains(place), "{command}: {help}");
        }
        // What a flag means where it means something of its own.
        for (command, words) in [
            ("verify", "where no setting names one"),
            ("recover", "that is to hold the new head"),
            ("restore", "The name it gets"),
            ("clone", "What is to coordinate it"),
        ] {
            assert!(help(command).contains(words), "{command}");
        }
    }

    #[test]
    fn a_prune_is_told_which_backups_stay() {
        let parsed = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        assert!(parsed("isle backup prune --from x --keep 3 --yes"));
        assert!(parsed("isle backup prune --from x --older-than 30d"));
        for wrong in ["--keep 0", "--keep 2 --older-than 30d", "--yes"] {
            assert!(!parsed(&format!("isle backup prune --from x {wrong}")), "{wrong}");
        }
    }
}
