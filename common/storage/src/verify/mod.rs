//! Verification: walks a whole database and believes nothing.
//!
//! ```text
//!  1  isle.json                       decodes; its first lineage is lineage-1's
//!  2  the newest manifest             through coordination, or from the bucket alone; every invariant of `check`
//!  3  one listing of the prefix       named objects have their length; the rest is retired, orphaned or unknown;
//!                                     every lineage, epoch, fold, edit and checkpoint object decodes and fits
//!  4  the log, in order               checksum, every block and record; header = name = entry; predecessor links;
//!                                     numbers dense from the trimmed one to the head's, times never decreasing
//!  5  every table                     checksum, every block and row; properties and bounds true; every key asked of
//!                                     the filter and of the index; runs disjoint inside and ordered between
//!  6  what is retired and still there decodes by itself
//!  7  a second look                   at a newer manifest: what had gone because it was collected is no damage; and at
//!                                     what loads and recovers start from
//! ```
//! It goes on after damage and lists all of it. It only reads.
//!
//! **Memory.** The manifest is in memory, as it is in every role. Beside it: the names it holds, a few log objects, a
//! few megabytes of each table under work, and lists that are cut at [`report::LISTED`] entries and counted beyond.
//!
//! **A live database** moves on while it is walked. Objects are never changed, only added and deleted, so there are
//! two things to tell from damage: an object that is gone because the version that was loaded has been left behind
//! (judged in step 7), and an object that nobody names yet because its edit is under way (an orphan whose owner is
//! alive). An object whose bytes are wrong is damaged, whoever names it.
//!
//! **Offline**, the newest checkpoint that can be read and is of the newest lineage stands for the head; in the bucket
//! form the numbered edits after it are replayed, and nothing is missing. In the etcd form what was committed since
//! that checkpoint is not known: its objects are listed as orphans of unknown state.

mod blobs;
mod fetch;
mod folder;
mod logs;
mod names_in;
pub mod report;
mod source;
mod starts;
mod tables;

use std::sync::Arc;

use futures::TryStreamExt;

use crate::coordination::Coordination;
use crate::coordination::identity::Identity;
use crate::manifest::{Manifest, check};
use crate::object::Bucket;
use crate::transfer;

pub use report::{Damage, Listed, Owner, Report};

use blobs::Blobs;
use fetch::Fetch;
use folder::ManifestFolder;
use names_in::Names;
use report::{Orphan, RetiredObject, UnknownObject};

/// Where the newest manifest is taken from.
#[derive(Debug, Clone)]
pub enum From {
    /// The coordination service.
    Coordination(Arc<dyn Coordination>),
    /// The bucket alone.
    Bucket,
}

/// Why nothing could be verified: no statement about the database.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VerifyError {
    /// There is no database there, or it is another one.
    #[error("{0}")]
    WrongPlace(String),
    /// A restore or a clone has not come to its end: there is no database yet.
    #[error("{0}")]
    Unfinished(String),
    /// The store or the coordination service does not answer.
    #[error("{0}")]
    Unavailable(String),
}

/// How far a verification is, in objects.
pub trait Progress: Send + Sync {
    /// So many of so many objects have been looked at.
    fn moved(&self, done: u64, of: u64);
}

/// Nobody watches.
impl Progress for () {
    fn moved(&self, _done: u64, _of: u64) {}
}

/// Verifies the database `name` in `bucket`.
///
/// # Errors
/// [`VerifyError`] where there is no such database or it cannot be reached. Damage is no error: it is in the report.
pub async fn verify(
    bucket: &Arc<dyn Bucket>,
    from: From,
    name: &str,
    progress: &dyn Progress,
) -> Result<Report, VerifyError> {
    match transfer::unfinished(bucket.as_ref()).await {
        Ok(None) => {}
        Ok(Some(what)) => {
            return Err(VerifyError::Unfinished(format!(
                "{} holds {what}: run it again, and it goes on where it stopped",
                bucket.url()
            )));
        }
        Err(e) => return Err(VerifyError::Unavailable(e.to_string())),
    }
    let mut report = Report { store: bucket.url(), ..Report::default() };
    let identity = source::identity(bucket.as_ref(), name, &mut report).await?;
    let found = source::manifest(bucket.as_ref(), &from, identity.as_ref(), &mut report).await?;
    report.source = found.described;
    let manifest = found.manifest;
    let mut walk = Walk::new(bucket, &manifest, &from, report, progress);
    walk.folder.head_checkpoint = found.checkpoint;
    walk.list().await?;
    if let Some(manifest) = &manifest {
        walk.whole(manifest);
        walk.folder.judge(identity.as_ref(), manifest, &mut walk.report);
        blobs::walk(&mut walk, manifest).await;
        logs::walk(&mut walk, manifest).await;
        tables::walk(&mut walk, manifest).await;
        walk.retired(manifest).await;
    }
    walk.second_look(identity.as_ref()).await?;
    Ok(walk.report)
}

