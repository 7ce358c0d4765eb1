//! Consumer groups in memory: decided and stored under one lock.

use std::collections::BTreeMap;

use super::State;
use crate::coordination::CoordinationError;
use crate::coordination::groups::{Decision, GroupChange, GroupOutcome};
use crate::ids::Lineage;
use crate::manifest::GroupCursor;

impl State {
    pub(super) fn change_group(
        &mut self,
        lineage: Lineage,
        group: &str,
        change: &GroupChange,
    ) -> Result<GroupOutcome, CoordinationError> {
        let (present, _) = self.epoch.ok_or_else(|| CoordinationError::NotFound("memory".to_owned()))?;
        if present != lineage {
            return Ok(GroupOutcome::OtherLineage(present));
        }
        let cursors = &mut self.groups.cursors;
        Ok(match change.decide(cursors.get(group), cursors.len(), false) {
            Decision::Nothing(outcome) => outcome,
            Decision::Remove(was) => {
                cursors.remove(group);
                GroupOutcome::Deleted(was)
            }
            Decision::Put(cursor, holds_more) => {
                cursors.insert(group.to_owned(), cursor.clone());
                if holds_more {
                    self.groups.mark = self.next_token().unsigned_abs();
                }
                GroupOutcome::Stored(cursor)
            }
        })
    }

    /// The groups of a head that was put by a restore or a recover.
    pub(super) fn put_groups(&mut self, groups: &BTreeMap<String, GroupCursor>) {
        if self.groups.cursors == *groups {
            return;
        }
        self.groups.cursors.clone_from(groups);
        self.groups.mark = self.next_token().unsigned_abs();
    }
}
