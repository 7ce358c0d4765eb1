//! The workloads on engines in this process: what the engines can do without sockets.

use std::time::Duration;

use bytes::Bytes;
use isle_storage::row::ValueRef;
use reader_node::{KeyRange, MinSeq, ReadOptions, Reader, ScanRequest};
use tailer_node::tailer::Consumer;
use writer_node::{Ack, Mutation, Options, Writer};

use super::data::{Random, Values, key, spread};
use super::drive::{self, Done, Mixed, Worker};
use super::engines::{Engines, flush};
use super::report::Report;
use super::{GETS_PER_PUT, SCAN_ROWS};
use crate::args::{BenchArgs, Workload};

/// Records handed to the writer in one call while preparing.
const PREPARE_TOGETHER: u64 = 64;

/// Runs the workload.
pub(super) async fn run(args: &BenchArgs) -> Result<Vec<Report>, String> {
    if args.store.starts_with("null:") && args.workload != Workload::Put {
        return Err("null: discards what it is given, so it can only be put to".to_owned());
    }
    let engines = Engines::open(args).await?;
    let writer = engines.writer().await?;
    let reports = match args.workload {
        Workload::Put => put(args, &engines, &writer).await,
        Workload::Get => get(args, &engines, &writer).await,
        Workload::Scan => scan(args, &engines, &writer).await,
        Workload::Mixed => mixed(args, &engines, &writer).await,
        Workload::Tail => tail(args, &engines, &writer).await,
    }?;
    engines.close(&writer).await;
    Ok(reports)
}

async fn put(args: &BenchArgs, engines: &Engines, writer: &Writer) -> Result<Vec<Report>, String> {
    let values = Values::new(args.value_bytes, 1);
    let workers = (0..args.tasks).map(|t| Putter::new(args, writer, &values, t)).collect();
    measure(args, engines, workers, &["put"]).await
}

async fn get(args: &BenchArgs, engines: &Engines, writer: &Writer) -> Result<Vec<Report>, String> {
    let reader = prepared_reader(args, engines, writer).await?;
    for n in 0..args.records {
        let key = key(n, args.key_bytes);
        let found = reader.get(&key, &ReadOptions::default()).await.map_err(|e| e.to_string())?.found;
        found.ok_or_else(|| format!("record {n} is not there"))?;
    }
    let workers = (0..args.tasks).map(|t| Getter::new(args, &reader, t)).collect();
    measure(args, engines, workers, &["get"]).await
}

async fn scan(args: &BenchArgs, engines: &Engines, writer: &Writer) -> Result<Vec<Report>, String> {
    let reader = prepared_reader(args, engines, writer).await?;
    let scanner =
        |t| Scanner { reader: reader.clone(), key_bytes: args.key_bytes, random: Random::of_task(t) };
    measure(args, engines, (0..args.tasks).map(scanner).collect(), &["scan"]).await
}

async fn mixed(args: &BenchArgs, engines: &Engines, writer: &Writer) -> Result<Vec<Report>, String> {
    let reader = prepared_reader(args, engines, writer).await?;
    let values = Values::new(args.value_bytes, 1);
    let mixer = |t| Mixed {
        rare: Putter::new(args, writer, &values, t),
        common: Getter::new(args, &reader, t),
        every: GETS_PER_PUT + 1,
        turn: 0,
    };
    let workers = (0..args.tasks).map(mixer).collect();
    measure(args, engines, workers, &["mixed: put", "mixed: get"]).await
}

async fn tail(args: &BenchArgs, engines: &Engines, writer: &Writer) -> Result<Vec<Report>, String> {
    prepare(args, writer).await?;
    let tailer = engines.tailer().await?;
    let mut workers = Vec::with_capacity(args.tasks);
    for _ in 0..args.tasks {
        let consumer = tailer.consume(tailer_node::From::Earliest).await.map_err(|e| e.to_string())?;
        workers.push(TailReader { consumer });
    }
    measure(args, engines, workers, &["tail"]).await
}

async fn measure<W: Worker>(
    args: &BenchArgs,
    engines: &Engines,
    workers: Vec<W>,
    lanes: &[&str],
) -> Result<Vec<Report>, String> {
    let mark = engines.mark();
    let measured = drive::run(workers, Duration::from_secs(args.seconds)).await?;
    Ok(Report::of_lanes(lanes, &args.store, args.tasks, &measured, &engines.since(&mark)))
}

/// Puts the records that are going to be read, into tables.
async fn prepare(args: &BenchArgs, writer: &Writer) -> Result<(), String> {
    let (values, mut random) = (Values::new(args.value_bytes, 2), Random::new(3));
    let mut next = 0;
    while next < args.records {
        let numbers = next..(next + PREPARE_TOGETHER).min(args.records);
        next = numbers.end;
        let rows: Vec<(Bytes, &[u8])> =
            numbers.map(|n| (key(n, args.key_bytes), values.pick(&mut random))).collect();
        let puts: Vec<_> = rows.iter().map(|(key, value)| Mutation::Put { key, value, ttl: None }).collect();
        let _accepted = writer.submit(&puts, Options::ack(Ack::Memory)).await.map_err(|e| e.to_string())?;
    }
    flush(writer).await
}

