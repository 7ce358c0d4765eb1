//! Housekeeping: what the manifest lets go of by the clock. The end of expired snapshots, and the retention of the log.
//! A manifest and the consumer groups in, changes out, and the instant at which to look again. Pure.
//!
//! The log is kept for tailers, apart from the tables: its retention is a period, a number of bytes, or both, and what
//! exceeds either goes, oldest first, in whole log objects. Three things are kept all the same:
//!
//! - what is not in tables yet;
//! - what a snapshot that holds the log needs, to be continued from;
//! - what a consumer group has not consumed, as long as the group is not further behind than it may be ([`MaxLag`]). One
//!   that is loses its place, is told so when it comes back (`cursor_expired`), and holds nothing: otherwise one dead
//!   consumer would keep all history.
//!
//! ```text
//! [chunk] [chunk] [chunk] [chunk] | [seg] [seg]
//!  older than the period   │  kept, not flushed
//!          ^ group at 1800: goes on holding the second chunk, or not, by its lag
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::manifest::{Change, GroupCursor, Lag, Manifest, MaxLag, Snapshot};

use crate::settings::CompactorSettings;

/// How long until it is looked again whether the groups that hold old log have moved on.
const GROUPS_AGAIN: Duration = Duration::from_secs(60);

/// What is to be let go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct House {
    /// Changes for one edit, in order.
    pub changes: Vec<Change>,
    /// Consumer groups that lose log they have not consumed, each with how far behind it is.
    pub left_behind: Vec<(String, Lag)>,
    /// When the clock will make more work, if nothing else changes.
    pub again: Option<Timestamp>,
}

/// Consumer groups by name.
pub type Groups = BTreeMap<String, GroupCursor>;

/// What is to be let go of `m`, which `groups` consume, at `now`.
#[must_use]
pub fn plan(m: &Manifest, groups: &Groups, settings: &CompactorSettings, now: Timestamp) -> House {
    let mut house = House::default();
    for (name, s) in &m.snapshots {
        match ends(s, settings) {
            Some(at) if at <= now => house.changes.push(Change::DropSnapshot { name: name.clone() }),
            Some(at) => house.look_at(at, now),
            None => {}
        }
    }
    trim(&mut house, m, groups, settings, now);
    house
}

/// When a snapshot is over on every clock: nobody is given less time than promised.
fn ends(s: &Snapshot, settings: &CompactorSettings) -> Option<Timestamp> {
    s.expires.map(|at| at.plus(seconds(settings.max_clock_skew_seconds)))
}

impl House {
    /// Whether log is let go.
    #[must_use]
    pub fn trims(&self) -> bool {
        self.changes.iter().any(|c| matches!(c, Change::TrimLog { .. }))
    }

    /// Takes note of an instant that comes.
    fn look_at(&mut self, at: Timestamp, now: Timestamp) {
        if at > now {
            self.again = Some(self.again.map_or(at, |again| again.min(at)));
        }
    }
}

/// The log's retention.
fn trim(house: &mut House, m: &Manifest, groups: &Groups, settings: &CompactorSettings, now: Timestamp) {
    let period = (settings.log_retention_seconds > 0).then(|| seconds(settings.log_retention_seconds));
    let most = (settings.log_retention_bytes > 0).then_some(settings.log_retention_bytes);
    let held = held_after(house, m, groups, settings, now);
    let mut kept: u64 = m.log.iter().map(|e| e.len).sum();
    let mut trimmed = None;
    for e in m.log.iter().take_while(|e| e.last_seq <= m.flushed_seq) {
        let old = period.is_some_and(|p| e.last_time.plus(p) < now);
        if !old && most.is_none_or(|most| kept <= most) {
            if let Some(period) = period {
                house.look_at(Timestamp(e.last_time.plus(period).0.saturating_add(1)), now);
            }
            break;
        }
        if held.is_some_and(|held| e.last_seq > held) {
            // A group that moves on need not move the head, which is what wakes whoever keeps house.
            if groups.values().any(|g| g.seq < e.last_seq) {
                house.look_at(now.plus(GROUPS_AGAIN), now);
            }
            break;
        }
        kept -= e.len;
        trimmed = Some(e.last_seq);
    }
    let Some(trimmed_seq) = trimmed else { return };
    for (name, group) in groups.iter().filter(|(_, g)| g.seq < trimmed_seq) {
        house.left_behind.push((name.clone(), m.lag_after(group.seq)));
    }
    house.changes.push(Change::TrimLog { trimmed_seq });
}

