//! The oracle: the committed log as it comes to be, and the promises that are about an instant.
//!
//! It stands beside the store and the coordination service and sees every object written and deleted and every commit,
//! at the instant at which it happens. Clients' histories are judged at the end, against the log gathered here, by
//! [`isle_history`]; here is judged what no client can see:
//!
//! - a commit names only objects that are there, continues the version before it, and leaves no gap in the numbers;
//! - a writer's commit is of the newest claimed epoch;
//! - nothing is flushed that is not committed;
//! - an acknowledgement leaves after the commit, not before;
//! - an object is deleted only when no manifest of the grace period, no pin and no start of a load names it;
//! - an epoch object says what the adoption says;
//! - an object's content never changes.
//!
//! In the bucket form the numbered edits are objects: the first one created under the next number is the next version
//! (or a void one), whatever happens to its name later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use isle_history::{Digest, Key, LogPiece, Op, Record};
use isle_storage::blob::ValueReader;
use isle_storage::coordination::{Authority, sealed};
use isle_storage::ids::{Epoch, Incarnation, Position, SeqNo, Version};
use isle_storage::log;
use isle_storage::manifest::judge::EpochObject;
use isle_storage::manifest::{Author, Change, CheckpointRef, Edit, LogEntry, Manifest, checkpoint};
use isle_storage::names;
use isle_storage::row::{BlobPointer, ValueRef};
use parking_lot::Mutex;
use serde::Deserialize;

use crate::store::Objects;
use crate::world::{Micros, ProcessId, World};

/// See the head of this file.
#[derive(Debug)]
pub struct Oracle {
    world: Arc<World>,
    objects: Arc<Objects>,
    grace: Micros,
    truth: Mutex<Truth>,
}

#[derive(Debug, Default)]
struct Truth {
    manifest: Option<Arc<Manifest>>,
    checkpoint: Option<String>,
    records: Vec<Record>,
    claimed: Epoch,
    /// Objects that some version named: when the naming began, and when and by which version it ended.
    named: BTreeMap<String, Named>,
    pins: BTreeMap<u64, Version>,
    deleted: u64,
    commits: u64,
    lost: bool,
    /// What has happened that few schedules come to.
    reached: BTreeSet<&'static str>,
    /// Who has staged parts of merges under way.
    workers: BTreeMap<Version, BTreeSet<String>>,
}

/// What the schedules of a suite must come to, some of them: [`Oracle::reached`].
pub const MILESTONES: [&str; 6] = [
    "a merge was split",
    "parts of one merge were staged by two workers",
    "a split merge was installed",
    "a snapshot was taken during a split merge that goes on",
    "rows were taken for expired",
    "values moved out of a blob file",
];

#[derive(Debug)]
struct Named {
    from: Version,
    retired: Option<(Version, Micros)>,
}

/// As much of the bucket form's numbered edit as the oracle needs.
#[derive(Deserialize)]
struct NumberedEdit {
    edit: Arc<Edit>,
}

/// As much of the bucket form's fold record as the oracle needs.
#[derive(Deserialize)]
struct FoldRecord {
    checkpoint: CheckpointRef,
}

impl Oracle {
    /// An oracle that has seen nothing; `grace` is how long a view may be held.
    #[must_use]
    pub fn new(world: &Arc<World>, grace: Micros) -> Arc<Self> {
        let (world, objects, truth) = (Arc::clone(world), Arc::default(), Mutex::default());
        Arc::new(Self { world, objects, grace, truth })
    }

    /// What is in the bucket.
    #[must_use]
    pub fn objects(&self) -> &Arc<Objects> {
        &self.objects
    }

    /// The newest version, and the last committed number.
    #[must_use]
    pub fn head(&self) -> (Version, SeqNo) {
        let truth = self.truth.lock();
        truth.manifest.as_ref().map(|m| (m.version, m.last_seq)).unwrap_or_default()
    }

    /// The newest manifest.
    #[must_use]
    pub fn manifest(&self) -> Option<Arc<Manifest>> {
        self.truth.lock().manifest.clone()
    }

    /// The whole committed log.
    #[must_use]
    pub fn log(&self) -> LogPiece {
        LogPiece::whole(self.truth.lock().records.clone())
    }

