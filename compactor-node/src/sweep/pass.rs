//! One pass of the sweep: lists, asks who is dead, reads the head, deletes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::TryStreamExt;
use isle_storage::coordination::NodeInfo;
use isle_storage::database::Database;
use isle_storage::ids::{Epoch, JobId, Timestamp};
use isle_storage::manifest::Manifest;
use isle_storage::names::ObjectPath;
use isle_storage::object::{ObjectMeta, store_now};
use serde::Serialize;

use super::judge::{Ground, Named, Verdict, judge};
use super::owner::{Owner, Subject};
use crate::deletion;
use crate::error::JobError;
use crate::job::{self, Bounds};
use crate::listing::Listing;
use crate::plan;
use crate::settings::CompactorSettings;

/// Where the manifest names more objects of a kind than this, they are listed shard by shard.
const LISTED_WHOLE: usize = 10_000;

/// Unknown names that a report spells out.
const MOST_UNKNOWN: usize = 20;

/// An object that goes, or would go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Orphan {
    /// The object.
    pub object: String,
    /// Its length, where known.
    pub bytes: u64,
    /// Why nobody needs it.
    pub reason: &'static str,
}

impl Orphan {
    pub(crate) fn new(path: &ObjectPath, bytes: u64, reason: &'static str) -> Self {
        Self { object: path.to_string(), bytes, reason }
    }
}

/// What one pass found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects listed.
    pub listed: u64,
    /// Orphans deleted; in a dry run, those that would be.
    pub deleted: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Orphans that could not be deleted this time.
    pub failed: u64,
    /// Objects that nobody names and whose owner lives, or that are young.
    pub waiting: u64,
    /// Objects with names this program does not know: left alone.
    pub unknown: u64,
    /// The first few of them.
    pub unknown_names: Vec<String>,
    /// Whether the round is over: everything was looked at, in this pass and those before it. Otherwise the next goes on.
    pub complete: bool,
    /// In a dry run, what would be deleted.
    pub plan: Vec<Orphan>,
}

/// A sweep that goes on where it stopped.
#[derive(Debug, Default)]
pub struct Sweeper {
    bounds: Bounds,
    /// The folder the next pass begins with.
    cursor: Option<String>,
    /// What was judged in this round and is still there: a round looks at nothing twice, so that it comes to an end.
    left: BTreeSet<String>,
}

