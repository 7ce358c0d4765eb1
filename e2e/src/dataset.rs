//! What the scenarios load: the packages of a distribution, one record each.
//!
//! The real list is used where it is at hand (`ISLE_PACKAGES`, or beside the repository); elsewhere records of the same
//! shape and number are made up, always the same ones.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use xxhash_rust::xxh3::Xxh3;

/// Records of the whole set.
pub const ALL: usize = 63_666;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `deb/<section>/<name>`.
    pub key: String,
    /// JSON as text.
    pub value: String,
}

impl Record {
    /// The line that puts it.
    #[must_use]
    pub fn line(&self) -> String {
        json!({"op": "put", "key": self.key, "value": self.value}).to_string()
    }
}

/// Rows by key: what a database should hold, or does.
pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// The first `count` records.
///
/// # Panics
/// If the list is there and cannot be read.
#[must_use]
pub fn records(count: usize) -> Vec<Record> {
    match list() {
        Some(path) => read(&path, count),
        None => (0..count).map(synthetic).collect(),
    }
}

/// The rows a database holds after records were put in order.
#[must_use]
pub fn rows(records: &[Record]) -> Rows {
    records.iter().map(|r| (r.key.clone().into_bytes(), r.value.clone().into_bytes())).collect()
}

/// The rows whose keys begin with `prefix`.
#[must_use]
pub fn with_prefix(rows: &Rows, prefix: &str) -> Rows {
    let matching = rows.iter().filter(|(key, _)| key.starts_with(prefix.as_bytes()));
    matching.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The body that puts records: one line each.
#[must_use]
pub fn ndjson(records: &[Record]) -> Vec<u8> {
    let mut body = Vec::new();
    for record in records {
        body.extend_from_slice(record.line().as_bytes());
        body.push(b'\n');
    }
    body
}

/// The same, as a compressed file.
///
/// # Panics
/// If it cannot be written.
pub fn write_gzip(records: &[Record], path: &Path) {
    let file = std::fs::File::create(path).unwrap();
    let mut compressed = GzEncoder::new(file, Compression::fast());
    compressed.write_all(&ndjson(records)).unwrap();
    compressed.finish().unwrap();
}

/// A checksum over all keys and values in key order.
#[must_use]
pub fn checksum(rows: &Rows) -> u64 {
    let mut hash = Xxh3::new();
    for (key, value) in rows {
        for part in [key, value] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    hash.digest()
}

/// Says whether two sets of rows are the same, and if not, where they differ first.
///
/// # Panics
/// If they differ.
pub fn assert_same(what: &str, found: &Rows, expected: &Rows) {
    if checksum(found) == checksum(expected) && found.len() == expected.len() {
        return;
    }
    let missing: Vec<_> = expected.keys().filter(|k| !found.contains_key(*k)).collect();
    let extra: Vec<_> = found.keys().filter(|k| !expected.contains_key(*k)).collect();
    let other = expected.iter().filter(|(k, v)| found.get(*k).is_some_and(|f| f != *v)).count();
    let first = |keys: &[&Vec<u8>]| keys.first().map(|k| String::from_utf8_lossy(k).into_owned());
    panic!(
        "{what}: {} rows, expected {}; {} missing (first {:?}), {} too many (first {:?}), {other} with another value",
        found.len(),
        expected.len(),
        missing.len(),
        first(&missing),
        extra.len(),
        first(&extra),
    );
}

fn list() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/packages.ndjson.gz");
    let path = std::env::var_os("ISLE_PACKAGES").map_or_else(beside, PathBuf::from);
    path.exists().then_some(path)
}

fn read(path: &Path, count: usize) -> Vec<Record> {
    let file = std::fs::File::open(path).unwrap();
    let plain: Box<dyn Read> = match path.extension() {
        Some(e) if e == "gz" => Box::new(GzDecoder::new(file)),
        _ => Box::new(file),
    };
    let lines = BufReader::new(plain).lines().take(count);
    lines
        .map(|line| {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            Record { key: text("key"), value: text("value") }
        })
        .collect()
}

const SECTIONS: [&str; 8] = ["admin", "devel", "games", "libs", "net", "python", "science", "utils"];
const WORDS: [&str; 16] = [
    "fast",
    "library",
    "files",
    "development",
    "tools",
    "server",
    "client",
    "common",
    "data",
    "simple",
    "modern",
    "portable",
    "documentation",
    "plugin",
    "support",
    "runtime",
];

fn synthetic(n: usize) -> Record {
    // Mixed so that neighbouring records differ; the same on every machine.
    let mut state = (n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = |below: usize| {
        state ^= state >> 29;
        state = state.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state ^= state >> 32;
        (state % below as u64) as usize
    };
    let section = SECTIONS[next(SECTIONS.len())];
    let words: Vec<_> = (0..40 + next(30)).map(|_| WORDS[next(WORDS.len())]).collect();
    let value = json!({
        "version": format!("{}.{}-{}", next(9), next(40), next(5)),
        "section": section,
        "description": words.join(" "),
    });
    Record { key: format!("deb/{section}/package-{n:05}"), value: value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_records_have_keys_of_their_own_and_the_size_of_the_real_ones() {
        let made: Vec<_> = (0..2_000).map(synthetic).collect();
        assert_eq!(rows(&made).len(), made.len());
        assert_eq!(made[7], synthetic(7));
        let bytes: usize = made.iter().map(|r| r.value.len()).sum();
        assert!((300..800).contains(&(bytes / made.len())), "{} bytes each", bytes / made.len());
        assert!(!with_prefix(&rows(&made), "deb/games/").is_empty());
    }

    #[test]
    #[should_panic(expected = "1 missing")]
    fn a_missing_row_is_seen() {
        let made = rows(&[synthetic(1), synthetic(2)]);
        let mut less = made.clone();
        let _first = less.pop_first();
        assert_same("rows", &less, &made);
    }
}
