//! What becomes of one request, held against a manifest's snapshots: a pure decision.

use std::collections::BTreeMap;
use std::time::Duration;

use isle_storage::ids::{Epoch, SeqNo, Timestamp};
use isle_storage::manifest::{Change, Snapshot};

use super::{Granted, NamedSnapshot, SnapshotError};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Take one that holds at least everything up to `through`.
    Take { name: String, ttl: Option<Duration>, holds_log: bool, through: SeqNo },
    /// Drop one.
    Drop { name: String },
    /// Let puts that say nothing of it live so long.
    SetDefaultTtl { ttl: Option<Duration> },
}

/// What stands for a snapshot's name where the request is about none: no snapshot can have it.
const DEFAULT_TTL: &str = "(default ttl)";

impl Wish {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Take { name, .. } | Self::Drop { name } => name,
            Self::SetDefaultTtl { .. } => DEFAULT_TTL,
        }
    }

    /// The number that the edit must have reached.
    pub(crate) fn through(&self) -> SeqNo {
        match self {
            Self::Take { through, .. } => *through,
            Self::Drop { .. } | Self::SetDefaultTtl { .. } => SeqNo::ZERO,
        }
    }
}

/// Where the edit stands that is being made.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    /// The last number it makes part of the log.
    pub(crate) last_seq: SeqNo,
    /// No snapshot is taken before this instant.
    pub(crate) now: Timestamp,
    pub(crate) epoch: Epoch,
    /// The snapshots there are, with what the edit already does to them.
    pub(crate) snapshots: BTreeMap<String, Snapshot>,
    /// `max_snapshots`.
    pub(crate) limit: usize,
}

impl Point {
    /// The change that grants the wish, with its answer; or why these snapshots do not allow it.
    pub(crate) fn weigh(&mut self, wish: &Wish) -> Result<(Change, Granted), SnapshotError> {
        match wish {
            Wish::Take { name, ttl, holds_log, .. } => {
                self.take(name, *ttl, *holds_log).map(|(change, named)| (change, Granted::Snapshot(named)))
            }
            Wish::SetDefaultTtl { ttl } => {
                let ttl_us = ttl.map(|d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX));
                Ok((Change::SetDefaultTtl { ttl_us }, Granted::DefaultTtl))
            }
            Wish::Drop { name } => match self.snapshots.remove(name) {
                Some(s) => {
                    let change = Change::DropSnapshot { name: name.clone() };
                    Ok((change, Granted::Snapshot(NamedSnapshot::new(name, &s, self.epoch))))
                }
                None => Err(SnapshotError::NotThere(name.clone())),
            },
        }
    }

    fn take(
        &mut self,
        name: &str,
        ttl: Option<Duration>,
        holds_log: bool,
    ) -> Result<(Change, NamedSnapshot), SnapshotError> {
        if let Some(there) = self.snapshots.get(name) {
            return Err(SnapshotError::Exists(NamedSnapshot::new(name, there, self.epoch)));
        }
        if self.snapshots.len() >= self.limit {
            return Err(SnapshotError::TooMany { limit: self.limit });
        }
        let snapshot = Snapshot {
            seq: self.last_seq,
            created: self.now,
            expires: ttl.map(|ttl| self.now.plus(ttl)),
            holds_log,
            extra: BTreeMap::new(),
        };
        let named = NamedSnapshot::new(name, &snapshot, self.epoch);
        self.snapshots.insert(name.to_owned(), snapshot.clone());
        Ok((Change::TakeSnapshot { name: name.to_owned(), snapshot }, named))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point() -> Point {
        Point {
            last_seq: SeqNo(9),
            now: Timestamp(1_000),
            epoch: Epoch(2),
            snapshots: BTreeMap::new(),
            limit: 2,
        }
    }

    fn take(name: &str, ttl: Option<u64>) -> Wish {
        let ttl = ttl.map(Duration::from_micros);
        Wish::Take { name: name.into(), ttl, holds_log: false, through: SeqNo(3) }
    }

    #[test]
    fn a_snapshot_has_the_last_number_of_its_edit_and_counts_its_ttl_from_then() {
        let (change, granted) = point().weigh(&take("a", Some(50))).unwrap();
        let Granted::Snapshot(named) = granted else { panic!("{granted:?}") };
        assert_eq!((named.seq, named.created), (SeqNo(9), Timestamp(1_000)));
        assert_eq!(named.expires, Some(Timestamp(1_050)));
        assert_eq!(named.position().to_string(), "2.9");
        assert!(matches!(change, Change::TakeSnapshot { name, .. } if name == "a"));
    }

    /// Within one edit a request sees what those before it do.
    #[test]
    fn requests_of_one_edit_are_weighed_one_after_the_other() {
        let mut at = point();
        at.weigh(&take("a", None)).unwrap();
        assert!(matches!(at.weigh(&take("a", None)), Err(SnapshotError::Exists(s)) if s.seq == SeqNo(9)));
        at.weigh(&take("b", None)).unwrap();
        assert!(matches!(at.weigh(&take("c", None)), Err(SnapshotError::TooMany { limit: 2 })));
        at.weigh(&Wish::Drop { name: "a".into() }).unwrap();
        assert!(matches!(at.weigh(&Wish::Drop { name: "a".into() }), Err(SnapshotError::NotThere(_))));
        at.weigh(&take("a", None)).unwrap();
    }
}
