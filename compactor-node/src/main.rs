//! The compactor-node program.
fn main() {}
