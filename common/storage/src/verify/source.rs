//! Where the manifest to verify comes from, and who is alive.

use std::collections::HashMap;
use std::sync::Arc;

use futures::TryStreamExt;

use super::names_in::Maker;
use super::{From, Owner, Report, VerifyError};
use crate::coordination::bucket::inspect;
use crate::coordination::identity::{FORMAT, Identity};
use crate::coordination::{Backend, CoordinationError, lineage};
use crate::ids::{Lineage, Version};
use crate::manifest::{CheckpointRef, Manifest, checkpoint};
use crate::names::{self, ObjectPath};
use crate::object::{Bucket, StoreError};

/// The manifest found.
pub(super) struct Found {
    /// `None` where nothing that can be read describes the database.
    pub(super) manifest: Option<Arc<Manifest>>,
    /// The checkpoint the head names, where a head was asked.
    pub(super) checkpoint: Option<CheckpointRef>,
    /// In words.
    pub(super) described: String,
}

fn unavailable(e: &StoreError) -> VerifyError {
    VerifyError::Unavailable(e.to_string())
}

/// Reads `isle.json`. Damage is reported, and then there is no identity.
pub(super) async fn identity(
    bucket: &dyn Bucket,
    name: &str,
    report: &mut Report,
) -> Result<Option<Identity>, VerifyError> {
    let path = names::identity();
    let bytes = match bucket.get(&path).await {
        Ok(bytes) => bytes,
        Err(e) if e.is_not_found() => return without_identity(bucket, report).await,
        Err(e) => return Err(unavailable(&e)),
    };
    let found: Identity = match serde_json::from_slice(&bytes) {
        Ok(found) => found,
        Err(e) => {
            report.damaged(path.as_str(), format!("it cannot be read: {e}"));
            return Ok(None);
        }
    };
    if found.format > FORMAT {
        let why =
            format!("{} has layout {}, this program knows {FORMAT}: upgrade it", bucket.url(), found.format);
        return Err(VerifyError::WrongPlace(why));
    }
    if found.format < FORMAT {
        report.damaged(path.as_str(), format!("there never was a layout {}", found.format));
    }
    if found.name != name {
        let why = format!("{} holds the database {:?}, not {name:?}", bucket.url(), found.name);
        return Err(VerifyError::WrongPlace(why));
    }
    Ok(Some(found))
}

/// No `isle.json`: damage where other objects of a database are there, else the wrong place.
async fn without_identity(bucket: &dyn Bucket, report: &mut Report) -> Result<Option<Identity>, VerifyError> {
    for folder in ["manifest", "log", "table"] {
        if bucket.list(folder).try_next().await.map_err(|e| unavailable(&e))?.is_some() {
            report.damaged("isle.json", "it is missing, and other objects of a database are there");
            return Ok(None);
        }
    }
    Err(VerifyError::WrongPlace(format!("there is no database at {}", bucket.url())))
}

/// The newest manifest: through coordination, and where the head cannot be had for damage, or is not asked, from the
/// bucket alone.
pub(super) async fn manifest(
    bucket: &dyn Bucket,
    from: &From,
    identity: Option<&Identity>,
    report: &mut Report,
) -> Result<Found, VerifyError> {
    let From::Coordination(coordination) = from else { return in_bucket(bucket, identity, report).await };
    if let Some(other) = identity.map(|i| i.backend).filter(|b| *b != coordination.backend()) {
        let why = format!(
            "the database in {} is coordinated by {other}, not by {}",
            bucket.url(),
            coordination.backend()
        );
        return Err(VerifyError::WrongPlace(why));
    }
    match coordination.load().await {
        Ok(loaded) => Ok(Found {
            described: format!("the head, version {}", loaded.manifest.version),
            checkpoint: Some(loaded.state.head.checkpoint),
            manifest: Some(loaded.manifest),
        }),
        Err(CoordinationError::Unavailable(why)) => Err(VerifyError::Unavailable(format!(
            "the head cannot be read: {why} (`--offline` verifies what the bucket alone tells)"
        ))),
        Err(
            e @ (CoordinationError::Denied(_)
            | CoordinationError::Refused(_)
            | CoordinationError::WrongDatabase(_)),
        ) => Err(VerifyError::WrongPlace(e.to_string())),
        Err(CoordinationError::NotFound(_)) if identity.is_some() => {
            report.damaged(
                "",
                format!(
                    "coordination_lost: isle.json is here, and {} has no head of this database: the coordination \
                     service was wiped, or its address or root is wrong. Start no writer; mend the setting, or stop \
                     every role and run `isle recover`",
                    coordination.describe()
                ),
            );
            in_bucket(bucket, identity, report).await
        }
        Err(e) => {
            report.damaged("", format!("the head cannot be loaded: {e}"));
            in_bucket(bucket, identity, report).await
        }
    }
}

/// The newest checkpoint that can be read and is of the newest lineage, and in the bucket form the edits after it.
async fn in_bucket(
    bucket: &dyn Bucket,
    identity: Option<&Identity>,
    report: &mut Report,
) -> Result<Found, VerifyError> {
    let mut last = None;
    loop {
        let (found, gap) = walk_bucket(bucket, identity).await?;
        // A fold may have deleted the edits since they were listed: the next look then starts at its checkpoint.
        if gap.is_some() && gap != last {
            last = gap;
            continue;
        }
        if let Some((missing, listed)) = gap {
            let (missing, listed) = (names::edit(missing), names::edit(listed));
            let what = format!(
                "it is missing, though {listed} is there: nothing that was committed from it on is known"
            );
            report.damaged(missing.as_str(), what);
        }
        return Ok(found);
    }
}

