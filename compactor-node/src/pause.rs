//! The pause: nobody of the whole fleet begins a merge while it lasts. A field of the manifest, so that it holds for daemons
//! and runs of cron alike and outlives every process; set by a compactor, or by a command without one.

use std::time::Duration;

use isle_storage::coordination::{Authority, Loaded, NodeInfo, fold};
use isle_storage::database::Database;
use isle_storage::manifest::{Author, Change, Pause};

use crate::error::JobError;
use crate::job;

/// Longest pause with an end: a hundred years of 365 days. Beyond it, somebody meant for ever, or mistyped.
pub const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Begins a pause, until it is ended or for so long.
///
/// # Errors
/// [`JobError::Refused`] where it is longer than [`LONGEST`]; otherwise what commits fail with.
pub async fn begin(
    db: &Database,
    node: &NodeInfo,
    lasting: Option<Duration>,
) -> Result<(Pause, Loaded), JobError> {
    if lasting.is_some_and(|lasting| lasting > LONGEST) {
        return Err(JobError::Refused(
            "a pause with an end lasts at most 36500d; without one it lasts until it is ended".to_owned(),
        ));
    }
    let since = db.env.clock.now();
    let pause = Pause { by: node.node.clone(), since, until: lasting.map(|lasting| since.plus(lasting)) };
    let done = set(db, node, Some(pause.clone())).await?;
    Ok((pause, done))
}

/// Ends the pause, if there is one.
///
/// # Errors
/// [`JobError`]: what commits fail with.
pub async fn end(db: &Database, node: &NodeInfo) -> Result<Loaded, JobError> {
    set(db, node, None).await
}

async fn set(db: &Database, node: &NodeInfo, pause: Option<Pause>) -> Result<Loaded, JobError> {
    let now = db.load().await?;
    if now.manifest.pause == pause {
        return Ok(now);
    }
    let author = Author::Observer(node.node.clone());
    let change = vec![Change::SetPause { pause }];
    let done = job::commit_changes(db, &Authority::Observer, &author, change, now).await?;
    fold::into_the_bucket(db, &done, "the pause, or its end,").await;
    Ok(done)
}
