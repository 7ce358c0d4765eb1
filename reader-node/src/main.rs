//! The reader-node program.
fn main() {}
