//! An ordered map with all its versions, filled from the committed log: what a read at any view must answer.
//!
//! The bottom may be cut: below [`Model::floor`] versions were dropped (to bound memory) and below where the log began
//! they were never known. A question about what is not known is answered [`Expected::Unknown`], never guessed.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::event::Span;
use crate::key::Key;
use crate::log::{Op, Record};

/// One version of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Its number.
    pub seq: u64,
    /// What it says.
    pub op: Op,
    /// When it ends being visible.
    pub expires: Option<i64>,
}

/// What a read of one key must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// This version.
    Row(Version),
    /// This version, or nothing: its expiry falls into the time within which the read was judged.
    Either(Version),
    /// Nothing.
    Absent,
    /// Not known.
    Unknown,
}

/// The versions of every key.
#[derive(Debug, Clone, Default)]
pub struct Model {
    versions: BTreeMap<Key, Vec<Version>>,
    /// The log was not known up to here.
    began: u64,
    /// Older versions than the newest at or below this number were dropped.
    floor: u64,
}

impl Model {
    /// An empty model of a log known from after `began`.
    #[must_use]
    pub fn new(began: u64) -> Self {
        Self { versions: BTreeMap::new(), began, floor: began }
    }

    /// The lowest view that can be judged.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Where the log began: numbers at or below were never known.
    #[must_use]
    pub fn began(&self) -> u64 {
        self.began
    }

    /// Applies the next record of the log.
    pub fn apply(&mut self, record: &Record) {
        let version = Version { seq: record.seq, op: record.op, expires: record.expires };
        self.versions.entry(record.key.clone()).or_default().push(version);
    }

    /// Every version of `key`, oldest first.
    #[must_use]
    pub fn versions(&self, key: &Key) -> &[Version] {
        self.versions.get(key).map_or(&[], Vec::as_slice)
    }

    /// What a read of `key` at `view` must show.
    #[must_use]
    pub fn at(&self, key: &Key, view: u64, judged: Option<Span>, tolerance: i64) -> Expected {
        self.judge(self.versions(key), view, judged, tolerance)
    }

    fn judge(&self, versions: &[Version], view: u64, judged: Option<Span>, tolerance: i64) -> Expected {
        let below = versions.partition_point(|v| v.seq <= view);
        let newest = below.checked_sub(1).and_then(|i| versions.get(i)).copied();
        let Some(version) = newest else {
            return if self.began == 0 && view >= self.floor { Expected::Absent } else { Expected::Unknown };
        };
        match (version.op, version.expires, judged) {
            (Op::Delete, ..) => Expected::Absent,
            (Op::Put(_), None, _) => Expected::Row(version),
            (Op::Put(_), Some(_), None) => Expected::Either(version),
            (Op::Put(_), Some(at), Some(span)) if at <= span.from.saturating_sub(tolerance) => {
                Expected::Absent
            }
            (Op::Put(_), Some(at), Some(span)) if at > span.to.saturating_add(tolerance) => {
                Expected::Row(version)
            }
            (Op::Put(_), Some(_), Some(_)) => Expected::Either(version),
        }
    }

    /// The keys of a half-open range that the model has ever heard of, in the direction asked, each with what a read
    /// at `view` must show.
    pub fn range<'a>(
        &'a self,
        start: &Key,
        end: Option<&Key>,
        reverse: bool,
        view: u64,
        judged: Option<Span>,
        tolerance: i64,
    ) -> Box<dyn Iterator<Item = (&'a Key, Expected)> + 'a> {
        if end.is_some_and(|end| end <= start) {
            return Box::new(std::iter::empty());
        }
        let bounds = (Bound::Included(start.clone()), end.cloned().map_or(Bound::Unbounded, Bound::Excluded));
        let keys = self.versions.range(bounds);
        let expect = move |(key, versions): (&'a Key, &'a Vec<Version>)| {
            (key, self.judge(versions, view, judged, tolerance))
        };
        if reverse { Box::new(keys.rev().map(expect)) } else { Box::new(keys.map(expect)) }
    }

    /// Drops every version that no view at or above `floor` can show.
    pub fn prune(&mut self, floor: u64) {
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        let began = self.began;
        self.versions.retain(|_, versions| {
            let below = versions.partition_point(|v| v.seq <= floor);
            versions.drain(..below.saturating_sub(1));
            // Where the bottom was never known, a delete still tells that nothing below it counts.
            let only_gone = versions.len() == 1
                && versions.first().is_some_and(|v| v.seq <= floor && v.op == Op::Delete && began == 0);
            !only_gone
        });
    }

    /// Number of keys it has heard of and not forgotten.
    #[must_use]
    pub fn len(&self) -> usize {
        self.versions.len()
    }

    /// Whether it has heard of no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }
}
