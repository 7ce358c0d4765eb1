//! Changes of merges in parts: begin, stage, abandon, and the end of those that can no longer be. See
//! [`super::super::staged`].

use std::collections::BTreeSet;
use std::sync::Arc;

use super::tree::within;
use crate::ids::{RunId, SeqNo, Timestamp, Version};
use crate::manifest::expiry::{JudgedExpiry, Judgement};
use crate::manifest::staged::{MAX_PARTS, MAX_STAGED_MERGES, StagedMerge, StagedPart};
use crate::manifest::state::{Manifest, TableEntry};

impl Manifest {
    /// A run that a merge in parts works on is no other merge's.
    pub(super) fn inputs_are_free(&self, inputs: &[RunId]) -> Result<(), String> {
        match inputs.iter().find_map(|id| self.held_by(*id).map(|by| (id, by))) {
            Some((id, by)) => Err(format!("run {id} is an input of the merge in parts {by}")),
            None => Ok(()),
        }
    }

    pub(super) fn begin_merge(&mut self, version: Version, merge: StagedMerge) -> Result<(), String> {
        self.inputs_are_free(&merge.inputs)?;
        let at = self.position_of(&merge.inputs)?;
        if merge.bottom && at + merge.inputs.len() != self.runs.len() {
            return Err("the merge was planned at the bottom, and older runs lie beneath it".to_owned());
        }
        if merge.splits.is_empty() || merge.splits.len() >= MAX_PARTS {
            return Err(format!(
                "{} splits; a merge in parts has 2 to {MAX_PARTS} parts",
                merge.splits.len()
            ));
        }
        let ascend = merge.splits.windows(2).all(|p| p[0] < p[1]);
        if !ascend || merge.splits.first().is_some_and(|k| k.as_slice().is_empty()) {
            return Err("the split keys do not ascend".to_owned());
        }
        let inputs = &self.runs[at..at + merge.inputs.len()];
        self.harms_no_snapshot(inputs, to_come(&merge))?;
        if self.staged.len() >= MAX_STAGED_MERGES {
            return Err(format!("{MAX_STAGED_MERGES} merges in parts are under way"));
        }
        match self.staged.insert(version, Arc::new(merge)) {
            Some(_) => Err("one edit begins two merges in parts".to_owned()),
            None => Ok(()),
        }
    }

    pub(super) fn stage_part(
        &mut self,
        version: Version,
        id: Version,
        part: u32,
        made: &StagedPart,
        at: Timestamp,
    ) -> Result<(), String> {
        let merge = self.staged.get(&id).ok_or_else(|| format!("the merge in parts {id} has ended"))?;
        if part >= merge.part_count() {
            return Err(format!("part {part} of a merge of {} parts", merge.part_count()));
        }
        if merge.parts.contains_key(&part) {
            return Err(format!("part {part} of merge {id} is staged already"));
        }
        if made.dropped && !merge.bottom {
            return Err("the part dropped deletes or expired rows above the bottom".to_owned());
        }
        if let Some(expiry) = merge.expiry.as_ref().filter(|e| made.expired_by > e.by) {
            return Err(format!(
                "the part took rows for expired by {:?}, and the merge judges by {:?}",
                made.expired_by, expiry.by
            ));
        }
        self.is_of_part(merge, part, made)?;
        let mut merge = StagedMerge::clone(merge);
        merge.touched = merge.touched.max(at);
        merge.parts.insert(part, Arc::new(made.clone()));
        if merge.parts.len() < merge.part_count() as usize {
            self.staged.insert(id, Arc::new(merge));
            return Ok(());
        }
        self.staged.remove(&id);
        self.install(version, &merge)
    }

    /// Whether the tables can be this part of the merge: inside its keys, with new names unless they are an input's.
    fn is_of_part(&self, merge: &StagedMerge, part: u32, made: &StagedPart) -> Result<(), String> {
        let range = merge.range(part);
        if let Some(t) = made.tables.iter().find(|t| !range.holds_all(t)) {
            return Err(format!("table {} reaches beyond the keys of part {part}", t.name));
        }
        if !made.tables.windows(2).all(|p| p[0].largest < p[1].smallest) {
            return Err(format!("the tables of part {part} do not ascend"));
        }
        let at = self.position_of(&merge.inputs)?;
        let inputs = &self.runs[at..at + merge.inputs.len()];
        within(inputs, &made.tables, made.judged)?;
        let rows = |tables: &mut dyn Iterator<Item = &Arc<TableEntry>>| {
            tables.map(|t| t.rows).fold(0, u64::saturating_add)
        };
        let before = rows(&mut inputs.iter().flat_map(|r| &r.tables));
        let after = rows(&mut merge.tables().chain(&made.tables));
        if after > before {
            return Err(format!("the parts made {after} rows of {before}"));
        }
        let kept = self.kept(merge, &made.tables)?;
        let new: Vec<Arc<TableEntry>> =
            made.tables.iter().filter(|t| !kept.contains(t.name.as_str())).cloned().collect();
        self.names_are_new(&new)
    }

