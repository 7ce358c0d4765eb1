//! The tailer-node program.

use std::process::ExitCode;

use tailer_node::server::TailerNode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    isle_service::shell::run::<TailerNode>()
}
