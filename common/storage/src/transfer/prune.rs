//! Taking old backups away: which go, what nobody needs any more, and in which order.
//!
//! ```text
//!   choose ─▶ is one of those that stay whole? ─▶ delete records ─▶ delete what no record names
//! ```
//! Records go first, so that none ever names what is gone. Cut off anywhere it leaves objects that nothing names, and the
//! next run takes those for what they are: it needs to know nothing of the one before. What it does not know by name it
//! leaves alone. A backup that is being made meanwhile keeps it out (see [`super::presence`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};

use super::presence::{Presence, Work};
use super::record::{self, BackupRecord, backups, read_manifest};
use super::{Progress, Step, TransferError};
use crate::environment::Environment;
use crate::ids::Timestamp;
use crate::names::{self, ObjectPath};
use crate::object::{Bucket, ObjectMeta};

/// Objects deleted at once.
const DELETES_AT_ONCE: usize = 8;

/// Which backups stay. The newest always does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// So many of the newest.
    Newest(usize),
    /// Those that are not older than this.
    Younger(Duration),
}

/// What a prune does.
#[derive(Debug, Clone, Default)]
pub struct PrunePlan {
    /// Backups that stay, oldest first.
    pub kept: Vec<BackupRecord>,
    /// Backups that go.
    pub removed: Vec<BackupRecord>,
    /// Objects that go with them, or that one which was cut off has left.
    pub objects: Vec<ObjectMeta>,
}

impl PrunePlan {
    /// Bytes of the objects that go.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|o| o.len).sum()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.objects.is_empty()
    }
}

/// What [`prune`] would do now.
///
/// # Errors
/// [`TransferError`]; `Refused` where no backup that is whole would stay.
pub async fn plan_prune(
    store: &Arc<dyn Bucket>,
    env: &Environment,
    keep: Keep,
) -> Result<PrunePlan, TransferError> {
    let store = store.as_ref();
    let (kept, removed) = choose(backups(store).await?, keep, env.clock.now());
    let mut there = Vec::new();
    for folder in ["log", "table", "blob", "backup"] {
        let mut listing = store.list(folder);
        while let Some(object) = listing.try_next().await.map_err(TransferError::Store)? {
            there.push(object);
        }
    }
    one_is_whole(store, &kept, &there).await?;
    let objects = unneeded(&kept, there);
    Ok(PrunePlan { kept, removed, objects })
}

/// Takes away the backups that `keep` does not keep, and every object that no other one needs.
///
/// # Errors
/// [`TransferError`]; run again it goes on where it was.
pub async fn prune(
    store: &Arc<dyn Bucket>,
    env: &Environment,
    node: &str,
    keep: Keep,
    progress: Progress<'_>,
) -> Result<PrunePlan, TransferError> {
    // Not a word in a place that holds no backups.
    if backups(store.as_ref()).await?.is_empty() {
        return Err(none(store.as_ref()));
    }
    let here = Presence::enter(store, env, Work::Prune, node).await?;
    let done = here.during(carry_out(store, env, &here, keep, progress)).await;
    here.leave().await;
    done
}

async fn carry_out(
    store: &Arc<dyn Bucket>,
    env: &Environment,
    here: &Presence,
    keep: Keep,
    progress: Progress<'_>,
) -> Result<PrunePlan, TransferError> {
    let plan = plan_prune(store, env, keep).await?;
    for backup in &plan.removed {
        here.sure()?;
        let path = names::backup(backup.number);
        store.delete(&path).await.map_err(TransferError::Store)?;
        progress(Step::Removed(path.to_string()));
    }
    let one = |object: &ObjectMeta| {
        let path = ObjectPath::new(object.path.clone());
        async move {
            here.sure()?;
            store.delete(&path.map_err(TransferError::Refused)?).await.map_err(TransferError::Store)
        }
    };
    let mut deletes = stream::iter(&plan.objects).map(one).buffer_unordered(DELETES_AT_ONCE);
    while deletes.try_next().await?.is_some() {}
    drop(deletes);
    Ok(plan)
}

/// Those that stay and those that go.
fn choose(all: Vec<BackupRecord>, keep: Keep, now: Timestamp) -> (Vec<BackupRecord>, Vec<BackupRecord>) {
    let newest = all.last().map(|b| b.number);
    let from = match keep {
        Keep::Newest(n) => all.len().saturating_sub(n.max(1)),
        Keep::Younger(_) => 0,
    };
    let stays = |(i, b): (usize, &BackupRecord)| match keep {
        Keep::Newest(_) => i >= from,
        Keep::Younger(age) => b.created.plus(age) >= now || Some(b.number) == newest,
    };
    let stay: Vec<bool> = all.iter().enumerate().map(stays).collect();
    let (kept, removed): (Vec<_>, Vec<_>) = all.into_iter().zip(stay).partition(|(_, stays)| *stays);
    let bare = |v: Vec<(BackupRecord, bool)>| v.into_iter().map(|(b, _)| b).collect();
    (bare(kept), bare(removed))
}

/// Objects of backups that none of `kept` names.
fn unneeded(kept: &[BackupRecord], there: Vec<ObjectMeta>) -> Vec<ObjectMeta> {
    let named: BTreeSet<&str> =
        kept.iter().flat_map(|b| b.objects.iter().chain([&b.manifest])).map(|o| o.path.as_str()).collect();
    let ours = |path: &str| names::is_data(path) || names::is_backup_manifest(path);
    there.into_iter().filter(|o| ours(&o.path) && !named.contains(o.path.as_str())).collect()
}

/// At least one of `kept` must have everything that it names, as far as a listing and its manifest tell: the last good
/// backup must not go because newer ones are there that are not.
async fn one_is_whole(
    store: &dyn Bucket,
    kept: &[BackupRecord],
    there: &[ObjectMeta],
) -> Result<(), TransferError> {
    let lens: BTreeMap<&str, u64> = there.iter().map(|o| (o.path.as_str(), o.len)).collect();
    let mut faults = Vec::new();
    for backup in kept.iter().rev() {
        match fault(store, backup, &lens).await? {
            None => return Ok(()),
            Some(fault) => faults.push(format!("backup {}: {fault}", backup.number)),
        }
    }
    if faults.is_empty() {
        return Err(none(store));
    }
    Err(TransferError::Refused(format!(
        "no backup would stay that is whole ({}): nothing was changed. Make a new backup first, or keep more",
        faults.join("; ")
    )))
}

async fn fault(
    store: &dyn Bucket,
    backup: &BackupRecord,
    lens: &BTreeMap<&str, u64>,
) -> Result<Option<String>, TransferError> {
    let lacking = |o: &&record::BackedUp| lens.get(o.path.as_str()) != Some(&o.len);
    if let Some(object) = backup.objects.iter().find(lacking) {
        return Ok(Some(format!("{} is gone, or has another length", object.path)));
    }
    match read_manifest(store, backup).await {
        Ok(manifest) => Ok(record::missing(backup, &manifest).into_iter().next()),
        Err(e @ (TransferError::Damaged { .. } | TransferError::Gone(_))) => Ok(Some(e.to_string())),
        Err(e) => Err(e),
    }
}

fn none(store: &dyn Bucket) -> TransferError {
    TransferError::Refused(format!("{} holds no backup", store.url()))
}
