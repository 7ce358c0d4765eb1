//! Changes of the tree of runs: merge, retire, collect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::{RunId, SeqNo, Version};
use crate::manifest::expiry::Judgement;
use crate::manifest::state::{CompactionMode, Manifest, Retired, Run, TableEntry};
use crate::names::{self, ObjectPath};
use crate::row::BlobId;
use crate::sabotage::{Rule, broken};

impl Manifest {
    /// Whether a job's plan still holds: another mode keeps other things.
    pub(super) fn mode_is(&self, planned: &CompactionMode) -> Result<(), String> {
        if *planned == self.compaction {
            return Ok(());
        }
        Err("the compaction mode has changed since the job was planned".to_owned())
    }

    /// Whether a job that judged `gone` so harms no snapshot that it did not plan with.
    pub(super) fn harms_no_snapshot(&self, gone: &[Arc<Run>], job: Judgement<'_>) -> Result<(), String> {
        match self.snapshots.iter().find(|(_, s)| job.harms(gone, s)) {
            Some((name, s)) => {
                Err(format!("snapshot {name:?} at {} was taken after the job was planned", s.seq))
            }
            None => Ok(()),
        }
    }

    /// Neighbouring runs become one in exactly their place: anywhere else, older rows would come to lie above newer
    /// ones.
    pub(super) fn merge(
        &mut self,
        version: Version,
        inputs: &[RunId],
        tables: &[Arc<TableEntry>],
        job: Judgement<'_>,
    ) -> Result<(), String> {
        let at = self.position_of(inputs)?;
        self.harms_no_snapshot(&self.runs[at..at + inputs.len()], job)?;
        if job.dropped && at + inputs.len() != self.runs.len() {
            return Err("the job dropped deletes or expired rows, and older runs lie beneath it".to_owned());
        }
        let gone: Vec<Arc<Run>> = self.runs.drain(at..at + inputs.len()).collect();
        let old: BTreeMap<&str, &Arc<TableEntry>> =
            gone.iter().flat_map(|r| &r.tables).map(|t| (t.name.as_str(), t)).collect();
        let (kept, made): (Vec<_>, Vec<_>) =
            tables.iter().cloned().partition(|t| old.contains_key(t.name.as_str()));
        if let Some(t) = kept.iter().find(|t| old.get(t.name.as_str()).is_some_and(|o| o != t)) {
            return Err(format!("table {} is kept with another content", t.name));
        }
        self.names_are_new(&made)?;
        rewrites(&gone, tables, job.judged)?;
        if !tables.is_empty() {
            let run = Run { id: RunId(version.0), l0: false, tables: tables.to_vec() };
            let at = if broken(Rule::MergeInPlace) { 0 } else { at };
            self.runs.insert(at, Arc::new(run));
        }
        let kept: BTreeSet<&str> = kept.iter().map(|t| t.name.as_str()).collect();
        let old = gone.iter().flat_map(|r| &r.tables).filter(|t| !kept.contains(t.name.as_str()));
        self.retire(version, old.map(|t| (t.path(), t.len, t.blobs.as_slice())), &[]);
        self.history_floor = self.history_floor.max(job.judged);
        self.expiry_floor = self.expiry_floor.max(job.expiry.and_then(|e| e.by));
        Ok(())
    }

    /// Where the inputs stand, if they are all there and still neighbours.
    pub(super) fn position_of(&self, inputs: &[RunId]) -> Result<usize, String> {
        let first = inputs.first().ok_or("a merge without inputs")?;
        let at = self
            .runs
            .iter()
            .position(|r| r.id == *first)
            .ok_or_else(|| format!("run {first} is gone: another job merged it"))?;
        let there: Vec<RunId> = self.runs[at..].iter().take(inputs.len()).map(|r| r.id).collect();
        if there == inputs {
            Ok(at)
        } else {
            Err(format!("runs {inputs:?} are no longer neighbours: {there:?} stand in their place"))
        }
    }

    /// A table's name is used once: not by a live table, and not by one that waits to be deleted.
    pub(super) fn names_are_new(&self, tables: &[Arc<TableEntry>]) -> Result<(), String> {
        let new: BTreeSet<&str> = tables.iter().map(|t| t.name.as_str()).collect();
        if let Some(bad) = new.iter().find(|n| !names::is_name(n)) {
            return Err(format!("{bad:?} is no table's name"));
        }
        if new.len() != tables.len() {
            return Err("two new tables have one name".to_owned());
        }
        if let Some(t) = self.named_tables().find(|t| new.contains(t.name.as_str())) {
            return Err(format!("there is already a table {}", t.name));
        }
        let paths: BTreeSet<ObjectPath> = new.iter().map(|n| names::table(n)).collect();
        match self.retired.iter().find(|r| paths.contains(&r.path)) {
            Some(r) => Err(format!("{} is retired, and its name is used again", r.path)),
            None => Ok(()),
        }
    }

