#![no_main]
//! Fuzzes [`bodies::manifest::text`].

#[allow(dead_code, reason = "each target calls one of them")]
#[path = "../bodies/mod.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::manifest::text(data));
