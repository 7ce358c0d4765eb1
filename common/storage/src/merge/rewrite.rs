//! What a compaction keeps.
//!
//! A version is needed by a *boundary* (a held snapshot, or the present) where it is the newest of its key at or below
//! it. So, going through the versions of a key from the newest on, a version is needed where it is the newest, or
//! where a snapshot lies at or above it and below the next newer version:
//!
//! ```text
//!   versions of k:   20        14   12        7       3
//!   snapshots:            15             9         5
//!   needed by:      present   15    -         9       5        so 12 is superseded: nobody sees it
//! ```
//!
//! A needed version that is a delete, or that has expired for everybody, hides what is older. It can go only where
//! nothing older can come to light: at the bottom of the tree, and with no snapshot below it, because a snapshot
//! below it may keep an older version among these very inputs. (It stays longer than it must where there is such a
//! snapshot and no such version; it goes with the first merge after the snapshot's end.) Above the bottom an expired
//! row is turned into a delete: it hides just the same, and its value is gone.
//!
//! Expiry is judged by the caller's instant, which must be past expiry on every clock that reads. A snapshot reads at
//! the instant at which it was taken, for ever: a version that expired since is still seen there, and is expired for
//! everybody only where it was expired at the instant of every snapshot that needs it.

use crate::ids::{SeqNo, Timestamp};
use crate::manifest::Held;
use crate::row::{RowRef, ValueRef};

/// Decides, version by version, what a compaction writes again. Rows are judged in a forward merge's order.
///
/// ```
/// use isle_storage::ids::{SeqNo, Timestamp};
/// use isle_storage::merge::{Held, Rewrite};
/// use isle_storage::row::{RowRef, ValueRef};
///
/// let row = |seq| RowRef {
///     key: b"k", seq: SeqNo(seq), time: Timestamp(0), expires: None, value: ValueRef::Put(b"v"),
/// };
/// let held = [15, 9, 5].map(|seq| Held { seq: SeqNo(seq), instant: Timestamp(0) });
/// let mut rewrite = Rewrite::new(&held, true, None);
/// let kept: Vec<u64> = [20, 14, 12, 7, 3].into_iter().filter(|seq| rewrite.keep(&row(*seq))).collect();
/// assert_eq!(kept, [20, 14, 7, 3]);
/// assert_eq!(rewrite.counts().superseded, 1);
/// assert!(!rewrite.dropped());
/// ```
#[derive(Debug, Clone)]
pub struct Rewrite {
    /// Ascending.
    snapshots: Vec<Held>,
    bottom: bool,
    drop_expired_before: Option<Timestamp>,
    /// Key and number of the version judged last.
    key: Vec<u8>,
    newer: Option<SeqNo>,
    counts: RewriteCounts,
    history_floor: SeqNo,
    expired_by: Option<Timestamp>,
}

/// What a [`Rewrite`] has decided so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RewriteCounts {
    /// Versions judged.
    pub judged: u64,
    /// Versions kept, those turned into deletes included.
    pub kept: u64,
    /// Versions dropped because a newer one hides them from everybody.
    pub superseded: u64,
    /// Deletes dropped because nothing lies beneath them.
    pub deletes_dropped: u64,
    /// Expired rows dropped because nothing lies beneath them.
    pub expired_dropped: u64,
    /// Expired rows kept as deletes.
    pub expired_to_deletes: u64,
}

enum Verdict {
    Keep,
    KeepAsDelete,
    Drop,
}

impl Rewrite {
    /// A policy for inputs beneath which nothing lies where `bottom`. `snapshots` are all that are
    /// held, in any order. A row whose expiry is at or before `drop_expired_before` is expired for everybody who reads the
    /// present.
    #[must_use]
    pub fn new(snapshots: &[Held], bottom: bool, drop_expired_before: Option<Timestamp>) -> Self {
        let mut snapshots = snapshots.to_vec();
        snapshots.sort_unstable();
        Self {
            snapshots,
            bottom,
            drop_expired_before,
            key: Vec::new(),
            newer: None,
            counts: RewriteCounts::default(),
            history_floor: SeqNo::ZERO,
            expired_by: None,
        }
    }

