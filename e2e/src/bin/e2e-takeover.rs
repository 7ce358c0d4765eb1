//! Measures takeovers: `e2e-takeover [--crashes N] [--handovers N] [--lease SECONDS] [--json FILE]`.
//!
//! A crash may cost the lease and two seconds, a planned hand-over one second. Exits 1 if one took longer or anything
//! was lost, 2 where it was asked wrongly.

#![expect(clippy::print_stdout, reason = "a program that reports to whoever runs it")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use e2e::takeover::{Asked, measure};

const USAGE: &str = "usage: e2e-takeover [--crashes N] [--handovers N] [--lease SECONDS] [--json FILE]";

/// What a crash may cost beyond the lease.
const BEYOND_LEASE: Duration = Duration::from_secs(2);

/// What a planned hand-over may cost.
const HANDOVER: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let (asked, json) = match parse(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(why) => {
            println!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            println!("cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    let measured = runtime.block_on(measure(asked, |what| println!("{what}")));
    println!("\n{measured}");
    if let Some(path) = json
        && let Err(e) = std::fs::write(&path, format!("{:#}\n", measured.to_json()))
    {
        println!("{} cannot be written: {e}", path.display());
        return ExitCode::FAILURE;
    }
    let in_time =
        measured.crashes.longest() <= asked.lease + BEYOND_LEASE && measured.handovers.longest() <= HANDOVER;
    if !in_time {
        println!("too slow: a crash may take {:?}, a hand-over {HANDOVER:?}", asked.lease + BEYOND_LEASE);
    }
    if in_time && measured.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<(Asked, Option<PathBuf>), String> {
    let mut asked = Asked { lease: Duration::from_secs(10), crashes: 10, handovers: 20 };
    let mut json = None;
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
        let number = || value.parse::<u32>().map_err(|e| format!("{arg} {value}: {e}"));
        match arg.as_str() {
            "--crashes" => asked.crashes = number()? as usize,
            "--handovers" => asked.handovers = number()? as usize,
            "--lease" => asked.lease = Duration::from_secs(number()?.max(2).into()),
            "--json" => json = Some(value.into()),
            _ => return Err(format!("what is {arg}?")),
        }
    }
    Ok((asked, json))
}
