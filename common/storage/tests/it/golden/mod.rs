//! Log objects, checkpoints and edits of version 1 as they were first written, kept for ever: every later build reads
//! them.
//!
//! A fixture is made once, by running these tests with `ISLE_WRITE_FIXTURES=1` while its file is missing, and never
//! written over. A change that breaks one of them breaks every bucket there is.

mod blob;
mod log;
mod manifest;

use std::path::PathBuf;

fn fixture(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1").join(name);
    if !path.exists() && std::env::var_os("ISLE_WRITE_FIXTURES").is_some() {
        std::fs::write(&path, make()).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; ISLE_WRITE_FIXTURES=1 makes it", path.display()))
}

fn text_fixture(name: &str, make: impl FnOnce() -> String) -> String {
    String::from_utf8(fixture(name, || make().into_bytes())).unwrap()
}

#[track_caller]
fn assert_same_text(name: &str, expected: &str, found: &str) {
    for (n, (a, b)) in expected.lines().zip(found.lines()).enumerate() {
        assert_eq!(a, b, "{name}:{}", n + 1);
    }
    assert_eq!(expected.lines().count(), found.lines().count(), "{name}");
}

/// Seeds of a fuzz target, by name.
pub(crate) fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let found = match target {
        "sealed_block" | "sections" | "log_object" | "log_block" | "log_index" => log::seeds(target),
        "blob_file" => blob::seeds(),
        "checkpoint" | "edit" | "manifest_text" => manifest::seeds(target),
        "table_block" | "table_meta" => crate::hostile_tables::seeds(target),
        other => panic!("{other} has no seeds"),
    };
    found.into_iter().map(|(name, seed)| (name.to_string(), seed)).collect()
}
