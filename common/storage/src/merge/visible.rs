//! What a read sees of a merge: for every key the newest version at or below one sequence number, unless that is a
//! delete or has expired.
//!
//! Forward, the versions of a key come newest first: the first admitted one decides, the others are passed over.
//! In reverse they come oldest first: the newest admitted so far is held until the key changes, for only then is it
//! known to be the newest.

use bytes::Bytes;

use super::{Direction, Feed, Merge, Step};
use crate::ids::{SeqNo, Timestamp};
use crate::row::{BlobPointer, BlobPointerRef, RowRef, ValueRef};

/// The point at which a read looks at the rows. One read judges every row at one such point, so that within it
/// nothing appears or expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visibility {
    /// Rows above are not seen.
    pub max_seq: SeqNo,
    /// The instant at which expiry is judged.
    pub now: Timestamp,
}

impl Visibility {
    /// Whether the version takes part at all. The newest version of a key that does decides what is seen of it.
    #[must_use]
    pub fn admits(&self, row: &RowRef<'_>) -> bool {
        row.seq <= self.max_seq
    }

    /// Whether a key is seen, whose newest admitted version is `row`. A delete and an expired row hide what is older.
    #[must_use]
    pub fn shows(&self, row: &RowRef<'_>) -> bool {
        !row.is_delete() && !row.is_expired(self.now)
    }
}

/// A merge filtered to what one read sees, in the merge's direction. Fed and stepped like a [`Merge`].
///
/// Bound the merge ([`Merge::bounded`]): what is not visible is passed over without coming back to the caller, and
/// beyond the end of a range there may be a great deal of it.
///
/// ```
/// use isle_storage::ids::{SeqNo, Timestamp};
/// use isle_storage::merge::{Direction, Feed, Merge, Step, Visibility, Visible};
/// use isle_storage::row::{Row, Value};
///
/// let row = |key: &'static str, seq, value| Row {
///     key: key.into(), seq: SeqNo(seq), time: Timestamp(0), expires: None, value,
/// };
/// let put = || Value::Put("v".into());
/// let rows = vec![row("c", 5, put()), row("b", 2, put()), row("b", 4, Value::Delete), row("a", 1, put()), row("a", 9, put())];
///
/// let merge = Merge::new(1, Direction::Reverse);
/// let mut visible = Visible::new(merge, Visibility { max_seq: SeqNo(6), now: Timestamp(0) });
/// visible.feed(0, Feed::Rows(rows));
/// visible.feed(0, Feed::End);
/// let mut seen = Vec::new();
/// while visible.step() == Step::Row {
///     seen.extend(visible.row().map(|row| (row.key.to_vec(), row.seq.0)));
///     visible.pop();
/// }
/// assert_eq!(seen, [(b"c".to_vec(), 5), (b"a".to_vec(), 1)]);
/// ```
#[derive(Debug)]
pub struct Visible {
    merge: Merge,
    at: Visibility,
    /// Forward: the key whose newest admitted version has been met.
    decided: Option<Vec<u8>>,
    /// In reverse: the newest admitted version so far of one key.
    held: Held,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The merge has to be asked.
    Looking,
    /// Forward: the merge's row is visible. In reverse: the held one is.
    Showing,
}

/// A version that outlives its place in the merge; the key's buffer is kept from one to the next, the value is shared.
#[derive(Debug, Default)]
struct Held {
    occupied: bool,
    key: Vec<u8>,
    seq: SeqNo,
    time: Timestamp,
    expires: Option<Timestamp>,
    value: HeldValue,
}

#[derive(Debug, Default)]
enum HeldValue {
    Put(Bytes),
    #[default]
    Delete,
    Blob(BlobPointer),
}

impl Visible {
    /// What is seen of `merge`.
    #[must_use]
    pub fn new(merge: Merge, at: Visibility) -> Self {
        Self { merge, at, decided: None, held: Held::default(), state: State::Looking }
    }

    /// As [`Merge::feed`].
    pub fn feed(&mut self, i: usize, feed: Feed) {
        self.merge.feed(i, feed);
    }

