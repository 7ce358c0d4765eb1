//! What each compaction mode costs over a day, a year, and a large database, without any data.
//!
//! ```text
//! cargo run --release -p compactor-node --example tree [-- SCENARIO]
//! ```
//! For each scenario: the tables, what was written and stored for every byte, and how many runs a read looks into, at the
//! end and at the worst instant; and the number of runs over time.
#![allow(clippy::print_stdout, reason = "a measuring program for people")]

use std::error::Error;
use std::time::Instant;

use compactor_node::CompactorSettings;
use compactor_node::simulate::{Load, Shape, Simulation};
use isle_storage::manifest::CompactionMode;

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
const MIB: u64 = 1 << 20;

/// Columns of a chart.
const COLUMNS: u64 = 72;

/// Lines of a chart, at most.
const LINES: usize = 8;

struct Scenario {
    name: &'static str,
    mode: CompactionMode,
    load: Load,
    flushes: u64,
    /// The compactor looks once in so many flushes.
    look_every: u64,
    /// Most that may be written, and stored, for every byte.
    targets: (f64, f64),
}

fn scenarios() -> Vec<Scenario> {
    let fifo = |days: i64| CompactionMode::Fifo { retention_us: days * DAY, retention_count: 10 };
    let windows =
        CompactionMode::TimeWindow { segment_us: 6 * HOUR, retention_us: 7 * DAY, retention_count: 10 };
    // A second's worth of small rows.
    let second = Load { rows_per_flush: 640, row_bytes: 100, seconds_between: 1.0, keys: None };
    let second_of = |keys| Load { keys: Some(keys), ..second };
    // A memtable of 64 MiB every five seconds; ten million keys of it are a hundred memtables.
    let churn =
        Load { rows_per_flush: 100_000, row_bytes: 671, seconds_between: 5.0, keys: Some(10_000_000) };
    let large = Load { keys: Some(160_000_000), ..churn };
    let (year, day) = (365 * 86_400, 86_400 / 5);
    let free = (f64::INFINITY, f64::INFINITY);
    let of = |name, mode, load, flushes, look_every, targets| Scenario {
        name,
        mode,
        load,
        flushes,
        look_every,
        targets,
    };
    vec![
        of("churn-day-tiered", CompactionMode::Merge, churn, day, 1, (5.0, 2.0)),
        of("churn-day-leveled", CompactionMode::Leveled, churn, day, 1, (12.0, 1.15)),
        of("100gb-tiered", CompactionMode::Merge, large, 16_000, 1, free),
        of("100gb-leveled", CompactionMode::Leveled, large, 16_000, 1, free),
        of("seconds-year-fifo-7d", fifo(7), second, year, 60, (2.0, f64::INFINITY)),
        of("seconds-year-windows-7d", windows, second, year, 60, (2.0, f64::INFINITY)),
        of("seconds-year-fifo-365d", fifo(365), second, year, 600, free),
        of("seconds-year-tiered", CompactionMode::Merge, second_of(10_000_000), year, 4, free),
        of("seconds-year-leveled", CompactionMode::Leveled, second_of(10_000_000), year, 4, free),
    ]
}

fn main() -> Result<(), Box<dyn Error>> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let mut missed = Vec::new();
    for scenario in scenarios() {
        if wanted.is_empty() || wanted.iter().any(|w| scenario.name.contains(w.as_str())) {
            missed.extend(run(&scenario)?);
        }
    }
    match missed.as_slice() {
        [] => Ok(()),
        missed => Err(missed.join("; ").into()),
    }
}

/// Runs one scenario and prints its report; the targets that it missed.
fn run(s: &Scenario) -> Result<Vec<String>, String> {
    let began = Instant::now();
    let mut simulation = Simulation::new(s.mode.clone(), CompactorSettings::default(), s.load);
    let mut samples: Vec<Shape> = Vec::new();
    let mut done = 0;
    for column in 1..=COLUMNS {
        let until = s.flushes * column / COLUMNS;
        while done < until {
            let count = s.look_every.min(until - done);
            simulation.flush(count)?;
            done += count;
        }
        samples.push(simulation.shape());
    }
    let (end, worst) = (simulation.shape(), simulation.worst());
    println!("{}: {:?}", s.name, s.mode);
    println!("  {} flushes of {:.1} MiB, looked at every {}", s.flushes, mib(flush_bytes(s)), s.look_every);
    println!("            runs   tables        GiB   written/byte   stored/byte");
    for (what, shape) in [("end", &end), ("worst", &worst)] {
        println!(
            "  {what:<6} {:>7} {:>8} {:>10.2} {:>14.2} {:>13.3}",
            shape.runs,
            shape.tables,
            mib(shape.bytes) / 1024.0,
            shape.write_amplification,
            shape.space_amplification
        );
    }
    println!(
        "  largest merge {:.1} MiB; simulated in {:.1} s",
        mib(simulation.largest_merge()),
        began.elapsed().as_secs_f64()
    );
    chart(&samples);
    let settled = samples[samples.len() / 2..].iter().map(|s| s.space_amplification).fold(0.0, f64::max);
    Ok(missed(s, &end, settled))
}

/// Space is judged over the second half: while a database grows from nothing there is nothing to compare with.
fn missed(s: &Scenario, end: &Shape, settled: f64) -> Vec<String> {
    let (most_written, most_stored) = s.targets;
    let mut missed = Vec::new();
    if end.write_amplification > most_written {
        missed.push(format!("{}: wrote {:.2} for every byte", s.name, end.write_amplification));
    }
    if settled > most_stored {
        missed.push(format!("{}: stored {settled:.3} for every byte", s.name));
    }
    missed
}

fn chart(samples: &[Shape]) {
    let most = samples.iter().map(|s| s.runs).max().unwrap_or(1).max(1);
    let lines = LINES.min(most);
    println!("  runs over time");
    for line in (0..lines).rev() {
        let at = |s: &Shape| if s.runs * lines > line * most { '#' } else { ' ' };
        let label = (line + 1) * most / lines;
        println!("  {label:>6} |{}", samples.iter().map(at).collect::<String>().trim_end());
    }
    println!("         +{}\n", "-".repeat(samples.len()));
}

fn flush_bytes(s: &Scenario) -> u64 {
    s.load.rows_per_flush * s.load.row_bytes
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}
