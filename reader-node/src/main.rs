//! The reader-node program.

use std::process::ExitCode;

use reader_node::server::ReaderNode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    isle_service::shell::run::<ReaderNode>()
}
