//! Taking over the writer's role after a claim is won.
//!
//! ```text
//!   1 claim      the coordination service hands out epoch n            (claim_writer)
//!   2 head       read after winning: nothing older than n commits any more without being seen
//!   3 refuse     the bucket knows more than the head                   ─► coordination_regressed
//!   4 roll       segments uploaded under the last epoch and never committed are followed   (roll.rs)
//!   5 adopt      one edit: epoch n begins after what was rolled forward
//!   6 record     manifest/epoch-<n>: where epoch n begins, in the bucket, for ever
//!   7 accept     only now
//! ```
//! **Why this order.** Reading the head before the claim would let the old writer commit in between, and the new one
//! hand out its sequence numbers again. Adopting before accepting makes the adoption's cut final: whatever of an older
//! epoch arrives later is void. Recording it before accepting makes that true even if the coordination service is lost
//! in the next instant: recover starts at the highest recorded cut, so nothing accepted here can be cut off by a
//! late-coming segment of an older epoch, and an old writer may tell its clients "not committed" once it reads the
//! record.
//!
//! **Crash cases.** After 1: the epoch number is spent, nothing else has happened. After 4: nothing was written. After
//! 5: the head is at epoch n, nobody has accepted work under it, the next claimer finds no segment of it. An old writer
//! cannot judge its last segments until the next takeover's record stands, and says "unknown" till then. After 6: the
//! next claimer follows epoch n's segments, and finds none. If the adoption's answer is lost, it is resolved by commit
//! id like any commit. A record whose write was sent and never answered may appear late: it states a committed adoption,
//! so it is true whenever it appears.
//!
//! **Regression** means that the coordination service was restored from an older copy: its versions, epochs and fencing
//! tokens come back. The bucket gives it away: an epoch object at or above the epoch just claimed, or a checkpoint
//! above the head's version. Either may also be the trace of somebody faster (a successor that has already taken over, a
//! commit and a fold right after our read), so before refusing, the head is read again: a head that has caught up with
//! what the listing showed is alive, not set back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::commit::{self, Resolved};
use super::{Claim, CoordinationError, Loaded, epoch, roll};
use crate::database::Database;
use crate::ids::{CommitId, Epoch, Version};
use crate::manifest::judge::EpochObject;
use crate::manifest::{Author, Change, Edit, EditError, LogEntry, Manifest};
use crate::names;
use crate::row::BlobId;
use crate::sabotage::{Rule, broken};

/// How long a takeover tries before it reports a passing failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pauses between attempts that fail in passing.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Why a takeover failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TakeoverError {
    /// The claim was lost on the way: contest again.
    #[error("the claim was lost: {0}")]
    Fenced(String),
    /// Coordination or the store failed.
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
}

/// Takes over: on return the epoch is adopted, its epoch object stands in the bucket, and work may be accepted. The
/// returned load is the manifest right after the adoption (or a later one, if somebody committed at once).
///
/// # Errors
/// [`TakeoverError`]; nothing was accepted, and the claim should be given back.
pub async fn take_over(db: &Database, claim: &Claim, node: &str) -> Result<Loaded, TakeoverError> {
    let deadline = Instant::now() + PATIENCE;
    let (adopted, now) = adopt(db, claim, node, deadline).await?;
    record(db, claim, &adopted, deadline).await?;
    if now.manifest.epoch > claim.epoch {
        return Err(TakeoverError::Fenced(format!("epoch {} has taken over", now.manifest.epoch)));
    }
    Ok(now)
}

/// Looks again whether the bucket knows more than the head: asked by a writer after its connection to coordination was
/// away, when it may have come back as an older copy of itself.
///
/// # Errors
/// `Fenced` where a later epoch has taken over; `Regressed` where coordination was set back.
pub async fn check_again(db: &Database, epoch: Epoch) -> Result<(), TakeoverError> {
    sound_head(db, epoch.next()).await.map(drop)
}

