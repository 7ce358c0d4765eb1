//! The collector: gathers the evidence, deletes what [`crate::garbage`] allows, and says so in the manifest.
//!
//! # Crash cases
//! Deletes come first, the `Collected` edit after them. A crash in between leaves names in the retired list whose
//! objects are gone; the next pass deletes them again (a missing object is fine) and commits. Nothing leaks, and one
//! object that cannot be deleted is left in the list without holding back the others.
//!
//! A pass lists `manifest/` (a few entries) and nothing else, and only runs while something waits: an idle database
//! sees no request from here.

use std::time::Duration;

use futures::StreamExt;
use isle_storage::coordination::{Authority, CoordinationError, Loaded, NodeInfo, fold};
use isle_storage::database::Database;
use isle_storage::ids::{Timestamp, Version};
use isle_storage::manifest::{Author, Change};
use isle_storage::names::{self, ObjectPath};
use isle_storage::object::ObjectMeta;

use crate::error::JobError;
use crate::garbage::{self, Evidence, ListedCheckpoint};
use crate::job;
use crate::plan;
use crate::settings::CompactorSettings;

/// Deletes under way at once.
const DELETE_CONCURRENCY: usize = 16;

/// What one pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    /// Objects deleted, manifest objects included.
    pub deleted: u64,
    /// Their bytes, as far as known.
    pub bytes: u64,
    /// Objects that could not be deleted this time.
    pub failed: u64,
    /// When to come again, if anything is waiting.
    pub again: Option<Duration>,
}

/// One pass: folds where that is what the garbage waits for, deletes what may go.
///
/// # Errors
/// [`JobError`]; [`CoordinationError::Regressed`] or [`CoordinationError::WrongDatabase`] where the bucket contradicts
/// the head: then nothing was deleted.
pub async fn pass(
    db: &Database,
    node: &NodeInfo,
    settings: &CompactorSettings,
    dry_run: bool,
) -> Result<Pass, JobError> {
    job::under_claim(db, node, plan::job_named("collect"), async |authority| {
        // First the listing, then the head: whatever was listed was written under a head no newer than this one.
        let listing = Listing::read(db).await?;
        let loaded = db.coordination.load().await?;
        listing.refuse_contradictions(db, &loaded).await?;
        collect(db, settings, loaded, listing, &authority, dry_run).await
    })
    .await
}

async fn collect(
    db: &Database,
    settings: &CompactorSettings,
    mut loaded: Loaded,
    mut listing: Listing,
    authority: &Authority,
    dry_run: bool,
) -> Result<Pass, JobError> {
    let grace = Duration::from_secs(settings.grace_seconds);
    let (mut judgement, mut floor) = judge(db, settings, &loaded, &listing).await?;
    if judgement.needs_checkpoint && !dry_run {
        if let Some(state) = fold::fold(db, &loaded).await? {
            loaded.state = state;
        }
        listing = Listing::read(db).await?;
        (judgement, floor) = judge(db, settings, &loaded, &listing).await?;
    }
    let mut pass = Pass::default();
    if dry_run {
        pass.deleted = judgement.delete.len() as u64;
        pass.bytes = judgement.bytes;
        return Ok(pass);
    }
    let gone = delete(db, &judgement.delete, &mut pass).await;
    pass.bytes = loaded.manifest.retired.iter().filter(|r| gone.contains(&r.path)).map(|r| r.len).sum();
    if !gone.is_empty() {
        let job = plan::job_named("collect");
        let changes = vec![Change::Collected { paths: gone }];
        job::commit_changes(db, authority, &Author::Job(job), changes, loaded.clone()).await?;
    }
    let surplus = listing.surplus(&loaded, settings);
    delete(db, &surplus, &mut pass).await;
    tracing::debug!(deleted = pass.deleted, failed = pass.failed, floor = floor.0, "garbage collected");
    let waiting = judgement.needs_checkpoint || judgement.wait.is_some() || pass.failed > 0;
    pass.again = waiting.then(|| judgement.wait.unwrap_or(grace).max(Duration::from_millis(200)));
    Ok(pass)
}

async fn judge(
    db: &Database,
    settings: &CompactorSettings,
    loaded: &Loaded,
    listing: &Listing,
) -> Result<(garbage::Judgement, Version), JobError> {
    let floor = db.coordination.raise_gc_floor(loaded.manifest.version).await?;
    let store_now = if loaded.manifest.retired.is_empty() { Timestamp(0) } else { store_time(db).await? };
    let evidence = Evidence {
        manifest: &loaded.manifest,
        head_checkpoint: loaded.state.head.checkpoint.version,
        checkpoints: &listing.checkpoints,
        floor,
        store_now,
        grace: Duration::from_secs(settings.grace_seconds),
    };
    Ok((garbage::judge(&evidence, settings.max_deletes_per_pass), floor))
}

