//! The tournament tree.
//!
//! Sources are the leaves. Every inner node remembers who lost the match played there, and the overall winner stands
//! above the root. When the winner moves on to its next row, only the matches on its own path are played again, one
//! compare a level, against the losers remembered there:
//!
//! ```text
//!            winner: 2                after 2 moves on, only its path is replayed:
//!               [0]                      node 1: 2 against 0, node 3: 2 against 3
//!            ┌───┴───┐
//!           [1]     [3]               nodes hold losers; leaf i hangs below node (i + n) / 2
//!          ┌─┴─┐   ┌─┴─┐
//!          0   1   2   3
//! ```
//!
//! A source without a row at hand plays no match: until the caller feeds it, [`Merge::step`] says so and nothing else
//! happens. A source that has ended loses against everybody.

use bytes::Bytes;

use super::Direction;
use super::source::{Feed, Source};
use crate::ids::SeqNo;
use crate::row::RowRef;

/// What a merge can do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The winner is at hand: [`Merge::row`] is it; [`Merge::pop`] moves on.
    Row,
    /// Source `.0` must be fed first.
    Need(usize),
    /// Every source has ended, or the bound is reached.
    Done,
}

/// The tournament tree over `n` sources.
#[derive(Debug)]
pub struct Merge {
    direction: Direction,
    sources: Vec<Source>,
    /// The winner at 0, the losers of the inner nodes above; empty until every source has been fed once.
    nodes: Vec<usize>,
    /// The former winner, while its next row has not found its place.
    moved: Option<usize>,
    bound: Option<Bytes>,
    /// The row popped last, to know its copy in another source by.
    last_key: Vec<u8>,
    last_seq: Option<SeqNo>,
}

impl Merge {
    /// A merge of `sources` sources, none of them fed yet. Rows of one key and one sequence number from two sources
    /// are delivered once, from the source with the lower index.
    #[must_use]
    pub fn new(sources: usize, direction: Direction) -> Self {
        Self {
            direction,
            sources: (0..sources).map(|_| Source::new()).collect(),
            nodes: Vec::new(),
            moved: None,
            bound: None,
            last_key: Vec::new(),
            last_seq: None,
        }
    }

    /// The same merge, done at `bound`: forward, an exclusive end; in reverse, an inclusive start. Sources may be fed
    /// rows beyond it.
    #[must_use]
    pub fn bounded(mut self, bound: Option<Bytes>) -> Self {
        self.bound = bound;
        self
    }

    /// Gives source `i` its next block, rows, or its end. Feeding ahead of need is allowed; how far is the caller's
    /// to bound. What is fed after the end, or to a source that does not exist, is never delivered.
    pub fn feed(&mut self, i: usize, feed: Feed) {
        debug_assert!(i < self.sources.len(), "source {i} of {}", self.sources.len());
        if let Some(source) = self.sources.get_mut(i) {
            source.feed(feed);
        }
    }

    /// Every source that must be fed before the merge can go on: all of them at the start, later at most one.
    pub fn needs(&self) -> impl Iterator<Item = usize> + '_ {
        self.sources.iter().enumerate().filter(|(_, source)| source.is_starving()).map(|(i, _)| i)
    }

    /// What can be done next. Asking twice changes nothing.
    pub fn step(&mut self) -> Step {
        if let Some(i) = self.first_unready() {
            return Step::Need(i);
        }
        loop {
            if let Some(i) = self.moved {
                if !self.sources[i].is_ready(self.direction) {
                    return Step::Need(i);
                }
                self.replay(i);
                self.moved = None;
            }
            match self.winner_at_hand() {
                None => return Step::Done,
                Some(winner) if self.is_repeated(winner) => self.advance(winner),
                Some(winner) if self.is_beyond_bound(winner) => return Step::Done,
                Some(_) => return Step::Row,
            }
        }
    }

    /// The winning row after [`Step::Row`]; `None` at any other time.
    #[must_use]
    #[inline]
    pub fn row(&self) -> Option<RowRef<'_>> {
        self.winner_at_hand().and_then(|i| self.sources[i].row())
    }

    /// The source the winning row comes from.
    #[must_use]
    pub fn winner(&self) -> Option<usize> {
        self.winner_at_hand()
    }

    /// The winning row's value by reference count, not copied, where it is a put. It keeps the block it lies in.
    #[must_use]
    pub fn shared_value(&self) -> Option<Bytes> {
        self.winner_at_hand().and_then(|i| self.sources[i].shared_value())
    }

    /// Moves past the winning row; without one, does nothing.
    pub fn pop(&mut self) {
        let Some(winner) = self.winner_at_hand() else { return };
        if self.sources.len() > 1 {
            self.last_key.clear();
            self.last_key.extend_from_slice(self.sources[winner].key().unwrap_or_default());
            self.last_seq = self.sources[winner].seq();
        }
        self.advance(winner);
    }

    /// Which way it runs.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    #[inline]
    fn winner_at_hand(&self) -> Option<usize> {
        let winner = *self.nodes.first()?;
        (self.moved.is_none() && !self.sources[winner].has_ended()).then_some(winner)
    }

    fn advance(&mut self, winner: usize) {
        self.sources[winner].advance(self.direction);
        self.moved = Some(winner);
    }

    /// At the start: a source that has not been fed; once there is none, the first tournament is played.
    fn first_unready(&mut self) -> Option<usize> {
        if !self.nodes.is_empty() {
            return None;
        }
        let direction = self.direction;
        let unready = self.sources.iter_mut().position(|source| !source.is_ready(direction));
        if unready.is_none() {
            self.play_all();
        }
        unready
    }

    fn play_all(&mut self) {
        let n = self.sources.len();
        self.nodes = vec![0; n];
        // winners[i]: who comes out of node i; leaves are the nodes from n on.
        let mut winners: Vec<usize> = (0..2 * n).map(|node| node.saturating_sub(n)).collect();
        for node in (1..n).rev() {
            let (a, b) = (winners[2 * node], winners[2 * node + 1]);
            let (winner, loser) = if self.beats(a, b) { (a, b) } else { (b, a) };
            winners[node] = winner;
            self.nodes[node] = loser;
        }
        if let (Some(top), Some(winner)) = (self.nodes.first_mut(), winners.get(1)) {
            *top = *winner;
        }
    }

    /// Plays the matches on the path of source `i` again.
    #[inline]
    fn replay(&mut self, i: usize) {
        let mut winner = i;
        let mut node = (i + self.sources.len()) / 2;
        while node > 0 {
            let loser = self.nodes[node];
            if self.beats(loser, winner) {
                self.nodes[node] = winner;
                winner = loser;
            }
            node /= 2;
        }
        self.nodes[0] = winner;
    }

    #[inline]
    fn beats(&self, a: usize, b: usize) -> bool {
        self.sources[a].order(&self.sources[b], self.direction).then(a.cmp(&b)).is_lt()
    }

    #[inline]
    fn is_repeated(&self, winner: usize) -> bool {
        let source = &self.sources[winner];
        self.last_seq.is_some() && source.seq() == self.last_seq && source.key() == Some(&self.last_key)
    }

    #[inline]
    fn is_beyond_bound(&self, winner: usize) -> bool {
        match (&self.bound, self.sources[winner].key()) {
            (Some(bound), Some(key)) => match self.direction {
                Direction::Forward => key >= &bound[..],
                Direction::Reverse => key < &bound[..],
            },
            _ => false,
        }
    }
}
