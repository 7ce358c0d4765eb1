//! Commits: proposals built and checked, attempts made, unknown outcomes resolved.
//!
//! # Three outcomes
//! An attempt is committed, certainly not applied, or unknown. What is unknown is resolved, never guessed:
//! ```text
//!            ┌────────────────────── the identical transaction again ◄─────────┐
//!            ▼                                                                 │ no answer, or the head is
//!   attempt ──► committed ──────────────────────────────► Committed            │ still the base: it may yet
//!      │                                                                       │ apply, a read proves nothing
//!      └─► moved / fenced ─► load ─► judge ─► it is in ─► CommittedEarlier     │
//!                              ▲        ├───► not in, the head is another ───► Moved
//!                              │        ├───► not in, and never will be ─────► Fenced / CommittedThrough
//!                              └────────┴───► cannot be told yet ──────────────┘   … until the deadline: Unknown
//! ```
//! Even a plain "the head is not the base" is judged before it is believed: a client library, a proxy or a store may
//! have sent the request twice and handed back the second answer, "precondition failed", for what the first one did.
//!
//! # Judging a log commit
//! By whether the log leads through its segments, because a successor may have rolled them forward under a commit id of
//! its own. It is *not committed* only once an epoch object of a later epoch stands in the bucket and its cut does not
//! lead through it. A higher epoch in the head alone is not enough where the head lies outside the bucket: if that head
//! is lost now, recover rebuilds the log from the bucket, finds no cut, and follows the segment. In the bucket form the
//! adoption is itself an object in the bucket, so it decides at once.
//!
//! An edit may carry several segments, and a successor may find only the first few of them (uploads run in parallel,
//! publication is in order). Hence [`Resolved::CommittedThrough`].
//!
//! Other edits are judged by commit id.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::backoff::Backoff;
use super::{
    Authority, Backend, CommitOutcome, CoordinationError, HeadState, Loaded, Proposal, claim, epoch,
};
use crate::database::Database;
use crate::ids::{CommitId, Epoch, SeqNo, Version};
use crate::manifest::judge::{self, EpochObject, Judgement};
use crate::manifest::{Change, Edit, EditError, LogTail, Manifest};

/// Pause after the first attempt that could not be told, and the longest one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// Builds a proposal: applies and checks the edit, and derives the head it makes.
///
/// # Errors
/// [`EditError`] where the edit does not fit the manifest, or the manifest is not the base's: such a commit would be
/// let through by its comparison, and overwrite all that was committed between the two.
pub fn propose(
    base: &HeadState,
    manifest: &Manifest,
    edit: Edit,
    authority: &Authority,
) -> Result<Proposal, EditError> {
    if base.head.version != manifest.version {
        let (built, head) = (manifest.version, base.head.version);
        let why = format!("it was built on version {built}, and would replace a head at version {head}");
        return Err(EditError::Stale { version: edit.version, why });
    }
    let next = manifest.apply(&edit)?;
    let mut head = next.head(base.head.checkpoint.clone(), edit.commit);
    head.extra.clone_from(&base.head.extra);
    Ok(Proposal {
        base: base.clone(),
        edit: edit.into(),
        head,
        manifest: next.into(),
        authority: authority.clone(),
        groups: None,
    })
}

/// How a commit ended after everything was tried to find out.
#[derive(Debug, Clone)]
pub enum Resolved {
    /// It is part of the database; the proposal's manifest is the head's.
    Committed(HeadState),
    /// It is part of the database and the head has moved on since: this is the head now.
    CommittedEarlier(Loaded),
    /// Certainly not applied: the head has moved, or the consumer groups that were read have. This is the head now; check
    /// the edit again, and retry.
    Moved(Loaded),
    /// Certainly not applied and never will be: the right it was made under is gone. None of a log edit's segments is
    /// part of the database.
    Fenced(String),
    /// Of a log edit with several segments, exactly those up to this number are part of the database, rolled forward
    /// by a later epoch; the others never will be. The right it was made under is gone.
    CommittedThrough(SeqNo, String),
    /// Nobody could tell before the deadline.
    Unknown(String),
}

