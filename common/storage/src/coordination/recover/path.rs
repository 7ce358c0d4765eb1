//! The path through the log from a base to its end, by the epochs' beginnings and by what each segment says of its
//! predecessor. Pure: what was read of the segments comes in, what is to be adopted comes out.
//!
//! ```text
//!   epochs      4 (cut 100)           5 (cut 131)        7 (cut 131): the highest record
//!   segments    101-110  111-131      -                  132-140  141-141      143-150
//!               └──── bounded: up to the cut each ────┘  └─ open: as far ─┘ ▲  └ later ones: 142 is a missing link
//!                     name follows from the records         as it goes      hole
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::base::number_of;
use crate::coordination::lineage::LineageObject;
use crate::ids::{Epoch, SeqNo};
use crate::log::LogHeader;
use crate::manifest::judge::{EpochObject, leads_through};
use crate::manifest::{EpochStart, LogEntry, LogTail, Manifest};
use crate::names::{LogId, LogKind};

/// A segment that was read and verified whole.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) header: LogHeader,
    pub(super) entry: Arc<LogEntry>,
}

/// Segments by their identity, as far as they lie beyond the base; the damaged ones with what is wrong.
pub(super) type Segments = BTreeMap<LogId, Result<Segment, String>>;

/// Where a path ends before it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The first sequence number that is missing.
    pub first: SeqNo,
    /// The last one that is missing for sure, before others follow that are there.
    pub last: SeqNo,
    /// What is wrong.
    pub why: String,
    /// Segments that are there and cannot be reached.
    pub beyond: Vec<LogId>,
    /// What is known of the missing ones.
    pub fate: Fate,
}

/// What is known of segments that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They were committed.
    Committed,
    /// They were uploaded; nobody can tell whether they were committed.
    Uploaded,
    /// Nobody can tell whether they were ever uploaded.
    Unknown,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the log is broken: sequence numbers {} to {} are missing ({})",
            self.first, self.last, self.why
        )?;
        if let (Some(from), n) = (self.beyond.first(), self.beyond.len()) {
            write!(f, "; {n} segments from number {} on are there and cannot be reached", from.first_seq)?;
        }
        f.write_str(match self.fate {
            Fate::Committed => "; they were committed",
            Fate::Uploaded => "; they may have been committed",
            Fate::Unknown => {
                "; a writer killed in the middle of parallel uploads leaves the same trace, and then none of it was \
                 acknowledged"
            }
        })
    }
}

/// The path as far as it leads.
#[derive(Debug, Clone, Default)]
pub(super) struct Path {
    /// The segments after the base's tail, in order.
    pub(super) adopted: Vec<Segment>,
    /// Why it does not lead further, if it should.
    pub(super) gap: Option<Gap>,
}

/// Follows the log from `base`'s tail; `anchor` is the highest epoch object, if it is above the base's epoch.
///
/// # Errors
/// Where the base does not lie on the recorded path.
pub(super) fn follow(
    base: &Manifest,
    anchor: Option<&EpochObject>,
    lineages: &[LineageObject],
    segments: &Segments,
) -> Result<Path, String> {
    let (epochs, cut) = match anchor {
        Some(o) => (o.epochs.as_slice(), o.cut),
        None => (base.epochs.as_slice(), base.tail),
    };
    if let Some(o) = anchor {
        lies_on(base, o, lineages)?;
    }
    let route = Route { base, epochs, cut, lineages, segments };
    let mut path = Path::default();
    let mut at = Place { tail: base.tail, lineage: number_of(lineages, base.lineage).unwrap_or_default() };
    loop {
        let found = if at.seq() < seq_of(cut) { route.bounded(&at)? } else { route.open(&at) };
        match found {
            Found::Next(segment) => {
                at.tail = Some(segment.header.tail());
                at.lineage = number_of(lineages, segment.header.lineage).unwrap_or_default();
                path.adopted.push(segment);
            }
            Found::Gap(gap) => {
                path.gap = Some(gap);
                return Ok(path);
            }
            Found::End => return Ok(path),
        }
    }
}

/// Whether the base lies on the path that the record describes.
fn lies_on(base: &Manifest, record: &EpochObject, lineages: &[LineageObject]) -> Result<(), String> {
    let epoch = record.epoch;
    let contradicts = |why: String| {
        Err(format!(
            "the record of epoch {epoch} contradicts the checkpoint of version {}: {why}",
            base.version
        ))
    };
    let (ours, its) = (number_of(lineages, base.lineage), number_of(lineages, record.lineage));
    if record.database != base.database || its.is_none() || its < ours {
        return contradicts(format!("it is of lineage {} of database {}", record.lineage, record.database));
    }
    if record.epochs.last().is_none_or(|e| e.epoch != epoch || e.cut != record.cut) {
        return contradicts("its own list of epochs does not end with it".to_owned());
    }
    let Some(tail) = base.tail else { return Ok(()) };
    // Of an epoch too old to be remembered everything lies below the first cut that is.
    let forgotten =
        record.epochs.first().is_some_and(|e| tail.id.epoch < e.epoch && tail.last_seq <= e.cut_seq());
    if forgotten || leads_through(&record.epochs, seq_of(record.cut), &tail) {
        return Ok(());
    }
    contradicts(format!("its path does not lead through the segment {}, the checkpoint's last", tail.id))
}