/// The head, held against the bucket: one that was set back may name what a later epoch has voided, so nothing is judged
/// by it.
///
/// # Errors
/// `Regressed` where the bucket knows more; else as [`Database::load`].
pub(super) async fn newest_head(db: &Database) -> Result<Loaded, CoordinationError> {
    let loaded = db.load().await?;
    let next = loaded.manifest.epoch.next();
    match sound_head(db, next).await {
        Ok((loaded, _)) => Ok(loaded),
        // Somebody has taken over in between; what was read then is newer than what the bucket showed before.
        Err(TakeoverError::Fenced(_)) => db.load().await,
        Err(TakeoverError::Coordination(e)) => Err(e),
    }
}

/// What the bucket says of epochs and checkpoints, from one listing made only in order to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Traces {
    /// The highest epoch object.
    epoch: Epoch,
    /// The highest epoch object below the claimed epoch.
    epoch_below: Epoch,
    /// The highest checkpoint.
    checkpoint: Version,
}

impl Traces {
    async fn read(db: &Database, claimed: Epoch) -> Result<Self, CoordinationError> {
        let mut traces = Self::default();
        let mut listing = db.bucket.list("manifest");
        while let Some(object) = listing.try_next().await? {
            if let Some(epoch) = names::parse_epoch(&object.path) {
                traces.epoch = traces.epoch.max(epoch);
                if epoch < claimed {
                    traces.epoch_below = traces.epoch_below.max(epoch);
                }
            }
            if let Some(version) = names::parse_checkpoint(&object.path) {
                traces.checkpoint = traces.checkpoint.max(version);
            }
        }
        Ok(traces)
    }
}

/// How a head stands to the traces.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// The bucket knows nothing that the head does not.
    Sound,
    /// Another claimer has already taken over.
    Overtaken(Epoch),
    /// The bucket knows more.
    Behind(String),
}

fn standing(head: &Manifest, claimed: Epoch, traces: Traces) -> Standing {
    if head.epoch >= claimed {
        return Standing::Overtaken(head.epoch);
    }
    if traces.epoch >= claimed {
        return Standing::Behind(format!(
            "epoch {} stands in the bucket already, and the head is of epoch {} (epoch {claimed} comes next)",
            traces.epoch, head.epoch
        ));
    }
    if traces.checkpoint > head.version {
        return Standing::Behind(format!(
            "there is a checkpoint of version {}, the head is at {}",
            traces.checkpoint, head.version
        ));
    }
    Standing::Sound
}

/// Steps 2 and 3: the head, read after winning and found not to be an old one.
async fn sound_head(db: &Database, claimed: Epoch) -> Result<(Loaded, Traces), TakeoverError> {
    let loaded = db.load().await?;
    db.check_lineage(loaded.manifest.lineage).await?;
    let traces = Traces::read(db, claimed).await?;
    let loaded = match standing(&loaded.manifest, claimed, traces) {
        Standing::Sound => return Ok((loaded, traces)),
        _ => db.load().await?,
    };
    match standing(&loaded.manifest, claimed, traces) {
        Standing::Sound => Ok((loaded, traces)),
        Standing::Overtaken(by) => Err(TakeoverError::Fenced(format!("epoch {by} has taken over"))),
        Standing::Behind(why) => Err(CoordinationError::Regressed(format!(
            "{why}: the coordination service was set back to an older copy; stop every role and run `isle recover`"
        ))
        .into()),
    }
}

/// What is rolled forward: segments, and the blob files that they bring with them.
#[derive(Debug)]
struct Rolled {
    segments: Vec<Arc<LogEntry>>,
    blobs: BTreeMap<BlobId, u64>,
}

/// Steps 2 to 4.
async fn read_tail(db: &Database, claim: &Claim) -> Result<(Loaded, Rolled), TakeoverError> {
    let (loaded, traces) = sound_head(db, claim.epoch).await?;
    #[cfg(feature = "sabotage")]
    let loaded = crate::sabotage::body_of_then(claim.incarnation, loaded);
    let later = later_cut(db, &loaded.manifest, traces.epoch_below).await?;
    let rolled = roll::roll_forward(db, &loaded.manifest, later.as_ref()).await?;
    let blobs = roll::new_blobs(db, &loaded.manifest, &rolled).await?;
    Ok((loaded, Rolled { segments: rolled, blobs }))
}

