//! Blob files: where values above `blob_threshold` go before they have a sequence number.
//!
//! ```text
//! body ─▶ parts, as they arrive (byte budget) ─▶ complete: durable ─▶ seat: number ─▶ segment ─▶ edit: AddBlobs + segment
//!          └ broken off, too large, fenced: aborted, nothing applied ┘
//! ```
//! A value gets its number only after its file is complete, so a segment is never uploaded before its blobs are
//! durable, and whoever rolls a segment forward finds them. The edit that names the segment adds the files.
//!
//! **One segment.** All rows of one call whose values lie in one file go into one segment. So a file is added by exactly
//! one edit, and nothing can retire it before everything that points at it is there.
//!
//! **One epoch.** A file is named by the epoch that made it or by nobody. A writer that was deposed while a value was
//! arriving refuses it, although it may lead again: by then the sweep may have taken the file as a dead owner's.
//!
//! **What fails.** Nothing is acknowledged, the upload is aborted. A file that is complete and whose rows were refused
//! is deleted here: no other process can ever name it, and this one never will. If that fails too, or the process dies,
//! it is an orphan, which the sweep takes once its epoch is over.

mod file;
mod stored;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use isle_storage::manifest::{LogEntry, Manifest};
use isle_storage::object::PartBudget;
use isle_storage::row::BlobId;
use parking_lot::Mutex;

pub(crate) use file::{BlobFile, Complete};
pub use value::ValueUpload;

use crate::WriterSettings;
use crate::pipeline::Term;

/// What a row whose value lies in a blob file counts instead of the value: about the length of a pointer.
pub(crate) const POINTER_BYTES: usize = 72;

/// The writer's blob files.
#[derive(Debug)]
pub(crate) struct Blobs {
    /// Bytes of values on their way into blob files.
    pub(crate) budget: PartBudget,
    /// The leadership under which files are begun at present.
    term: Mutex<Option<Arc<Term>>>,
    /// Lengths of files that accepted rows point at, until the edit that adds them is committed.
    unnamed: Mutex<BTreeMap<BlobId, u64>>,
}

impl Blobs {
    pub(crate) fn new(settings: &WriterSettings) -> Self {
        let budget = PartBudget::new(settings.blob_bytes_in_flight, settings.blob_part_bytes);
        Self { budget, term: Mutex::new(None), unnamed: Mutex::default() }
    }

    /// From here on files are begun under `term`. Called before its first mutation is accepted.
    pub(crate) fn begin(&self, term: &Arc<Term>) {
        self.unnamed.lock().clear();
        *self.term.lock() = Some(Arc::clone(term));
    }

    /// The leadership is over. Called after its last mutation was accepted.
    pub(crate) fn end(&self) {
        self.term.lock().take();
        self.unnamed.lock().clear();
    }

    pub(crate) fn term(&self) -> Option<Arc<Term>> {
        self.term.lock().clone()
    }

    pub(crate) fn is_current(&self, term: &Arc<Term>) -> bool {
        self.term.lock().as_ref().is_some_and(|t| Arc::ptr_eq(t, term))
    }

    /// Rows that point at a complete file are accepted: under the seat's lock, before they are.
    fn accept(&self, name: &BlobId, len: u64) {
        self.unnamed.lock().insert(name.clone(), len);
    }

    /// The files that `segments` point at and `manifest` does not hold yet, with their lengths.
    ///
    /// # Errors
    /// The name of a file nobody here has made.
    pub(crate) fn added(
        &self,
        segments: &[Arc<LogEntry>],
        manifest: &Manifest,
    ) -> Result<BTreeMap<BlobId, u64>, BlobId> {
        let unnamed = self.unnamed.lock();
        let blobs = segments.iter().flat_map(|s| &s.blobs).filter(|b| !manifest.blobs.contains_key(*b));
        blobs.map(|b| unnamed.get(b).map(|len| (b.clone(), *len)).ok_or_else(|| b.clone())).collect()
    }

    /// The edit that adds these is committed.
    pub(crate) fn named<'a>(&self, blobs: impl IntoIterator<Item = &'a BlobId>) {
        let mut unnamed = self.unnamed.lock();
        for blob in blobs {
            unnamed.remove(blob);
        }
    }
}
