//! The one transition: [`Manifest::apply`] takes an edit and gives the next manifest, or says why not.
//!
//! Each change is held against the manifest it meets, not the one its maker planned with: an edit that lost a race is
//! refused here, with the reason, and its maker reloads and plans again. What the changes then make of the manifest is
//! judged as a whole by [`check::step`] before anybody sees it. The manifest applied to is never touched.
//!
//! A manifest of ten thousand log objects must take a step in well under a millisecond, since the writer takes one at
//! every commit: entries are shared between versions, and [`check::step`] looks only at what is not.

mod log;
mod parts;
mod retention;
mod tree;

use std::collections::BTreeMap;

use super::check;
use super::edit::{Author, Change, Edit, EditError};
use super::expiry::Judgement;
use super::staged::StagedMerge;
use super::state::{GroupCursor, JobClaim, KNOWN_FEATURES, Manifest, RECENT_COMMITS, Snapshot};
use crate::ids::{CommitId, JobId, SeqNo, Version};
use crate::row::BlobId;

impl Manifest {
    /// Takes one step. The whole result is checked before it is handed out.
    ///
    /// # Errors
    /// [`EditError`]: the edit is for another version, lineage or epoch, contradicts this manifest, or would break an
    /// invariant. `self` is untouched.
    pub fn apply(&self, edit: &Edit) -> Result<Self, EditError> {
        self.admits(edit)?;
        let version = edit.version;
        let mut next = self.clone();
        next.version = version;
        for feature in &edit.required_features {
            if !next.required_features.contains(feature) {
                next.required_features.push(feature.clone());
            }
        }
        for change in &edit.changes {
            next.take(edit, change).map_err(|why| EditError::Stale { version, why })?;
        }
        next.end_impossible_merges(version);
        next.remember(version, edit.commit);
        check::step(self, &next).map_err(|violation| EditError::Violates { version, violation })?;
        Ok(next)
    }

    /// The bucket backend's step over an edit that a fenced writer put under the next number: the number is used up,
    /// nothing changes. That its commit is not among the remembered ones tells its maker.
    #[must_use]
    pub fn skip_void(&self, version: Version) -> Self {
        let mut next = self.clone();
        next.version = version;
        next
    }

    /// Whether the edit is for this manifest at all.
    fn admits(&self, edit: &Edit) -> Result<(), EditError> {
        let version = edit.version;
        if version != self.version.next() {
            return Err(EditError::WrongVersion { edit: version, manifest: self.version });
        }
        if edit.lineage != self.lineage {
            return Err(EditError::WrongLineage { version, edit: edit.lineage, manifest: self.lineage });
        }
        if let Some(f) = edit.required_features.iter().find(|f| !KNOWN_FEATURES.contains(&f.as_str())) {
            return Err(EditError::UnknownFeature { version, feature: f.clone() });
        }
        let adopts = edit.changes.iter().any(|c| matches!(c, Change::Adopt { .. }));
        let epoch_fits = if adopts { edit.epoch > self.epoch } else { edit.epoch == self.epoch };
        if !epoch_fits {
            return Err(EditError::WrongEpoch { version, edit: edit.epoch, manifest: self.epoch });
        }
        Ok(())
    }

    fn remember(&mut self, version: Version, commit: CommitId) {
        self.recent.push((version, commit));
        if self.recent.len() > RECENT_COMMITS {
            let surplus = self.recent.len() - RECENT_COMMITS;
            self.recent.drain(..surplus);
        }
    }