/// A verification under way.
struct Walk<'a> {
    fetch: Fetch<'a>,
    from: &'a From,
    names: Names,
    folder: ManifestFolder,
    blobs: Blobs,
    report: Report,
    /// Named and gone: damage, unless a newer manifest does not name them any more.
    gone: Vec<String>,
    /// Unnamed: orphans, unless a newer manifest names them.
    unnamed: Vec<(String, u64)>,
    unnamed_beyond: u64,
    done: u64,
    progress: &'a dyn Progress,
}

/// Unnamed objects remembered for the second look; beyond, they are counted and not judged.
const MOST_UNNAMED: usize = 1_000_000;

impl<'a> Walk<'a> {
    fn new(
        bucket: &'a Arc<dyn Bucket>,
        manifest: &Option<Arc<Manifest>>,
        from: &'a From,
        report: Report,
        progress: &'a dyn Progress,
    ) -> Self {
        Self {
            fetch: Fetch::new(bucket.as_ref()),
            from,
            names: manifest.as_deref().map(Names::of).unwrap_or_default(),
            folder: ManifestFolder::default(),
            blobs: Blobs::default(),
            report,
            gone: Vec::new(),
            unnamed: Vec::new(),
            unnamed_beyond: 0,
            done: 0,
            progress,
        }
    }

    /// Every invariant of the manifest itself.
    fn whole(&mut self, manifest: &Manifest) {
        let report = &mut self.report;
        (report.version, report.last_seq) = (manifest.version, manifest.last_seq);
        (report.database, report.lineage) = (Some(manifest.database), Some(manifest.lineage));
        if let Err(violation) = check::whole(manifest) {
            let what =
                format!("the manifest of version {} breaks an invariant: {violation}", manifest.version);
            report.damaged("", what);
        }
    }

    /// One listing of everything.
    async fn list(&mut self) -> Result<(), VerifyError> {
        let mut listing = self.fetch.bucket.list("");
        while let Some(object) =
            listing.try_next().await.map_err(|e| VerifyError::Unavailable(e.to_string()))?
        {
            self.report.counts.objects += 1;
            if self.folder.takes(&object.path) {
                self.folder.take(&self.fetch, &object, &mut self.report).await;
                self.step();
            } else if let Some(len) = self.names.seen(&object.path) {
                if len != object.len {
                    let what = format!("it is {} bytes long, and {len} were recorded", object.len);
                    self.report.damaged(object.path, what);
                }
            } else if !names_in::is_data(&object.path) {
                self.report.unknown.push(UnknownObject { object: object.path, len: object.len });
            } else if self.unnamed.len() < MOST_UNNAMED {
                self.unnamed.push((object.path, object.len));
            } else {
                self.unnamed_beyond += 1;
            }
        }
        Ok(())
    }

    /// Retired objects: listed with their state; those still there must decode by themselves, since older views may
    /// still read them.
    async fn retired(&mut self, manifest: &Manifest) {
        for retired in &manifest.retired {
            let object = retired.path.to_string();
            let present = self.names.was_seen(&object);
            if present {
                if object.starts_with("log/") {
                    logs::alone(self, &retired.path).await;
                } else if object.starts_with("table/") {
                    tables::alone(self, &retired.path, retired.len).await;
                } else if object.starts_with("blob/") {
                    blobs::alone(self, &retired.path, retired.len).await;
                }
                self.step();
            }
            let (len, version) = (retired.len, retired.version);
            self.report.retired.push(RetiredObject { object, len, version, present });
        }
    }

    /// Judges by a manifest loaded now what was gone, what was unnamed, and what lay above the head.
    async fn second_look(&mut self, identity: Option<&Identity>) -> Result<(), VerifyError> {
        self.report.counts.bytes_read = self.fetch.bytes_read();
        // What is wrong with it was said when it was loaded first.
        let mut said = Report::default();
        let found = source::manifest(self.fetch.bucket, self.from, identity, &mut said).await?;
        let now = found.manifest;
        let names = now.as_deref().map(Names::of);
        if let Some(now) = &now {
            self.folder.judge_heights(self.from, now, &mut self.report);
            let known = self.folder.knows_epochs_of(now.lineage);
            starts::judge(self.fetch.bucket, now, known, &mut self.report).await?;
        }
        for object in std::mem::take(&mut self.gone) {
            if names.as_ref().is_none_or(|n| n.is_live(&object)) {
                self.report.damaged(object, "it is named by the manifest, and it is not there");
            } else {
                self.report.counts.collected_meanwhile += 1;
            }
        }
        let mut owners = source::Owners::new(self.from, identity, now.as_deref());
        for (object, len) in std::mem::take(&mut self.unnamed) {
            if !names.as_ref().is_some_and(|n| n.is_live(&object) || n.is_retired(&object)) {
                let owner = names_in::owner(&object);
                let state = owners.state(&owner).await;
                self.report.orphans.push(Orphan { object, len, owner: owner.to_string(), state });
            }
        }
        self.report.orphans.total += self.unnamed_beyond;
        Ok(())
    }

    /// One object more has been looked at.
    fn step(&mut self) {
        self.done += 1;
        self.progress.moved(self.done, self.names.len() as u64 + self.folder.seen());
    }
}
