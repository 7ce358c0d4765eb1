//! The fuzz targets as plain tests: every seed of the corpus, and a few thousand mutations of them that are the same
//! in every run. `cargo fuzz run --fuzz-dir common/storage/fuzz <target>` looks further.
//!
//! A seed is a file in `fuzz/corpus/<target>/`. Those made from the fixtures are written by
//! `ISLE_WRITE_FIXTURES=1 cargo test -p isle-storage fuzz` where they are missing; what a fuzzer has found is kept
//! there by hand, under a name that says what it was.

use std::path::{Path, PathBuf};

#[expect(unreachable_pub, reason = "the fuzz targets reach it")]
#[path = "../../fuzz/bodies/mod.rs"]
pub(crate) mod bodies;

/// Mutations of one target's corpus in one run.
const MUTATIONS: usize = 3000;

/// Bytes at most in one mutated input.
const MOST: usize = 64 * 1024;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    if std::env::var_os("ISLE_WRITE_FIXTURES").is_some() {
        write_missing(target);
    }
    let found = std::fs::read_dir(corpus(target)).unwrap_or_else(|e| panic!("the corpus of {target}: {e}"));
    let mut seeds: Vec<(String, Vec<u8>)> = found
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()))
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "the corpus of {target} is empty");
    seeds
}

fn write_missing(target: &str) {
    let folder = corpus(target);
    std::fs::create_dir_all(&folder).unwrap();
    for (name, seed) in super::golden::seeds(target) {
        let path = folder.join(format!("seed-{name}"));
        if !path.exists() {
            std::fs::write(path, seed).unwrap();
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n.max(1)
    }
}

/// One to four small changes.
fn mutated(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(9)).min(bytes.len());
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'9'][random.below(7)],
            2 => bytes.insert(at, random.below(256) as u8),
            3 => drop(bytes.drain(at..end)),
            4 => bytes.truncate(at),
            5 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let from = random.below(other.len() + 1);
                let piece = other[from..(from + random.below(33)).min(other.len())].to_vec();
                bytes.splice(at..end, piece);
            }
        }
    }
    bytes.truncate(MOST);
    bytes
}

fn run(name: &str) {
    let (_, target) = bodies::TARGETS.iter().find(|(n, _)| *n == name).unwrap();
    let seeds = seeds(name);
    let try_one = |what: &str, bytes: &[u8]| {
        let outcome = std::panic::catch_unwind(|| target(bytes));
        assert!(outcome.is_ok(), "{what} breaks {name}: {}", bytes.escape_ascii());
    };
    for (path, seed) in &seeds {
        try_one(path, seed);
    }
    let mut random = Random(name.len() as u64);
    for n in 0..MUTATIONS {
        let (path, seed) = &seeds[n % seeds.len()];
        let (_, other) = &seeds[random.below(seeds.len())];
        try_one(&format!("mutation {n}, of {path},"), &mutated(seed, other, &mut random));
    }
}

macro_rules! targets {
    ($($name:ident)+) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })+

        #[test]
        fn every_target_is_run() {
            let run = [$(stringify!($name)),+];
            assert!(bodies::TARGETS.iter().map(|(name, _)| *name).eq(run));
            let built = std::fs::read_dir(corpus("..").join("targets")).unwrap();
            assert_eq!(built.count(), run.len(), "as a fuzz target, too");
        }
    };
}

targets! {
    sealed_block sections log_object log_block log_index checkpoint edit manifest_text table_block table_meta
    blob_file
}
