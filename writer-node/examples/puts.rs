//! Measures puts in process. Without further words: `ack=memory` on a bucket that discards bodies, which is the writer
//! alone, without its store.
//!
//! `cargo run --release -p writer-node --no-default-features --example puts [seconds] [tasks] [value bytes] [memory|bucket] [store URL]`
//!
//! Prints one line a second, then the median, the slowest window and the peak of resident memory.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring program for people")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::{self, CoordinationSettings, NodeInfo};
use isle_storage::database::Database;
use isle_storage::environment::Environment;
use isle_storage::manifest::CompactionMode;
use isle_storage::object::{self, StoreSettings};
use writer_node::{Ack, Options, Writer, WriterSettings};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arg = |n: usize, or: usize| std::env::args().nth(n).and_then(|a| a.parse().ok()).unwrap_or(or);
    let (seconds, tasks, value_bytes) = (arg(1, 10), arg(2, 4), arg(3, 1024));
    let word = |n: usize, or: &str| std::env::args().nth(n).unwrap_or_else(|| or.to_owned());
    let ack = if word(4, "memory") == "bucket" { Ack::Bucket } else { Ack::Memory };
    let writer = open(&word(5, "null:")).await;
    writer.leading().await.unwrap();

    let (puts, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let workers: Vec<_> = (0..tasks)
        .map(|t| {
            tokio::spawn(put_all(
                writer.clone(),
                Arc::clone(&puts),
                Arc::clone(&stop),
                t as u64,
                value_bytes,
                ack,
            ))
        })
        .collect();
    let mut windows = Vec::new();
    // A thread of its own, so that the windows stay a second long whatever the runtime does.
    let watch = std::thread::spawn({
        let (puts, writer) = (Arc::clone(&puts), writer.clone());
        move || {
            let (mut last, mut at) = (0, Instant::now());
            for second in 1..=seconds {
                std::thread::sleep(Duration::from_secs(1));
                let (now, took) = (puts.load(Ordering::Relaxed), at.elapsed().as_secs_f64());
                at = Instant::now();
                let rate = (now - last) as f64 / took;
                last = now;
                let held = writer.status().queue_bytes >> 20;
                println!(
                    "{second:>3} s  {rate:>9.0} puts/s  {held:>4} MiB held  {:>5} MiB resident",
                    resident("VmRSS")
                );
                windows.push(rate);
            }
            windows
        }
    });
    let mut windows = tokio::task::spawn_blocking(move || watch.join().unwrap()).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    windows.sort_by(f64::total_cmp);
    let (slowest, median) = (windows[0], windows[windows.len() / 2]);
    println!(
        "median {median:.0} puts/s, slowest second {slowest:.0}, peak {} MiB resident",
        resident("VmHWM")
    );
    for line in writer.database().env.metrics.encode().lines() {
        let told = [
            "isle_commit_seconds_sum",
            "isle_commit_seconds_count",
            "isle_commits_total",
            "isle_flushes_total",
        ];
        if told.iter().any(|name| line.starts_with(name)) {
            println!("{line}");
        }
    }
    writer.close(Duration::from_secs(20)).await;
}

async fn open(url: &str) -> Writer {
    let env = Environment::system("writer", "bench");
    let bucket = object::open(url, &StoreSettings::default(), &env).unwrap();
    let told = CoordinationSettings::new(if url == "null:" { "memory" } else { "bucket" });
    let coordination = coordination::connect(&told, "bench", Arc::clone(&bucket), &env).await.unwrap();
    let mode = OpenMode::CreateIfMissing(CompactionMode::Merge);
    let db = Database::open(bucket, coordination, env, "bench", &mode).await.unwrap();
    let node = NodeInfo { node: "bench".to_owned(), advertise: String::new() };
    Writer::open(db, WriterSettings::default(), node).unwrap()
}

async fn put_all(
    writer: Writer,
    puts: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    seed: u64,
    value_bytes: usize,
    ack: Ack,
) {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let noise: Vec<u8> = (0..(1 << 20) + value_bytes).map(|_| next() as u8).collect();
    while !stop.load(Ordering::Relaxed) {
        let (a, b) = (next(), next());
        let mut key = [0; 16];
        key[..8].copy_from_slice(&a.to_le_bytes());
        key[8..].copy_from_slice(&b.to_le_bytes());
        let at = (a >> 40) as usize & 0xf_ffff;
        let value = &noise[at..at + value_bytes];
        writer.put(&key, value, None, Options::ack(ack)).await.unwrap();
        puts.fetch_add(1, Ordering::Relaxed);
    }
}

/// A line of `/proc/self/status`, in MiB.
fn resident(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|l| l.strip_prefix(line)?.strip_prefix(':')?.trim().split(' ').next()?.parse().ok());
    kib.unwrap_or(0u64) / 1024
}
