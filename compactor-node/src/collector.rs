//! The collector: gathers the evidence, deletes what [`crate::garbage`] allows, and says so in the manifest.
//!
//! # Crash cases
//! Deletes come first, the `Collected` edit after them. A crash in between leaves names in the retired list whose
//! objects are gone; the next pass deletes them again (a missing object is fine) and commits. Nothing leaks, and one
//! object that cannot be deleted is left in the list without holding back the others.
//!
//! A pass that is paused anywhere, for days, may go on: every ground it had is for ever. What it deletes was retired,
//! and names are never used twice; two checkpoints cover that; and no pin below the floor is given out any more.
//!
//! A pass lists `manifest/` (a few entries) and nothing else, and only runs while something waits: an idle database
//! sees no request from here. It writes a checkpoint where that is what objects wait for; in a daemon only where it is of
//! use by now, since where somebody writes, something always waits for one.

use std::collections::BTreeSet;
use std::time::Duration;

use isle_storage::coordination::{Authority, Loaded, NodeInfo};
use isle_storage::database::Database;
use isle_storage::ids::{Timestamp, Version};
use isle_storage::manifest::{Author, Change};
use isle_storage::names::ObjectPath;
use isle_storage::object::store_now;

use crate::deletion;
use crate::error::JobError;
use crate::garbage::{self, Evidence, Judgement};
use crate::job::{self, Bounds};
use crate::listing::{self, Listing};
use crate::plan;
use crate::settings::CompactorSettings;
use crate::sweep::Orphan;

/// Between two passes.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);

/// What one pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    /// Objects deleted, manifest objects included; in a dry run, those that would be.
    pub deleted: u64,
    /// Their bytes, as far as known.
    pub bytes: u64,
    /// Objects that could not be deleted this time.
    pub failed: u64,
    /// Objects that a pin holds back.
    pub pinned: u64,
    /// Whether more might go now than one pass deletes.
    pub more: bool,
    /// Whether some had to wait because fewer than two checkpoints cover them. A pass writes one at most.
    pub uncovered: bool,
    /// When to come again, if anything is waiting.
    pub again: Option<Duration>,
    /// In a dry run, what would be deleted.
    pub plan: Vec<Orphan>,
}

/// One pass: folds where that is what the garbage waits for, deletes what may go. A dry run changes nothing: it judges
/// by this host's clock, and leaves pins out of account.
///
/// # Errors
/// [`JobError`]; `Regressed` or `WrongDatabase` where the bucket contradicts the head: then nothing was deleted.
pub async fn pass(
    db: &Database,
    node: &NodeInfo,
    settings: &CompactorSettings,
    dry_run: bool,
) -> Result<Pass, JobError> {
    Collector::default().pass(db, node, settings, dry_run).await
}

/// A collector that remembers what it could not delete, and takes it last.
#[derive(Debug, Default)]
pub struct Collector {
    stubborn: BTreeSet<ObjectPath>,
    patient: bool,
    bounds: Bounds,
}

