//! The tailer-node program.
fn main() {}
