//! The writes of a recover, in the order that makes every crash harmless: see the head of this folder.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::plan::Plan;
use super::refusal::RecoverError;
use super::{Progress, Step};
use crate::coordination::backoff::Backoff;
use crate::coordination::lineage::{self, LineageObject};
use crate::coordination::{Coordination, CoordinationError, Loaded, checkpoint, epoch};
use crate::environment::Environment;
use crate::ids::Incarnation;
use crate::manifest::judge::EpochObject;
use crate::names;
use crate::object::Bucket;

/// How long the lease of a writer that no longer runs may take to end.
const VACANCY: Duration = Duration::from_secs(60);

/// How long a passing failure of the last step is tried again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pauses between such attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Carries a plan out; on return the new head has been loaded and compared.
///
/// # Errors
/// [`RecoverError`]; after the first write every role refuses until a recover has come to its end, so it is to be run
/// again.
pub async fn carry_out(
    bucket: &Arc<dyn Bucket>,
    coordination: &Arc<dyn Coordination>,
    env: &Environment,
    plan: &Plan,
    progress: Progress<'_>,
) -> Result<Loaded, RecoverError> {
    coordination.prepare_to_write().await?;
    wait_for_vacancy(coordination.as_ref(), progress).await?;
    unchanged(coordination.as_ref(), plan).await?;
    let manifest = &plan.manifest;
    let wrote = |path: &names::ObjectPath| progress(Step::Wrote(path.to_string()));

    let (database, number) = (manifest.database, plan.lineage_number);
    match lineage::write(bucket.as_ref(), &LineageObject { database, number, lineage: manifest.lineage })
        .await
    {
        Err(CoordinationError::WrongDatabase(why)) => return Err(RecoverError::InUse(why)),
        written => written?,
    }
    wrote(&names::lineage(number));
    let named = checkpoint::write_verified(bucket.as_ref(), env, manifest).await?;
    wrote(&named.path);
    wrote(&checkpoint::write_verified(bucket.as_ref(), env, manifest).await?.path);
    epoch::write(bucket.as_ref(), &cut(plan)).await?;
    wrote(&names::epoch(manifest.epoch));

    let deadline = Instant::now() + PATIENCE;
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    loop {
        match coordination.replace(&plan.remains, manifest, &named).await {
            Ok(true) => break,
            Ok(false) => {
                return Err(RecoverError::InUse("somebody has used coordination in the meantime".to_owned()));
            }
            Err(e) if e.is_passing() && Instant::now() < deadline => {
                tracing::warn!(error = %e, "the new head could not be put yet");
                backoff.sleep(deadline).await;
            }
            Err(e) => return Err(e.into()),
        }
    }
    let loaded = coordination.load().await?;
    if *loaded.manifest == *manifest {
        return Ok(loaded);
    }
    Err(RecoverError::InUse(format!("the head is at version {} already", loaded.manifest.version)))
}

/// Where the new history begins: what lies beyond it of the old one is void.
fn cut(plan: &Plan) -> EpochObject {
    let manifest = &plan.manifest;
    EpochObject {
        database: manifest.database,
        lineage: manifest.lineage,
        epoch: manifest.epoch,
        incarnation: manifest.epochs.last().map_or(Incarnation(0), |e| e.incarnation),
        head_version: manifest.version,
        cut: manifest.tail,
        epochs: manifest.epochs.clone(),
    }
}

/// A lease that came back with an old copy of the service ends by itself; one that is kept alive does not.
async fn wait_for_vacancy(
    coordination: &dyn Coordination,
    progress: Progress<'_>,
) -> Result<(), RecoverError> {
    let until = Instant::now() + VACANCY;
    while let Some(leader) = coordination.remains().await?.writer {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(RecoverError::InUse(format!(
                "{} ({}) has the writer's role",
                leader.node.node, leader.node.advertise
            )));
        }
        progress(Step::WaitingFor(leader.node.node));
        coordination.vacancy(left).await;
    }
    Ok(())
}

/// Nobody has moved the head since it was looked at.
async fn unchanged(coordination: &dyn Coordination, plan: &Plan) -> Result<(), RecoverError> {
    if coordination.remains().await?.mark == plan.remains.mark {
        return Ok(());
    }
    Err(RecoverError::InUse("the head or the epoch has changed while the plan was made".to_owned()))
}