impl Collector {
    /// One whose passes end early where `bounds` are over.
    #[must_use]
    pub fn within(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// One that comes again and again: it writes no checkpoint that would be of more use later
    /// ([`garbage::until_of_use`]).
    #[must_use]
    pub fn patient(bounds: Bounds) -> Self {
        Self { patient: true, ..Self::within(bounds) }
    }

    /// As [`pass`].
    ///
    /// # Errors
    /// As [`pass`].
    pub async fn pass(
        &mut self,
        db: &Database,
        node: &NodeInfo,
        settings: &CompactorSettings,
        dry_run: bool,
    ) -> Result<Pass, JobError> {
        if dry_run {
            return self.look(db, settings).await;
        }
        let (stubborn, patient) = (&mut self.stubborn, self.patient);
        job::under_claim(db, node, plan::job_named("collect"), &self.bounds, async |authority| {
            collect(db, settings, &authority, stubborn, patient).await
        })
        .await
    }

    async fn look(&self, db: &Database, settings: &CompactorSettings) -> Result<Pass, JobError> {
        let listing = Listing::read(db).await?;
        let loaded = db.load().await?;
        listing.refuse_contradictions(db, &loaded).await?;
        let now = db.env.clock.now();
        let grace = Duration::from_secs(settings.grace_seconds);
        let judgement = judge(settings, &loaded, &listing, now, Version(u64::MAX), &self.stubborn);
        let surplus = listing.surplus(&loaded.state.head.checkpoint, now, grace);
        let retired = judgement.delete.iter().map(|path| {
            let len = loaded.manifest.retired.iter().find(|r| r.path == *path).map(|r| r.len);
            Orphan::new(
                path,
                len.unwrap_or_default(),
                "retired, covered by two checkpoints, its grace is over",
            )
        });
        let plan: Vec<Orphan> =
            retired.chain(surplus.iter().map(|(path, why)| Orphan::new(path, 0, why))).collect();
        let (deleted, more) = (plan.len() as u64, judgement.more);
        Ok(Pass { deleted, bytes: judgement.bytes, more, plan, ..Pass::default() })
    }
}

async fn collect(
    db: &Database,
    settings: &CompactorSettings,
    authority: &Authority,
    stubborn: &mut BTreeSet<ObjectPath>,
    patient: bool,
) -> Result<Pass, JobError> {
    let grace = Duration::from_secs(settings.grace_seconds);
    let mut listing = Listing::read(db).await?;
    let mut loaded = db.load().await?;
    listing.refuse_contradictions(db, &loaded).await?;
    let now = store_now(db.bucket.as_ref(), db.env.entropy.as_ref()).await?;
    let mut judgement = judge(settings, &loaded, &listing, now, Version(u64::MAX), stubborn);
    // What is relied on is read first: a checkpoint that does not decode covers nothing.
    let relies = !judgement.delete.is_empty();
    if relies && listing.forget_damaged(db, &loaded.state.head.checkpoint).await? {
        judgement = judge(settings, &loaded, &listing, now, Version(u64::MAX), stubborn);
    }
    let uncovered = judgement.needs_checkpoint;
    let head = &loaded.state.head.checkpoint;
    let mut until_next = garbage::until_of_use(&listing.checkpoints, head, now, grace);
    if uncovered && (!patient || until_next.is_zero()) {
        listing::fold_for_garbage(db, &mut loaded).await?;
        until_next = garbage::between_checkpoints(grace);
    }
    let mut pass = Pass { uncovered, ..Pass::default() };
    if !judgement.delete.is_empty() {
        let floor = db.coordination.raise_gc_floor(judgement.upto).await?;
        if floor < judgement.upto {
            judgement = judge(settings, &loaded, &listing, now, floor, stubborn);
        }
        (pass.pinned, pass.more) = (judgement.pinned, judgement.more);
        remove(db, authority, &loaded, &judgement, stubborn, &mut pass).await?;
    }
    let surplus = listing.surplus(&loaded.state.head.checkpoint, now, grace);
    let surplus: Vec<ObjectPath> = surplus.into_iter().map(|(path, _)| path).collect();
    let deleted = deletion::delete(db, &surplus).await;
    pass.deleted += deleted.gone.len() as u64;
    pass.failed += deleted.failed.len() as u64;
    tracing::debug!(deleted = pass.deleted, failed = pass.failed, pinned = pass.pinned, "garbage collected");
    let held_back = pass.failed > 0 || pass.pinned > 0;
    let again = judgement.wait.into_iter().chain(uncovered.then_some(until_next)).min();
    pass.again = again.or(held_back.then_some(grace)).map(|pause| pause.max(SHORTEST_PAUSE));
    Ok(pass)
}

/// Deletes, then records.
async fn remove(
    db: &Database,
    authority: &Authority,
    loaded: &Loaded,
    judgement: &Judgement,
    stubborn: &mut BTreeSet<ObjectPath>,
    pass: &mut Pass,
) -> Result<(), JobError> {
    let deleted = deletion::delete(db, &judgement.delete).await;
    stubborn.retain(|path| !deleted.gone.contains(path));
    stubborn.extend(deleted.failed.iter().cloned());
    let gone = deleted.gone;
    pass.deleted += gone.len() as u64;
    pass.failed += deleted.failed.len() as u64;
    pass.bytes = loaded.manifest.retired.iter().filter(|r| gone.contains(&r.path)).map(|r| r.len).sum();
    if gone.is_empty() {
        return Ok(());
    }
    let author = Author::Job(plan::job_named("collect"));
    let changes = vec![Change::Collected { paths: gone }];
    // Not the head that was judged by: the deletes took their time, and of a head some hundred commits old nobody could
    // tell any more whether this commit was made.
    let fresh = db.load().await?;
    job::commit_changes(db, authority, &author, changes, fresh).await.map(drop)
}

fn judge(
    settings: &CompactorSettings,
    loaded: &Loaded,
    listing: &Listing,
    store_now: Timestamp,
    floor: Version,
    stubborn: &BTreeSet<ObjectPath>,
) -> Judgement {
    let evidence = Evidence {
        manifest: &loaded.manifest,
        head: &loaded.state.head.checkpoint,
        checkpoints: &listing.checkpoints,
        floor,
        store_now,
        grace: Duration::from_secs(settings.grace_seconds),
        stubborn,
    };
    garbage::judge(&evidence, settings.max_deletes_per_pass)
}
