//! What a mode says of age: which tables are over, and which windows write time is cut into. Pure; the planner asks it
//! what may go, and [`super::Manifest::apply`] asks it again whether what goes may.
//!
//! A table's age is that of its **newest** row: nothing goes before its time. Write time never decreases with the sequence
//! number, so of two runs the older one is never younger, and the tables that are over are always the oldest ones.
//!
//! ```text
//!   time_window, segment 1 h, retention 2 h                        as_of
//!   ├── 09 ──┤├── 10 ──┤├── 11 ──┤├── 12 ──┤├── 13 ──┤├── 14 ──┤     ▼
//!     over      over      over      over    ends 14:00, goes at 16:00; as_of is 15:30
//! ```

use super::state::{CompactionMode, Manifest, TableEntry};
use crate::ids::Timestamp;

/// Most windows that a retention may be cut into: each is at least one run, and a read may have to look into all.
const MAX_WINDOWS: i64 = 10_000;

/// Of every how many tables that are kept in any case one window is.
const TABLES_A_WINDOW: u64 = 10;

impl CompactionMode {
    /// Its name, as people and interfaces call it. The two policies of `merge` are one mode.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Merge | Self::Leveled => "merge",
            Self::Fifo { .. } => "fifo",
            Self::TimeWindow { .. } => "time_window",
        }
    }

    /// The name a reader must know to read a manifest in this mode.
    #[must_use]
    pub fn required_feature(&self) -> Option<&'static str> {
        match self {
            Self::Merge => None,
            Self::Leveled => Some("leveled"),
            Self::Fifo { .. } => Some("fifo"),
            Self::TimeWindow { .. } => Some("time_window"),
        }
    }

    /// Refuses what would delete everything, hold nothing, or contradict itself.
    ///
    /// # Errors
    /// A sentence saying what is wrong and why.
    pub fn validate(&self) -> Result<(), String> {
        if let Some(us) = self.retention_us()
            && us <= 0
        {
            return Err(format!("a retention of {} deletes everything", human(us)));
        }
        let Self::TimeWindow { segment_us, retention_us, .. } = *self else { return Ok(()) };
        if segment_us <= 0 {
            return Err(format!("a window of {} holds nothing", human(segment_us)));
        }
        if segment_us > retention_us {
            return Err(format!(
                "a window of {} is longer than the retention, {}: rows would live twice as long as they should; take a \
                 shorter window",
                human(segment_us),
                human(retention_us)
            ));
        }
        if retention_us / segment_us > MAX_WINDOWS {
            return Err(format!(
                "a retention of {} has more than {MAX_WINDOWS} windows of {}: every read would have to look into each; \
                 take a longer window",
                human(retention_us),
                human(segment_us)
            ));
        }
        Ok(())
    }

    /// How long rows live, in microseconds; `None` where age does not end them.
    #[must_use]
    pub fn retention_us(&self) -> Option<i64> {
        match *self {
            Self::Merge | Self::Leveled => None,
            Self::Fifo { retention_us, .. } | Self::TimeWindow { retention_us, .. } => Some(retention_us),
        }
    }

    /// The number of the window that `time` lies in; all of time is one where there are no windows.
    #[must_use]
    pub fn window(&self, time: Timestamp) -> i64 {
        match *self {
            Self::TimeWindow { segment_us, .. } => time.0.div_euclid(segment_us.max(1)),
            _ => 0,
        }
    }

    /// The first instant after the window that `time` lies in; `None` where there are no windows.
    #[must_use]
    pub fn window_end(&self, time: Timestamp) -> Option<Timestamp> {
        match *self {
            Self::TimeWindow { segment_us, .. } => {
                let number = self.window(time).saturating_add(1);
                Some(Timestamp(number.saturating_mul(segment_us.max(1))))
            }
            _ => None,
        }
    }

    /// The instant from which on a table whose newest row was written at `max_time` may go; `None`: never, by age.
    #[must_use]
    pub fn over_at(&self, max_time: Timestamp) -> Option<Timestamp> {
        let from = self.window_end(max_time).unwrap_or(max_time);
        self.retention_us().map(|us| Timestamp(from.0.saturating_add(us)))
    }

    /// Whether what is left, `(tables, windows)`, is as much as is kept in any case.
    #[must_use]
    pub fn keeps_enough(&self, tables: u64, windows: u64) -> bool {
        match *self {
            Self::Merge | Self::Leveled => false,
            Self::Fifo { retention_count, .. } => tables >= retention_count,
            Self::TimeWindow { retention_count, .. } => windows >= (retention_count / TABLES_A_WINDOW).max(1),
        }
    }
}

impl Manifest {
    /// Whether a snapshot sees rows of `table`, and which.
    #[must_use]
    pub fn holder_of(&self, table: &TableEntry) -> Option<&str> {
        let holds = self.snapshots.iter().find(|(_, s)| s.seq >= table.min_seq);
        holds.map(|(name, _)| name.as_str())
    }
}

/// Microseconds in the largest unit that says them exactly.
fn human(us: i64) -> String {
    let units =
        [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")];
    let exact = units.iter().find(|(unit, _)| us != 0 && us % unit == 0);
    exact.map_or_else(
        || if us == 0 { "0s".to_owned() } else { format!("{us}us") },
        |(unit, name)| format!("{}{name}", us / unit),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    #[test]
    fn windows_are_cut_on_both_sides_of_1970() {
        let mode = CompactionMode::TimeWindow { segment_us: 10, retention_us: 20, retention_count: 0 };
        let of = |t: i64| (mode.window(Timestamp(t)), mode.window_end(Timestamp(t)).map(|e| e.0));
        assert_eq!(
            [of(-1), of(0), of(9), of(10)],
            [(-1, Some(0)), (0, Some(10)), (0, Some(10)), (1, Some(20))]
        );
        assert_eq!(mode.over_at(Timestamp(9)), Some(Timestamp(30)));
        assert_eq!(mode.over_at(Timestamp(10)), Some(Timestamp(40)));
    }

    #[test]
    fn settings_that_contradict_themselves_are_refused_with_the_reason() {
        let window = |segment_us, retention_us| CompactionMode::TimeWindow {
            segment_us,
            retention_us,
            retention_count: 0,
        };
        for (mode, why) in [
            (CompactionMode::Fifo { retention_us: 0, retention_count: 9 }, "deletes everything"),
            (CompactionMode::Fifo { retention_us: -1, retention_count: 9 }, "deletes everything"),
            (window(HOUR, -HOUR), "deletes everything"),
            (window(0, HOUR), "holds nothing"),
            (window(2 * HOUR, HOUR), "longer than the retention"),
            (window(1, HOUR), "windows"),
        ] {
            let said = mode.validate().unwrap_err();
            assert!(said.contains(why), "{said}");
        }
        window(HOUR, HOUR).validate().unwrap();
        CompactionMode::Leveled.validate().unwrap();
    }
}
