//! The writer-node program.
fn main() {}
