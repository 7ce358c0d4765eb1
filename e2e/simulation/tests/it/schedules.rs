//! Some hundred schedules, and every seed that ever found something.

use std::time::Duration;

use simulation::oracle::MILESTONES;
use simulation::{Soak, run, soak};

/// Seeds that found a bug, each with what it found. A seed means what the plan draws from it, so a change of
/// `plan.rs` makes another schedule of it; it is kept because it met the bug's surroundings once.
const PINNED: [(u64, &str); 9] = [
    (
        1,
        "the collector deleted the checkpoint that loads start from, having read the head before the listing",
    ),
    (3, "the same, with one reader fewer"),
    (
        10,
        "the collector paired a newer head, met by its fold, with its older manifest, and committed over ten versions",
    ),
    (34, "the same, losing acknowledged writes of the new epoch"),
    (39, "the same, with a single writer and nothing else going wrong"),
    (
        100_048,
        "a page of a consistent scan was answered from a newer view, when an object of its own was gone",
    ),
    (100_516, "the same, in the third page"),
    (
        300_668,
        "in the bucket form the writer's own fold met a newer head, and the writer took itself for fenced, for good",
    ),
    (911_160, "a run of tombstones above a merge under way was merged alone for ever, and dropped nothing"),
];

#[test]
fn pinned_seeds() {
    for (seed, found) in PINNED {
        let report = run(seed, false);
        assert!(report.is_clean(), "this seed once found: {found}\n{report}");
    }
}

#[test]
fn some_hundred_schedules() {
    let what = Soak { from: 1_000, schedules: 200, time: Duration::MAX, threads: 2, goes_on: false };
    let summary = soak(what, |report| {
        if !report.is_clean() {
            eprintln!("{report}\nreplay: cargo run -p simulation -- --seed {} --trace", report.plan.seed);
        }
    });
    assert!(summary.failed.is_empty(), "{summary}");
    // Schedules in which nothing happens prove nothing.
    assert!(summary.acknowledged > 20 * summary.schedules, "{summary}");
    assert!(summary.deleted > 10 * summary.schedules, "{summary}");
    for kind in
        ["crash", "pause", "partition", "lost reply", "late request", "false answer", "coordination wiped"]
    {
        assert!(summary.faults.contains_key(kind), "no {kind} in {summary}");
    }
    for what in MILESTONES {
        assert!(summary.reached.contains_key(what), "nowhere {what}: {summary}");
    }
}
