//! Generations: the mutations in memory that are not in tables yet, in the units in which they will be.
//!
//! ```text
//! oldest                                   newest
//! [gen: building] [gen: committed, waits] [gen: open ◀── segments as they are dispatched]
//!      └─▶ sort ─▶ tables + chunk ─▶ upload ─▶ Flush edit ─▶ memory free
//! ```
//!
//! A generation is a run of whole segments. It ends by bytes, by number of segments or by age, whichever is first;
//! the segment that starts one is marked, so that readers rotate where the writer does. Rows are not copied into a
//! memtable: they stay in the sealed blocks that were uploaded, and the flush sorts references to them.

mod build;
mod flush;
mod sort;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use isle_storage::ids::SeqNo;
use isle_storage::log::RawBlock;
use isle_storage::manifest::LogTail;
use isle_storage::row::BlobId;
use tokio::time::Instant;

pub(crate) use build::TableRules;
pub(crate) use flush::{Flushed, flush};

/// One segment's part of a generation.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) tail: LogTail,
    /// What the segment names as its predecessor.
    pub(crate) previous: Option<LogTail>,
    pub(crate) blocks: Vec<RawBlock>,
    pub(crate) blobs: Vec<BlobId>,
    /// Bytes of admission it holds.
    pub(crate) charge: u64,
}

/// How far a generation has come.
#[derive(Debug, Clone)]
pub(crate) enum Stage {
    /// Takes segments.
    Open,
    /// Takes no more, and waits for its segments to be committed and for its turn.
    Closed,
    /// Is being turned into tables, since this instant.
    Flushing(Instant),
    /// Its tables and its chunk are in the bucket; the Flush edit is next.
    Flushed(Instant, Arc<Flushed>),
}

/// A run of segments that will become tables together.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) parts: Vec<Part>,
    pub(crate) stage: Stage,
    charge: u64,
    since: Instant,
}

/// When a generation ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GenerationRules {
    pub(crate) bytes: u64,
    pub(crate) segments: usize,
    pub(crate) age: Duration,
}

impl Generation {
    fn new(now: Instant) -> Self {
        Self { parts: Vec::new(), stage: Stage::Open, charge: 0, since: now }
    }

    /// Bytes of admission it holds.
    pub(crate) fn charge(&self) -> u64 {
        self.charge
    }

    /// First sequence number.
    pub(crate) fn first_seq(&self) -> SeqNo {
        self.parts.first().map(|p| p.tail.id.first_seq).unwrap_or_default()
    }

    /// Last sequence number.
    pub(crate) fn last_seq(&self) -> SeqNo {
        self.parts.last().map(|p| p.tail.last_seq).unwrap_or_default()
    }
}

/// All generations in memory, oldest first; only the newest may be open, and none is empty.
#[derive(Debug)]
pub(crate) struct Generations {
    list: VecDeque<Generation>,
    rules: GenerationRules,
}

impl Generations {
    pub(crate) fn new(rules: GenerationRules) -> Self {
        Self { list: VecDeque::new(), rules }
    }

    /// Whether a segment with this charge starts a generation: there is no open one, or it would be too large.
    pub(crate) fn starts(&self, charge: u64, now: Instant) -> bool {
        match self.list.back() {
            Some(g) if matches!(g.stage, Stage::Open) => {
                g.charge + charge > self.rules.bytes || self.is_over(g, now)
            }
            _ => true,
        }
    }

    fn is_over(&self, g: &Generation, now: Instant) -> bool {
        g.charge >= self.rules.bytes
            || g.parts.len() >= self.rules.segments
            || now.duration_since(g.since) >= self.rules.age
    }

    /// Adds a segment, which starts a generation if it is marked so.
    pub(crate) fn add(&mut self, part: Part, starts: bool, now: Instant) {
        if starts || self.list.is_empty() {
            self.close();
            self.list.push_back(Generation::new(now));
        }
        if let Some(open) = self.list.back_mut() {
            open.charge += part.charge;
            open.parts.push(part);
        }
    }

    /// Ends the open generation, whatever its size.
    pub(crate) fn close(&mut self) {
        if let Some(g) = self.list.back_mut()
            && matches!(g.stage, Stage::Open)
        {
            g.stage = Stage::Closed;
        }
    }

    /// Ends the open generation if one of its bounds is passed; otherwise the instant at which its age will be.
    pub(crate) fn close_if_over(&mut self, now: Instant) -> Option<Instant> {
        let open = self.list.back().filter(|g| matches!(g.stage, Stage::Open))?;
        if self.is_over(open, now) {
            self.close();
            return None;
        }
        Some(open.since + self.rules.age)
    }

    /// The oldest generation that waits for its flush, if all of it is committed and fewer than `at_once` are
    /// under way. It is marked as begun.
    pub(crate) fn begin_flush(
        &mut self,
        committed: SeqNo,
        at_once: usize,
        now: Instant,
    ) -> Option<Vec<Part>> {
        let busy = |g: &&Generation| matches!(g.stage, Stage::Flushing(_) | Stage::Flushed(..));
        if self.list.iter().filter(busy).count() >= at_once {
            return None;
        }
        let next = self.list.iter_mut().find(|g| matches!(g.stage, Stage::Closed))?;
        if next.last_seq() > committed {
            return None;
        }
        next.stage = Stage::Flushing(now);
        Some(next.parts.clone())
    }