    /// Puts objects on the retired list, and with them the blob files whose last live reference they were. `coming`
    /// are tables of the same change that are not in the manifest yet.
    pub(super) fn retire<'a>(
        &mut self,
        version: Version,
        objects: impl Iterator<Item = (ObjectPath, u64, &'a [BlobId])>,
        coming: &[Arc<TableEntry>],
    ) {
        let mut dead: BTreeSet<BlobId> = BTreeSet::new();
        for (path, len, blobs) in objects {
            dead.extend(blobs.iter().cloned());
            self.retired.push(Arc::new(Retired { path, len, version, blobs: blobs.to_vec() }));
        }
        if dead.is_empty() {
            return;
        }
        let tables = self.named_tables().chain(coming).map(|t| &t.blobs);
        for blob in self.log.iter().map(|e| &e.blobs).chain(tables).flatten() {
            dead.remove(blob);
        }
        for blob in dead {
            if let Some(len) = Arc::make_mut(&mut self.blobs).remove(&blob) {
                let path = names::blob(&blob);
                self.retired.push(Arc::new(Retired { path, len, version, blobs: Vec::new() }));
            }
        }
    }

    /// Forgets objects that are gone from the bucket. A blob file goes only after every retired object that points
    /// at it.
    pub(super) fn collected(&mut self, paths: &[ObjectPath]) -> Result<(), String> {
        let gone: BTreeSet<&ObjectPath> = paths.iter().collect();
        let before = self.retired.len();
        self.retired.retain(|r| !gone.contains(&r.path));
        if before - self.retired.len() != gone.len() {
            return Err("a collected object was not in the retired list".to_owned());
        }
        let held = self.retired.iter().flat_map(|r| r.blobs.iter().map(move |b| (b, r)));
        match held.into_iter().find(|(b, _)| gone.contains(&names::blob(b))) {
            Some((blob, r)) => {
                Err(format!("blob file {blob} is collected before {}, which points at it", r.path))
            }
            None => Ok(()),
        }
    }
}

/// Whether nothing in `tables` is newer or older than what stands in `gone`.
pub(super) fn within(gone: &[Arc<Run>], tables: &[Arc<TableEntry>], judged: SeqNo) -> Result<(), String> {
    let inputs = || gone.iter().flat_map(|r| &r.tables);
    let min_seq = inputs().map(|t| t.min_seq).min().unwrap_or_default();
    let max_seq = inputs().map(|t| t.max_seq).max().unwrap_or_default();
    let min_time = inputs().map(|t| t.min_time).min().unwrap_or_default();
    let max_time = inputs().map(|t| t.max_time).max().unwrap_or_default();
    for t in tables {
        if t.min_seq < min_seq || t.max_seq > max_seq {
            return Err(format!(
                "table {} holds {}..={}, its inputs {min_seq}..={max_seq}",
                t.name, t.min_seq, t.max_seq
            ));
        }
        if t.min_time < min_time || t.max_time > max_time {
            return Err(format!("table {} has write times that none of its inputs has", t.name));
        }
    }
    if judged > max_seq {
        return Err(format!("the job judged against {judged}, above its inputs' {max_seq}"));
    }
    Ok(())
}

/// Whether `tables` can be a rewriting of `gone`: within its bounds, and what was lost was judged.
fn rewrites(gone: &[Arc<Run>], tables: &[Arc<TableEntry>], judged: SeqNo) -> Result<(), String> {
    within(gone, tables, judged)?;
    let inputs = || gone.iter().flat_map(|r| &r.tables);
    let before: u64 = inputs().map(|t| t.rows).fold(0, u64::saturating_add);
    let after: u64 = tables.iter().map(|t| t.rows).fold(0, u64::saturating_add);
    if after > before {
        return Err(format!("the job made {after} rows of {before}"));
    }
    if after < before && judged == SeqNo::ZERO {
        return Err("the job dropped rows and names no number that it judged against".to_owned());
    }
    Ok(())
}
