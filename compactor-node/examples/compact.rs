//! Measures a compaction: four runs of interleaved keys, merged into one in a local bucket.
//!
//! `cargo run --release -p compactor-node --example compact [MiB a run] [rounds] [random|text] [none,lz4,zstd] [workers]`
//!
//! Rows are 32 bytes of key and 224 of value. Inputs are written by a process of their own, so that the peak of memory is
//! the merge's. One line a round: rate over the bytes of keys and values, processor time a row, peak of resident memory.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring program for people")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use compactor_node::CompactorSettings;
use compactor_node::once::{self, Limits};
use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::{self, CoordinationSettings, NodeInfo};
use isle_storage::database::Database;
use isle_storage::environment::Environment;
use isle_storage::format::Compression;
use isle_storage::manifest::CompactionMode;
use isle_storage::object::{self, StoreSettings};
use isle_storage::sst::TableOptions;
use isle_testkit::scribe::{Entry, Scribe};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const RUNS: u64 = 4;
const KEY: usize = 32;
const VALUE: usize = 224;

/// Rows of one segment of the log.
const SEGMENT: u64 = 8192;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |n: usize, or: &str| words.get(n).cloned().unwrap_or_else(|| or.to_owned());
    let number = |n: usize, or: u64| word(n, "").parse().unwrap_or(or);
    match words.first().map(String::as_str) {
        Some("generate") => block_on(generate(
            Path::new(&words[1]),
            number(2, 256),
            word(3, "random") == "text",
            &word(4, "lz4"),
        )),
        Some("merge") => block_on(merge(Path::new(&words[1]), &word(2, "lz4"), number(3, 2) as usize)),
        _ => {
            rounds(number(0, 256), number(1, 3), &word(2, "random"), &word(3, "none,lz4,zstd"), number(4, 2))
        }
    }
}

/// Each round is two processes: one makes the runs, one merges them.
fn rounds(mib: u64, rounds: u64, values: &str, compressions: &str, workers: u64) {
    let dir: PathBuf = std::env::temp_dir().join(format!("isle-bench-{}", std::process::id()));
    let this = std::env::current_exe().unwrap();
    let run = |words: &[&str]| {
        assert!(Command::new(&this).args(words).status().unwrap().success(), "{words:?} failed");
    };
    let at = dir.to_str().unwrap();
    for compression in compressions.split(',') {
        println!("{RUNS} runs of {mib} MiB, {values} values, {compression}, {workers} workers");
        for _ in 0..rounds {
            run(&["generate", at, &mib.to_string(), values, compression]);
            run(&["merge", at, compression, &workers.to_string()]);
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
}

fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work);
}

async fn open(dir: &Path, role: &str) -> Database {
    let env = Environment::system(role, "bench");
    let url = format!("file://{}", dir.display());
    let bucket = object::open(&url, &StoreSettings::default(), &env).unwrap();
    let told = CoordinationSettings::new("bucket");
    let coordination = coordination::connect(&told, "bench", Arc::clone(&bucket), &env).await.unwrap();
    let mode = OpenMode::CreateIfMissing(CompactionMode::Merge);
    Database::open(bucket, coordination, env, "bench", &mode).await.unwrap()
}

fn compression(name: &str) -> Compression {
    match name {
        "none" => Compression::None,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        other => panic!("{other:?} is none of none, lz4, zstd"),
    }
}

async fn generate(dir: &Path, mib: u64, text: bool, compressed: &str) {
    let db = open(dir, "writer").await;
    let mut scribe = Scribe::take_over(&db).await;
    scribe.table_options = TableOptions { compression: compression(compressed), ..TableOptions::default() };
    scribe.table_bytes = 64 << 20;
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for _ in 0..RUNS {
        let mut left = (mib << 20) / (KEY + VALUE) as u64;
        while left > 0 {
            let count = left.min(SEGMENT);
            left -= count;
            let rows: Vec<Entry> = (0..count)
                .map(|_| {
                    let mut bytes =
                        |n: usize| -> Vec<u8> { (0..n / 8).flat_map(|_| next().to_le_bytes()).collect() };
                    let (key, mut value) = (bytes(KEY), bytes(VALUE));
                    if text {
                        // Sixteen letters: half of the bits.
                        value.iter_mut().for_each(|b| *b = b'a' + (*b & 15));
                    }
                    Entry::put(key, value)
                })
                .collect();
            scribe.append(&rows).await;
            scribe.history.clear();
        }
        scribe.flush().await;
    }
}

async fn merge(dir: &Path, compressed: &str, workers: usize) {
    let db = open(dir, "compactor").await;
    let before = db.load().await.unwrap().manifest;
    let (rows, raw) = before.tables().fold((0, 0), |(rows, raw), t| (rows + t.rows, raw + t.raw_bytes));
    let settings = CompactorSettings {
        compression: compression(compressed),
        merge_workers: workers,
        ..CompactorSettings::default()
    };
    let node = NodeInfo { node: "bench".to_owned(), advertise: String::new() };
    let cpu = processor_seconds();
    let summary = once::once(db.clone(), node, settings, Limits::default()).await.unwrap();
    let cpu = processor_seconds() - cpu;
    let after = db.load().await.unwrap().manifest;
    assert_eq!((after.runs.len(), after.tables().map(|t| t.rows).sum::<u64>()), (1, rows));
    println!(
        "{:>7.0} MiB/s  {:>5.2} s  {:>5.2} µs of processor a row  {:>4} MiB peak  {} parts",
        raw as f64 / f64::from(1 << 20) / summary.seconds,
        summary.seconds,
        cpu * 1e6 / rows as f64,
        peak_mib(),
        summary.parts
    );
}

/// User and system time of this process.
fn processor_seconds() -> f64 {
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<f64> =
        after_name.split_whitespace().skip(11).take(2).map(|f| f.parse().unwrap()).collect();
    (fields[0] + fields[1]) / TICKS_A_SECOND
}

/// The most memory that was ever resident.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}