/// A reader that has seen everything prepared, with a cache that can hold it.
async fn prepared_reader(args: &BenchArgs, engines: &Engines, writer: &Writer) -> Result<Reader, String> {
    prepare(args, writer).await?;
    let raw = args.records * (args.key_bytes + args.value_bytes) as u64;
    let reader = engines.reader(raw + raw / 4).await?;
    let newest = MinSeq::Seq(writer.status().committed_seq);
    let options = ReadOptions { min_seq: Some(newest), ..ReadOptions::default() };
    reader.get(b"-", &options).await.map_err(|e| e.to_string())?;
    Ok(reader)
}

struct Putter {
    writer: Writer,
    values: Values,
    random: Random,
    key: Vec<u8>,
    options: Options,
}

impl Putter {
    fn new(args: &BenchArgs, writer: &Writer, values: &Values, task: usize) -> Self {
        let ack = if args.ack == "bucket" { Ack::Bucket } else { Ack::Memory };
        Self {
            writer: writer.clone(),
            values: values.clone(),
            random: Random::of_task(task),
            key: vec![0; args.key_bytes],
            options: Options::ack(ack),
        }
    }
}

impl Worker for Putter {
    async fn step(&mut self) -> Result<Option<Done>, String> {
        spread(&mut self.random, &mut self.key);
        let value = self.values.pick(&mut self.random);
        self.writer.put(&self.key, value, None, self.options).await.map_err(|e| e.to_string())?;
        Ok(Some(Done::new(1, (self.key.len() + value.len()) as u64)))
    }
}

struct Getter {
    reader: Reader,
    random: Random,
    records: u64,
    key_bytes: usize,
    key: Vec<u8>,
    options: ReadOptions,
}

impl Getter {
    fn new(args: &BenchArgs, reader: &Reader, task: usize) -> Self {
        Self {
            reader: reader.clone(),
            random: Random::of_task(task),
            records: args.records,
            key_bytes: args.key_bytes,
            key: vec![0; args.key_bytes],
            options: ReadOptions::default(),
        }
    }
}

impl Worker for Getter {
    async fn step(&mut self) -> Result<Option<Done>, String> {
        let n = self.random.below(self.records);
        spread(&mut Random::of_record(n), &mut self.key);
        let answer = self.reader.get(&self.key, &self.options).await.map_err(|e| e.to_string())?;
        let found = answer.found.ok_or_else(|| format!("record {n} is not there"))?;
        Ok(Some(Done::new(1, (self.key_bytes + found.value.len()) as u64)))
    }
}

struct Scanner {
    reader: Reader,
    key_bytes: usize,
    random: Random,
}

impl Worker for Scanner {
    async fn step(&mut self) -> Result<Option<Done>, String> {
        let start = key(self.random.next(), self.key_bytes);
        let request = ScanRequest {
            range: KeyRange { start, end: None },
            limit: Some(SCAN_ROWS),
            ..ScanRequest::default()
        };
        let mut scan = self.reader.scan(&request).await.map_err(|e| e.to_string())?;
        let mut done = Done::new(0, 0);
        while let Some(row) = scan.next().await.map_err(|e| e.to_string())? {
            done.records += 1;
            done.bytes += (row.key.len() + row.value.len()) as u64;
        }
        Ok(Some(done))
    }
}

struct TailReader {
    consumer: Consumer,
}

impl Worker for TailReader {
    async fn step(&mut self) -> Result<Option<Done>, String> {
        if self.consumer.caught_up() {
            return Ok(None);
        }
        let delivery = self.consumer.next().await.map_err(|e| e.to_string())?;
        let mut done = Done::new(0, 0);
        for row in delivery.rows() {
            let value = if let ValueRef::Put(value) = row.value { value.len() } else { 0 };
            done.records += 1;
            done.bytes += (row.key.len() + value) as u64;
        }
        Ok(Some(done))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn args(line: &str) -> BenchArgs {
        match Cli::parse_from(line.split(' ')).command {
            Command::Bench(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_workload_reads_and_writes_what_it_says() {
        for (workload, lanes) in [("put", 1), ("get", 1), ("scan", 1), ("mixed", 2), ("tail", 1)] {
            let line = format!("isle bench {workload} --records 500 --value-bytes 100 --seconds 1 --tasks 2");
            let reports = run(&args(&line)).await.unwrap();
            assert_eq!(reports.len(), lanes, "{workload}");
            assert!(reports.iter().all(|r| r.records_per_second > 0.0), "{workload}");
            assert!(reports.iter().all(|r| r.store_memory_mib > 0.0), "{workload}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_tail_is_every_record_once_for_each_task() {
        let reports = run(&args("isle bench tail --records 700 --value-bytes 10 --tasks 3")).await.unwrap();
        let delivered = reports[0].records_per_second * reports[0].seconds;
        assert_eq!(delivered.round() as u64, 3 * 700);
    }

    #[tokio::test]
    async fn nothing_is_read_from_a_store_that_discards() {
        let why = run(&args("isle bench get --store null:")).await.unwrap_err();
        assert!(why.contains("only be put to"), "{why}");
    }
}