/// An edit that is missing, and the newest one that was listed.
type Gap = Option<(Version, Version)>;

async fn walk_bucket(bucket: &dyn Bucket, identity: Option<&Identity>) -> Result<(Found, Gap), VerifyError> {
    let (mut checkpoints, mut newest_edit) = (Vec::new(), Version::ZERO);
    let mut listing = bucket.list("manifest");
    while let Some(object) = listing.try_next().await.map_err(|e| unavailable(&e))? {
        checkpoints
            .extend(names::parse_checkpoint(&object.path).map(|version| (version, object.path.clone())));
        newest_edit = newest_edit.max(names::parse_edit(&object.path).unwrap_or_default());
    }
    checkpoints.sort();
    let lineage = newest_lineage(bucket).await?;
    for (_, path) in checkpoints.iter().rev() {
        let Some(manifest) = read_checkpoint(bucket, path).await? else { continue };
        if lineage.is_some_and(|newest| newest != manifest.lineage) {
            continue;
        }
        let edits = newest_edit > Version::ZERO && identity.is_none_or(|i| i.backend == Backend::Bucket);
        let described = format!("{path} of version {}", manifest.version);
        return if edits {
            replay(bucket, manifest, described, newest_edit).await
        } else {
            Ok((Found::offline(manifest, described), None))
        };
    }
    let described = "no checkpoint that can be read describes the database".to_owned();
    Ok((Found { manifest: None, checkpoint: None, described }, None))
}

impl Found {
    fn offline(manifest: Manifest, described: String) -> Self {
        Self { manifest: Some(Arc::new(manifest)), checkpoint: None, described }
    }
}

async fn newest_lineage(bucket: &dyn Bucket) -> Result<Option<Lineage>, VerifyError> {
    match lineage::newest(bucket).await {
        Ok(newest) => Ok(newest.map(|l| l.lineage)),
        Err(CoordinationError::Unavailable(why)) => Err(VerifyError::Unavailable(why)),
        // Found and reported when the folder is walked.
        Err(_) => Ok(None),
    }
}

/// A checkpoint, or nothing where it cannot be made sense of: the walk of the folder says why.
async fn read_checkpoint(bucket: &dyn Bucket, path: &str) -> Result<Option<Manifest>, VerifyError> {
    let Ok(path) = ObjectPath::new(path) else { return Ok(None) };
    match bucket.get(&path).await {
        Ok(bytes) => Ok(checkpoint::decode(&bytes).ok()),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(unavailable(&e)),
    }
}

/// `listed`: the newest edit that a listing has shown.
async fn replay(
    bucket: &dyn Bucket,
    from: Manifest,
    described: String,
    listed: Version,
) -> Result<(Found, Gap), VerifyError> {
    let (mut manifest, mut count, mut gap) = (from, 0, None);
    loop {
        let next = names::edit(manifest.version.next());
        let bytes = match bucket.get(&next).await {
            Ok(bytes) => bytes,
            Err(e) if e.is_not_found() => {
                gap = (manifest.version < listed).then(|| (manifest.version.next(), listed));
                break;
            }
            Err(e) => return Err(unavailable(&e)),
        };
        // A damaged one is reported when the folder is walked; beyond it nothing is known.
        let Ok(next) = inspect::replay(&manifest, &bytes) else { break };
        manifest = next;
        count += 1;
    }
    Ok((Found::offline(manifest, format!("{described}, and {count} edits after it")), gap))
}

/// Who is alive, asked once for each maker.
pub(super) struct Owners<'a> {
    from: &'a From,
    manifest: Option<&'a Manifest>,
    /// Whether the manifest is the newest there is: an older one may not know who names an object.
    newest: bool,
    known: HashMap<Maker, Owner>,
}

impl<'a> Owners<'a> {
    pub(super) fn new(from: &'a From, identity: Option<&Identity>, manifest: Option<&'a Manifest>) -> Self {
        let complete = identity.is_some_and(|i| i.backend == Backend::Bucket);
        let newest = matches!(from, From::Coordination(_)) || complete;
        Self { from, manifest, newest, known: HashMap::new() }
    }

    pub(super) async fn state(&mut self, maker: &Maker) -> Owner {
        if let Some(known) = self.known.get(maker) {
            return *known;
        }
        let state = match (self.manifest.filter(|_| self.newest), maker) {
            (None, _) | (_, Maker::Nobody) => Owner::Unknown,
            (Some(m), Maker::Writer(epoch, incarnation)) => {
                let current =
                    m.epochs.last().is_some_and(|e| e.epoch == *epoch && e.incarnation == *incarnation);
                if current || *epoch > m.epoch { Owner::Alive } else { Owner::Dead }
            }
            (Some(m), Maker::Job(job)) => match self.from {
                // In the bucket form the claims stand in the manifest; asking would end one that has fallen silent,
                // and verify changes nothing.
                From::Coordination(coordination) if coordination.backend() != Backend::Bucket => {
                    match coordination.job_is_claimed(*job).await {
                        Ok(true) => Owner::Alive,
                        Ok(false) => Owner::Dead,
                        Err(_) => Owner::Unknown,
                    }
                }
                _ if m.jobs.contains_key(job) => Owner::Alive,
                _ => Owner::Dead,
            },
        };
        self.known.insert(*maker, state);
        state
    }
}