    fn take(&mut self, edit: &Edit, change: &Change) -> Result<(), String> {
        if change.is_writers() && edit.author != Author::Writer {
            return Err(format!("{:?} makes a change that only the writer makes", edit.author));
        }
        let version = edit.version;
        match change {
            Change::AppendLog { segments } => self.append_log(segments),
            Change::Adopt { epoch, .. } if *epoch != edit.epoch => {
                Err(format!("epoch {epoch} is adopted by an edit of epoch {}", edit.epoch))
            }
            Change::Adopt { epoch, incarnation, rolled, .. } => self.adopt(*epoch, *incarnation, rolled),
            Change::Flush { flushed_seq, tables, chunk } => {
                self.flush(version, *flushed_seq, tables, chunk.as_ref())
            }
            Change::Merge { inputs, tables, snapshots, planned_mode, dropped, judged, expiry } => {
                self.mode_is(planned_mode)?;
                self.inputs_are_free(inputs)?;
                let (dropped, judged, expiry) = (*dropped, *judged, expiry.as_ref());
                let judgement = Judgement { planned: snapshots, dropped, judged, expiry };
                self.merge(version, inputs, tables, judgement)
            }
            Change::Expire { tables, planned_mode, as_of } => {
                self.expire(version, tables, planned_mode, *as_of)
            }
            Change::BeginMerge { inputs, splits, snapshots, planned_mode, bottom, expiry, at } => {
                self.mode_is(planned_mode)?;
                let merge = StagedMerge {
                    inputs: inputs.clone(),
                    splits: splits.clone(),
                    snapshots: snapshots.clone(),
                    planned_mode: planned_mode.clone(),
                    bottom: *bottom,
                    expiry: expiry.clone(),
                    touched: *at,
                    parts: BTreeMap::new(),
                    extra: BTreeMap::new(),
                };
                self.begin_merge(version, merge)
            }
            Change::StagePart { merge, part, made, at } => self.stage_part(version, *merge, *part, made, *at),
            Change::AbandonMerge { merge } => self.abandon_merge(version, *merge),
            Change::SetPause { pause } => {
                self.pause.clone_from(pause);
                Ok(())
            }
            Change::TrimLog { trimmed_seq } => self.trim_log(version, *trimmed_seq),
            Change::Collected { paths } => self.collected(paths),
            Change::TakeSnapshot { name, snapshot } => self.take_snapshot(name, snapshot),
            Change::DropSnapshot { name } => {
                self.snapshots.remove(name).map(drop).ok_or_else(|| format!("there is no snapshot {name:?}"))
            }
            Change::SetCompaction { compaction } => {
                compaction.validate()?;
                self.compaction = compaction.clone();
                Ok(())
            }
            Change::SetDefaultTtl { ttl_us } => {
                self.default_ttl_us = *ttl_us;
                Ok(())
            }
            Change::AddBlobs { blobs } => blobs.iter().try_for_each(|(name, len)| self.add_blob(name, *len)),
            Change::ClaimJob { job, claim } => self.claim_job(*job, claim),
            Change::EndJob { job } => {
                self.jobs.remove(job);
                Ok(())
            }
            Change::SetGroup { group, cursor } => self.set_group(group, cursor.as_ref()),
        }
    }

    /// A snapshot below the history floor would see a history from which versions are missing already, and one before the
    /// expiry floor would miss rows that had not expired yet.
    fn take_snapshot(&mut self, name: &str, snapshot: &Snapshot) -> Result<(), String> {
        if self.snapshots.contains_key(name) {
            return Err(format!("there is already a snapshot {name:?}"));
        }
        if snapshot.seq < self.history_floor || snapshot.seq > self.last_seq {
            return Err(format!(
                "a snapshot at {} does not lie between {} (history floor) and {} (committed)",
                snapshot.seq, self.history_floor, self.last_seq
            ));
        }
        if let Some(floor) = self.expiry_floor.filter(|floor| snapshot.created < *floor) {
            return Err(format!(
                "a snapshot of the instant {}: rows that expired later, up to {}, have been dropped",
                snapshot.created.0, floor.0
            ));
        }
        if snapshot.holds_log && snapshot.seq < self.trimmed_seq {
            return Err(format!("the log after {} is no longer kept", snapshot.seq));
        }
        self.snapshots.insert(name.to_owned(), snapshot.clone());
        Ok(())
    }

    fn add_blob(&mut self, name: &BlobId, len: u64) -> Result<(), String> {
        match std::sync::Arc::make_mut(&mut self.blobs).insert(name.clone(), len) {
            Some(other) if other != len => {
                Err(format!("blob file {name} has {other} bytes, and {len} are added under its name"))
            }
            _ => Ok(()),
        }
    }

    fn claim_job(&mut self, job: JobId, claim: &JobClaim) -> Result<(), String> {
        match self.jobs.get(&job) {
            Some(other) if other.node != claim.node => {
                Err(format!("job {job} is claimed by {}, not by {}", other.node, claim.node))
            }
            _ => {
                self.jobs.insert(job, claim.clone());
                Ok(())
            }
        }
    }

    /// A cursor only moves on: a late commit of an earlier one must not make the group consume twice. To rewind, an
    /// edit removes the group and sets it again.
    fn set_group(&mut self, group: &str, cursor: Option<&GroupCursor>) -> Result<(), String> {
        let Some(cursor) = cursor else {
            self.groups.remove(group);
            return Ok(());
        };
        let at = self.groups.get(group).map_or(SeqNo::ZERO, |c| c.seq);
        if cursor.seq < at || cursor.seq > self.last_seq {
            return Err(format!(
                "group {group:?} cannot move to {}: it is at {at}, and {} is the newest",
                cursor.seq, self.last_seq
            ));
        }
        self.groups.insert(group.to_owned(), cursor.clone());
        Ok(())
    }
}
