//! `simulation --seed N [--trace]` runs one schedule and tells its story; `simulation --schedules N | --minutes M
//! [--from-seed S] [--threads T] [--go-on]` runs many. Exit 1 where a promise was broken, 2 for a bad command line.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::process::ExitCode;
use std::time::Duration;

use simulation::Soak;

const USAGE: &str = "simulation --seed N [--trace]\n\
    simulation --schedules N | --minutes M [--from-seed S] [--threads T] [--go-on]";

fn main() -> ExitCode {
    match command(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(Command::One { seed, trace }) => one(seed, trace),
        Ok(Command::Many(soak)) => many(soak),
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

enum Command {
    One { seed: u64, trace: bool },
    Many(Soak),
}

fn command(args: &[String]) -> Result<Command, String> {
    let (mut seed, mut trace) = (None, false);
    let mut soak = Soak { from: 1, schedules: 0, time: Duration::ZERO, threads: 2, goes_on: false };
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        let mut number = || -> Result<u64, String> {
            let text = args.next().ok_or_else(|| format!("{flag} needs a number"))?;
            text.parse().map_err(|e| format!("{flag} {text}: {e}"))
        };
        match flag.as_str() {
            "--seed" => seed = Some(number()?),
            "--trace" => trace = true,
            "--schedules" => soak.schedules = number()?,
            "--minutes" => soak.time = Duration::from_secs(60 * number()?),
            "--from-seed" => soak.from = number()?,
            "--threads" => soak.threads = number()? as usize,
            "--go-on" => soak.goes_on = true,
            other => return Err(format!("{other} is not known here")),
        }
    }
    match (seed, soak.schedules, soak.time) {
        (Some(seed), 0, Duration::ZERO) => Ok(Command::One { seed, trace }),
        (Some(_), ..) => Err("--seed runs one schedule, --schedules and --minutes run many".to_owned()),
        (None, 0, Duration::ZERO) => Err("say --seed, --schedules or --minutes".to_owned()),
        (None, 0, _) => Ok(Command::Many(Soak { schedules: u64::MAX, ..soak })),
        (None, _, Duration::ZERO) => Ok(Command::Many(Soak { time: Duration::MAX, ..soak })),
        (None, ..) => Ok(Command::Many(soak)),
    }
}

fn one(seed: u64, trace: bool) -> ExitCode {
    let mut report = simulation::run(seed, trace);
    if !trace && !report.is_clean() {
        // The same again, with its story.
        report = simulation::run(seed, true);
    }
    print!("{}{report}", report.log);
    ExitCode::from(u8::from(!report.is_clean()))
}

fn many(soak: Soak) -> ExitCode {
    let summary = simulation::soak(soak, |report| {
        if !report.is_clean() {
            println!("{report}");
        }
    });
    print!("{summary}");
    ExitCode::from(u8::from(!summary.failed.is_empty()))
}
