//! `isle stress`: many clients against running nodes, every answer judged against a model while they run.
//!
//! ```text
//!  clients ─── puts, deletes, batches, ingests, events ──▶ writers
//!     │   └─── gets, multi-gets, scans, pages ───────────▶ readers        everything asked and answered
//!  consumers ─ tails with restarts ──────────────────────▶ tailers   ──▶  goes into the recorder
//!                                                             │
//!  truth ───── the committed log, page by page ◀──────────────┘
//!     └──▶ the checker, a few times a second (`isle-history`): memory is what is not settled yet, and a window
//! ```
//! All keys begin with a prefix of the run's own, so the run can stand beside other writers and beside earlier runs.
//!
//! **Faults.** It is made to run while nodes are killed and networks cut. A refusal (4xx, 429, 503, no connection)
//! means that a write was certainly not applied, and the checker holds the writer to it. Anything else without an
//! answer may have been applied, whole or not at all. Reads may fail; they may not answer wrongly.
//!
//! **The end.** The clients stop, the writer flushes, the log is read to that position, every reader shows the whole
//! prefix once more at that position, and what is left is judged.

mod call;
mod client;
mod consumer;
mod ground;
mod home;
mod random;
mod reads;
mod summary;
mod truth;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use isle_history::{Checker, Limits};
use isle_storage::environment::{Entropy, SystemEntropy};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::args::StressArgs;
use crate::output::{self, Failure};
use ground::Ground;
use home::Home;
use truth::Truth;

/// How often what has been recorded is judged.
const JUDGE_EVERY: Duration = Duration::from_millis(250);

/// Answers and records waiting for each other above which the clients pause: the log is read too slowly to keep up.
const MOST_PENDING: usize = 200_000;

/// Numbers for which versions are remembered below the end of the log.
const WINDOW: u64 = 500_000;

/// Microseconds by which the clocks of this machine and of the nodes may differ.
const CLOCK_TOLERANCE: i64 = 2_000_000;

pub(crate) async fn stress(args: StressArgs) -> Result<(), Failure> {
    let duration = validate(&args)?;
    let home = Home::open(&args).await?;
    let result = run(&args, duration, &home).await;
    home.close().await;
    result
}

fn validate(args: &StressArgs) -> Result<Duration, Failure> {
    let duration = isle_service::wire::duration::parse(&args.duration)
        .map_err(|e| Failure::usage(format!("--duration {:?}: {e}", args.duration)))?;
    if duration.is_zero() {
        return Err(Failure::usage("--duration 0: there would be nothing to do"));
    }
    for (name, value, most) in [("clients", args.clients, 1000), ("keys", args.keys, 10_000_000)] {
        if !(1..=most).contains(&value) {
            return Err(Failure::usage(format!("--{name} {value}: 1 to {most} are possible")));
        }
    }
    Ok(duration)
}

async fn run(args: &StressArgs, duration: Duration, home: &Home) -> Result<(), Failure> {
    let seed = args.seed.unwrap_or_else(|| SystemEntropy.next_u64() >> 16);
    let prefix = format!("stress/{seed}-{:08x}/", SystemEntropy.next_u64() as u32);
    let ground = Arc::new(Ground::new(&home.nodes, &prefix, args.keys)?);
    let patience = Duration::from_secs(args.patience);
    let start = ground.reachable(patience).await?;
    if !args.nodes.json {
        output::note(&format!("seed {seed}, keys below {prefix}, {} clients for {duration:?}", args.clients));
    }
    let started = Instant::now();
    let truth = Truth::follow(Arc::clone(&ground), start.clone());
    let mut tasks = JoinSet::new();
    for n in 0..args.clients {
        tasks.spawn(client::run(Arc::clone(&ground), n, seed));
    }
    let mut consumers = JoinSet::new();
    for n in 0..(2 * ground.tailers.len() as u64) {
        consumers.spawn(consumer::run(Arc::clone(&ground), n, seed, start.clone()));
    }
    let mut checker = Checker::new(Limits {
        sparse: true,
        keep: Some(WINDOW),
        clock_tolerance: CLOCK_TOLERANCE,
        ..Limits::default()
    });
    let end = started + duration;
    while Instant::now() < end && checker.report().is_clean() && truth.broken().is_none() {
        tokio::time::sleep_until((Instant::now() + JUDGE_EVERY).min(end)).await;
        judge(&ground, &truth, &mut checker);
    }
    let ran = started.elapsed();
    ground.stop();
    while tasks.join_next().await.is_some() {}
    // Where a promise is broken already, no rest is needed to prove it.
    let sound = checker.report().is_clean();
    let settled = if sound { settle(&ground, &truth, patience).await } else { Ok(()) };
    consumers.shutdown().await;
    judge(&ground, &truth, &mut checker);
    truth.end().await;
    // A log that was not read to its end proves nothing about what it may still hold.
    let report = if sound && settled.is_ok() { checker.finish() } else { checker.report().clone() };
    summary::print(args, seed, &prefix, ran, &ground, &report)?;
    if report.is_clean() {
        return settled;
    }
    Err(Failure::new(format!(
        "{} violations; the seed is {seed}, the keys begin with {prefix}",
        report.total
    )))
}

/// Takes the log as it has been read by now, then everything recorded by now, and judges what the log reaches.
fn judge(ground: &Ground, truth: &Truth, checker: &mut Checker) {
    let piece = truth.take();
    let events = ground.recorder.drain();
    checker.log(piece);
    checker.events(&events);
    checker.settle();
    ground.slow_down(checker.pending() > MOST_PENDING);
}

/// Everything comes to rest: what was accepted is committed and read, by the truth and by every reader.
async fn settle(ground: &Arc<Ground>, truth: &Truth, patience: Duration) -> Result<(), Failure> {
    let position = ground.flush(patience).await?;
    truth.reaches(position, patience).await?;
    for reader in 0..ground.readers.len() {
        reads::everything(ground, reader, position, patience).await?;
    }
    Ok(())
}
