//! Recover: the head rebuilt from the bucket alone, after coordination was lost or set back (PROTOCOL section 10).
//!
//! # What is read
//! ```text
//!   manifest/checkpoint-*   newest that verifies and whose objects are all there ─► base ───┐
//!   manifest/epoch-*        the highest one: every epoch's beginning, and its own cut ──────┤
//!   log/*.seg               base's tail ─► s1 ─► … ─► the cut ─► t1 ─► t2 ─► nothing        ├─► one manifest
//!                           the path, as the record says      what that epoch added         │   of a new lineage
//!   manifest/lineage-*      which histories are ours ───────────────────────────────────────┘
//! ```
//! [`survey`] lists and reads, [`plan`] decides (a pure function of what was found), [`carry_out`] writes. Nothing is
//! written before the whole plan is made and has passed the manifest's invariants.
//!
//! # Why nothing acknowledged is missing
//! An acknowledged write lies in a segment that a committed edit named. That edit may have stood nowhere but in the
//! service that is gone, but the segment lies in the bucket and names its predecessor. Committed segments form one
//! path: up to the highest recorded cut as the records say, and from there on only segments of that epoch, since work
//! is accepted only once the epoch's record stands. Segments of older epochs beyond the cut are void for ever, and
//! their writers may have told their clients so. What follows the last committed segment on the path was uploaded and
//! perhaps never committed; it becomes visible, in order, as it would have at the next takeover.
//!
//! # Why an older checkpoint will do
//! The newest checkpoint may be damaged, or name an object that is gone; then the one before it is taken. Every edit
//! after it is lost where edits stand in etcd, and these did more than append:
//! - *flushes and merges* moved rows between objects. What they retired is deleted only once **both** newest
//!   checkpoints are at or above the retiring version (`compactor-node/src/garbage.rs`). So as long as a checkpoint is
//!   one of the newest two, every object that is live in it is still there, and so is every segment appended after it,
//!   flushed or not. Base and path together hold every row; the tables made since are orphans, for the sweep;
//! - *trims of the log* and *drops by retention* are undone, to be done again. No older version can win by that: rows
//!   come back together with everything above them;
//! - *takeovers* stand in the records and in the segments themselves;
//! - *snapshots* and *a change of the compaction mode* set since then are not in the bucket. They are as the checkpoint
//!   has them, and the report says so. *Consumer groups* are too, where the service has none any more: each checkpoint
//!   takes a copy with it. A consumer then gets again what it has consumed since, and nothing less ([`super::groups`]).
//!
//! A still older checkpoint is no different if every object it names is there, which is looked up for each candidate,
//! and if the path from its tail has no hole. In the bucket form edits are objects too; those above every `gone` bound,
//! which no fold has ever deleted, are replayed onto the base up to the first that is missing.
//!
//! # What is refused
//! - **A missing link**: a segment that the path to the cut needs and that is gone or damaged; or, beyond the cut, one
//!   that is not there while later ones of that epoch are. Uploads run in parallel, so the second is also what a killed
//!   writer leaves behind, and then nothing after the hole was ever acknowledged; nobody can tell. The range is listed,
//!   and a person decides (`--accept-loss`): the log ends before the hole, since a log with a hole is none.
//! - **A path that ends below what is known to have been committed** (a head that is still there, a checkpoint that
//!   could be read, the cut): the same.
//! - **Contradictions**: a base that does not lie on the recorded path, a record or a checkpoint of a lineage that the
//!   bucket does not list. Two services drove one prefix; no rule can choose.
//! - **A head that is sound**: it loads, and the bucket knows nothing that it does not.
//!
//! # The order of writes, and a crash after each
//! ```text
//!   1 lineage-<n+1>   create if absent    from here every role refuses whatever head there is: it is of an older lineage
//!   2 two checkpoints read back           nothing names them
//!   3 epoch-<e>       create if absent    the cut of this very recover: what was not adopted is void from here on
//!   4 the head        one transaction     IF head and epoch are as found and nobody has the writer's role
//!                                         THEN the new ones; old edits, claims and pins are gone
//! ```
//! - *Before 1*: nothing has happened.
//! - *After 1*: the newest lineage has no head. With a wiped service roles refuse as before (`coordination_lost`), with a
//!   stale head by its lineage; the collector looks at lineages before it deletes. That is why the lineage comes first: a
//!   checkpoint written under a head that still serves would count as one of "the newest two" and let the collector
//!   delete what the true ones need. Recover run again takes a further lineage and the same base.
//! - *After 2*: the same; the base is now the checkpoint written, which holds the same rows. Segments of the old lineage
//!   that arrive meanwhile are not adopted: they were acknowledged by nobody.
//! - *After 3*: the same.
//! - *After 4*: done. If the answer was lost, the head there is compared.
//!
//! Two checkpoints, because the one just written and the damaged one would otherwise be the newest two, and the promise
//! above would rest on one object.
//!
//! **Numbers.** The lost service may have handed out versions and epochs that left no trace in the bucket. The new head
//! therefore starts at the next round number ([`VERSION_STRIDE`], [`EPOCH_STRIDE`]), so that no number of the old
//! history means anything in the new one.
//!
//! **Who still runs** on the old lineage is fenced by the commit's comparison of lineage and epoch, and told by its watch.
//! That holds for whoever uses *this* service. A second service that still lives elsewhere cannot be fenced, only be
//! noticed (at a claim, a checkpoint, a batch of deletes): hence `--old-coordination-is-stopped`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{CoordinationError, LeaderInfo};
use crate::ids::{Epoch, Version};
use crate::manifest::{Edit, GroupCursor, Head};