fn seq_of(tail: Option<LogTail>) -> SeqNo {
    tail.map(|t| t.last_seq).unwrap_or_default()
}

/// Where the path has come to.
struct Place {
    tail: Option<LogTail>,
    /// The number of the newest lineage met.
    lineage: u64,
}

impl Place {
    fn seq(&self) -> SeqNo {
        seq_of(self.tail)
    }
}

enum Found {
    Next(Segment),
    Gap(Gap),
    End,
}

struct Route<'a> {
    base: &'a Manifest,
    epochs: &'a [EpochStart],
    cut: Option<LogTail>,
    lineages: &'a [LineageObject],
    segments: &'a Segments,
}

impl Route<'_> {
    /// Up to the cut the records say whose segment comes next, so its name is known.
    fn bounded(&self, at: &Place) -> Result<Found, String> {
        let seq = at.seq();
        let own = self.epochs.partition_point(|e| e.cut_seq() <= seq);
        let (Some(writer), Some(end)) = (
            own.checked_sub(1).and_then(|i| self.epochs.get(i)),
            self.epochs.get(own).map(EpochStart::cut_seq),
        ) else {
            return Err(format!("no record says which epoch wrote sequence number {}", seq.next()));
        };
        let id = LogId { epoch: writer.epoch, incarnation: writer.incarnation, first_seq: seq.next() };
        let path = id.path(LogKind::Segment);
        let why = match self.segments.get(&id) {
            Some(Ok(s)) if self.continues(s, at) && s.header.last_seq <= end => {
                return Ok(Found::Next(s.clone()));
            }
            Some(Ok(_)) => format!("{path} does not continue the log here"),
            Some(Err(why)) => format!("{path}: {why}"),
            None => format!("{path} is gone"),
        };
        let beyond = self.beyond(id.first_seq, self.newest());
        let upto =
            beyond.first().map(|id| SeqNo(id.first_seq.0 - 1)).into_iter().chain([seq_of(self.cut)]).min();
        let last = upto.unwrap_or_default();
        Ok(Found::Gap(Gap { first: id.first_seq, last, why, beyond, fate: Fate::Committed }))
    }

    /// Beyond the cut only segments of the newest epoch, or of later ones, continue the log; of several, the latest
    /// epoch's: it accepted work after fencing the others.
    fn open(&self, at: &Place) -> Found {
        let first = at.seq().next();
        let followed = at.tail.filter(|t| t.last_seq > seq_of(self.cut)).map(|t| t.id.epoch);
        let lowest = followed.unwrap_or_default().max(self.newest());
        let here = self.segments.iter().filter(|(id, _)| id.first_seq == first && id.epoch >= lowest);
        let here = here.filter(|(_, s)| s.as_ref().map_or(true, |s| self.continues(s, at)));
        let beyond = self.beyond(first, lowest);
        match here.max_by_key(|(id, _)| id.epoch) {
            Some((_, Ok(s))) => Found::Next(s.clone()),
            Some((id, Err(why))) => {
                let why = format!("{}: {why}", id.path(LogKind::Segment));
                let last = beyond.first().map_or(first, |id| SeqNo(id.first_seq.0 - 1));
                Found::Gap(Gap { first, last, why, beyond, fate: Fate::Uploaded })
            }
            None => match beyond.first().map(|id| SeqNo(id.first_seq.0 - 1)) {
                None => Found::End,
                Some(last) => {
                    let why = "their segments are not there".to_owned();
                    Found::Gap(Gap { first, last, why, beyond, fate: Fate::Unknown })
                }
            },
        }
    }

    fn newest(&self) -> Epoch {
        self.epochs.last().map(|e| e.epoch).unwrap_or_default()
    }

    fn continues(&self, s: &Segment, at: &Place) -> bool {
        let lineage = number_of(self.lineages, s.header.lineage);
        s.header.kind == LogKind::Segment
            && s.header.database == self.base.database
            && lineage.is_some_and(|n| n >= at.lineage)
            && s.header.previous == at.tail
    }

    /// Sound segments after `first` that are on the recorded path, or of epochs from `lowest` on.
    fn beyond(&self, first: SeqNo, lowest: Epoch) -> Vec<LogId> {
        let counts = |s: &Segment| {
            let tail = s.header.tail();
            tail.id.epoch >= lowest || leads_through(self.epochs, seq_of(self.cut), &tail)
        };
        let sound =
            self.segments.iter().filter(|(id, s)| id.first_seq > first && s.as_ref().is_ok_and(counts));
        let mut ids: Vec<LogId> = sound.map(|(id, _)| *id).collect();
        ids.sort_by_key(|id| id.first_seq);
        ids
    }
}
