#![no_main]
//! Fuzzes [`bodies::log::object`].

#[allow(dead_code, reason = "each target calls one of them")]
#[path = "../bodies/mod.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::log::object(data));