    /// The flush of the generation that starts at `first_seq` has put its objects.
    pub(crate) fn flushed(&mut self, first_seq: SeqNo, flushed: Flushed) {
        if let Some(g) = self.list.iter_mut().find(|g| g.first_seq() == first_seq)
            && let Stage::Flushing(since) = g.stage
        {
            g.stage = Stage::Flushed(since, Arc::new(flushed));
        }
    }

    /// What the next Flush edit may carry: the oldest generation, if its objects are there. Flushes publish in order.
    pub(crate) fn publishable(&self) -> Option<Arc<Flushed>> {
        match &self.list.front()?.stage {
            Stage::Flushed(_, flushed) => Some(Arc::clone(flushed)),
            _ => None,
        }
    }

    /// The Flush edit up to `flushed_seq` is committed: its generation, with the instant its flush began, leaves.
    pub(crate) fn retire(&mut self, flushed_seq: SeqNo) -> Option<(Generation, Instant)> {
        match self.list.front() {
            Some(Generation { stage: Stage::Flushed(since, f), .. }) if f.last_seq == flushed_seq => {
                let since = *since;
                self.list.pop_front().map(|g| (g, since))
            }
            _ => None,
        }
    }

    /// Flushes that were given up begin again.
    #[cfg(feature = "sabotage")]
    pub(crate) fn begin_again(&mut self) {
        for g in self.list.iter_mut().filter(|g| matches!(g.stage, Stage::Flushing(_))) {
            g.stage = Stage::Closed;
        }
    }

    /// Number of generations.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Bytes of admission all of them hold.
    pub(crate) fn charge(&self) -> u64 {
        self.list.iter().map(Generation::charge).sum()
    }
}

#[cfg(test)]
mod tests {
    use isle_storage::ids::{Epoch, Incarnation};
    use isle_storage::names::LogId;

    use super::*;

    const RULES: GenerationRules = GenerationRules { bytes: 100, segments: 3, age: Duration::from_secs(60) };

    fn part(seq: u64, charge: u64) -> Part {
        let id = LogId { epoch: Epoch(1), incarnation: Incarnation(1), first_seq: SeqNo(seq) };
        Part {
            tail: LogTail { id, last_seq: SeqNo(seq) },
            previous: None,
            blocks: Vec::new(),
            blobs: Vec::new(),
            charge,
        }
    }

    fn add(gens: &mut Generations, seq: u64, charge: u64, now: Instant) -> bool {
        let starts = gens.starts(charge, now);
        gens.add(part(seq, charge), starts, now);
        starts
    }

    fn flushed(last: u64) -> Flushed {
        Flushed { last_seq: SeqNo(last), tables: Vec::new(), chunk: None }
    }

    #[test]
    fn a_generation_ends_by_bytes_by_segments_or_by_age() {
        let now = Instant::now();
        let mut gens = Generations::new(RULES);
        assert!(add(&mut gens, 1, 60, now));
        assert!(!add(&mut gens, 2, 40, now));
        assert!(add(&mut gens, 3, 1, now), "by bytes");
        assert!(!add(&mut gens, 4, 1, now));
        assert!(!add(&mut gens, 5, 1, now));
        assert!(add(&mut gens, 6, 1, now), "by segments");
        let later = now + Duration::from_secs(61);
        assert!(gens.close_if_over(now).is_some());
        assert!(gens.close_if_over(later).is_none(), "by age, without a new segment");
        assert!(add(&mut gens, 7, 1, later));
    }

    #[test]
    fn flushes_begin_and_publish_in_order_and_only_above_committed_segments() {
        let now = Instant::now();
        let mut gens = Generations::new(RULES);
        for seq in 1..=3 {
            add(&mut gens, seq, 100, now);
        }
        gens.close();
        assert!(gens.begin_flush(SeqNo(0), 2, now).is_none(), "nothing is committed yet");
        assert_eq!(gens.begin_flush(SeqNo(3), 2, now).unwrap()[0].tail.last_seq, SeqNo(1));
        assert_eq!(gens.begin_flush(SeqNo(3), 2, now).unwrap()[0].tail.last_seq, SeqNo(2));
        assert!(gens.begin_flush(SeqNo(3), 2, now).is_none(), "two are under way");
        gens.flushed(SeqNo(2), flushed(2));
        assert!(gens.publishable().is_none(), "the second must wait for the first");
        gens.flushed(SeqNo(1), flushed(1));
        assert_eq!(gens.publishable().unwrap().last_seq, SeqNo(1));
        assert_eq!(gens.retire(SeqNo(1)).unwrap().0.charge(), 100);
        assert_eq!(gens.publishable().unwrap().last_seq, SeqNo(2));
        assert_eq!(gens.charge(), 200);
    }
}
