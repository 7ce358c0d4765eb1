//! The compactor-node program.

use std::process::ExitCode;

use compactor_node::server::CompactorNode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    isle_service::shell::run::<CompactorNode>()
}
