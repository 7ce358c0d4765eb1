//! Chaos by command: `e2e-chaos [--minutes N | --seconds N] [--seed N] [--plan] [--json FILE] [--keep-logs]`.
//!
//! Prints the plan's seed, every fault as it is done, and a report. Exits 1 if anything was found, 2 where it was asked
//! wrongly. The programs must have been built (`make chaos` does).

#![expect(clippy::print_stdout, reason = "a program that reports to whoever runs it")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use e2e::chaos::{Chaos, run};
use e2e::network;

const USAGE: &str =
    "usage: e2e-chaos [--minutes N | --seconds N] [--seed N] [--plan] [--json FILE] [--keep-logs]";

/// What was asked for.
struct Asked {
    chaos: Chaos,
    only_plan: bool,
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let asked = match parse(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(why) => {
            println!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let plan = asked.chaos.plan();
    println!("seed {}: {} faults in {:?}", plan.seed, plan.faults.len(), asked.chaos.length);
    if asked.only_plan {
        for p in &plan.faults {
            println!(
                "{:>8.1} s  for {:>5.1} s  {}",
                p.at.as_secs_f64(),
                p.lasts.as_secs_f64(),
                p.fault.kind()
            );
        }
        return ExitCode::SUCCESS;
    }
    match network::isolate() {
        Ok(()) => println!("every program runs in a network namespace of its own"),
        Err(why) => println!("no network namespaces here, everything runs on loopback: {why}"),
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            println!("cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    let report = runtime.block_on(run(&asked.chaos));
    println!("\n{report}");
    if let Some(path) = asked.json
        && let Err(e) = std::fs::write(&path, format!("{:#}\n", report.to_json()))
    {
        println!("{} cannot be written: {e}", path.display());
        return ExitCode::FAILURE;
    }
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut chaos = Chaos::new(1, Duration::from_secs(120));
    chaos.say = |what| println!("{}  {what}", jiff::Timestamp::now().strftime("%H:%M:%S%.3f"));
    let (mut only_plan, mut json) = (false, None);
    while let Some(arg) = args.next() {
        let mut number = || {
            let value = args.next().ok_or_else(|| format!("{arg} needs a number"))?;
            value.parse::<u64>().map_err(|e| format!("{arg} {value}: {e}"))
        };
        match arg.as_str() {
            "--minutes" => chaos.length = Duration::from_secs(60 * number()?),
            "--seconds" => chaos.length = Duration::from_secs(number()?),
            "--seed" => chaos.seed = number()?,
            "--plan" => only_plan = true,
            "--keep-logs" => chaos.keep_logs = true,
            "--json" => json = Some(args.next().ok_or("--json needs a file")?.into()),
            _ => return Err(format!("what is {arg}?")),
        }
    }
    Ok(Asked { chaos, only_plan, json })
}