    /// The names among `tables` that are an input's table, kept as it is.
    fn kept<'a>(
        &self,
        merge: &StagedMerge,
        tables: &'a [Arc<TableEntry>],
    ) -> Result<BTreeSet<&'a str>, String> {
        let inputs = self.runs.iter().filter(|r| merge.inputs.contains(&r.id)).flat_map(|r| &r.tables);
        let old: BTreeSet<&str> = inputs.clone().map(|t| t.name.as_str()).collect();
        let kept = tables.iter().filter(|t| old.contains(t.name.as_str()));
        if let Some(t) = kept.clone().find(|t| !inputs.clone().any(|o| o == *t)) {
            return Err(format!("table {} is kept with another content", t.name));
        }
        Ok(kept.map(|t| t.name.as_str()).collect())
    }

    /// Every part is there: the merge takes place, as if it were one.
    fn install(&mut self, version: Version, merge: &StagedMerge) -> Result<(), String> {
        let tables: Vec<Arc<TableEntry>> = merge.tables().cloned().collect();
        let dropped = merge.parts.values().any(|p| p.dropped);
        let judged = merge.parts.values().map(|p| p.judged).max().unwrap_or_default();
        let by = merge.parts.values().filter_map(|p| p.expired_by).max();
        let expiry = merge.expiry.as_ref().map(|e| JudgedExpiry { by, held: e.held.clone() });
        let job = Judgement { planned: &merge.snapshots, dropped, judged, expiry: expiry.as_ref() };
        self.merge(version, &merge.inputs, &tables, job)?;
        // Known of the parts also where the merge was begun by a program that does not say.
        self.expiry_floor = self.expiry_floor.max(by);
        Ok(())
    }

    pub(super) fn abandon_merge(&mut self, version: Version, id: Version) -> Result<(), String> {
        let merge = self.staged.remove(&id).ok_or_else(|| format!("the merge in parts {id} has ended"))?;
        self.retire_staged(version, &merge);
        Ok(())
    }

    /// Ends every merge that the changes of this edit have made impossible.
    pub(super) fn end_impossible_merges(&mut self, version: Version) {
        let over: Vec<Version> =
            self.staged.iter().filter(|(_, m)| !self.is_possible(m)).map(|(id, _)| *id).collect();
        for id in over {
            if let Some(merge) = self.staged.remove(&id) {
                self.retire_staged(version, &merge);
            }
        }
    }

    /// Whether the merge would still be right.
    fn is_possible(&self, merge: &StagedMerge) -> bool {
        let Ok(at) = self.position_of(&merge.inputs) else { return false };
        let inputs = &self.runs[at..at + merge.inputs.len()];
        self.mode_is(&merge.planned_mode).is_ok() && self.harms_no_snapshot(inputs, to_come(merge)).is_ok()
    }

    fn retire_staged(&mut self, version: Version, merge: &StagedMerge) {
        let live: BTreeSet<String> = self.tables().map(|t| t.name.clone()).collect();
        // Kept tables whose run is gone with this very edit are on the retired list already.
        let gone: BTreeSet<_> = self.retired.iter().map(|r| r.path.clone()).collect();
        let dead = merge.tables().filter(|t| !live.contains(&t.name) && !gone.contains(&t.path()));
        self.retire(version, dead.map(|t| (t.path(), t.len, t.blobs.as_slice())), &[]);
    }
}

/// What the parts of `merge` may do, those that are still to be done included.
fn to_come(merge: &StagedMerge) -> Judgement<'_> {
    Judgement {
        planned: &merge.snapshots,
        dropped: merge.bottom,
        judged: SeqNo(u64::MAX),
        expiry: merge.expiry.as_ref(),
    }
}