    /// Commits applied so far.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.truth.lock().commits
    }

    /// Objects deleted so far.
    #[must_use]
    pub fn deleted(&self) -> u64 {
        self.truth.lock().deleted
    }

    /// Which of the [`MILESTONES`] the schedule has come to.
    #[must_use]
    pub fn reached(&self) -> BTreeSet<&'static str> {
        self.truth.lock().reached.clone()
    }

    /// An acknowledgement is about to leave the writer.
    pub fn acknowledging(&self, position: Position) {
        let truth = self.truth.lock();
        let there = truth.records.len() as u64 >= position.seq.0
            && truth.records[position.seq.0 as usize - 1].epoch.is_none_or(|e| e <= position.epoch.0);
        drop(truth);
        if !there {
            self.world.violation(format!("{position} is acknowledged, and the head does not name it"));
        }
    }

    /// The database was created.
    pub fn created(&self, genesis: &Manifest, checkpoint: &CheckpointRef) {
        let mut truth = self.truth.lock();
        if truth.manifest.is_some() {
            drop(truth);
            return self.world.violation("a second head was made for one prefix".to_owned());
        }
        truth.checkpoint = Some(checkpoint.path.to_string());
        truth.manifest = Some(Arc::new(genesis.clone()));
    }

    /// An epoch was handed out.
    pub fn claimed(&self, epoch: Epoch) {
        self.truth.lock().claimed = epoch;
    }

    /// A pin stands (`Some`) or has ended.
    pub fn pinned(&self, pin: u64, version: Option<Version>) {
        let mut truth = self.truth.lock();
        match version {
            Some(version) => drop(truth.pins.insert(pin, version)),
            None => drop(truth.pins.remove(&pin)),
        }
    }

    /// Loads start at another checkpoint.
    pub fn folded(&self, checkpoint: &CheckpointRef) {
        if self.objects.get(checkpoint.path.as_str()).is_none() {
            self.world.violation(format!("the head names {}, which is not there", checkpoint.path));
        }
        self.truth.lock().checkpoint = Some(checkpoint.path.to_string());
    }

    /// The service has lost what it knew, or knows what it knew long ago: until somebody recovers, its commits are of
    /// another history.
    pub fn lost(&self) {
        self.truth.lock().lost = true;
    }

    /// Recover has come to its end: the roles are about to start.
    pub fn found_again(&self) {
        self.truth.lock().lost = false;
    }

    /// A recover has made a new head. Whoever ran it may not know, and run it again.
    pub fn recovered(&self, manifest: &Arc<Manifest>, checkpoint: &CheckpointRef) {
        let mut wrong = Vec::new();
        {
            let mut truth = self.truth.lock();
            let before = truth.records.len() as u64;
            if manifest.last_seq.0 < before {
                wrong.push(format!(
                    "the recovered log ends at {}, and {before} were committed",
                    manifest.last_seq
                ));
            }
            // What was uploaded and perhaps never committed is part of the log from here on.
            for entry in manifest.log.iter().filter(|e| e.id.first_seq.0 > before) {
                truth.append(entry, &self.objects, &mut wrong);
            }
            // Every role was stopped, so nobody holds a view of what was made after the base: it is for the sweep.
            let named: BTreeSet<String> = named_by(manifest).map(|(path, _)| path).collect();
            truth.named.retain(|path, _| named.contains(path));
            for path in named {
                let from = manifest.version;
                let named = truth.named.entry(path).or_insert(Named { from, retired: None });
                named.retired = None;
            }
            truth.claimed = manifest.epoch;
            truth.checkpoint = Some(checkpoint.path.to_string());
            truth.manifest = Some(Arc::clone(manifest));
        }
        for why in wrong {
            self.world.violation(why);
        }
        self.check_objects();
    }

    /// A commit of `by` was applied.
    pub fn committed(&self, edit: &Edit, manifest: &Arc<Manifest>, authority: Option<&Authority>, by: &str) {
        let mut wrong = Vec::new();
        {
            let mut truth = self.truth.lock();
            if truth.lost {
                return;
            }
            truth.reach(edit, manifest, by);
            truth.commit(edit, manifest, authority, &self.objects, self.world.now(), &mut wrong);
        }
        for why in wrong {
            self.world.violation(why);
        }
    }

    /// An object was written.
    pub fn written(&self, path: &str, bytes: &Bytes, before: Option<&Bytes>) {
        if before.is_some_and(|b| b != bytes) {
            self.world.violation(format!("{path} was written twice, with different bytes"));
        }
        if before.is_some() {
            return;
        }
        if let Some(version) = names::parse_edit(path) {
            self.numbered_edit(version, bytes);
        } else if names::parse_fold(path).is_some() {
            self.fold_record(bytes);
        } else if names::parse_epoch(path).is_some() {
            self.epoch_object(bytes);
        }
    }

    /// An epoch object says what its adoption says: what recover and those in doubt rely on.
    fn epoch_object(&self, bytes: &Bytes) {
        let Ok(object) = sealed::open::<EpochObject>("epoch", "epoch", bytes) else { return };
        if self.truth.lock().lost {
            // Recover records its own cut, under a head that is not there yet.
            return;
        }
        let adopted =
            self.manifest().and_then(|m| m.epochs.iter().find(|e| e.epoch == object.epoch).cloned());
        let wrong = match adopted {
            Some(e) if e.cut == object.cut && e.incarnation == object.incarnation => return,
            Some(e) => format!("records the cut {:?}, and the head says {:?}", object.cut, e.cut),
            // That of a recover which did not come to its end, and was done again under a higher number.
            None if self.manifest().is_some_and(|m| m.epoch > object.epoch) => return,
            None => "stands, and was never adopted".to_owned(),
        };
        self.world.violation(format!("the object of epoch {} {wrong}", object.epoch));
    }

    fn fold_record(&self, bytes: &Bytes) {
        let Ok(record) = sealed::open::<FoldRecord>("fold", "fold", bytes) else { return };
        let path = record.checkpoint.path.as_str();
        if self.truth.lock().manifest.is_none() {
            let genesis = self.objects.get(path).and_then(|bytes| checkpoint::decode(&bytes).ok());
            if let Some(genesis) = genesis {
                self.created(&genesis, &record.checkpoint);
            }
            return;
        }
        self.folded(&record.checkpoint);
    }

    fn numbered_edit(&self, version: Version, bytes: &Bytes) {
        let Some(before) = self.manifest() else { return };
        if version != before.version.next() {
            // A number that was used before: nobody may follow it.
            return;
        }
        let Ok(NumberedEdit { edit }) = sealed::open::<NumberedEdit>("edit", "edit", bytes) else { return };
        let adopts = edit.changes.iter().any(|c| matches!(c, Change::Adopt { .. }));
        let fits = if adopts { edit.epoch > before.epoch } else { edit.epoch == before.epoch };
        if edit.lineage != before.lineage || !fits {
            self.world.note(format_args!("head {version}: void"));
            self.truth.lock().manifest = Some(Arc::new(before.skip_void(version)));
            return;
        }
        if adopts {
            self.claimed(edit.epoch);
        }
        match before.apply(&edit) {
            Ok(next) => {
                // Who holds the job's claim, which is in the manifest here.
                let by = match edit.author {
                    Author::Job(job) => before.jobs.get(&job).map(|claim| claim.node.clone()),
                    _ => None,
                };
                self.committed(&edit, &Arc::new(next), None, &by.unwrap_or_default());
            }
            Err(e) => self.world.violation(format!("edit {version} was created and does not fit: {e}")),
        }
    }

    /// An object is about to be deleted by `process`.
    pub fn deleting(&self, path: &str, process: ProcessId) {
        let verdict = {
            let mut truth = self.truth.lock();
            let is_there = self.objects.get(path).is_some();
            truth.deleted += u64::from(is_there);
            truth.may_delete(path, self.world.now(), self.grace).err().filter(|_| is_there)
        };
        if let Some(why) = verdict {
            self.world.violation(format!("{} deletes {path}: {why}", self.world.name(process)));
        }
    }

    /// Whether everything that the newest manifest names is in the bucket, at its length.
    pub fn check_objects(&self) {
        let Some(manifest) = self.manifest() else { return };
        for (path, len) in named_by(&manifest) {
            match self.objects.get(&path) {
                Some(bytes) if bytes.len() as u64 == len => {}
                Some(bytes) => self.world.violation(format!("{path} has {} bytes, not {len}", bytes.len())),
                None => self.world.violation(format!("{path} is named by the manifest and gone")),
            }
        }
    }

    /// Objects that nothing names and nothing will name, whose owners are gone: what the sweep should have taken by
    /// now. What the newest epoch leaves behind waits for the next one.
    #[must_use]
    pub fn litter(&self) -> Vec<String> {
        let Some(manifest) = self.manifest() else { return Vec::new() };
        let epoch = manifest.epoch;
        let incarnation = manifest.epochs.last().map_or(Incarnation(0), |e| e.incarnation);
        let owner = names::writer_owner(epoch, incarnation);
        let living =
            |p: &String| p.contains(&owner) || names::parse_log(p).is_some_and(|(id, _)| id.epoch >= epoch);
        let named: BTreeSet<String> = named_by(&manifest).map(|(path, _)| path).collect();
        let retired: BTreeSet<String> = manifest.retired.iter().map(|r| r.path.to_string()).collect();
        let data = |p: &String| ["log/", "table/", "blob/"].iter().any(|folder| p.starts_with(folder));
        let kept = |p: &String| named.contains(p) || retired.contains(p);
        self.objects.paths().into_iter().filter(|p| data(p) && !kept(p) && !living(p)).collect()
    }
}

