//! Commits by somebody who is neither the writer nor a job: a tailer that takes a snapshot for a consumer and drops it.
//!
//! Its right is the head alone, which it compares like everybody else, and it never holds anybody up: it is planned anew
//! on whatever the head has become. While a takeover is under way, between the claim and the adoption, no edit of the old
//! epoch is let through, and it waits.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::commit::{self, Resolved};
use super::{Authority, CoordinationError, Loaded};
use crate::database::Database;
use crate::ids::CommitId;
use crate::manifest::{Author, Change, Edit, Manifest};

/// Pause after the first attempt that a takeover, or a service that is away, has stopped, and the longest one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Why an observer's changes are not part of the database.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ObserveError<E> {
    /// The plan wants none of it on the manifest as it is now.
    #[error("{0}")]
    Refused(E),
    /// The manifest does not admit what was planned on it.
    #[error("{0}")]
    Misfit(String),
    /// Certainly not done, before the deadline.
    #[error(transparent)]
    NotDone(CoordinationError),
    /// Nobody could tell before the deadline: it may be done.
    #[error("whether it was committed is unknown: {0}")]
    Unknown(String),
}

/// Commits what `plan` makes of the newest manifest, as `who`, again and again on newer ones until it is in.
///
/// # Errors
/// [`ObserveError`].
pub async fn commit<E>(
    db: &Database,
    who: &str,
    deadline: Instant,
    mut plan: impl FnMut(&Manifest) -> Result<Vec<Change>, E>,
) -> Result<Loaded, ObserveError<E>> {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let mut moved = None;
    loop {
        let why = match attempt(db, who, deadline, &mut moved, &mut plan).await? {
            Attempt::Done(loaded) => return Ok(*loaded),
            Attempt::Again(None) => continue,
            Attempt::Again(Some(why)) => why,
        };
        if Instant::now() >= deadline {
            return Err(ObserveError::NotDone(why));
        }
        backoff.sleep(deadline).await;
    }
}

enum Attempt {
    Done(Box<Loaded>),
    /// Certainly not applied; where a reason is told, a moment must pass.
    Again(Option<CoordinationError>),
}

async fn attempt<E>(
    db: &Database,
    who: &str,
    deadline: Instant,
    moved: &mut Option<Loaded>,
    plan: &mut impl FnMut(&Manifest) -> Result<Vec<Change>, E>,
) -> Result<Attempt, ObserveError<E>> {
    let loaded = match moved.take() {
        Some(loaded) => loaded,
        None => match db.load().await {
            Ok(loaded) => loaded,
            Err(e) if e.is_passing() => return Ok(Attempt::Again(Some(e))),
            Err(e) => return Err(ObserveError::NotDone(e)),
        },
    };
    let manifest = &loaded.manifest;
    let changes = plan(manifest).map_err(ObserveError::Refused)?;
    let required = changes.iter().filter_map(Change::required_feature).map(str::to_owned);
    let edit = Edit {
        version: manifest.version.next(),
        lineage: manifest.lineage,
        epoch: manifest.epoch,
        commit: CommitId(db.env.entropy.next_u64()),
        author: Author::Observer(who.to_owned()),
        required_features: required.collect(),
        changes,
        extra: Default::default(),
    };
    let as_of = Instant::now();
    let proposal = commit::propose(&loaded.state, manifest, edit, &Authority::Observer)
        .map_err(|e| ObserveError::Misfit(e.to_string()))?;
    match commit::commit(db, &proposal, deadline).await {
        Resolved::Committed(state) => {
            Ok(Attempt::Done(Box::new(Loaded { state, manifest: proposal.manifest, as_of })))
        }
        Resolved::CommittedEarlier(newer) => Ok(Attempt::Done(Box::new(newer))),
        Resolved::Moved(newer) if Instant::now() < deadline => {
            *moved = Some(newer);
            Ok(Attempt::Again(None))
        }
        Resolved::Moved(_) => {
            Ok(Attempt::Again(Some(CoordinationError::Unavailable("others kept moving the head".to_owned()))))
        }
        Resolved::Fenced(why) | Resolved::CommittedThrough(_, why) => {
            Ok(Attempt::Again(Some(CoordinationError::Unavailable(why))))
        }
        Resolved::Unknown(why) => Err(ObserveError::Unknown(why)),
    }
}
