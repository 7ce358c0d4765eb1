#![no_main]
//! Fuzzes [`bodies::format::sections`].

#[allow(dead_code, reason = "each target calls one of them")]
#[path = "../bodies/mod.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::format::sections(data));