/// Paths and lengths of every object a manifest names.
fn named_by(manifest: &Manifest) -> impl Iterator<Item = (String, u64)> + '_ {
    let log = manifest.log.iter().map(|e| (e.path().to_string(), e.len));
    let tables = manifest.named_tables().map(|t| (t.path().to_string(), t.len));
    let blobs = manifest.blobs.iter().map(|(b, len)| (names::blob(b).to_string(), *len));
    log.chain(tables).chain(blobs)
}

impl Truth {
    /// Takes note of what this commit, which follows the manifest known so far, comes to.
    fn reach(&mut self, edit: &Edit, next: &Manifest, by: &str) {
        let Some(before) = &self.manifest else { return };
        for change in &edit.changes {
            match change {
                Change::BeginMerge { .. } => drop(self.reached.insert(MILESTONES[0])),
                Change::AddBlobs { .. } if edit.author != Author::Writer => {
                    self.reached.insert(MILESTONES[5]);
                }
                Change::StagePart { merge, .. } => {
                    let workers = self.workers.entry(*merge).or_default();
                    workers.insert(by.to_owned());
                    if workers.len() > 1 {
                        self.reached.insert(MILESTONES[1]);
                    }
                    if !next.staged.contains_key(merge) {
                        self.reached.insert(MILESTONES[2]);
                    }
                }
                Change::TakeSnapshot { .. }
                    if before.staged.keys().any(|id| next.staged.contains_key(id)) =>
                {
                    self.reached.insert(MILESTONES[3]);
                }
                _ => {}
            }
        }
        if next.expiry_floor > before.expiry_floor {
            self.reached.insert(MILESTONES[4]);
        }
        self.workers.retain(|merge, _| next.staged.contains_key(merge));
    }

