//! Requests about snapshots on their way through the pipeline, in order.

use std::collections::VecDeque;

use isle_storage::coordination::CoordinationError;
use isle_storage::ids::{CommitId, Epoch, SeqNo, Version};
use isle_storage::manifest::Change;
use tokio::sync::oneshot;

use super::{Answer, Granted, Point, SnapshotError, Wish};
use crate::error::WriteError;

/// A request, and who waits for its answer.
#[derive(Debug)]
pub(crate) struct Ask {
    wish: Wish,
    /// It is refused only by a manifest that was read after it came.
    read: Read,
    answer: oneshot::Sender<Answer>,
}

/// Whether the head has been read since a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    NotYet,
    UnderWay,
    Done,
}

impl Ask {
    pub(crate) fn new(wish: Wish) -> (Self, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        (Self { wish, read: Read::NotYet, answer }, answered)
    }

    pub(crate) fn name(&self) -> &str {
        self.wish.name()
    }

    /// Answers; an asker that has gone away was told that the outcome is unknown.
    fn tell(self, answer: Answer) {
        let _gone = self.answer.send(answer);
    }
}

/// A request that an edit grants, with the answer it gets once the edit is committed.
#[derive(Debug)]
pub(crate) struct Admitted {
    ask: Ask,
    granted: Granted,
}

impl Admitted {
    pub(crate) fn done(self) {
        self.ask.tell(Ok(self.granted));
    }

    pub(crate) fn refused(self, e: WriteError) {
        self.ask.tell(Err(e.into()));
    }

    pub(crate) fn unknown(self, why: &str) {
        let name = self.ask.name().to_owned();
        self.ask.tell(Err(SnapshotError::OutcomeUnknown { name, why: why.to_owned() }));
    }
}

/// An edit whose commit was cut off, with the requests it would have granted.
#[derive(Debug)]
pub(crate) struct EditInDoubt {
    pub(crate) version: Version,
    pub(crate) epoch: Epoch,
    pub(crate) commit: CommitId,
    pub(crate) admitted: Vec<Admitted>,
}

/// Requests that no edit carries yet.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    waiting: VecDeque<Ask>,
}

