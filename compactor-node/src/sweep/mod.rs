//! The orphan sweep: objects that nobody names and nobody ever will (PROTOCOL section 9, invariant 8).
//!
//! # What an orphan is
//! Every object is uploaded before an edit names it. Whoever dies in between leaves an object that no manifest names:
//! a segment that was never committed, a flush's tables, a merge's outputs. An object that *was* named is never an
//! orphan: the edit that stops naming it puts it on the retired list, which is the collector's. A ghost is: a copy of
//! an upload that arrives after the object was collected.
//!
//! # Who owns it
//! Its name says so: `<epoch>-<incarnation>` for a writer, `<job>-<nonce>` for a job. **The owner is dead** once
//!
//! | owner | is dead when | because its commit compares |
//! | --- | --- | --- |
//! | writer of epoch `e` | an adoption of a later epoch is committed and recorded in the bucket | `epoch` (or meets the adoption under the number it wants) |
//! | job `j` | nobody holds the claim of `j` | its claim's own token: a later claim of `j` has another |
//!
//! A dead owner's commit cannot succeed, not even one that is already under way, and nobody else names another's
//! objects; with one exception, the roll-forward, which names a dead epoch's *segments*. It happens inside the adoption
//! that makes the epoch dead, so whoever sees the adoption sees what it named.
//!
//! # The order of reads
//! ```text
//!   list ──▶ owners (claims) ──▶ head ──▶ lineage, regression ──▶ delete
//!    what was there   who is dead   what is named     is this head the newest?
//! ```
//! An object that is listed was uploaded before; an owner found dead after the listing can name nothing any more; so
//! the head read after *that* names it, or nobody ever will. Reading the head first would miss the commit of an owner
//! that dies in between. [upload, head read, commit, claim given back, owner found dead, deleted: a named object is gone]
//!
//! # Segments above the head
//! A segment beyond the head's last number may be somebody's unacknowledged write, or an acknowledged one if the head
//! is an old copy. The next claim follows it. So a log object goes only where the record (`epoch-<n>`) of a later epoch
//! stands in the bucket: from then on recover, too, starts at that record's cut, and follows no older epoch beyond it.
//!
//! # Crashes and pauses
//! - **The sweep dies** anywhere: it has written nothing but deletes of orphans.
//! - **The sweep is paused** between judging and deleting, for days: every ground it had is for ever (names are never
//!   used again, dead owners stay dead, what the head does not name then is never named).
//! - **An owner is paused** and wakes: before its adoption or its claim's end it is alive and its objects stay; after,
//!   its commit is refused, and it learns that from the commit, not from the missing object.
//! - **Two sweeps at once** delete the same objects twice.
//! - **An old etcd** hands out an old head: the checks refuse, as far as the bucket can prove it. A second belt, for what
//!   it cannot: no object goes before it has a certain age in the store's time.
//!
//! # What is never touched
//! `fold-*`, `epoch-*`, `lineage-*`, `isle.json`, numbered edits (their form deletes them), pins and floors (so does
//! theirs), checkpoints the head names or may yet name, and any name this program does not know: those are reported.
//!
//! # Bounds
//! A pass judges and deletes a bounded number and goes on where it stopped; what cannot be deleted is counted, reported,
//! and tried again in the next round, after everything else.

mod judge;
mod owner;
mod pass;

pub use judge::{Ground, Named, Verdict, judge};
pub use owner::{Owner, Subject};
pub use pass::{Orphan, Sweeper, Swept};