    fn commit(
        &mut self,
        edit: &Edit,
        manifest: &Arc<Manifest>,
        authority: Option<&Authority>,
        objects: &Objects,
        now: Micros,
        wrong: &mut Vec<String>,
    ) {
        self.commits += 1;
        let version = edit.version;
        let before = self.manifest.as_ref().map(|m| m.version).unwrap_or_default();
        if version != before.next() {
            wrong.push(format!("version {version} was committed after version {before}"));
        }
        if let Some(Authority::Writer { epoch, .. }) = authority
            && *epoch != self.claimed
        {
            wrong.push(format!(
                "epoch {epoch} commits version {version} after epoch {} was claimed",
                self.claimed
            ));
        }
        for change in &edit.changes {
            let (segments, tables): (&[Arc<LogEntry>], &[_]) = match change {
                Change::AppendLog { segments } => (segments, &[]),
                Change::Adopt { rolled, .. } => (rolled, &[]),
                Change::Flush { tables, chunk, .. } => {
                    if let Some(chunk) = chunk {
                        self.name(&chunk.path().to_string(), version, objects, wrong);
                    }
                    (&[], tables)
                }
                Change::Merge { tables, .. } => (&[], tables),
                Change::StagePart { made, .. } => (&[], &made.tables),
                Change::AddBlobs { blobs } => {
                    for blob in blobs.keys() {
                        self.name(names::blob(blob).as_str(), version, objects, wrong);
                    }
                    continue;
                }
                _ => continue,
            };
            for segment in segments {
                self.name(&segment.path().to_string(), version, objects, wrong);
                self.append(segment, objects, wrong);
            }
            for table in tables {
                self.name(&table.path().to_string(), version, objects, wrong);
            }
        }
        if manifest.flushed_seq > manifest.last_seq {
            wrong.push(format!(
                "{} is flushed, and only {} committed",
                manifest.flushed_seq, manifest.last_seq
            ));
        }
        if manifest.last_seq.0 != self.records.len() as u64 {
            wrong.push(format!("the head is at {}, the log holds {}", manifest.last_seq, self.records.len()));
        }
        for retired in manifest.retired.iter().rev().take_while(|r| r.version == version) {
            if let Some(named) = self.named.get_mut(retired.path.as_str()) {
                named.retired = Some((version, now));
            }
        }
        self.manifest = Some(Arc::clone(manifest));
    }

