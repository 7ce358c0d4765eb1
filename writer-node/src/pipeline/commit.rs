//! One commit, pursued until its outcome is known.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use isle_storage::coordination::claim::{TakeoverError, check_again};
use isle_storage::coordination::commit::{Resolved, commit};
use isle_storage::coordination::{Backend, Proposal};
use tokio::time::Instant;
use tracing::warn;

use super::Term;
use crate::engine::Engine;
use crate::standing::Trouble;

/// A commit whose outcome is known.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) proposal: Proposal,
    pub(super) resolved: Resolved,
    /// When it was first sent: the head it made is at least this fresh.
    pub(super) began: Instant,
}

/// Sends the proposal until it is known what became of it. Only identical copies are sent, of which at most one
/// applies; so it never matters how many it takes.
pub(super) async fn commit_until_known(
    engine: Arc<Engine>,
    term: Arc<Term>,
    proposal: Proposal,
) -> Committed {
    let began = Instant::now();
    let round = Duration::from_millis(engine.settings.commit_round_ms);
    let mut backoff = engine.backoff();
    let mut troubled = false;
    loop {
        let resolved = match commit(&engine.db, &proposal, Instant::now() + round).await {
            Resolved::Unknown(why) => {
                warn!(version = %proposal.edit.version, commit = %proposal.edit.commit, %why, "the outcome of a commit is unknown; asking again");
                engine.troubles.set(Trouble::Commit, why);
                troubled = true;
                if let Some(why) = deposed(&engine, &proposal).await {
                    return Committed { proposal, resolved: Resolved::Fenced(why), began };
                }
                tokio::time::sleep(backoff.pause()).await;
                continue;
            }
            known => known,
        };
        engine.troubles.clear(Trouble::Commit);
        let connection = engine.db.coordination.connection();
        let reconnected = connection != term.connection.load(Ordering::Acquire);
        let resolved = if troubled || reconnected {
            let resolved = look_again(&engine, &proposal, resolved).await;
            term.connection.store(connection, Ordering::Release);
            resolved
        } else {
            resolved
        };
        return Committed { proposal, resolved, began };
    }
}

/// Whether the role is known to be somebody else's, or nobody's. Then the outcome can only be read after the next
/// takeover, which this writer must not stand in the way of; stepping down leaves it in doubt, which is always safe.
async fn deposed(engine: &Engine, proposal: &Proposal) -> Option<String> {
    match engine.db.coordination.leader().await.ok()? {
        Some(leader) if leader.epoch == proposal.edit.epoch => None,
        // Where the role is no lease it is never vacant, only unnamed.
        None if engine.db.coordination.backend() == Backend::Bucket => None,
        Some(leader) => Some(format!("{} leads as epoch {}", leader.node.node, leader.epoch)),
        None => Some("nobody holds the writer's role".to_owned()),
    }
}

/// After coordination was away it may be an older copy of itself, in which this writer still has its lease: an epoch
/// above ours in the bucket tells, and then it must not go on, whatever coordination says. What was committed is judged
/// by the bucket.
async fn look_again(engine: &Engine, proposal: &Proposal, resolved: Resolved) -> Resolved {
    let mut backoff = engine.backoff();
    loop {
        match check_again(&engine.db, proposal.edit.epoch).await {
            Ok(()) => return resolved,
            Err(TakeoverError::Coordination(e)) if e.is_passing() => {
                engine.troubles.set(Trouble::Commit, e.to_string());
                tokio::time::sleep(backoff.pause()).await;
            }
            Err(e) => return Resolved::Fenced(e.to_string()),
        }
    }
}