impl Sweeper {
    /// A sweep whose passes end early where `bounds` are over.
    #[must_use]
    pub fn within(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// One pass under a claim, so that two compactors do not do the same. A dry run takes none and changes nothing: it
    /// judges by this host's clock.
    ///
    /// # Errors
    /// [`JobError`]; `Regressed` or `WrongDatabase` where the bucket contradicts the head: then nothing was deleted.
    pub async fn pass(
        &mut self,
        db: &Database,
        node: &NodeInfo,
        settings: &CompactorSettings,
        dry_run: bool,
    ) -> Result<Swept, JobError> {
        if dry_run {
            return self.sweep(db, settings, true).await;
        }
        let bounds = self.bounds.clone();
        let sweep = async |_| self.sweep(db, settings, false).await;
        job::under_claim(db, node, plan::job_named("sweep"), &bounds, sweep).await
    }

    async fn sweep(
        &mut self,
        db: &Database,
        settings: &CompactorSettings,
        dry_run: bool,
    ) -> Result<Swept, JobError> {
        let mut swept = Swept::default();
        let now = match dry_run {
            true => db.env.clock.now(),
            false => store_now(db.bucket.as_ref(), db.env.entropy.as_ref()).await?,
        };
        let listing = Listing::read(db).await?;
        let suspects = self.suspects(db, settings, &listing, now, &mut swept).await?;
        // The owners are judged after the listing and before the head: see the head of this folder.
        let claimed = claimed(db, &suspects).await?;
        let loaded = db.load().await?;
        listing.refuse_contradictions(db, &loaded).await?;
        let named = Named::of(&loaded.manifest);
        let settled = listing.settled(loaded.manifest.epoch);
        let ground = ground(&named, settled, &claimed, now, settings);
        let (orphans, alive) = orphans(&ground, suspects);
        swept.waiting += alive.len() as u64;
        if dry_run {
            swept.deleted = orphans.len() as u64;
            swept.bytes = orphans.iter().map(|(_, o)| o.bytes).sum();
            swept.plan = orphans.into_iter().map(|(_, orphan)| orphan).collect();
            return Ok(swept);
        }
        self.left.extend(alive);
        self.delete(db, &orphans, &mut swept).await;
        let grace = Duration::from_secs(settings.grace_seconds);
        let surplus = listing.surplus(&loaded.state.head.checkpoint, now, grace);
        let surplus: Vec<ObjectPath> = surplus.into_iter().map(|(path, _)| path).collect();
        let deleted = deletion::delete(db, &surplus).await;
        swept.deleted += deleted.gone.len() as u64;
        swept.failed += deleted.failed.len() as u64;
        if swept.complete {
            self.left.clear();
        }
        report(&swept);
        Ok(swept)
    }

    /// Lists from the cursor on and keeps what no older head names and whose owner may be dead: a bounded number, so
    /// that memory is bounded too.
    async fn suspects(
        &mut self,
        db: &Database,
        settings: &CompactorSettings,
        listing: &Listing,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<Vec<ObjectMeta>, JobError> {
        let before = db.load().await?.manifest;
        let (named, nobody) = (Named::of(&before), BTreeSet::new());
        let ground = ground(&named, listing.settled(before.epoch), &nobody, now, settings);
        let folders = folders(&before);
        let from = self.cursor.take();
        let mut suspects = Vec::new();
        for folder in folders.iter().filter(|f| from.as_ref().is_none_or(|from| *f >= from)) {
            if swept.listed >= settings.max_listed_per_pass {
                self.cursor = Some(folder.clone());
                return Ok(suspects);
            }
            let mut objects = db.bucket.list(folder);
            while let Some(object) = objects.try_next().await? {
                swept.listed += 1;
                match judge(&ground, &object) {
                    Verdict::Orphan(_) if !self.left.contains(&object.path) => suspects.push(object),
                    Verdict::Orphan(_) => {}
                    Verdict::OwnerAlive | Verdict::Young => swept.waiting += 1,
                    Verdict::Unknown => {
                        swept.unknown += 1;
                        if swept.unknown_names.len() < MOST_UNKNOWN {
                            swept.unknown_names.push(object.path);
                        }
                    }
                    Verdict::Referenced | Verdict::Retired | Verdict::Kept => {}
                }
                if suspects.len() == settings.max_deletes_per_pass {
                    self.cursor = Some(folder.clone());
                    return Ok(suspects);
                }
            }
        }
        swept.complete = true;
        Ok(suspects)
    }

    async fn delete(&mut self, db: &Database, orphans: &[(ObjectPath, Orphan)], swept: &mut Swept) {
        let paths: Vec<ObjectPath> = orphans.iter().map(|(path, _)| path.clone()).collect();
        for (path, orphan) in orphans {
            tracing::info!(object = %path, bytes = orphan.bytes, reason = orphan.reason, "an orphan is deleted");
        }
        let deleted = deletion::delete(db, &paths).await;
        let lens: BTreeMap<&ObjectPath, u64> = orphans.iter().map(|(path, o)| (path, o.bytes)).collect();
        swept.deleted += deleted.gone.len() as u64;
        swept.bytes += deleted.gone.iter().filter_map(|path| lens.get(path)).sum::<u64>();
        swept.failed += deleted.failed.len() as u64;
        self.left.extend(deleted.failed.into_iter().map(String::from));
    }
}

/// The jobs among the suspects' owners that somebody holds.
async fn claimed(db: &Database, suspects: &[ObjectMeta]) -> Result<BTreeSet<JobId>, JobError> {
    let owners = suspects.iter().filter_map(|o| Subject::of(&o.path).owner());
    let jobs: BTreeSet<JobId> = owners
        .filter_map(|owner| match owner {
            Owner::Job(job) => Some(job),
            Owner::Writer(..) => None,
        })
        .collect();
    let mut claimed = BTreeSet::new();
    for job in jobs {
        if db.coordination.job_is_claimed(job).await? {
            claimed.insert(job);
        }
    }
    Ok(claimed)
}

fn ground<'a>(
    named: &'a Named,
    settled: Epoch,
    claimed: &'a BTreeSet<JobId>,
    store_now: Timestamp,
    settings: &CompactorSettings,
) -> Ground<'a> {
    let least_age = Duration::from_secs(settings.orphan_age_seconds);
    Ground { named, settled, claimed, store_now, least_age }
}

/// What is left of the suspects under the final judgement, highest numbers of one owner first; and those that may yet
/// be named.
fn orphans(ground: &Ground<'_>, suspects: Vec<ObjectMeta>) -> (Vec<(ObjectPath, Orphan)>, Vec<String>) {
    let (mut out, mut alive) = (Vec::with_capacity(suspects.len()), Vec::new());
    for object in suspects {
        match (judge(ground, &object), ObjectPath::new(object.path.clone())) {
            (Verdict::Orphan(why), Ok(path)) => {
                let orphan = Orphan::new(&path, object.len, why);
                out.push((path, orphan));
            }
            (Verdict::OwnerAlive, _) => alive.push(object.path),
            _ => {}
        }
    }
    out.sort_by(|(a, _), (b, _)| b.cmp(a));
    (out, alive)
}

/// Everything the sweep lists, in the order of the cursor.
fn folders(manifest: &Manifest) -> Vec<String> {
    let kinds = [("blob", manifest.blobs.len()), ("table", manifest.named_tables().count())];
    let mut folders = vec!["log".to_owned()];
    for (kind, named) in kinds {
        if named <= LISTED_WHOLE {
            folders.push(kind.to_owned());
        } else {
            folders.extend((0..=0xffu8).map(|shard| format!("{kind}/{shard:02x}")));
        }
    }
    folders.sort();
    folders
}

fn report(swept: &Swept) {
    if swept.unknown > 0 {
        tracing::warn!(
            objects = swept.unknown, first = ?swept.unknown_names,
            "objects with names that are none of ours lie under the prefix; they are left alone"
        );
    }
    tracing::info!(
        listed = swept.listed,
        deleted = swept.deleted,
        bytes = swept.bytes,
        failed = swept.failed,
        waiting = swept.waiting,
        complete = swept.complete,
        "swept for orphans"
    );
}