    fn name(&mut self, path: &str, version: Version, objects: &Objects, wrong: &mut Vec<String>) {
        if objects.get(path).is_none() {
            wrong.push(format!("version {version} names {path}, which is not in the bucket"));
        }
        self.named.entry(path.to_owned()).or_insert(Named { from: version, retired: None });
    }

    fn append(&mut self, segment: &LogEntry, objects: &Objects, wrong: &mut Vec<String>) {
        let path = segment.path();
        let Some(bytes) = objects.get(path.as_str()) else { return };
        let Ok(object) = log::decode(&bytes) else {
            return wrong.push(format!("{path} was committed and does not decode"));
        };
        for row in object.blocks.iter().flat_map(|b| b.rows()) {
            if row.seq.0 != self.records.len() as u64 + 1 {
                wrong.push(format!("number {} was committed after {}", row.seq, self.records.len()));
            }
            let op = match row.value {
                ValueRef::Put(value) => Op::Put(Digest::of(value)),
                ValueRef::Delete => Op::Delete,
                ValueRef::Blob(p) => match stored(&p.to_owned(), objects) {
                    Ok(value) => Op::Put(Digest::of(&value)),
                    Err(why) => return wrong.push(format!("{path} was committed, and {why}")),
                },
            };
            self.records.push(Record {
                seq: row.seq.0,
                time: row.time.0,
                expires: row.expires.map(|e| e.0),
                epoch: Some(segment.id.epoch.0),
                key: Key::new(row.key),
                op,
            });
        }
    }

    fn may_delete(&self, path: &str, now: Micros, grace: Micros) -> Result<(), String> {
        let Some(manifest) = &self.manifest else { return Ok(()) };
        let for_ever = path == names::identity().as_str()
            || names::parse_epoch(path).is_some()
            || names::parse_lineage(path).is_some()
            || names::parse_fold(path).is_some();
        if for_ever {
            return Err("it is kept for ever".to_owned());
        }
        if self.checkpoint.as_deref() == Some(path) {
            return Err("loads start there".to_owned());
        }
        if named_by(manifest).any(|(named, _)| named == path) {
            return Err("the newest manifest names it".to_owned());
        }
        let Some(named) = self.named.get(path) else { return Ok(()) };
        let Some((version, since)) = named.retired else { return Ok(()) };
        if now < since + grace {
            return Err(format!("version {version} retired it {} ms ago", (now - since) / 1000));
        }
        let pinned = self.pins.values().find(|p| (named.from..version).contains(p));
        match pinned {
            Some(pin) => Err(format!("version {pin}, which names it, is pinned")),
            None => Ok(()),
        }
    }
}

/// The value at `pointer`, as it lies in the bucket.
fn stored(pointer: &BlobPointer, objects: &Objects) -> Result<Vec<u8>, String> {
    let mut reader = ValueReader::whole(pointer, u64::from(u32::MAX));
    let path = reader.path().to_string();
    let file = objects.get(&path).ok_or_else(|| format!("{path} is not in the bucket"))?;
    let mut value = Vec::new();
    while let Some(range) = reader.wants() {
        if range.end > file.len() as u64 {
            return Err(format!("{path} ends before the value"));
        }
        let bytes = file.slice(range.start as usize..range.end as usize);
        let pieces = reader.take(&bytes).map_err(|e| format!("{path}: {e}"))?;
        pieces.iter().for_each(|p| value.extend_from_slice(p));
    }
    Ok(value)
}
