//! The `isle` command.

mod args;
mod backup;
mod bench;
mod bootstrap;
mod command;
mod dump;
mod group;
mod kv;
mod load;
mod mode;
mod nodes;
mod output;
mod pause;
mod place;
mod recover;
mod snapshot;
mod status;
mod stdin;
mod stress;
mod tail;
mod ttl;
mod up;
mod verify;

use std::process::ExitCode;

use args::Cli;
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
    let result = runtime.block_on(command::run(cli.command));
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output::report(&failure),
    }
}
