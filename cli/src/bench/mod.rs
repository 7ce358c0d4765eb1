//! `isle bench`: measured workloads, in this process or against running nodes.
//!
//! | workload | one operation |
//! | --- | --- |
//! | put | a put of a random key with an incompressible value |
//! | get | a get of a key that is there, from tables and with a warm cache |
//! | scan | a hundred rows in key order from a random key |
//! | mixed | nine gets for every put, by the same tasks; two rows in the report |
//! | tail | the next piece of the log, from its beginning until all of it was read once by every task |
//!
//! Only `put` can run on `null:`, a store that discards what it is given: it measures the writer without a store.
//! What is put before gets, scans and tails is written to tables first, so that they measure the state in which a
//! database spends its life.

mod data;
mod drive;
mod engines;
mod http;
mod in_process;
mod report;

use crate::args::BenchArgs;

/// Rows of one scan.
const SCAN_ROWS: usize = 100;

/// Gets for each put of the mixed workload.
const GETS_PER_PUT: u64 = 9;

/// Runs the workload and prints what was measured.
///
/// # Errors
/// What could not be opened, or the first operation that failed.
pub(crate) async fn run(args: BenchArgs) -> Result<(), String> {
    check(&args)?;
    let reports = if args.http { http::run(&args).await? } else { in_process::run(&args).await? };
    print(&reports, args.nodes.json)
}

fn check(args: &BenchArgs) -> Result<(), String> {
    if args.tasks == 0 || args.seconds == 0 || args.key_bytes == 0 {
        return Err("tasks, seconds and key-bytes must be over 0".to_owned());
    }
    if args.records == 0 && args.workload != crate::args::Workload::Put {
        return Err("records must be over 0: there would be nothing to read".to_owned());
    }
    if !matches!(args.ack.as_str(), "memory" | "bucket") {
        return Err(format!("ack is {:?}: use memory or bucket", args.ack));
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the command's result")]
fn print(reports: &[report::Report], json: bool) -> Result<(), String> {
    if json {
        println!("{}", serde_json::to_string_pretty(reports).map_err(|e| e.to_string())?);
    } else {
        println!("{}", report::table(reports));
    }
    Ok(())
}
