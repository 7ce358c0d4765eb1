//! Views: what a read sees, and how one is chosen for it.

use std::sync::{Arc, Weak};

use isle_storage::ids::{Lineage, SeqNo, Timestamp, Version};
use isle_storage::manifest::Manifest;
use isle_storage::manifest::judge::{self, PositionState};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::ReadError;
use crate::memory::Generation;
use crate::options::MinSeq;
use crate::pins::Pinned;
use crate::tables::RunTables;

/// One manifest version with the in-memory rows of the log beyond its flushed number. Immutable; right for ever, or
/// failing once an object it names is deleted, never wrong.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) manifest: Arc<Manifest>,
    /// Newest first.
    pub(crate) generations: Vec<Arc<Generation>>,
    /// Newest first.
    pub(crate) runs: Arc<[Arc<RunTables>]>,
    /// An instant before its head was read.
    pub(crate) as_of: Instant,
    /// The last instant at which it was known to be the newest.
    confirmed: Mutex<Instant>,
    /// The pin that its long scans share.
    pin: Mutex<Weak<Pinned>>,
}

impl View {
    pub(crate) fn new(
        manifest: Arc<Manifest>,
        generations: Vec<Arc<Generation>>,
        runs: Arc<[Arc<RunTables>]>,
        as_of: Instant,
    ) -> Self {
        Self { manifest, generations, runs, as_of, confirmed: Mutex::new(as_of), pin: Mutex::default() }
    }

    /// It was still the newest at `as_of`.
    pub(crate) fn confirm(&self, as_of: Instant) {
        let mut confirmed = self.confirmed.lock();
        *confirmed = (*confirmed).max(as_of);
    }

    pub(crate) fn confirmed(&self) -> Instant {
        *self.confirmed.lock()
    }

    /// The pin in force.
    pub(crate) fn pin(&self) -> Option<Arc<Pinned>> {
        self.pin.lock().upgrade()
    }

    pub(crate) fn share_pin(&self, pin: &Arc<Pinned>) {
        *self.pin.lock() = Arc::downgrade(pin);
    }

    /// `pin` is lost; one that was taken since stays.
    pub(crate) fn forget_pin(&self, pin: &Arc<Pinned>) {
        let mut shared = self.pin.lock();
        if std::ptr::eq(shared.as_ptr(), Arc::as_ptr(pin)) {
            *shared = Weak::new();
        }
    }

    pub(crate) fn version(&self) -> Version {
        self.manifest.version
    }

    pub(crate) fn lineage(&self) -> Lineage {
        self.manifest.lineage
    }

    /// The newest sequence number inside.
    pub(crate) fn seq(&self) -> SeqNo {
        self.manifest.last_seq
    }

    /// Whether the view holds `wanted`.
    ///
    /// # Errors
    /// [`ReadError::WriteLost`] where it never will.
    pub(crate) fn reaches(&self, wanted: MinSeq) -> Result<bool, ReadError> {
        match wanted {
            MinSeq::Seq(seq) => Ok(self.seq() >= seq),
            MinSeq::Position(position) => match judge::position(&self.manifest, position) {
                PositionState::Here => Ok(true),
                PositionState::Ahead => Ok(false),
                PositionState::Lost => Err(ReadError::WriteLost { position }),
            },
        }
    }
}

/// What one read sees: a view, up to a sequence number, judged at one instant.
#[derive(Debug, Clone)]
pub(crate) struct ReadPoint {
    pub(crate) view: Arc<View>,
    pub(crate) max_seq: SeqNo,
    pub(crate) now: Timestamp,
}

impl ReadPoint {
    /// Everything in `view`, judged at `now`.
    pub(crate) fn newest(view: Arc<View>, now: Timestamp) -> Self {
        let max_seq = view.seq();
        Self { view, max_seq, now }
    }

    /// What the snapshot `name` holds, judged at the instant it was taken, so that it reads the same for ever.
    ///
    /// # Errors
    /// [`ReadError::UnknownSnapshot`].
    pub(crate) fn snapshot(view: Arc<View>, name: &str) -> Result<Self, ReadError> {
        let snapshot =
            view.manifest.snapshots.get(name).ok_or_else(|| ReadError::UnknownSnapshot(name.to_owned()))?;
        let (max_seq, now) = (snapshot.seq, snapshot.created);
        Ok(Self { view, max_seq, now })
    }
}