impl Asks {
    pub(crate) fn extend(&mut self, more: impl IntoIterator<Item = Ask>) {
        self.waiting.extend(more);
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether an edit whose log ends at `last_seq` could carry one of them.
    pub(crate) fn is_due(&self, last_seq: SeqNo) -> bool {
        self.waiting.iter().any(|a| a.wish.through() <= last_seq)
    }

    /// A commit or a look begins: it shows a head that is newer than every request so far.
    pub(crate) fn read_begins(&mut self) {
        self.waiting.iter_mut().filter(|a| a.read == Read::NotYet).for_each(|a| a.read = Read::UnderWay);
    }

    /// It has come to its end, and what it read is the manifest that the next edit is built on.
    pub(crate) fn read_ends(&mut self) {
        self.waiting.iter_mut().filter(|a| a.read == Read::UnderWay).for_each(|a| a.read = Read::Done);
    }

    /// It has failed: those who needed it are told so.
    pub(crate) fn read_fails(&mut self, e: &CoordinationError) {
        for ask in std::mem::take(&mut self.waiting) {
            if ask.read == Read::UnderWay {
                ask.tell(Err(SnapshotError::Unavailable(e.clone())));
            } else {
                self.waiting.push_back(ask);
            }
        }
    }

    /// Takes out those that the edit at `point` grants, with their changes, in order. Those that it refuses are told so
    /// if the manifest was read after they came; else they stay, and somebody must look: the third is true. Of one name
    /// nobody overtakes.
    pub(crate) fn admit(&mut self, point: &mut Point) -> (Vec<Change>, Vec<Admitted>, bool) {
        let (mut changes, mut admitted, mut kept) = (Vec::new(), Vec::new(), VecDeque::<Ask>::new());
        let mut doubtful = false;
        for ask in std::mem::take(&mut self.waiting) {
            if ask.answer.is_closed() {
                continue;
            }
            let early = ask.wish.through() > point.last_seq;
            if early || kept.iter().any(|k| k.name() == ask.name()) {
                kept.push_back(ask);
                continue;
            }
            match point.weigh(&ask.wish) {
                Ok((change, granted)) => {
                    changes.push(change);
                    admitted.push(Admitted { ask, granted });
                }
                // What this very edit does to the name is not known to be committed yet.
                Err(_) if admitted.iter().any(|a: &Admitted| a.ask.name() == ask.name()) => {
                    kept.push_back(ask);
                }
                Err(e) if ask.read == Read::Done => ask.tell(Err(e)),
                Err(_) => {
                    doubtful = true;
                    kept.push_back(ask);
                }
            }
        }
        self.waiting = kept;
        (changes, admitted, doubtful)
    }

    /// Puts back those whose edit was certainly not committed, as its commit has read.
    pub(crate) fn put_back(&mut self, admitted: Vec<Admitted>) {
        for Admitted { ask, .. } in admitted.into_iter().rev() {
            self.waiting.push_front(Ask { read: Read::Done, ..ask });
        }
    }

    /// Leadership has ended before any edit carried them.
    pub(crate) fn refuse_all(&mut self, e: &WriteError) {
        for ask in self.waiting.drain(..) {
            ask.tell(Err(e.clone().into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use isle_storage::ids::Timestamp;

    use super::*;

    fn point(last_seq: u64) -> Point {
        Point {
            last_seq: SeqNo(last_seq),
            now: Timestamp(5),
            epoch: Epoch(1),
            snapshots: BTreeMap::new(),
            limit: 8,
        }
    }

    fn take(name: &str, through: u64) -> Wish {
        Wish::Take { name: name.into(), ttl: None, holds_log: false, through: SeqNo(through) }
    }

    #[test]
    fn an_edit_below_what_was_accepted_before_the_request_does_not_carry_it() {
        let mut asks = Asks::default();
        let (ask, _answered) = Ask::new(take("a", 7));
        asks.extend([ask]);
        assert!(!asks.is_due(SeqNo(6)) && asks.is_due(SeqNo(7)));
        let (changes, ..) = asks.admit(&mut point(6));
        assert!(changes.is_empty() && asks.len() == 1);
        let (changes, admitted, doubtful) = asks.admit(&mut point(8));
        assert_eq!((changes.len(), admitted.len(), doubtful, asks.len()), (1, 1, false, 0));
    }

    /// The snapshot may have been ended by somebody else since the manifest was read.
    #[tokio::test]
    async fn a_refusal_needs_a_manifest_read_after_the_request() {
        let mut asks = Asks::default();
        let (ask, answered) = Ask::new(Wish::Drop { name: "a".into() });
        asks.extend([ask]);
        asks.read_ends();
        let (changes, _, doubtful) = asks.admit(&mut point(8));
        assert!(changes.is_empty() && doubtful && asks.len() == 1);
        asks.read_begins();
        asks.read_ends();
        asks.admit(&mut point(8));
        assert!(matches!(answered.await.unwrap(), Err(SnapshotError::NotThere(_))));
    }

    /// That the first of two has the name is only known once its edit is committed.
    #[tokio::test]
    async fn two_requests_for_one_name_are_not_decided_by_an_edit_that_may_fail() {
        let mut asks = Asks::default();
        let ((first, _f), (second, answered)) = (Ask::new(take("a", 1)), Ask::new(take("a", 1)));
        asks.extend([first, second]);
        let (_, admitted, doubtful) = asks.admit(&mut point(8));
        assert_eq!((admitted.len(), doubtful, asks.len()), (1, false, 1));
        asks.put_back(admitted);
        let (_, admitted, _) = asks.admit(&mut point(8));
        assert!(matches!(&admitted[0].granted, Granted::Snapshot(s) if s.name == "a"));
        admitted.into_iter().for_each(Admitted::done);
        asks.read_begins();
        asks.read_ends();
        let mut now = point(8);
        now.weigh(&take("a", 1)).unwrap();
        asks.admit(&mut now);
        assert!(matches!(answered.await.unwrap(), Err(SnapshotError::Exists(_))));
    }

    #[test]
    fn a_request_nobody_waits_for_any_more_is_not_begun() {
        let mut asks = Asks::default();
        let (ask, answered) = Ask::new(take("a", 0));
        asks.extend([ask]);
        drop(answered);
        assert!(asks.admit(&mut point(8)).0.is_empty() && asks.len() == 0);
    }
}
