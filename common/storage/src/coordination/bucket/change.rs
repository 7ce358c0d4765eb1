//! Small edits that any role may make: claims of jobs, consumer groups.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Inner;
use crate::coordination::{Authority, CommitOutcome, CoordinationError, commit};
use crate::ids::CommitId;
use crate::manifest::{Author, Change, Edit, Manifest};

/// How often such an edit is tried before it is given up for now.
const ATTEMPTS: usize = 64;

/// Pause between attempts whose outcome is unknown.
const PAUSE: Duration = Duration::from_millis(50);

impl Inner {
    /// Commits what `plan` makes of the newest manifest, until it is in or `plan` says that there is nothing to do.
    pub(super) async fn change<E>(
        &self,
        who: &str,
        plan: impl Fn(&Manifest) -> Result<Vec<Change>, E>,
    ) -> Result<Result<(), E>, CoordinationError> {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let mut turn = self.turn.lock().await;
            let loaded = self.load(&mut turn).await?;
            let changes = match plan(&loaded.manifest) {
                Ok(changes) => changes,
                Err(nothing) => return Ok(Err(nothing)),
            };
            let edit = Edit {
                version: loaded.manifest.version.next(),
                lineage: loaded.manifest.lineage,
                epoch: loaded.manifest.epoch,
                commit: CommitId(self.env.entropy.next_u64()),
                author: Author::Observer(who.to_owned()),
                changes,
                required_features: Vec::new(),
                extra: BTreeMap::new(),
            };
            let proposal = commit::propose(&loaded.state, &loaded.manifest, edit, &Authority::Observer)
                .map_err(|e| CoordinationError::Damaged(format!("an edit of {who} does not fit: {e}")))?;
            match self.commit(&mut turn, &proposal).await {
                CommitOutcome::Committed(_) => return Ok(Ok(())),
                CommitOutcome::Moved | CommitOutcome::Regrouped | CommitOutcome::Fenced(_) => {}
                // The next load tells: a plan finds its own work done, or does it again.
                CommitOutcome::Unknown(why) => {
                    last = why;
                    drop(turn);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        Err(CoordinationError::Unavailable(format!("an edit of {who} could not be written: {last}")))
    }
}
