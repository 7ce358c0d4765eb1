//! Measures a compaction: four runs whose keys interleave row by row, merged into one in a local bucket.
//!
//! `cargo run --release -p compactor-node --example compact [WORD=VALUE]...`
//!
//! | word | default | what |
//! | --- | --- | --- |
//! | `mib` | 256 | MiB of keys and values in each run |
//! | `rounds` | 3 | times each merge is measured |
//! | `compression` | none,lz4,zstd | of inputs and outputs |
//! | `keys` | ordered | a counter that all runs share and the run's number, or `random` bytes |
//! | `values` | random | bytes that do not compress, or `text`: half of their bits do |
//! | `workers` | 2 | key ranges merged at a time |
//!
//! Rows are 32 bytes of key and 224 of value. Inputs are written by a process of their own, so that the peak of memory is
//! the merge's. One line a round: rate over the bytes of keys and values, processor time a row, peak of resident memory;
//! then the median, least and most of the rounds.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring program for people")]

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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
const SEGMENT: usize = 8192;

/// What is measured, as it is told.
struct Told(Vec<(String, String)>);

impl Told {
    fn of(words: &[String]) -> Self {
        let pair = |w: &String| {
            let (name, value) = w.split_once('=').unwrap_or_else(|| panic!("{w:?} is not WORD=VALUE"));
            (name.to_owned(), value.to_owned())
        };
        Self(words.iter().map(pair).collect())
    }

    fn word<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.0.iter().rev().find(|(n, _)| n == name).map_or(default, |(_, value)| value)
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        let told = self.word(name, "");
        if told.is_empty() { default } else { told.parse().unwrap() }
    }

    /// For another process of this program.
    fn words(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|(name, value)| format!("{name}={value}"))
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("generate") => block_on(generate(Path::new(&words[1]), &Told::of(&words[2..]))),
        Some("merge") => block_on(merge(Path::new(&words[1]), &Told::of(&words[2..]))),
        _ => measure(&Told::of(&words)),
    }
}

/// Each round is two processes: one makes the runs, one merges them.
fn measure(told: &Told) {
    let dir: PathBuf = std::env::temp_dir().join(format!("isle-bench-{}", std::process::id()));
    let this = std::env::current_exe().unwrap();
    let run = |what: &str, compression: &str| {
        let words = told.words().chain([format!("compression={compression}")]);
        let done =
            Command::new(&this).arg(what).arg(&dir).args(words).stderr(Stdio::inherit()).output().unwrap();
        assert!(done.status.success(), "{what} failed");
        String::from_utf8(done.stdout).unwrap()
    };
    for compression in told.word("compression", "none,lz4,zstd").split(',') {
        println!("{RUNS} runs, {compression} {}", told.words().collect::<Vec<_>>().join(" "));
        let mut rounds = Vec::new();
        for _ in 0..told.number("rounds", 3) {
            run("generate", compression);
            let round = Round::parse(&run("merge", compression));
            std::fs::remove_dir_all(&dir).unwrap();
            println!("{round}");
            rounds.push(round);
        }
        println!("{}", summary(&rounds));
    }
}

/// What one merge took.
struct Round {
    mib_per_second: f64,
    seconds: f64,
    cpu_us_per_row: f64,
    peak_mib: f64,
}

impl Round {
    fn parse(line: &str) -> Self {
        let numbers: Vec<f64> = line.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let [mib_per_second, seconds, cpu_us_per_row, peak_mib] = numbers[..] else {
            panic!("{line:?} is no round")
        };
        Self { mib_per_second, seconds, cpu_us_per_row, peak_mib }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mib_per_second, seconds, cpu_us_per_row, peak_mib } = self;
        write!(
            f,
            "{mib_per_second:>7.0} MiB/s  {seconds:>6.2} s  {cpu_us_per_row:>5.2} µs of processor a row  {peak_mib:>4.0} MiB peak"
        )
    }
}

/// Median, least and most.
fn summary(rounds: &[Round]) -> String {
    let of = |number: fn(&Round) -> f64, digits: usize| {
        let mut all: Vec<f64> = rounds.iter().map(number).collect();
        all.sort_by(f64::total_cmp);
        let middle = (all[(all.len() - 1) / 2] + all[all.len() / 2]) / 2.0;
        format!("{middle:.digits$} ({:.digits$}-{:.digits$})", all[0], all[all.len() - 1])
    };
    format!(
        " median {} MiB/s, {} s, {} µs of processor a row, {} MiB peak",
        of(|r| r.mib_per_second, 0),
        of(|r| r.seconds, 2),
        of(|r| r.cpu_us_per_row, 2),
        of(|r| r.peak_mib, 0)
    )
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

async fn generate(dir: &Path, told: &Told) {
    let db = open(dir, "writer").await;
    let mut scribe = Scribe::take_over(&db).await;
    scribe.table_options =
        TableOptions { compression: compression(told.word("compression", "lz4")), ..TableOptions::default() };
    scribe.table_bytes = 64 << 20;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let text = told.word("values", "random") == "text";
    let ordered = told.word("keys", "ordered") == "ordered";
    let start = random.bytes(KEY - 12);
    for run in 0..RUNS as u32 {
        let all = (told.number("mib", 256) << 20) / (KEY + VALUE) as u64;
        let mut rows = (0..all).map(|n| {
            let key = if ordered {
                [&start[..], &n.to_be_bytes(), &run.to_be_bytes()].concat()
            } else {
                random.bytes(KEY)
            };
            let mut value = random.bytes(VALUE);
            if text {
                // Sixteen letters: half of the bits.
                value.iter_mut().for_each(|b| *b = b'a' + (*b & 15));
            }
            Entry::put(key, value)
        });
        loop {
            let segment: Vec<Entry> = rows.by_ref().take(SEGMENT).collect();
            if segment.is_empty() {
                break;
            }
            scribe.append(&segment).await;
            scribe.history.clear();
        }
        scribe.flush().await;
    }
}

/// Numbers without any structure.
struct Random(u64);

impl Random {
    fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0.to_le_bytes()
        };
        (0..n.div_ceil(8)).flat_map(|_| next()).take(n).collect()
    }
}

/// Merges, and prints what [`Round::parse`] reads.
async fn merge(dir: &Path, told: &Told) {
    let db = open(dir, "compactor").await;
    let before = db.load().await.unwrap().manifest;
    let (rows, raw) = before.tables().fold((0, 0), |(rows, raw), t| (rows + t.rows, raw + t.raw_bytes));
    let settings = CompactorSettings {
        compression: compression(told.word("compression", "lz4")),
        merge_workers: told.number("workers", 2) as usize,
        ..CompactorSettings::default()
    };
    let node = NodeInfo { node: "bench".to_owned(), advertise: String::new() };
    let cpu = processor_seconds();
    let summary = once::once(db.clone(), node, settings, Limits::default()).await.unwrap();
    let cpu = processor_seconds() - cpu;
    let after = db.load().await.unwrap().manifest;
    assert_eq!((after.runs.len(), after.tables().map(|t| t.rows).sum::<u64>()), (1, rows));
    println!(
        "{} {} {} {}",
        raw as f64 / f64::from(1 << 20) / summary.seconds,
        summary.seconds,
        cpu * 1e6 / rows as f64,
        peak_mib()
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
