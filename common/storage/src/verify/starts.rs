//! What a load or a recover starts from, and nobody names in a manifest: the checkpoints of the newest folds, and the epoch
//! object of the writer at work. A database that lacks them may work, until the day on which they are needed.
//!
//! - **The newest fold's checkpoint** is where every load begins.
//! - **A second checkpoint** at or above the one before it: the collector keeps the newest other one up to the head's, so
//!   there is always one (it may be a younger one, which no fold has named).
//! - **The epoch object of the head's epoch** is written before its writer accepts work: it must be there as soon as a
//!   segment of that epoch is in the log. A restored or cloned database has none of its source's; so this is asked only
//!   where the history has an epoch object at all, or where its first fold shows that it began with nothing.
//!
//! Judged on a listing made after the manifest was loaded, and again where a fold has come in between.

use std::collections::BTreeMap;

use futures::TryStreamExt;

use super::{Report, VerifyError};
use crate::coordination::bucket::inspect::{self, Fold};
use crate::ids::{Epoch, Version};
use crate::manifest::Manifest;
use crate::names;
use crate::object::Bucket;

/// How often the judgement begins anew because folds come in between; at the limit it is left to the next verification.
const RESTARTS: usize = 8;

/// The folder as a listing shows it.
#[derive(Debug, Default)]
struct Listed {
    newest_fold: u64,
    checkpoints: BTreeMap<String, Version>,
    epochs: Vec<Epoch>,
}

impl Listed {
    async fn read(bucket: &dyn Bucket) -> Result<Self, VerifyError> {
        let mut listed = Self::default();
        let mut objects = bucket.list("manifest");
        while let Some(object) =
            objects.try_next().await.map_err(|e| VerifyError::Unavailable(e.to_string()))?
        {
            listed.newest_fold = listed.newest_fold.max(names::parse_fold(&object.path).unwrap_or_default());
            listed.epochs.extend(names::parse_epoch(&object.path));
            if let Some(version) = names::parse_checkpoint(&object.path) {
                listed.checkpoints.insert(object.path, version);
            }
        }
        Ok(listed)
    }
}

/// Judges what `now`, loaded a moment ago, rests on. `known`: whether epoch objects of its history were read.
pub(super) async fn judge(
    bucket: &dyn Bucket,
    now: &Manifest,
    known: bool,
    report: &mut Report,
) -> Result<(), VerifyError> {
    for _ in 0..RESTARTS {
        let listed = Listed::read(bucket).await?;
        let missing = missing_checkpoints(bucket, &listed).await?;
        if !missing.is_empty() && fold(bucket, listed.newest_fold + 1).await?.is_some() {
            continue;
        }
        for (object, what) in missing {
            report.damaged(object, what);
        }
        let began_here = match fold(bucket, 1).await? {
            Some(first) => first.lineage == now.lineage && first.checkpoint.version == Version(1),
            None => false,
        };
        if at_work(now) && (known || began_here) && !listed.epochs.contains(&now.epoch) {
            let what =
                "it is missing, and segments of that epoch are in the log: a recover would stop before them";
            report.damaged(names::epoch(now.epoch).as_str(), what);
        }
        return Ok(());
    }
    Ok(())
}

/// Whether the head's epoch has committed segments of its own.
fn at_work(manifest: &Manifest) -> bool {
    let Some(start) = manifest.epochs.last() else { return false };
    manifest.tail.is_some_and(|tail| Some(tail) != start.cut && tail.id.epoch == manifest.epoch)
}

/// Checkpoints that the newest two folds speak of and that are not there, and what that means.
async fn missing_checkpoints(
    bucket: &dyn Bucket,
    listed: &Listed,
) -> Result<Vec<(String, String)>, VerifyError> {
    let number = listed.newest_fold;
    let Some(newest) = fold(bucket, number).await? else { return Ok(Vec::new()) };
    let mut missing = Vec::new();
    let named = newest.checkpoint.path.to_string();
    if !listed.checkpoints.contains_key(&named) {
        let what =
            format!("{} names it as the start of every load, and it is not there", names::fold(number));
        missing.push((named.clone(), what));
    }
    let before = if number > 1 { fold(bucket, number - 1).await? } else { None };
    if let Some(before) = before.filter(|b| b.lineage == newest.lineage) {
        let between = before.checkpoint.version..=newest.checkpoint.version;
        let stands = listed.checkpoints.iter().any(|(path, v)| *path != named && between.contains(v));
        if !stands {
            let what = format!(
                "{} named it, the newest two checkpoints are always kept, and nothing stands in its place",
                names::fold(number - 1)
            );
            missing.push((before.checkpoint.path.to_string(), what));
        }
    }
    Ok(missing)
}

/// A fold record; none where it cannot be read, which is said where the folder is walked.
async fn fold(bucket: &dyn Bucket, number: u64) -> Result<Option<Fold>, VerifyError> {
    match bucket.get(&names::fold(number)).await {
        Ok(bytes) => Ok(inspect::fold(number, &bytes).ok()),
        Err(e) if e.is_transient() => Err(VerifyError::Unavailable(e.to_string())),
        Err(_) => Ok(None),
    }
}
