//! Looking around: what lies in the bucket, and what is left of coordination. The one place besides the sweep and the
//! checks at a claim that lists.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::base::{self, Base, Objects, Rejected};
use super::path::{Segment, Segments};
use super::{Progress, Remains, Step};
use crate::coordination::identity::{self, Identity};
use crate::coordination::lineage::{self, LineageObject};
use crate::coordination::{Coordination, CoordinationError, epoch};
use crate::environment::Environment;
use crate::ids::{Epoch, SeqNo, Version};
use crate::log;
use crate::manifest::judge::EpochObject;
use crate::manifest::{Manifest, checkpoint};
use crate::names::{self, LogId, LogKind, ObjectPath};
use crate::object::{Bucket, StoreErrorKind};

/// Segments read at once.
const READS_AT_ONCE: usize = 16;

/// How often the reading of segments reports.
const REPORT_EVERY: usize = 100;

/// Everything a plan is made from.
#[derive(Debug, Clone)]
pub struct Findings {
    /// The database.
    pub identity: Identity,
    /// Its histories, ascending.
    pub lineages: Vec<LineageObject>,
    /// What stands where the head stands.
    pub remains: Remains,
    /// The head's manifest, where it loads.
    pub(super) sound: Option<Arc<Manifest>>,
    /// The highest epoch object by name, and what is in it.
    pub(super) record: Option<(Epoch, Result<EpochObject, String>)>,
    /// The highest epoch that anything tells of.
    pub(super) highest_epoch: Epoch,
    /// The highest version that anything tells of.
    pub(super) highest_version: Version,
    /// The highest version of a checkpoint.
    pub(super) checkpoint_version: Version,
    /// The last sequence number of checkpoints that could be read and not be built on.
    pub(super) seen_seq: Option<SeqNo>,
    pub(super) base: Option<Base>,
    pub(super) rejected: Vec<Rejected>,
    pub(super) objects: Objects,
    pub(super) segments: Segments,
}

/// Reads everything that a plan is made from; writes nothing.
///
/// # Errors
/// [`CoordinationError`]: the bucket or the service cannot be read, or this is another database.
pub async fn survey(
    bucket: &Arc<dyn Bucket>,
    coordination: &Arc<dyn Coordination>,
    env: &Environment,
    name: &str,
    progress: Progress<'_>,
) -> Result<Findings, CoordinationError> {
    let identity = identity::read(bucket.as_ref(), name, coordination.backend()).await?;
    let lineages = lineage::all(bucket.as_ref()).await?;
    let remains = coordination.remains().await?;
    let sound = match coordination.load().await {
        Ok(loaded) if loaded.manifest.database == identity.database => Some(loaded.manifest),
        Err(e) if e.is_passing() => return Err(e),
        // Whatever is wrong with it is what is to be mended.
        _ => None,
    };
    let names = Names::list(bucket.as_ref(), progress).await?;
    let objects = objects(bucket.as_ref(), progress).await?;
    let mut looking =
        Looking { bucket: bucket.as_ref(), env, progress, rejected: Vec::new(), seen_seq: None };
    let base = looking.base(&names, &remains, &identity, &lineages, &objects).await?;
    let (rejected, seen_seq) = (looking.rejected, looking.seen_seq);
    let from = base.as_ref().map(|b| b.manifest.last_seq).unwrap_or_default();
    let segments = segments(bucket.as_ref(), env, &objects, from, progress).await?;
    let in_names = objects.keys().filter_map(|p| names::parse_log(p)).map(|(id, _)| id.epoch).max();
    Ok(Findings {
        record: record(bucket.as_ref(), names.epoch).await?,
        highest_epoch: remains.epoch.max(names.epoch).max(in_names.unwrap_or_default()),
        highest_version: remains.version.max(names.version),
        checkpoint_version: names.checkpoints.first().map(|(v, _)| *v).unwrap_or_default(),
        identity,
        lineages,
        remains,
        sound,
        seen_seq,
        base,
        rejected,
        objects,
        segments,
    })
}

/// What the names in `manifest/` tell.
#[derive(Debug, Default)]
struct Names {
    /// Newest first.
    checkpoints: Vec<(Version, ObjectPath)>,
    epoch: Epoch,
    version: Version,
}

impl Names {
    async fn list(bucket: &dyn Bucket, progress: Progress<'_>) -> Result<Self, CoordinationError> {
        let (mut found, mut count) = (Self::default(), 0);
        let mut listing = bucket.list("manifest");
        while let Some(object) = listing.try_next().await? {
            count += 1;
            if let Some(version) = names::parse_checkpoint(&object.path)
                && let Ok(path) = ObjectPath::new(object.path.clone())
            {
                found.checkpoints.push((version, path));
                found.version = found.version.max(version);
            }
            found.epoch = found.epoch.max(names::parse_epoch(&object.path).unwrap_or_default());
            let edits = names::parse_edit(&object.path).max(names::parse_big_edit(&object.path));
            found.version = found.version.max(edits.unwrap_or_default());
        }
        found.checkpoints.sort();
        found.checkpoints.reverse();
        progress(Step::Listed { folder: "manifest".to_owned(), objects: count });
        Ok(found)
    }
}

async fn objects(bucket: &dyn Bucket, progress: Progress<'_>) -> Result<Objects, CoordinationError> {
    let mut objects = Objects::new();
    for folder in ["log", "table", "blob"] {
        let before = objects.len();
        let mut listing = bucket.list(folder);
        while let Some(object) = listing.try_next().await? {
            objects.insert(object.path, object.len);
        }
        progress(Step::Listed { folder: folder.to_owned(), objects: objects.len() - before });
    }
    Ok(objects)
}

