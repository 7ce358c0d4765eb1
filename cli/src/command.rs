//! From a command line to the function that carries it out.

use crate::args::Command;
use crate::output::Failure;
use crate::{
    backup, bench, bootstrap, dump, group, kv, load, mode, pause, recover, snapshot, status, stress, tail,
    ttl, up, verify,
};

pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(args) => up::up(args).await,
        Command::Put(args) => kv::put(args).await,
        Command::Get(args) => kv::get(args).await,
        Command::Delete(args) => kv::delete(args).await,
        Command::Scan(args) => kv::scan(args).await,
        Command::Snapshot(args) => snapshot::snapshot(args).await,
        Command::Group(args) => group::group(args).await,
        Command::Tail(args) => tail::tail(args).await,
        Command::Bootstrap(args) => bootstrap::bootstrap(args).await,
        Command::Load(args) => load::load(args).await,
        Command::Status(args) => status::status(args).await,
        Command::Mode(args) => mode::mode(args).await,
        Command::Pause(args) => pause::pause(args).await,
        Command::Resume(args) => pause::resume(args).await,
        Command::Compact(args) => pause::compact(args).await,
        Command::Ttl(args) => ttl::ttl(args).await,
        Command::Dump(args) => dump::dump(args).await,
        Command::Verify(args) => verify::verify(args).await,
        Command::Stress(args) => stress::stress(args).await,
        Command::Recover(args) => recover::recover(args).await,
        Command::Backup(args) => backup::backup(args).await,
        Command::Restore(args) => backup::restore(args).await,
        Command::Clone(args) => backup::clone(args).await,
        Command::Bench(args) => bench::run(args).await.map_err(Failure::new),
    }
}
