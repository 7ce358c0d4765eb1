//! The line: dispatched segments in sequence order, from dispatch to commit. Uploads end in any order; only the
//! ready front of the line is published.

use std::collections::VecDeque;
use std::sync::Arc;

use isle_storage::manifest::{LogEntry, LogTail};
use isle_storage::sabotage::{Rule, broken};
use tokio::time::Instant;

use crate::intake::{Completion, Outcome, Sealed};

/// A dispatched segment.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) tail: LogTail,
    charge: u64,
    sealed: Instant,
    pub(super) completion: Arc<Completion>,
    /// Callers that wait for it.
    pub(super) waiters: u64,
    ready: Option<(Arc<LogEntry>, Instant)>,
    /// Named by a proposal that is under way.
    proposed: bool,
}

impl InFlight {
    pub(super) fn new(tail: LogTail, batch: &Sealed) -> Self {
        Self {
            tail,
            charge: batch.charge,
            sealed: batch.sealed,
            completion: Arc::clone(&batch.completion),
            waiters: batch.waiters,
            ready: None,
            proposed: false,
        }
    }

    /// When its upload was done.
    pub(super) fn ready_at(&self) -> Option<Instant> {
        self.ready.as_ref().map(|(_, at)| *at)
    }
}

/// Dispatched segments, oldest first.
#[derive(Debug, Default)]
pub(super) struct Line {
    segments: VecDeque<InFlight>,
    uploading_bytes: u64,
}

impl Line {
    pub(super) fn push(&mut self, segment: InFlight) {
        self.uploading_bytes += segment.charge;
        self.segments.push_back(segment);
    }

    /// The segment's object is in the bucket. Returns when the segment was sealed.
    pub(super) fn uploaded(&mut self, tail: LogTail, entry: Arc<LogEntry>, now: Instant) -> Option<Instant> {
        let segment = self.segments.iter_mut().find(|s| s.tail == tail)?;
        if broken(Rule::AcknowledgeAfterCommit) {
            segment.completion.end(Outcome::Committed);
        }
        segment.ready = Some((entry, now));
        self.uploading_bytes -= segment.charge;
        Some(segment.sealed)
    }

    /// The entries of the ready front, at most `limit` of them.
    pub(super) fn ready_front(&self, limit: usize) -> Vec<Arc<LogEntry>> {
        let entries = self.segments.iter().map_while(|s| s.ready.as_ref());
        entries.take(limit).map(|(entry, _)| Arc::clone(entry)).collect()
    }

    /// Whether the front is ready.
    pub(super) fn is_ready(&self) -> bool {
        self.segments.front().is_some_and(|s| s.ready.is_some())
    }

    /// Whether a segment is ready and no proposal names it yet.
    pub(super) fn has_ready_waiting(&self) -> bool {
        self.segments.iter().any(|s| s.ready.is_some() && !s.proposed)
    }

    /// Marks the first `n` as named by a proposal.
    pub(super) fn propose(&mut self, n: usize, commit: isle_storage::ids::CommitId) {
        for s in self.segments.iter_mut().take(n) {
            s.proposed = true;
            s.completion.attempted(commit);
        }
    }

    /// Takes back every mark: the proposal is to be made again.
    pub(super) fn unpropose(&mut self) {
        for s in &mut self.segments {
            s.proposed = false;
        }
    }

    /// The first `n` are committed and leave.
    pub(super) fn commit(&mut self, n: usize) -> impl Iterator<Item = InFlight> + '_ {
        self.segments.drain(..n)
    }

    pub(super) fn uploading_bytes(&self) -> u64 {
        self.uploading_bytes
    }

    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use isle_storage::ids::{Epoch, Incarnation, SeqNo, Timestamp};
    use isle_storage::names::{LogId, LogKind};

    use super::*;

    fn tail(seq: u64) -> LogTail {
        let id = LogId { epoch: Epoch(1), incarnation: Incarnation(1), first_seq: SeqNo(seq) };
        LogTail { id, last_seq: SeqNo(seq) }
    }

    fn in_flight(seq: u64, sealed: Instant) -> InFlight {
        let completion = Arc::default();
        InFlight { tail: tail(seq), charge: 0, sealed, completion, waiters: 0, ready: None, proposed: false }
    }

    fn entry(seq: u64) -> Arc<LogEntry> {
        Arc::new(LogEntry {
            kind: LogKind::Segment,
            id: tail(seq).id,
            last_seq: SeqNo(seq),
            len: 2,
            index_offset: 1,
            crc: 0,
            first_time: Timestamp(0),
            last_time: Timestamp(0),
            raw_bytes: 1,
            starts_generation: false,
            blobs: Vec::new(),
            extra: BTreeMap::new(),
        })
    }

    /// Uploads that end out of order publish in order.
    #[test]
    fn only_the_ready_front_is_published() {
        let now = Instant::now();
        let mut line = Line::default();
        for seq in 1..=3 {
            line.push(InFlight { charge: 10, ..in_flight(seq, now) });
        }
        line.uploaded(tail(3), entry(3), now);
        line.uploaded(tail(2), entry(2), now);
        assert!(line.ready_front(9).is_empty());
        assert_eq!(line.uploading_bytes(), 10);
        line.uploaded(tail(1), entry(1), now);
        let seqs: Vec<u64> = line.ready_front(2).iter().map(|e| e.last_seq.0).collect();
        assert_eq!(seqs, [1, 2], "in order, and no more than asked for");
        assert_eq!(line.commit(2).count(), 2);
        assert_eq!(line.len(), 1);
    }
}
