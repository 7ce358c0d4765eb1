//! What a run says of itself when it is over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use isle_history::Report;
use serde_json::json;

use super::ground::Ground;
use crate::args::StressArgs;
use crate::output::{self, Failure};

pub(super) fn print(
    args: &StressArgs,
    seed: u64,
    prefix: &str,
    ran: Duration,
    ground: &Ground,
    report: &Report,
) -> Result<(), Failure> {
    let n = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let t = &ground.tally;
    let done = [
        ("puts", n(&t.puts)),
        ("deletes", n(&t.deletes)),
        ("batches", n(&t.batches)),
        ("ingests", n(&t.ingests)),
        ("events", n(&t.events)),
        ("gets", n(&t.gets)),
        ("multi_gets", n(&t.mgets)),
        ("scans", n(&t.scans)),
        ("consumer_restarts", n(&t.restarts)),
    ];
    if args.nodes.json {
        let asked: serde_json::Map<String, serde_json::Value> =
            done.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
        let all = json!({
            "seed": seed,
            "prefix": prefix,
            "seconds": ran.as_secs_f64(),
            "clients": args.clients,
            "keys": args.keys,
            "asked": asked,
            "judged": report.counts,
            "violations": report.total,
            "evidence": report.violations,
        });
        return output::line(&serde_json::to_string_pretty(&all)?);
    }
    let asked: Vec<String> = done.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let mut text = format!(
        "stress: seed {seed}, {:.1} s, {} clients, keys below {prefix} (they stay)\n  asked   {}\n",
        ran.as_secs_f64(),
        args.clients,
        asked.join(", ").replace('_', " ")
    );
    text.push_str(&format!("  judged  {report}\n"));
    output::write(text.as_bytes())
}
