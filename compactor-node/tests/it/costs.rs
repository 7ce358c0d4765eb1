//! What each mode costs, over a simulated day: written, stored, and how many runs a read looks into.

use compactor_node::CompactorSettings;
use compactor_node::simulate::{Load, Shape, Simulation};
use isle_storage::manifest::CompactionMode;

const HOUR: i64 = 3_600_000_000;

/// Ten million keys that are a hundred memtables; the day's second half is what counts.
fn churn(mode: CompactionMode) -> (Shape, f64) {
    let load =
        Load { rows_per_flush: 100_000, row_bytes: 671, seconds_between: 30.0, keys: Some(10_000_000) };
    let mut simulation = Simulation::new(mode, CompactorSettings::default(), load);
    let mut stored = 0.0f64;
    for n in 0..2 * 1440 {
        simulation.flush(1).unwrap();
        if n > 1440 {
            stored = stored.max(simulation.shape().space_amplification);
        }
    }
    (simulation.shape(), stored)
}

#[test]
fn tiered_writes_little_and_stores_at_most_twice() {
    let (end, stored) = churn(CompactionMode::Merge);
    assert!(end.write_amplification <= 5.0 && stored <= 2.0, "{end:?}, stored {stored}");
    assert!(end.runs <= 16, "{end:?}");
}

#[test]
fn leveled_stores_little_and_has_few_runs() {
    let (end, stored) = churn(CompactionMode::Leveled);
    assert!(end.write_amplification <= 12.0 && stored <= 1.15, "{end:?}, stored {stored}");
    assert!(end.runs <= 6, "{end:?}");
}

/// Tiny flushes, a day long: the worst a writer can do.
fn seconds(mode: CompactionMode, keys: Option<u64>) -> (Shape, Shape) {
    let load = Load { rows_per_flush: 10, row_bytes: 100, seconds_between: 1.0, keys };
    let mut simulation = Simulation::new(mode, CompactorSettings::default(), load);
    for _ in 0..86_400 / 40 {
        simulation.flush(40).unwrap();
    }
    (simulation.shape(), simulation.worst())
}

#[test]
fn a_day_of_one_second_flushes_leaves_few_tables_written_twice() {
    let hour = CompactionMode::Fifo { retention_us: HOUR, retention_count: 0 };
    let (end, worst) = seconds(hour, None);
    assert!(end.write_amplification <= 2.0 && worst.runs <= 250, "fifo: {end:?}, at worst {worst:?}");
    let windows =
        CompactionMode::TimeWindow { segment_us: HOUR / 4, retention_us: 2 * HOUR, retention_count: 0 };
    let (end, worst) = seconds(windows, None);
    assert!(end.write_amplification <= 2.0 && worst.runs <= 350, "windows: {end:?}, at worst {worst:?}");
    // Rows never live much longer than they should.
    assert!(end.space_amplification <= 1.2, "{end:?}");
}

/// Where nothing ends by age the number of runs is bounded all the same, and each row rewritten log(size) times.
#[test]
fn a_day_of_one_second_flushes_is_one_small_tree() {
    let (end, worst) = seconds(CompactionMode::Merge, None);
    assert!(
        worst.runs <= 60 && end.runs <= 20 && end.write_amplification <= 9.0,
        "{end:?}, at worst {worst:?}"
    );
}