    /// As [`Merge::needs`].
    pub fn needs(&self) -> impl Iterator<Item = usize> + '_ {
        self.merge.needs()
    }

    /// What can be done next; [`Step::Row`] where a visible row is at hand. Asking twice changes nothing.
    pub fn step(&mut self) -> Step {
        if self.state == State::Showing {
            return Step::Row;
        }
        match self.merge.direction() {
            Direction::Forward => self.look_forward(),
            Direction::Reverse => self.look_back(),
        }
    }

    /// The visible row after [`Step::Row`]; `None` at any other time.
    #[must_use]
    pub fn row(&self) -> Option<RowRef<'_>> {
        match (self.state, self.merge.direction()) {
            (State::Looking, _) => None,
            (State::Showing, Direction::Forward) => self.merge.row(),
            (State::Showing, Direction::Reverse) => self.held.row(),
        }
    }

    /// The visible row's value by reference count, not copied, where it is a put. It keeps the block it lies in.
    #[must_use]
    pub fn shared_value(&self) -> Option<Bytes> {
        match (self.state, self.merge.direction(), &self.held.value) {
            (State::Showing, Direction::Forward, _) => self.merge.shared_value(),
            (State::Showing, Direction::Reverse, HeldValue::Put(value)) => Some(value.clone()),
            _ => None,
        }
    }

    /// Moves past the visible row; without one, does nothing.
    pub fn pop(&mut self) {
        if self.state == State::Looking {
            return;
        }
        self.state = State::Looking;
        match self.merge.direction() {
            Direction::Forward => self.merge.pop(),
            Direction::Reverse => self.held.release(),
        }
    }

    fn look_forward(&mut self) -> Step {
        loop {
            match self.merge.step() {
                Step::Row => {}
                other => return other,
            }
            let Some(row) = self.merge.row() else { return Step::Done };
            if self.at.admits(&row) && self.decided.as_deref() != Some(row.key) {
                let decided = self.decided.get_or_insert_default();
                decided.clear();
                decided.extend_from_slice(row.key);
                if self.at.shows(&row) {
                    self.state = State::Showing;
                    return Step::Row;
                }
            }
            self.merge.pop();
        }
    }

    fn look_back(&mut self) -> Step {
        loop {
            let step = self.merge.step();
            let row = match step {
                Step::Need(_) => return step,
                Step::Row => self.merge.row(),
                Step::Done => None,
            };
            let Some(row) = row else { return if self.judge_held() { Step::Row } else { Step::Done } };
            let another_key = self.held.occupied && self.held.key != row.key;
            let admitted = self.at.admits(&row);
            if another_key && self.judge_held() {
                return Step::Row;
            }
            if admitted {
                self.held.take(&self.merge);
            }
            self.merge.pop();
        }
    }

    /// The held version is the newest of its key: shows it, or lets go of it.
    fn judge_held(&mut self) -> bool {
        let shown = self.held.row().is_some_and(|row| self.at.shows(&row));
        if shown {
            self.state = State::Showing;
        } else {
            self.held.release();
        }
        shown
    }
}

impl Held {
    fn take(&mut self, merge: &Merge) {
        let Some(row) = merge.row() else { return };
        self.key.clear();
        self.key.extend_from_slice(row.key);
        (self.seq, self.time, self.expires, self.occupied) = (row.seq, row.time, row.expires, true);
        self.value = match row.value {
            ValueRef::Put(_) => merge.shared_value().map_or(HeldValue::Delete, HeldValue::Put),
            ValueRef::Delete => HeldValue::Delete,
            ValueRef::Blob(p) => HeldValue::Blob(BlobPointer {
                blob: p.blob.to_owned(),
                offset: p.offset,
                len: p.len,
                crc: p.crc,
            }),
        };
    }

    fn row(&self) -> Option<RowRef<'_>> {
        let value = match &self.value {
            HeldValue::Put(value) => ValueRef::Put(value),
            HeldValue::Delete => ValueRef::Delete,
            HeldValue::Blob(p) => {
                ValueRef::Blob(BlobPointerRef { blob: &p.blob, offset: p.offset, len: p.len, crc: p.crc })
            }
        };
        let row = RowRef { key: &self.key, seq: self.seq, time: self.time, expires: self.expires, value };
        self.occupied.then_some(row)
    }

    fn release(&mut self) {
        self.occupied = false;
        self.value = HeldValue::Delete;
    }
}
