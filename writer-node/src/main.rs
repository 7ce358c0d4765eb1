//! The writer-node program.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    isle_service::shell::run::<writer_node::server::WriterNode>()
}