/// The store's own time: what it says of an object written just now.
async fn store_time(db: &Database) -> Result<Timestamp, JobError> {
    let marker = names::marker(db.env.entropy.next_u64());
    db.bucket.put(&marker, bytes::Bytes::from_static(b"now").into()).await?;
    let meta = db.bucket.head(&marker).await?;
    db.bucket.delete(&marker).await?;
    Ok(meta.last_modified)
}

async fn delete(db: &Database, paths: &[ObjectPath], pass: &mut Pass) -> Vec<ObjectPath> {
    let deletes = futures::stream::iter(paths.iter().cloned()).map(|path| async move {
        let result = db.bucket.delete(&path).await;
        (path, result)
    });
    let results: Vec<_> = deletes.buffered(DELETE_CONCURRENCY).collect().await;
    let mut gone = Vec::with_capacity(results.len());
    for (path, result) in results {
        match result {
            Ok(()) => {
                pass.deleted += 1;
                gone.push(path);
            }
            Err(error) => {
                pass.failed += 1;
                tracing::warn!(object = %path, %error, "a retired object could not be deleted; it will be tried again");
            }
        }
    }
    gone
}

/// What `manifest/` holds.
#[derive(Debug, Default)]
struct Listing {
    checkpoints: Vec<ListedCheckpoint>,
    newest_epoch: u64,
    lineages: Vec<(u64, String)>,
    big_edits: Vec<(Version, String)>,
    markers: Vec<ObjectMeta>,
}

impl Listing {
    async fn read(db: &Database) -> Result<Self, JobError> {
        let mut out = Self::default();
        let mut entries = db.bucket.list("manifest");
        while let Some(meta) = entries.next().await {
            let meta = meta?;
            if let Some(version) = names::parse_checkpoint(&meta.path) {
                out.checkpoints.push(ListedCheckpoint {
                    version,
                    written: meta.last_modified,
                    path: meta.path,
                });
            } else if let Some(epoch) = names::parse_epoch(&meta.path) {
                out.newest_epoch = out.newest_epoch.max(epoch.0);
            } else if let Some(n) = names::parse_lineage(&meta.path) {
                out.lineages.push((n, meta.path));
            } else if let Some(version) = names::parse_big_edit(&meta.path) {
                out.big_edits.push((version, meta.path));
            } else if meta.path.starts_with("manifest/marker-") {
                out.markers.push(meta);
            }
        }
        out.checkpoints.sort_by_key(|c| std::cmp::Reverse((c.version, c.written)));
        out.lineages.sort();
        Ok(out)
    }

    /// Before anything is deleted: does the bucket agree that this head is the newest?
    async fn refuse_contradictions(&self, db: &Database, loaded: &Loaded) -> Result<(), JobError> {
        let version = loaded.manifest.version;
        if let Some(c) = self.checkpoints.first().filter(|c| c.version > version) {
            return Err(CoordinationError::Regressed(format!(
                "{} stands in the bucket, and the head is only at version {version}: run `isle recover`",
                c.path
            ))
            .into());
        }
        if self.newest_epoch > loaded.manifest.epoch.0 {
            return Err(CoordinationError::Regressed(format!(
                "an epoch object of epoch {} stands in the bucket, and the head is only at {}: run `isle recover`",
                self.newest_epoch, loaded.manifest.epoch
            ))
            .into());
        }
        let Some((_, newest)) = self.lineages.last() else { return Ok(()) };
        let path = ObjectPath::new(newest.clone()).map_err(JobError::Internal)?;
        let text = db.bucket.get(&path).await?;
        if contains(&text, loaded.manifest.lineage.to_string().as_bytes()) {
            return Ok(());
        }
        Err(CoordinationError::WrongDatabase(format!(
            "{newest} names another lineage than the head's {}: the database was recovered elsewhere",
            loaded.manifest.lineage
        ))
        .into())
    }

    fn surplus(&self, loaded: &Loaded, settings: &CompactorSettings) -> Vec<ObjectPath> {
        let head = &loaded.state.head.checkpoint;
        let old = garbage::surplus_checkpoints(&self.checkpoints, head.path.as_str());
        let covered = self.checkpoints.get(1).map(|c| c.version.0).unwrap_or_default();
        let horizon = covered.saturating_sub(fold::KEEP_EDITS as u64);
        let edits = self.big_edits.iter().filter(|(v, _)| v.0 < horizon).map(|(_, path)| path);
        let newest = self.checkpoints.first().map(|c| c.written).unwrap_or_default();
        let grace = Duration::from_secs(settings.grace_seconds);
        let markers = self.markers.iter().filter(|m| m.last_modified.plus(grace) < newest).map(|m| &m.path);
        let paths = old.iter().map(|c| &c.path).chain(edits).chain(markers);
        paths.filter_map(|p| ObjectPath::new(p.clone()).ok()).collect()
    }
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|w| w == needle)
}