mod base;
mod carry_out;
mod path;
mod plan;
mod refusal;
mod survey;

pub use base::Rejected;
pub use carry_out::carry_out;
pub use path::{Fate, Gap};
pub use plan::{Consent, Fresh, Orphans, Plan, plan};
pub use refusal::RecoverError;
pub use survey::{Findings, survey};

/// The recovered head's version is the next multiple of this: no service makes as many edits between two checkpoints.
pub const VERSION_STRIDE: u64 = 1_000_000;

/// Its epoch is the next multiple of this: no service hands out as many epochs that leave no record.
pub const EPOCH_STRIDE: u64 = 1_000;

/// What stands where the head stands, sound or not.
#[derive(Debug, Clone, Default)]
pub struct Remains {
    /// The head, if there is one that can be read.
    pub head: Option<Head>,
    /// The highest version that the service gives away.
    pub version: Version,
    /// The highest epoch that it gives away.
    pub epoch: Epoch,
    /// Who has the writer's role.
    pub writer: Option<LeaderInfo>,
    /// Edits that lie in the bucket itself and that no fold has ever allowed to be deleted, ascending.
    pub edits: Vec<Arc<Edit>>,
    /// The consumer groups that the service still has, where it keeps them itself.
    pub groups: Option<BTreeMap<String, GroupCursor>>,
    /// What [`super::Coordination::replace`] compares; each form knows its own.
    pub mark: Vec<Option<Bytes>>,
}

/// What a recover is doing, for people who wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Objects of a folder were listed.
    Listed {
        /// The folder.
        folder: String,
        /// How many objects.
        objects: usize,
    },
    /// A checkpoint cannot be the base.
    Rejected(Rejected),
    /// This checkpoint is the base.
    Base(String),
    /// Segments beyond the base were read and verified.
    Segments {
        /// So many.
        read: usize,
        /// Of so many.
        of: usize,
    },
    /// An object was written.
    Wrote(String),
    /// Somebody still has the writer's role; its lease has to end.
    WaitingFor(String),
}

/// Where a recover says what it is doing.
pub type Progress<'a> = &'a (dyn Fn(Step) + Sync);

/// The refusal of a form that cannot be recovered.
pub(super) fn unsupported() -> CoordinationError {
    CoordinationError::Refused("this form of coordination cannot be recovered".to_owned())
}
