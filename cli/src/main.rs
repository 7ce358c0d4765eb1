//! The `isle` command.

mod args;
mod bench;
mod dump;
mod kv;
mod load;
mod mode;
mod nodes;
mod output;
mod recover;
mod snapshot;
mod status;
mod stress;
mod tail;
mod up;
mod verify;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;
use output::Failure;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return output::report(&Failure::new(format!("the runtime cannot start: {e}"))),
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Up(args) => up::up(args).await,
            Command::Put(args) => kv::put(args).await,
            Command::Get(args) => kv::get(args).await,
            Command::Delete(args) => kv::delete(args).await,
            Command::Scan(args) => kv::scan(args).await,
            Command::Snapshot(args) => snapshot::snapshot(args).await,
            Command::Tail(args) => tail::tail(args).await,
            Command::Load(args) => load::load(args).await,
            Command::Status(args) => status::status(args).await,
            Command::Mode(args) => mode::mode(args).await,
            Command::Dump(args) => dump::dump(args).await,
            Command::Verify(args) => verify::verify(args).await,
            Command::Stress(args) => stress::stress(args).await,
            Command::Recover(args) => recover::recover(args).await,
            Command::Bench(args) => bench::run(args).await.map_err(Failure::new),
        }
    });
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output::report(&failure),
    }
}
