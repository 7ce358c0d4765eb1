//! How many gets a second one reader answers from memory: `cargo run --release --example warm_gets [keys] [tasks]`.
//!
//! Keys are 16 random bytes, values 1 KiB of noise, spread over a few runs of tables and one in-memory generation; a
//! first pass fills the cache, then every task gets random keys for a few seconds.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement prints its figures and may break off"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use isle_storage::coordination::identity::OpenMode;
use isle_storage::coordination::memory::MemoryCoordination;
use isle_storage::database::Database;
use isle_storage::environment::{Environment, SystemClock};
use isle_storage::manifest::CompactionMode;
use isle_storage::object::{Bucket, MemoryBucket};
use isle_storage::sst::TableOptions;
use isle_testkit::scribe::{Entry, Scribe};
use reader_node::{ReadOptions, Reader, ReaderSettings, ScanRequest};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SECONDS: u64 = 5;
const RUNS: usize = 4;

/// A small random sequence, so that the measurement repeats.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }
}

async fn write(db: &Database, keys: usize) -> Vec<Vec<u8>> {
    let mut scribe = Scribe::take_over(db).await;
    scribe.table_options = TableOptions::default();
    scribe.table_bytes = 64 << 20;
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut all = Vec::with_capacity(keys);
    for run in 0..=RUNS {
        for _ in 0..(keys / (RUNS + 1)).div_ceil(1000) {
            let batch: Vec<Entry> = (0..1000)
                .map(|_| {
                    let key = noise.bytes(16);
                    all.push(key.clone());
                    Entry::put(key, noise.bytes(1024))
                })
                .collect();
            scribe.append(&batch).await;
        }
        scribe.history.clear();
        if run < RUNS {
            scribe.flush().await;
        }
    }
    all
}

async fn measure(reader: &Reader, keys: &Arc<Vec<Vec<u8>>>, tasks: u64) -> (u64, Duration) {
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let started = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let (reader, keys) = (reader.clone(), Arc::clone(keys));
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                let mut noise = Noise(task + 1);
                let options = ReadOptions::default();
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..1000 {
                        let key = &keys[noise.next() as usize % keys.len()];
                        assert!(reader.get(key, &options).await.unwrap().found.is_some());
                    }
                    done.fetch_add(1000, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    stop.store(true, Ordering::Relaxed);
    for task in running {
        task.await.unwrap();
    }
    (done.load(Ordering::Relaxed), started.elapsed())
}

fn cpu() -> Duration {
    // Fields 14 and 15 of /proc/self/stat: user and system time in hundredths of a second.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1).filter_map(|a| a.parse::<usize>().ok());
    let (keys, tasks) = (args.next().unwrap_or(150_000), args.next().unwrap_or(4));
    let bucket: Arc<dyn Bucket> = Arc::new(MemoryBucket::new(Arc::new(SystemClock)));
    let coordination = MemoryCoordination::new(Arc::clone(&bucket));
    let env = Environment::system("reader", "default");
    let mode = OpenMode::CreateIfMissing(CompactionMode::Merge);
    let db = Database::open(bucket, coordination, env, "default", &mode).await.unwrap();
    let keys = Arc::new(write(&db, keys).await);
    let settings = ReaderSettings { cache_bytes: 1 << 30, ..ReaderSettings::default() };
    let reader = Reader::open(db, settings).unwrap();
    reader.ready().await.unwrap();
    for key in keys.iter() {
        assert!(reader.get(key, &ReadOptions::default()).await.unwrap().found.is_some());
    }
    let status = reader.status();
    println!(
        "{} keys, {} runs, {} rows in memory, cache {} MiB in {} entries",
        keys.len(),
        status.tree.runs.len(),
        status.tree.memory_rows,
        status.cache.bytes >> 20,
        status.cache.entries
    );
    for _ in 0..3 {
        let before = cpu();
        let (gets, took) = measure(&reader, &keys, tasks as u64).await;
        let each = (cpu() - before).as_secs_f64() * 1e6 / gets as f64;
        println!("{:.0} k gets/s, {each:.2} µs of CPU each", gets as f64 / took.as_secs_f64() / 1e3);
    }
    let started = Instant::now();
    let mut scan = reader.scan(&ScanRequest::default()).await.unwrap();
    let mut rows = 0u64;
    while scan.next().await.unwrap().is_some() {
        rows += 1;
    }
    println!("{:.0} k rows/s scanned", rows as f64 / started.elapsed().as_secs_f64() / 1e3);
}