/// The lowest number after which snapshots and groups hold the log.
fn held_after(
    house: &mut House,
    m: &Manifest,
    groups: &Groups,
    settings: &CompactorSettings,
    now: Timestamp,
) -> Option<SeqNo> {
    let lives = |s: &Snapshot| ends(s, settings).is_none_or(|at| at > now);
    let snapshots = m.snapshots.values().filter(|s| s.holds_log && lives(s)).map(|s| s.seq);
    let groups = groups.values().filter(|g| match holds_until(m, g, settings) {
        Holds::Always => true,
        Holds::Until(at) => {
            house.look_at(at, now);
            at > now
        }
        Holds::Nothing => false,
    });
    let groups: Vec<SeqNo> = groups.map(|g| g.seq).collect();
    snapshots.chain(groups).min()
}

/// How long a group holds the log, if nothing else changes.
enum Holds {
    Always,
    Until(Timestamp),
    Nothing,
}

fn holds_until(m: &Manifest, group: &GroupCursor, settings: &CompactorSettings) -> Holds {
    let lag = m.lag_after(group.seq);
    let MaxLag { records, bytes, age_us } = group.max_lag;
    let by_default = (settings.group_max_lag_bytes > 0).then_some(settings.group_max_lag_bytes);
    let too_much = records.is_some_and(|most| lag.records > most)
        || bytes.or(by_default).is_some_and(|most| lag.bytes > most);
    if too_much {
        return Holds::Nothing;
    }
    let by_default = (settings.group_max_lag_seconds > 0).then(|| seconds(settings.group_max_lag_seconds));
    let age = age_us.map(|us| Duration::from_micros(us.max(0).unsigned_abs())).or(by_default);
    match (lag.since, age) {
        (Some(since), Some(age)) => Holds::Until(Timestamp(since.plus(age).0.saturating_add(1))),
        _ => Holds::Always,
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use isle_storage::ids::{DatabaseId, Epoch, Incarnation, Lineage};
    use isle_storage::manifest::{CompactionMode, LogEntry, Snapshot};
    use isle_storage::names::{LogId, LogKind};

    use super::*;

    /// Ten log objects of ten records and 100 bytes each, one a second; all but the last two flushed.
    fn manifest() -> Manifest {
        let mut m = Manifest::genesis(DatabaseId(1), Lineage(1), CompactionMode::Merge);
        for i in 0..10u64 {
            let time = Timestamp(i as i64 * 1_000_000);
            let first_seq = SeqNo(i * 10 + 1);
            m.log.push(Arc::new(LogEntry {
                kind: LogKind::Segment,
                id: LogId { epoch: Epoch(1), incarnation: Incarnation(1), first_seq },
                last_seq: SeqNo(i * 10 + 10),
                len: 100,
                index_offset: 50,
                crc: 0,
                first_time: time,
                last_time: time,
                raw_bytes: 100,
                starts_generation: false,
                blobs: Vec::new(),
                extra: Default::default(),
            }));
        }
        (m.last_seq, m.flushed_seq) = (SeqNo(100), SeqNo(80));
        m
    }

    fn settings(seconds: u64, bytes: u64) -> CompactorSettings {
        CompactorSettings { log_retention_seconds: seconds, log_retention_bytes: bytes, ..Default::default() }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    fn trimmed(house: &House) -> Option<u64> {
        house.changes.iter().find_map(|c| match c {
            Change::TrimLog { trimmed_seq } => Some(trimmed_seq.0),
            _ => None,
        })
    }

    fn group(seq: u64, max_lag: MaxLag) -> GroupCursor {
        GroupCursor { seq: SeqNo(seq), max_lag, extra: Default::default() }
    }

    fn snapshot(seq: u64, expires: Option<Timestamp>, holds_log: bool) -> Snapshot {
        Snapshot { seq: SeqNo(seq), created: at(0), expires, holds_log, extra: Default::default() }
    }

    #[test]
    fn the_log_goes_by_age_and_by_bytes_and_never_before_it_is_flushed() {
        let m = manifest();
        assert_eq!(
            plan(&m, &m.groups, &settings(0, 0), at(1000)),
            House::default(),
            "nothing set, nothing let go"
        );
        assert_eq!(trimmed(&plan(&m, &m.groups, &settings(5, 0), at(5))), None, "exactly the period is kept");
        assert_eq!(trimmed(&plan(&m, &m.groups, &settings(5, 0), at(8))), Some(30));
        assert_eq!(
            trimmed(&plan(&m, &m.groups, &settings(5, 0), at(1000))),
            Some(80),
            "the rest is not in tables yet"
        );
        assert_eq!(trimmed(&plan(&m, &m.groups, &settings(0, 650), at(0))), Some(40));
        assert_eq!(trimmed(&plan(&m, &m.groups, &settings(0, 1000), at(0))), None);
        assert_eq!(trimmed(&plan(&m, &m.groups, &settings(100, 500), at(8))), Some(50), "either is enough");
    }

    #[test]
    fn it_is_known_when_the_next_object_is_old_enough() {
        let m = manifest();
        let s = settings(5, 0);
        let first = plan(&m, &m.groups, &s, at(0)).again.unwrap();
        assert_eq!(trimmed(&plan(&m, &m.groups, &s, Timestamp(first.0 - 1))), None);
        let then = plan(&m, &m.groups, &s, first);
        assert_eq!(trimmed(&then), Some(10));
        assert!(then.again.is_some_and(|again| again > first));
    }

    #[test]
    fn a_group_holds_what_it_has_not_consumed_while_its_lag_allows() {
        let s = CompactorSettings { group_max_lag_seconds: 60, ..settings(5, 0) };
        let mut m = manifest();
        m.groups.insert("g".into(), group(35, MaxLag::default()));
        let house = plan(&m, &m.groups, &s, at(30));
        assert_eq!((trimmed(&house), house.left_behind.len()), (Some(30), 0));
        // The object it needs next ended at 3 s, so it holds until 63 s; and the plan says so.
        let lets_go = house.again.unwrap();
        assert_eq!(lets_go, Timestamp(63_000_001));
        let house = plan(&m, &m.groups, &s, lets_go);
        assert_eq!(trimmed(&house), Some(80));
        assert_eq!(house.left_behind[0].0, "g");
        assert_eq!((house.left_behind[0].1.records, house.left_behind[0].1.bytes), (65, 700));
    }

    /// A group that moves on need not move the head.
    #[test]
    fn while_a_group_holds_old_log_it_is_looked_at_again() {
        let s = CompactorSettings { group_max_lag_seconds: 0, ..settings(5, 0) };
        let mut m = manifest();
        m.groups.insert("g".into(), group(35, MaxLag::default()));
        let house = plan(&m, &m.groups, &s, at(1000));
        assert_eq!((trimmed(&house), house.again), (Some(30), Some(at(1000).plus(GROUPS_AGAIN))));
        m.groups.insert("g".into(), group(100, MaxLag::default()));
        assert_eq!(plan(&m, &m.groups, &s, at(1000)).again, None);
    }

    #[test]
    fn a_groups_own_bounds_come_before_the_settings() {
        let s = CompactorSettings { group_max_lag_bytes: 1, ..settings(5, 0) };
        let of = |max_lag| {
            let mut m = manifest();
            m.groups.insert("g".into(), group(35, max_lag));
            trimmed(&plan(&m, &m.groups, &s, at(30)))
        };
        assert_eq!(of(MaxLag::default()), Some(80), "the settings' bytes");
        assert_eq!(of(MaxLag { bytes: Some(700), ..Default::default() }), Some(30));
        assert_eq!(of(MaxLag { bytes: Some(699), ..Default::default() }), Some(80));
        let records = |n| MaxLag { bytes: Some(9999), records: Some(n), ..Default::default() };
        assert_eq!(of(records(65)), Some(30));
        assert_eq!(of(records(64)), Some(80));
        let age = |s: i64| MaxLag { bytes: Some(9999), age_us: Some(s * 1_000_000), ..Default::default() };
        assert_eq!(of(age(27)), Some(30));
        assert_eq!(of(age(26)), Some(80));
    }

    #[test]
    fn the_slowest_group_within_its_lag_decides_and_a_dead_one_does_not() {
        let s = CompactorSettings { group_max_lag_seconds: 20, ..settings(1, 0) };
        let mut m = manifest();
        m.groups.insert("dead".into(), group(0, MaxLag::default()));
        m.groups.insert("slow".into(), group(40, MaxLag::default()));
        m.groups.insert("fast".into(), group(70, MaxLag::default()));
        let house = plan(&m, &m.groups, &s, at(22));
        assert_eq!(trimmed(&house), Some(40));
        assert_eq!(house.left_behind.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["dead"]);
    }

    #[test]
    fn a_snapshot_that_holds_the_log_holds_it_until_it_expires() {
        let s = settings(1, 0);
        let mut m = manifest();
        m.snapshots.insert("boot".into(), snapshot(20, Some(at(100)), true));
        m.snapshots.insert("plain".into(), snapshot(0, None, false));
        // A clock that is behind by all that is allowed has not reached the expiry before.
        let ends = 100 + s.max_clock_skew_seconds as i64;
        let house = plan(&m, &m.groups, &s, at(ends - 1));
        assert_eq!((trimmed(&house), house.again), (Some(20), Some(at(ends))));
        let house = plan(&m, &m.groups, &s, at(ends));
        // The snapshot ends first: while it stands, an edit may not trim what it holds.
        assert_eq!(house.changes[0], Change::DropSnapshot { name: "boot".into() });
        assert_eq!(trimmed(&house), Some(80));
    }
}