/// Commits a proposal and resolves an unknown outcome: the identical transaction is sent again, and once the head has
/// moved the edit is judged (see the head of this file).
pub async fn commit(db: &Database, proposal: &Proposal, deadline: Instant) -> Resolved {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let mut last = "the deadline had passed before the first attempt".to_owned();
    loop {
        match timeout_at(deadline, db.coordination.commit(proposal)).await {
            Ok(CommitOutcome::Committed(state)) => return Resolved::Committed(state),
            Ok(CommitOutcome::Moved) => match settle(db, proposal, None, deadline).await {
                Settled::As(resolved) => return resolved,
                Settled::HeadIsBase(_) => {
                    "the head is still the one this commit was built on".clone_into(&mut last);
                }
            },
            Ok(CommitOutcome::Regrouped) => {
                return match settle(db, proposal, None, deadline).await {
                    Settled::As(resolved) => resolved,
                    // What it compares besides the head is gone for good: it can never apply, and is to be planned anew.
                    Settled::HeadIsBase(loaded) => Resolved::Moved(loaded),
                };
            }
            Ok(CommitOutcome::Fenced(why)) => {
                if let Settled::As(resolved) = settle(db, proposal, Some(&why), deadline).await {
                    return resolved;
                }
                last = why;
            }
            Ok(CommitOutcome::Unknown(why)) => last = why,
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            return Resolved::Unknown(last);
        }
        backoff.sleep(deadline).await;
    }
}

/// Judges one segment by what coordination and the bucket say now: for a writer that lost its epoch with segments in
/// flight and has to tell their makers what became of them. A head that the bucket has gone beyond judges nothing: it may
/// name a segment that a later epoch has voided.
///
/// # Errors
/// [`CoordinationError`]: nobody can be asked at present.
pub async fn judge_segment(db: &Database, segment: &LogTail) -> Result<Judgement, CoordinationError> {
    let loaded = claim::newest_head(db).await?;
    Evidence::gather(db, loaded, segment.id.epoch).await.map(|e| e.judge(segment))
}

/// Judges an edit that appended nothing, or what it did besides, in the same way: by its commit's id.
///
/// # Errors
/// As [`judge_segment`].
pub async fn judge_edit(
    db: &Database,
    version: Version,
    made_under: Epoch,
    commit: CommitId,
) -> Result<Option<Judgement>, CoordinationError> {
    let loaded = claim::newest_head(db).await?;
    Ok(judge_edit_in(&loaded.manifest, version, made_under, commit))
}

/// What a manifest says of a writer's edit: `Unknown` where a later one may tell, `None` where none ever will, because
/// who made that version is forgotten.
#[must_use]
pub fn judge_edit_in(
    read: &Manifest,
    version: Version,
    made_under: Epoch,
    commit: CommitId,
) -> Option<Judgement> {
    match judge_id(read, version, commit) {
        Judgement::Unknown if read.version >= version => None,
        // The transaction compares the epoch, which is gone for good.
        Judgement::Unknown if read.epoch > made_under => Some(Judgement::NotCommitted),
        judged => Some(judged),
    }
}

/// What asking came to.
enum Settled {
    As(Resolved),
    /// The head, which is the base: the identical transaction must be sent again (it may have been applied to nothing, or
    /// may yet be).
    HeadIsBase(Loaded),
}

/// Asks until the attempt can be judged.
async fn settle(db: &Database, p: &Proposal, fenced: Option<&str>, deadline: Instant) -> Settled {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    loop {
        let why = match timeout_at(deadline, look(db, p, fenced)).await {
            Ok(Ok(Verdict::Is(resolved))) => return Settled::As(*resolved),
            Ok(Ok(Verdict::SendAgain(loaded))) => return Settled::HeadIsBase(*loaded),
            Ok(Ok(Verdict::NotYet(why))) => why,
            Ok(Err(e)) if e.is_passing() => e.to_string(),
            Ok(Err(e)) => return Settled::As(Resolved::Unknown(e.to_string())),
            Err(_) => "the head could not be read before the deadline".to_owned(),
        };
        if Instant::now() >= deadline {
            return Settled::As(Resolved::Unknown(why));
        }
        backoff.sleep(deadline).await;
    }
}

enum Verdict {
    Is(Box<Resolved>),
    SendAgain(Box<Loaded>),
    NotYet(String),
}

fn is(resolved: Resolved) -> Verdict {
    Verdict::Is(Box::new(resolved))
}

async fn look(db: &Database, p: &Proposal, fenced: Option<&str>) -> Result<Verdict, CoordinationError> {
    let loaded = db.load().await?;
    let segments = segments(&p.edit);
    if segments.is_empty() {
        return Ok(judge_by_id(p, loaded, fenced));
    }
    let evidence = Evidence::gather(db, loaded, p.edit.epoch).await?;
    Ok(judge_log(p, &segments, evidence, fenced))
}

/// The segments an edit appends, in order.
fn segments(edit: &Edit) -> Vec<LogTail> {
    let appended = edit.changes.iter().filter_map(|c| match c {
        Change::AppendLog { segments } => Some(segments),
        _ => None,
    });
    appended.flatten().map(|s| LogTail { id: s.id, last_seq: s.last_seq }).collect()
}