    /// The row to write for `row`, the next version of the merge: itself, a delete in its place, or nothing.
    pub fn judge<'a>(&mut self, row: RowRef<'a>) -> Option<RowRef<'a>> {
        match self.verdict(&row) {
            Verdict::Keep => Some(row),
            Verdict::KeepAsDelete => Some(RowRef { expires: None, value: ValueRef::Delete, ..row }),
            Verdict::Drop => None,
        }
    }

    /// Whether `row`, the next version of the merge, is to be written again, for callers that write rows as they are.
    pub fn keep(&mut self, row: &RowRef<'_>) -> bool {
        self.judge(*row).is_some()
    }

    /// What has been decided so far.
    #[must_use]
    pub fn counts(&self) -> RewriteCounts {
        self.counts
    }

    /// Whether deletes or expired rows were dropped: the result is right only where nothing lies beneath it.
    #[must_use]
    pub fn dropped(&self) -> bool {
        self.counts.deletes_dropped + self.counts.expired_dropped > 0
    }

    /// The lowest sequence number at which the kept rows still show what the inputs did, whatever snapshot were taken
    /// there: zero where no superseded version was dropped.
    #[must_use]
    pub fn history_floor(&self) -> SeqNo {
        self.history_floor
    }

    /// The highest expiry of a row that was dropped, or turned into a delete, because it had expired: at every later instant
    /// the kept rows show what the inputs did. `None` where there was no such row.
    #[must_use]
    pub fn expired_by(&self) -> Option<Timestamp> {
        self.expired_by
    }

    fn verdict(&mut self, row: &RowRef<'_>) -> Verdict {
        self.counts.judged += 1;
        let newer = self.meet(row);
        let needed_by = self.needed_by(row.seq, newer);
        let expired = self.drop_expired_before.is_some_and(|instant| row.is_expired(instant))
            && needed_by.iter().all(|s| row.is_expired(s.instant));
        if let Some(newer) = newer.filter(|_| needed_by.is_empty()) {
            self.counts.superseded += 1;
            self.history_floor = self.history_floor.max(newer);
            return Verdict::Drop;
        }
        let hides = expired || row.is_delete();
        if hides && self.bottom && !self.snapshot_below(row.seq) {
            let dropped = if row.is_delete() {
                &mut self.counts.deletes_dropped
            } else {
                self.expired_by = self.expired_by.max(row.expires);
                &mut self.counts.expired_dropped
            };
            *dropped += 1;
            return Verdict::Drop;
        }
        self.counts.kept += 1;
        if expired && !row.is_delete() {
            self.expired_by = self.expired_by.max(row.expires);
            self.counts.expired_to_deletes += 1;
            return Verdict::KeepAsDelete;
        }
        Verdict::Keep
    }

    /// Takes note of `row`; the number of the next newer version of its key, if there is one.
    fn meet(&mut self, row: &RowRef<'_>) -> Option<SeqNo> {
        let newer = self.newer.replace(row.seq).filter(|_| self.key == row.key);
        if newer.is_none() {
            self.key.clear();
            self.key.extend_from_slice(row.key);
        }
        debug_assert!(newer.is_none_or(|newer| newer > row.seq), "versions of {:?} out of order", row.key);
        newer
    }

    /// The snapshots at or above `seq` and below `newer`, if there is a newer version.
    fn needed_by(&self, seq: SeqNo, newer: Option<SeqNo>) -> &[Held] {
        let from = self.snapshots.partition_point(|s| s.seq < seq);
        let to =
            newer.map_or(self.snapshots.len(), |newer| self.snapshots.partition_point(|s| s.seq < newer));
        self.snapshots.get(from..to).unwrap_or_default()
    }

    fn snapshot_below(&self, seq: SeqNo) -> bool {
        self.snapshots.first().is_some_and(|s| s.seq < seq)
    }
}