/// Steps 2 to 5. Returns the manifest that the adoption made, and the newest one.
async fn adopt(
    db: &Database,
    claim: &Claim,
    node: &str,
    deadline: Instant,
) -> Result<(Arc<Manifest>, Loaded), TakeoverError> {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    loop {
        let (loaded, rolled) = match read_tail(db, claim).await {
            // Giving the claim back for a store that hiccups would spend an epoch on every attempt.
            Err(TakeoverError::Coordination(e)) if e.is_passing() && Instant::now() < deadline => {
                tracing::warn!(epoch = %claim.epoch, error = %e, "the log's end could not be read yet");
                backoff.sleep(deadline).await;
                continue;
            }
            read => read?,
        };
        let Rolled { segments, blobs } = rolled;
        tracing::info!(epoch = %claim.epoch, rolled = segments.len(), head = %loaded.manifest.version, "taking over");
        let mut changes = Vec::new();
        let mut required_features = Vec::new();
        if !blobs.is_empty() {
            changes.push(Change::AddBlobs { blobs });
            required_features.push("blobs".to_owned());
        }
        changes.push(Change::Adopt {
            epoch: claim.epoch,
            incarnation: claim.incarnation,
            node: node.to_owned(),
            rolled: segments,
        });
        let edit = Edit {
            version: loaded.manifest.version.next(),
            lineage: loaded.manifest.lineage,
            epoch: claim.epoch,
            commit: CommitId(db.env.entropy.next_u64()),
            author: Author::Writer,
            changes,
            required_features,
            extra: BTreeMap::new(),
        };
        let proposal =
            commit::propose(&loaded.state, &loaded.manifest, edit, &claim.authority).map_err(unfit)?;
        match commit::commit(db, &proposal, deadline).await {
            Resolved::Committed(state) => {
                let now = Loaded { state, manifest: proposal.manifest.clone(), as_of: loaded.as_of };
                return Ok((proposal.manifest, now));
            }
            Resolved::CommittedEarlier(now) => return Ok((proposal.manifest, now)),
            // Somebody else's edit came first (a compaction, a snapshot): look again.
            Resolved::Moved(_) if Instant::now() < deadline => {}
            Resolved::Moved(_) => {
                return Err(CoordinationError::Unavailable("the head never stood still".to_owned()).into());
            }
            Resolved::Fenced(why) | Resolved::CommittedThrough(_, why) => {
                return Err(TakeoverError::Fenced(why));
            }
            Resolved::Unknown(why) => return Err(CoordinationError::Unavailable(why).into()),
        }
    }
}

/// The highest epoch object between the head's epoch and the claimed one, if there is one.
async fn later_cut(
    db: &Database,
    head: &Manifest,
    highest: Epoch,
) -> Result<Option<EpochObject>, CoordinationError> {
    if highest <= head.epoch {
        return Ok(None);
    }
    let object = epoch::read(db.bucket.as_ref(), highest).await?;
    let other = object.as_ref().filter(|o| o.lineage != head.lineage || o.database != head.database);
    if let Some(o) = other {
        return Err(CoordinationError::Regressed(format!(
            "epoch {} belongs to lineage {}, the head to {}: run `isle recover`",
            o.epoch, o.lineage, head.lineage
        )));
    }
    Ok(object)
}

fn unfit(e: EditError) -> TakeoverError {
    CoordinationError::Damaged(format!("the adoption does not fit the head: {e}")).into()
}

/// Step 6.
async fn record(
    db: &Database,
    claim: &Claim,
    adopted: &Manifest,
    deadline: Instant,
) -> Result<(), TakeoverError> {
    let object = EpochObject {
        database: adopted.database,
        lineage: adopted.lineage,
        epoch: claim.epoch,
        incarnation: claim.incarnation,
        head_version: adopted.version,
        cut: adopted.tail.filter(|_| !broken(Rule::RecordTheCut)),
        epochs: adopted.epochs.clone(),
    };
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    loop {
        match epoch::write(db.bucket.as_ref(), &object).await {
            Err(e) if e.is_passing() && Instant::now() < deadline => {
                tracing::warn!(epoch = %claim.epoch, error = %e, "the epoch object could not be written yet");
                backoff.sleep(deadline).await;
            }
            done => return Ok(done?),
        }
    }
}