/// What a segment is judged by.
struct Evidence {
    loaded: Loaded,
    /// The highest epoch object above the segment's epoch, as far as the head's epochs tell.
    later: Option<EpochObject>,
    /// Whether an adoption in the head is itself in the bucket.
    adoption_is_durable: bool,
}

impl Evidence {
    async fn gather(db: &Database, loaded: Loaded, own: Epoch) -> Result<Self, CoordinationError> {
        let mut later = None;
        for start in loaded.manifest.epochs.iter().rev().take_while(|e| e.epoch > own) {
            later = epoch::read(db.bucket.as_ref(), start.epoch).await?;
            if later.is_some() {
                break;
            }
        }
        Ok(Self { loaded, later, adoption_is_durable: db.coordination.backend() == Backend::Bucket })
    }

    fn judge(&self, segment: &LogTail) -> Judgement {
        let manifest = &self.loaded.manifest;
        match judge::log_commit(manifest, self.later.as_ref(), segment) {
            Judgement::Unknown if self.adoption_is_durable && manifest.epoch > segment.id.epoch => {
                Judgement::NotCommitted
            }
            other => other,
        }
    }
}

fn judge_log(p: &Proposal, segments: &[LogTail], evidence: Evidence, fenced: Option<&str>) -> Verdict {
    let judged: Vec<Judgement> = segments.iter().map(|s| evidence.judge(s)).collect();
    let committed = judged.iter().take_while(|j| **j == Judgement::Committed).count();
    if committed == segments.len() {
        return is(Resolved::CommittedEarlier(evidence.loaded));
    }
    if judged[committed] == Judgement::NotCommitted {
        let why = fenced.map_or_else(
            || format!("epoch {} has taken over", evidence.loaded.manifest.epoch),
            ToOwned::to_owned,
        );
        return is(match committed {
            0 => Resolved::Fenced(why),
            n => Resolved::CommittedThrough(segments[n - 1].last_seq, why),
        });
    }
    let same_epoch = evidence.loaded.manifest.epoch == p.edit.epoch;
    match fenced {
        // Nobody has taken over: the head that this transaction compares is gone for good, so it can never apply.
        None if same_epoch && evidence.loaded.state.head != p.base.head => {
            is(Resolved::Moved(evidence.loaded))
        }
        None if same_epoch => Verdict::SendAgain(evidence.loaded.into()),
        _ => Verdict::NotYet(format!(
            "a later epoch has the writer's role and has not recorded yet where it takes over ({})",
            fenced.unwrap_or("the head's epoch is higher")
        )),
    }
}

fn judge_by_id(p: &Proposal, loaded: Loaded, fenced: Option<&str>) -> Verdict {
    let (version, commit) = (p.edit.version, p.edit.commit);
    match judge_id(&loaded.manifest, version, commit) {
        Judgement::Committed => is(Resolved::CommittedEarlier(loaded)),
        Judgement::NotCommitted if overtaken(p, &loaded) => {
            is(Resolved::Fenced(format!("epoch {} has taken over", loaded.manifest.epoch)))
        }
        Judgement::NotCommitted => match fenced {
            Some(why) => is(Resolved::Fenced(why.to_owned())),
            None => is(Resolved::Moved(loaded)),
        },
        Judgement::Unknown if loaded.manifest.version >= version => is(Resolved::Unknown(format!(
            "version {version} was made so long ago that the manifest has forgotten by whom"
        ))),
        // The version does not exist yet.
        Judgement::Unknown => match fenced {
            // What the transaction compares besides the head is gone for good: it can never apply.
            Some(why) => is(Resolved::Fenced(why.to_owned())),
            None if loaded.state.head != p.base.head => is(Resolved::Moved(loaded)),
            None => Verdict::SendAgain(loaded.into()),
        },
    }
}

fn overtaken(p: &Proposal, loaded: &Loaded) -> bool {
    matches!(p.authority, Authority::Writer { epoch, .. } if loaded.manifest.epoch > epoch)
}

/// As [`judge::by_commit_id`], and a number that the manifest skipped was used up by a void edit (bucket form).
fn judge_id(read: &Manifest, version: Version, commit: CommitId) -> Judgement {
    let skipped = read.version >= version
        && read.recent.first().is_some_and(|(v, _)| *v < version)
        && read.recent.iter().all(|(v, _)| *v != version);
    if skipped { Judgement::NotCommitted } else { judge::by_commit_id(read, version, commit) }
}
