#![no_main]
//! Fuzzes [`bodies::blob::file`].

#[allow(dead_code, reason = "each target calls one of them")]
#[path = "../bodies/mod.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::blob::file(data));
