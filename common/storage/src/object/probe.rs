//! The start-up probe of conditional create.
//!
//! Some stores ignore `If-None-Match` and answer OK, some check it without being atomic. Where a database's history
//! rests on "one winner per name", such a store loses acknowledged commits without a sound. So before it is trusted,
//! the probe tries both:
//!
//! ```text
//!   twice in a row:   create x=a  Ok       create x=b  AlreadyExists      get x = a
//!   all at once:      create y=0 … y=15    exactly one Ok                 get y = the winner's
//! ```
//! A store that passes a few races may still fail one in a million; one that cheats openly is caught. The probe's
//! objects have random names below `probe/` and are deleted; leftovers of a crash are harmless.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

use super::{Bucket, StoreError, StoreErrorKind};
use crate::environment::Entropy;
use crate::names::ObjectPath;

/// Creates that race for one name.
const RACERS: usize = 16;
/// Names raced for, one after the other.
const ROUNDS: usize = 4;

/// Why a store cannot carry a database whose history rests on conditional creates.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProbeError {
    /// The store was caught breaking the rule.
    #[error(
        "{url} has no atomic conditional put ({found}), which the bucket coordination needs; \
         use another store, or coordinate by etcd"
    )]
    NotAtomic {
        /// The store.
        url: String,
        /// What was seen.
        found: String,
    },
    /// The store could not be asked.
    #[error("the probe of conditional creates failed: {0}")]
    Store(#[from] StoreError),
}

/// Whether [`Bucket::create`] keeps its promise, as far as a trial can tell.
///
/// # Errors
/// See [`ProbeError`]; `Store` with a passing failure says nothing of the store and may be repeated.
pub async fn conditional_create(bucket: &Arc<dyn Bucket>, entropy: &dyn Entropy) -> Result<(), ProbeError> {
    let nonce = format!("{:032x}", entropy.next_u128());
    let name = |what: String| ObjectPath::new(format!("probe/{nonce}-{what}")).map_err(|why| invalid(&why));
    let mut used = Vec::with_capacity(ROUNDS + 1);
    used.push(name("twice".to_owned())?);
    for round in 0..ROUNDS {
        used.push(name(format!("race-{round}"))?);
    }
    let verdict = judge(bucket, &used, &nonce).await;
    for path in &used {
        if let Err(e) = bucket.delete(path).await {
            tracing::debug!(error = %e, "an object of the start-up probe is left behind");
        }
    }
    verdict
}

async fn judge(bucket: &Arc<dyn Bucket>, names: &[ObjectPath], nonce: &str) -> Result<(), ProbeError> {
    let Some((twice, races)) = names.split_first() else { return Ok(()) };
    create_twice(bucket, twice, nonce).await?;
    for path in races {
        race(bucket, path, nonce).await?;
    }
    Ok(())
}

async fn create_twice(bucket: &Arc<dyn Bucket>, path: &ObjectPath, nonce: &str) -> Result<(), ProbeError> {
    let [first, second] = ["first", "second"].map(|n| Bytes::from(format!("{nonce} {n}")));
    bucket.create(path, first.clone().into()).await.map_err(unsupported(bucket))?;
    match bucket.create(path, second.into()).await {
        Ok(()) => return Err(not_atomic(bucket, "a second create of one name was answered OK")),
        Err(e) if e.kind == StoreErrorKind::AlreadyExists => {}
        Err(e) => return Err(e.into()),
    }
    if bucket.get(path).await? != first {
        return Err(not_atomic(bucket, "a refused create changed the object"));
    }
    Ok(())
}

async fn race(bucket: &Arc<dyn Bucket>, path: &ObjectPath, nonce: &str) -> Result<(), ProbeError> {
    let bodies: Vec<Bytes> = (0..RACERS).map(|n| format!("{nonce} {n}").into()).collect();
    let racers = bodies.iter().map(|body| bucket.create(path, body.clone().into()));
    let mut winner = None;
    for (n, result) in join_all(racers).await.into_iter().enumerate() {
        match result {
            Ok(()) => {
                if winner.replace(n).is_some() {
                    return Err(not_atomic(
                        bucket,
                        "several of the creates racing for one name were answered OK",
                    ));
                }
            }
            Err(e) if e.kind == StoreErrorKind::AlreadyExists => {}
            Err(e) => return Err(e.into()),
        }
    }
    let Some(winner) = winner else {
        return Err(not_atomic(bucket, "none of the creates racing for a fresh name won"));
    };
    if bucket.get(path).await? != bodies[winner] {
        return Err(not_atomic(bucket, "the winner of a race was overwritten by a loser"));
    }
    Ok(())
}

fn not_atomic(bucket: &Arc<dyn Bucket>, found: &str) -> ProbeError {
    ProbeError::NotAtomic { url: bucket.url(), found: found.to_owned() }
}

/// A store that says it cannot is refused like one that is caught.
fn unsupported(bucket: &Arc<dyn Bucket>) -> impl FnOnce(StoreError) -> ProbeError {
    let url = bucket.url();
    move |e| match e.kind {
        StoreErrorKind::Unsupported => ProbeError::NotAtomic { url, found: e.message },
        _ => e.into(),
    }
}

fn invalid(why: &str) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Permanent,
        op: "create",
        path: "probe".to_owned(),
        message: why.to_owned(),
    }
}
