//! What a benchmark prints: a table for people, the same figures as JSON for programs.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::drive::Measured;

/// The figures of one workload.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    /// The workload: `put`, `get`, …
    pub(super) workload: String,
    /// Where the objects lay.
    pub(super) store: String,
    /// Tasks side by side.
    pub(super) tasks: usize,
    /// How long it ran.
    pub(super) seconds: f64,
    /// Records per second, over the whole run.
    pub(super) records_per_second: f64,
    /// Median of the one-second windows.
    pub(super) window_median: f64,
    /// Slowest one-second window.
    pub(super) window_min: f64,
    /// Megabytes (10^6) of keys and values per second.
    pub(super) megabytes_per_second: f64,
    /// Median latency of an operation, in microseconds.
    pub(super) p50_us: f64,
    /// 99 of 100 operations are at least this fast.
    pub(super) p99_us: f64,
    /// 999 of 1000 operations are at least this fast.
    pub(super) p999_us: f64,
    /// The slowest operation.
    pub(super) max_us: f64,
    /// Requests to the store per record, where they can be counted.
    pub(super) requests_per_record: Option<f64>,
    /// Processor time per record in microseconds, the benchmark's own included.
    pub(super) cpu_us_per_record: f64,
    /// Peak resident memory of the process in mebibytes.
    pub(super) peak_memory_mib: f64,
    /// Mebibytes of objects that the store itself held in this process's memory.
    pub(super) store_memory_mib: f64,
}

impl Report {
    /// One for each lane. What was used cannot be told apart by lane: each is charged its share by records.
    pub(super) fn of_lanes(
        lanes: &[&str],
        store: &str,
        tasks: usize,
        measured: &[Measured],
        used: &Usage,
    ) -> Vec<Self> {
        let all: u64 = measured.iter().map(|m| m.records).sum();
        let report = |(lane, m): (&&str, &Measured)| {
            let share = m.records as f64 / all.max(1) as f64;
            let of_lane = Usage {
                requests: used.requests.map(|r| (r as f64 * share) as u64),
                cpu: used.cpu.mul_f64(share),
                ..*used
            };
            Self::new(lane, store, tasks, m, &of_lane)
        };
        lanes.iter().zip(measured).map(report).collect()
    }

    /// Condenses what was measured.
    fn new(workload: &str, store: &str, tasks: usize, m: &Measured, usage: &Usage) -> Self {
        let seconds = m.elapsed.as_secs_f64().max(1e-9);
        let records = m.records.max(1) as f64;
        let us = |q: f64| m.latency.value_at_quantile(q) as f64 / 1e3;
        let mut windows = m.windows.clone();
        windows.sort_unstable();
        let rate = m.records as f64 / seconds;
        Self {
            workload: workload.to_owned(),
            store: store.to_owned(),
            tasks,
            seconds,
            records_per_second: rate,
            window_median: windows.get(windows.len() / 2).map_or(rate, |w| *w as f64),
            window_min: windows.first().map_or(rate, |w| *w as f64),
            megabytes_per_second: m.bytes as f64 / 1e6 / seconds,
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: m.latency.max() as f64 / 1e3,
            requests_per_record: usage.requests.map(|r| r as f64 / records),
            cpu_us_per_record: usage.cpu.as_secs_f64() * 1e6 / records,
            peak_memory_mib: peak_memory_bytes() as f64 / f64::from(1 << 20),
            store_memory_mib: usage.store_memory_bytes as f64 / f64::from(1 << 20),
        }
    }
}

/// What a workload used, beside time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// Requests to the store.
    pub(super) requests: Option<u64>,
    /// Processor time of the process.
    pub(super) cpu: Duration,
    /// Bytes of objects a store in this process's memory holds.
    pub(super) store_memory_bytes: u64,
}

/// The reports as a table.
pub(super) fn table(reports: &[Report]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    let head = [
        "workload",
        "store",
        "tasks",
        "records/s",
        "1 s min",
        "1 s median",
        "MB/s",
        "p50 µs",
        "p99 µs",
        "p999 µs",
        "requests/record",
        "CPU µs/record",
        "peak MiB",
        "store MiB",
    ];
    table.set_header(head);
    for r in reports {
        table.add_row([
            r.workload.clone(),
            r.store.clone(),
            r.tasks.to_string(),
            whole(r.records_per_second),
            whole(r.window_min),
            whole(r.window_median),
            format!("{:.1}", r.megabytes_per_second),
            format!("{:.1}", r.p50_us),
            format!("{:.1}", r.p99_us),
            format!("{:.1}", r.p999_us),
            r.requests_per_record.map_or_else(|| "-".to_owned(), |q| format!("{q:.6}")),
            format!("{:.2}", r.cpu_us_per_record),
            format!("{:.0}", r.peak_memory_mib),
            format!("{:.0}", r.store_memory_mib),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// A whole number with thin groups of three, so that 400 000 is not read as 40 000.
fn whole(x: f64) -> String {
    let digits = format!("{x:.0}");
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 && c.is_ascii_digit() {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

/// Peak resident memory of this process (Linux: `VmHWM`); 0 where it cannot be read.
pub(super) fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Processor time this process has used (Linux: `utime` and `stime`, in ticks of 10 ms); zero where it cannot be read.
pub(super) fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the name in parentheses and may hold blanks; utime and stime are fields 14 and 15.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(whole(1_234_567.0), "1 234 567");
        assert_eq!(whole(999.4), "999");
    }

    #[test]
    fn the_process_knows_its_memory_and_time() {
        assert!(peak_memory_bytes() > 1 << 20);
        assert!(cpu_time() < Duration::from_secs(3600));
    }
}
