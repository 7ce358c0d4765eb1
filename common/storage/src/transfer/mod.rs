//! Transfer: a database's objects to another store, verified on the way; and a database made of such a copy.
//!
//! ```text
//!   backup    pin the head's version ─▶ copy what its manifest names ─▶ backup/<n>-manifest ─▶ backup/<n>.json
//!   clone     pin ─▶ mark the empty prefix ─▶ copy tables, cut what is newer ─▶ lineage ─▶ checkpoint ─▶ head ─▶ …
//!   prune     mark the store ─▶ delete records ─▶ delete what no record names
//!   restore   mark the empty prefix ─▶ copy back ─▶ lineages ─▶ checkpoint ─▶ head ─▶ isle.json ─▶ take the mark away
//! ```
//! # What a backup is
//! The manifest of one committed version and every object it names: no row of it is newer than that version, and nothing
//! has to be rewritten. Objects are written once under names that are never used again, so a name that is in the target
//! with the recorded length is that object: the next backup copies only what is new. Several backups share their objects.
//! A backup exists once its record does; a run that dies before leaves objects that the next one finds and checks.
//!
//! **What holds the objects meanwhile** is a pin on the version, not a snapshot: a snapshot holds rows, which merges carry
//! into other objects, while a backup needs these very objects. A dead backup's pin ends with its lease. One that is cut
//! off for so long that its pin is lost and an object is deleted under it begins again with the newest manifest, and
//! finds everything that it has copied so far.
//!
//! # What is verified
//! Every object that is read is held against the manifest first: a log object by its checksum, a table by its
//! metadata's checksum and every block's own, blob files by their length. Its checksum as a whole goes into the record,
//! and a restore, or a verification, holds every byte against that. Objects are read in windows and written in parts, each
//! verified on the way, so that memory does not grow with them; one appears in the target once all of it was verified.
//!
//! # What a restore makes
//! The same database under a new lineage: sequence numbers, epochs and positions go on, and whoever has a cursor or a
//! page token of the old history is told that it is another one. The lineages before are written down too, since log
//! objects name them.
//!
//! # What a clone is
//! A new database, with an id of its own, that begins with what a named snapshot holds (or with everything committed).
//! Tables whose rows are all at or below it come as they are; from those that hold newer rows too, these are left
//! out; of the log only what is not in tables yet comes along, written anew since log objects name their database. Sequence
//! numbers go on from the snapshot's. Earlier versions of keys, the log before, consumer groups and other snapshots stay
//! behind.
//!
//! What comes as it is comes **by reference** where the stores are near enough ([`crate::object::Origin`]): a hard link in
//! one file system, the store's own copy within one bucket. None of its bytes are read then but a table's metadata, which is
//! held against the manifest; its length is compared. All of it is read by `isle verify`, or at once where
//! [`Begin::verify`] asks for that. A backup is never made in this way, even where it could be: it would share the very
//! blocks of a disk with what it is to protect.
//!
//! **Crashes.** The mark (`restore.json`) names the backup and the lineage that was drawn; it is written into an empty
//! prefix only. Run again, the same restore goes on where it was, with the same lineage; any other is refused. Until
//! `isle.json` is there every role refuses the prefix, which holds objects of a database and no identity, and the head,
//! once it is there, is one that only this restore can have made.

mod backup;
mod check;
mod clone;
mod copy;
mod parcel;
mod presence;
mod prune;
mod record;
mod restore;

pub use backup::{Backup, backup};
pub use check::WINDOW_BYTES;
pub use clone::{Begin, Cloned, clone_database};
pub use parcel::{Content, Item, parcel};
pub use prune::{Keep, PrunePlan, plan_prune, prune};
pub use record::{BackedUp, BackupRecord, Checked, backups, read_manifest, verify};
pub use restore::{Place, Restored, restore, unfinished};

use crate::coordination::CoordinationError;
use crate::names::ObjectPath;
use crate::object::StoreError;

/// Objects copied at once.
pub const COPIES_AT_ONCE: usize = 4;

/// Bytes of objects in memory at once, however large these are: a window of each that is being copied, and parts on their
/// way. (The metadata of a table being copied comes on top.)
pub const BYTES_AT_ONCE: u64 = 96 << 20;

/// Why a transfer did not come to its end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransferError {
    /// It must not be done: nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// An object is not what the manifest, or the record, says it is.
    #[error("{object} is damaged: {why}")]
    Damaged {
        /// The object.
        object: String,
        /// What contradicts what.
        why: String,
    },
    /// An object is gone that was named when the transfer began.
    #[error("{0} is gone")]
    Gone(ObjectPath),
    /// A store failed.
    #[error(transparent)]
    Store(StoreError),
    /// Coordination failed or refused.
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
}

/// What a transfer is doing, for people who wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It holds this version.
    Holding(crate::ids::Version),
    /// So many objects, of so many bytes, are to be copied; others are there already.
    Begins {
        /// Objects to copy.
        objects: usize,
        /// Their bytes.
        bytes: u64,
        /// Objects that are there.
        present: usize,
    },
    /// Objects and bytes done so far.
    Copied {
        /// Objects.
        objects: usize,
        /// Bytes.
        bytes: u64,
    },
    /// The objects were deleted under it: it begins again with a newer manifest.
    Again(String),
    /// An object was written that makes the copy count.
    Wrote(String),
    /// The record of an old backup was deleted.
    Removed(String),
}

/// Where a transfer says what it is doing.
pub type Progress<'a> = &'a (dyn Fn(Step) + Sync);
