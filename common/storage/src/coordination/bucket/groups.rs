//! Consumer groups as edits: each change is decided on the newest manifest and committed as the version after it.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Inner;
use crate::coordination::CoordinationError;
use crate::coordination::groups::{Decision, GroupChange, GroupOutcome};
use crate::ids::Lineage;
use crate::manifest::{Change, GroupCursor};

pub(super) async fn change(
    inner: &Inner,
    lineage: Lineage,
    group: &str,
    change: &GroupChange,
) -> Result<GroupOutcome, CoordinationError> {
    // Of an attempt whose outcome is unknown the next load tells.
    let (sent, told) = (AtomicBool::new(false), Mutex::new(None));
    let changed = inner
        .change("groups", |manifest| {
            if manifest.lineage != lineage {
                return Err(GroupOutcome::OtherLineage(manifest.lineage));
            }
            let found = manifest.groups.get(group);
            let again = sent.swap(true, Ordering::Relaxed);
            match change.decide(found, manifest.groups.len(), again) {
                Decision::Nothing(outcome) => Err(outcome),
                Decision::Remove(was) => {
                    *told.lock() = Some(GroupOutcome::Deleted(was));
                    Ok(vec![set(group, None)])
                }
                Decision::Put(cursor, _) => {
                    *told.lock() = Some(GroupOutcome::Stored(cursor.clone()));
                    // A cursor in the manifest only moves on; to go back the group begins anew.
                    let back = found.is_some_and(|f| f.seq > cursor.seq);
                    Ok(back.then(|| set(group, None)).into_iter().chain([set(group, Some(cursor))]).collect())
                }
            }
        })
        .await?;
    match changed {
        Ok(()) => {
            told.into_inner().ok_or_else(|| CoordinationError::Unavailable("nothing was done".to_owned()))
        }
        Err(outcome) => Ok(outcome),
    }
}

fn set(group: &str, cursor: Option<GroupCursor>) -> Change {
    Change::SetGroup { group: group.to_owned(), cursor }
}