struct Looking<'a> {
    bucket: &'a dyn Bucket,
    env: &'a Environment,
    progress: Progress<'a>,
    rejected: Vec<Rejected>,
    seen_seq: Option<SeqNo>,
}

impl Looking<'_> {
    /// The newest checkpoint that can be built on.
    async fn base(
        &mut self,
        names: &Names,
        remains: &Remains,
        identity: &Identity,
        lineages: &[LineageObject],
        objects: &Objects,
    ) -> Result<Option<Base>, CoordinationError> {
        for (version, path) in &names.checkpoints {
            let judged = match verified(self.bucket, self.env, path, *version).await? {
                Ok(manifest) => {
                    let (seq, of_us) = (manifest.last_seq, manifest.database == identity.database);
                    let of_us = of_us && base::number_of(lineages, manifest.lineage).is_some();
                    let judged = base::judge(
                        path.as_str(),
                        manifest,
                        &remains.edits,
                        identity.database,
                        lineages,
                        objects,
                    );
                    if judged.is_err() && of_us {
                        self.seen_seq = self.seen_seq.max(Some(seq));
                    }
                    judged
                }
                Err(why) => Err(Rejected { path: path.to_string(), why }),
            };
            match judged {
                Ok(base) => {
                    (self.progress)(Step::Base(base.path.clone()));
                    return Ok(Some(base));
                }
                Err(rejected) => {
                    (self.progress)(Step::Rejected(rejected.clone()));
                    self.rejected.push(rejected);
                }
            }
        }
        Ok(None)
    }
}

/// Reads a checkpoint and verifies it; the inner error says what is wrong with it.
async fn verified(
    bucket: &dyn Bucket,
    env: &Environment,
    path: &ObjectPath,
    version: Version,
) -> Result<Result<Manifest, String>, CoordinationError> {
    let bytes = match get_or_why(bucket, path).await? {
        Ok(bytes) => bytes,
        Err(why) => return Ok(Err(why)),
    };
    let decoded = env.offload.run(move || checkpoint::decode(&bytes)).await;
    let decoded = decoded.map_err(|e| CoordinationError::Unavailable(format!("decoding {path}: {e}")))?;
    Ok(match decoded {
        Ok(manifest) if manifest.version == version => Ok(manifest),
        Ok(manifest) => Err(format!("it holds version {}", manifest.version)),
        Err(e) => Err(e.to_string()),
    })
}

/// An object's bytes, or what is lastingly wrong with it; a store that cannot be asked at present, or refuses, is an
/// error of the whole.
async fn get_or_why(
    bucket: &dyn Bucket,
    path: &ObjectPath,
) -> Result<Result<Bytes, String>, CoordinationError> {
    match bucket.get(path).await {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(e) => match e.kind {
            StoreErrorKind::NotFound => Ok(Err("it is gone".to_owned())),
            StoreErrorKind::Permanent | StoreErrorKind::AlreadyExists => Ok(Err(e.to_string())),
            StoreErrorKind::Transient | StoreErrorKind::Denied | StoreErrorKind::Unsupported => Err(e.into()),
        },
    }
}

/// Every segment that starts after `from`, read and verified whole.
async fn segments(
    bucket: &dyn Bucket,
    env: &Environment,
    objects: &Objects,
    from: SeqNo,
    progress: Progress<'_>,
) -> Result<Segments, CoordinationError> {
    let listed = objects.keys().filter_map(|p| names::parse_log(p));
    let wanted: Vec<LogId> = listed
        .filter(|(id, kind)| *kind == LogKind::Segment && id.first_seq > from)
        .map(|(id, _)| id)
        .collect();
    let of = wanted.len();
    let mut reads = stream::iter(wanted).map(|id| segment(bucket, env, id)).buffer_unordered(READS_AT_ONCE);
    let mut found = BTreeMap::new();
    while let Some((id, segment)) = reads.try_next().await? {
        found.insert(id, segment);
        if found.len().is_multiple_of(REPORT_EVERY) || found.len() == of {
            progress(Step::Segments { read: found.len(), of });
        }
    }
    Ok(found)
}

async fn segment(
    bucket: &dyn Bucket,
    env: &Environment,
    id: LogId,
) -> Result<(LogId, Result<Segment, String>), CoordinationError> {
    let bytes = match get_or_why(bucket, &id.path(LogKind::Segment)).await? {
        Ok(bytes) => bytes,
        Err(why) => return Ok((id, Err(why))),
    };
    let decoded = env.offload.run(move || {
        let header = log::decode(&bytes)?.header;
        log::describe(&bytes).map(|entry| Segment { header, entry: Arc::new(entry) })
    });
    let decoded =
        decoded.await.map_err(|e| CoordinationError::Unavailable(format!("decoding segment {id}: {e}")))?;
    Ok((
        id,
        match decoded {
            Ok(segment) if segment.header.id() == id => Ok(segment),
            Ok(segment) => Err(format!("it is segment {}", segment.header.id())),
            Err(e) => Err(e.to_string()),
        },
    ))
}

/// The highest epoch object; the inner error says what is wrong with it.
async fn record(
    bucket: &dyn Bucket,
    highest: Epoch,
) -> Result<Option<(Epoch, Result<EpochObject, String>)>, CoordinationError> {
    if highest == Epoch::ZERO {
        return Ok(None);
    }
    Ok(match epoch::read(bucket, highest).await {
        Ok(Some(object)) => Some((highest, Ok(object))),
        Ok(None) => Some((highest, Err("was listed and is gone".to_owned()))),
        Err(CoordinationError::Damaged(why)) => Some((highest, Err(why))),
        Err(e) => return Err(e),
    })
}
