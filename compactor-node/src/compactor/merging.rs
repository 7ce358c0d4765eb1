//! Merging: workers that choose a task, claim it, do it, commit it.
//!
//! A small merge is one claim and one edit. A large one is begun by an edit that cuts it into parts, and each part is a
//! claim and an edit of its own, by whatever process comes first; the last part's edit ends it (see
//! [`isle_storage::manifest::staged`]). A worker that dies leaves the parts that are staged; its claim expires, and its
//! part is done again by somebody else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use isle_storage::coordination::follow::Current;
use isle_storage::coordination::{Authority, Loaded};
use isle_storage::ids::{JobId, SeqNo, Timestamp, Version};
use isle_storage::manifest::{Author, Change, JudgedExpiry, Manifest, Pause, Run, StagedMerge, StagedPart};
use isle_storage::merge::Held;
use isle_storage::row::BlobId;
use isle_storage::sabotage::{Rule, broken};
use isle_storage::watch;
use tokio::time::Instant;

use super::request::Stands;
use super::tasks::{self, Scope, Task};
use super::{Backoff, Compactor, MergeReport};
use crate::error::JobError;
use crate::execute::{self, Made, Work};
use crate::job::{self, Claimed};
use crate::parts;
use crate::pause;
use crate::plan::{self, MergePlan};
use crate::retain::{self, Expired};

/// How long a pause waits to be shown by the status once it is committed.
const UNTIL_SHOWN: Duration = Duration::from_secs(2);

/// A sleep until an instant of the wall clock takes at least and at most so long: the clock may be set meanwhile.
const SHORTEST_NAP: Duration = Duration::from_millis(10);
const LONGEST_NAP: Duration = Duration::from_secs(3600);

/// How a task went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Went {
    /// Runs became one.
    Merged,
    /// A large merge was cut into parts, which are tasks now.
    Begun,
    /// A part is done; the merge is not.
    Staged,
    /// So many tables went by their age.
    Expired(u64),
}

impl Compactor {
    /// One worker: the loop of a daemon.
    pub(super) async fn merge_loop(self, name: &'static str) {
        let mut view = self.0.current.clone();
        let mut backoff = Backoff::new(&self.0.settings);
        while !self.is_closed() {
            let (task, look_again) = self.next_task(&mut view);
            let Some(task) = task else {
                if !self.until_there_may_be_work(&mut view, look_again).await {
                    return;
                }
                continue;
            };
            match self.perform(&task, None).await {
                Ok((_, _, version)) => {
                    self.well(name, &mut backoff);
                    // What was done must be seen before more is planned.
                    tokio::select! {
                        biased;
                        () = self.0.stop.cancelled() => return,
                        seen = view.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.version >= version)) => {
                            if seen.is_err() { return }
                        }
                    }
                }
                Err(_) if self.is_closed() => return,
                // The next look finds something else to do.
                Err(JobError::ClaimedElsewhere(who)) => {
                    tracing::debug!(%who, job = %task.job(), "another process works on it");
                }
                Err(error) => {
                    // After the pause, another task first: one that always fails must not be the only one ever tried.
                    let again = Instant::now() + backoff.pause() * 2;
                    self.0.busy.lock().aside(&task, again);
                    self.ill(name, &error, &mut backoff).await;
                }
            }
        }
    }

    /// Waits for a newer manifest, a request, the wall clock's `look_again`, or the time to ask again for what others had
    /// claimed. False where the compactor ends.
    async fn until_there_may_be_work(
        &self,
        view: &mut watch::Receiver<Option<Current>>,
        look_again: Option<Timestamp>,
    ) -> bool {
        let look = self.0.busy.lock().next_look();
        let claims = async {
            match look {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.0.stop.cancelled() => return false,
            changed = view.changed() => if changed.is_err() { return false },
            () = self.0.asked.notified() => {}
            () = claims => {}
            () = self.until(look_again) => {}
        }
        self.0.busy.lock().look_again(Instant::now());
        true
    }

    /// Sleeps until the wall clock shows `at`, or for ever; at most [`LONGEST_NAP`], since a wall clock may be set.
    async fn until(&self, at: Option<Timestamp>) {
        let Some(at) = at else { return std::future::pending().await };
        let micros = at.micros().saturating_sub(self.0.db.env.clock.now().micros());
        let left = Duration::from_micros(u64::try_from(micros).unwrap_or_default());
        tokio::time::sleep(left.clamp(SHORTEST_NAP, LONGEST_NAP)).await;
    }

    /// The next task; without one, when time alone may make one.
    fn next_task(&self, view: &mut watch::Receiver<Option<Current>>) -> (Option<Task>, Option<Timestamp>) {
        let seen = view.borrow_and_update().as_ref().map(|c| Arc::clone(&c.manifest));
        let Some(manifest) = seen else { return (None, None) };
        self.0.metrics.observe(&manifest, &self.0.settings, self.blob_garbage(&manifest));
        self.0.busy.lock().look_again(Instant::now());
        if let Some(task) = self.choose(&manifest) {
            return (Some(task), None);
        }
        let (settings, now) = (&self.0.settings, self.0.db.env.clock.now());
        let again = match manifest.pause.as_ref().filter(|_| self.is_paused(&manifest)) {
            Some(pause) => pause.until.into_iter().chain(plan::next_end(&manifest, settings, now)).min(),
            None => plan::next(&manifest, settings, now).look_again,
        };
        (None, again)
    }

    /// The next task by `manifest`, which is this process's from now on.
    pub(crate) fn choose(&self, manifest: &Manifest) -> Option<Task> {
        let mut busy = self.0.busy.lock();
        busy.damage.forget_gone(manifest);
        self.0.metrics.damaged(busy.damage.len());
        let now = self.0.db.env.clock.now();
        let scope = self.scope(manifest, now);
        let task = tasks::next(manifest, &self.0.settings, now, &busy, scope)?;
        busy.begin(&task);
        Some(task)
    }

    fn scope(&self, manifest: &Manifest, now: Timestamp) -> Scope {
        if self.is_paused(manifest) {
            return Scope::Retention;
        }
        let mut request = self.0.request.lock();
        match request.as_mut().map(|r| r.look(manifest, &self.0.settings, now)) {
            Some(Stands::Asks(planned)) => Scope::Request(planned),
            Some(Stands::Begun) | None => Scope::All,
            Some(Stands::Done) => {
                *request = None;
                Scope::All
            }
        }
    }

    /// The next task by `manifest`, which nobody takes, were there no pause.
    pub(crate) fn would_choose(&self, manifest: &Manifest) -> Option<Task> {
        let now = self.0.db.env.clock.now();
        tasks::next(manifest, &self.0.settings, now, &self.0.busy.lock(), Scope::All)
    }

    /// A task that was chosen is not done after all.
    pub(crate) fn leave(&self, task: &Task) {
        self.0.busy.lock().end(task);
    }

    /// A task has failed, and is not chosen again.
    pub(crate) fn leave_out(&self, task: &Task) {
        self.0.busy.lock().leave_out(task);
    }

    /// A task that was chosen reads more than this process may, and is not chosen again.
    pub(crate) fn too_large(&self, task: &Task) {
        self.0.busy.lock().too_large(task);
    }

    /// A claim of another process on `job` is gone.
    pub(crate) fn freed(&self, job: JobId) {
        self.0.busy.lock().freed(job);
    }

    /// Bytes that a task reads. Those of a part where it only cuts a merge into parts: one of which not even a part can be
    /// done must not be begun, or it would hold its inputs for nothing.
    pub(crate) fn bytes_of(&self, task: &Task, manifest: &Manifest) -> u64 {
        match task {
            Task::Merge(planned) => planned.bytes / self.parts_of(planned) as u64,
            _ => task.bytes(manifest),
        }
    }

    /// Into how many parts a merge is cut. One that only moves values is planned no larger than a part.
    fn parts_of(&self, planned: &MergePlan) -> usize {
        if planned.moving.is_some() { 1 } else { parts::count(planned.bytes, &self.0.settings) }
    }

    /// The blob files whose values a merge moves, by the newest manifest.
    fn emptied(&self, manifest: &Manifest) -> BTreeSet<BlobId> {
        plan::due_blobs(manifest, &self.0.settings, self.0.busy.lock().unreadable())
    }

    /// Whether nobody is to begin a merge now.
    pub(crate) fn is_paused(&self, manifest: &Manifest) -> bool {
        manifest.pause.as_ref().is_some_and(|p| p.lasts(self.0.db.env.clock.now()))
    }

    /// Claims, does and commits a task that was chosen; stops at `deadline` unless the commit has begun. Gives back what
    /// was done, and the version that shows it.
    pub(crate) async fn perform(
        &self,
        task: &Task,
        deadline: Option<Instant>,
    ) -> Result<(Went, MergeReport, Version), JobError> {
        let shared = &self.0;
        let job = task.job();
        let started = Instant::now();
        shared.status.lock().working.insert(job, describe(task));
        let bounds = self.bounds(deadline);
        let result = match task {
            Task::Merge(planned) => {
                let work = async |claimed: Claimed| self.merge_claimed(planned, job, &claimed).await;
                job::with_claim(&shared.db, &shared.node, job, bounds, work).await
            }
            Task::Part(merge, part) => {
                let work = async |claimed: Claimed| self.part_claimed(*merge, *part, job, &claimed).await;
                job::with_claim(&shared.db, &shared.node, job, bounds, work).await
            }
            Task::Expire => self.expire_and_see().await,
        };
        let mut busy = shared.busy.lock();
        busy.end(task);
        match &result {
            Err(JobError::ClaimedElsewhere(_)) => busy.elsewhere(task, Instant::now()),
            Err(JobError::UnreadableValue { blob, .. }) => busy.give_up(blob.clone()),
            _ => {}
        }
        drop(busy);
        if let Err(error @ JobError::UnreadableValue { .. }) = &result {
            shared.status.lock().trouble.insert("blobs", error.to_string());
        }
        if let Err(JobError::Damaged { object, error }) = &result {
            self.leave_alone(object, &error.to_string());
        }
        let mut status = shared.status.lock();
        status.working.remove(&job);
        let (went, report, version) = result?;
        if let Went::Expired(_) = went {
            return Ok((went, report, version));
        }
        status.merges += u64::from(went == Went::Merged);
        status.parts += u64::from(matches!(task, Task::Part(..)));
        status.bytes_read += report.bytes_read;
        status.bytes_written += report.bytes_written;
        drop(status);
        if went == Went::Merged && matches!(task, Task::Merge(planned) if planned.is_request()) {
            *shared.request.lock() = None;
        }
        shared.metrics.merged(&report, went);
        tracing::info!(
            job = %job,
            task = describe(task),
            went = ?went,
            inputs = report.inputs,
            bytes_read = report.bytes_read,
            bytes_written = report.bytes_written,
            rows_in = report.rows_in,
            rows_out = report.rows_out,
            seconds = started.elapsed().as_secs_f64(),
            "merged"
        );
        Ok((went, report, version))
    }

    /// A merge has failed on `object`: other work goes on without its run.
    fn leave_alone(&self, object: &str, error: &str) {
        let mut busy = self.0.busy.lock();
        let pause = busy.damage.found(object, error, Instant::now());
        self.0.metrics.damaged(busy.damage.len());
        drop(busy);
        // A merge of everything cannot be had.
        *self.0.request.lock() = None;
        tracing::error!(
            %object, error, retry_in_seconds = pause.as_secs_f64(),
            "a table is damaged; its run is left out of merges for a while: see `isle verify` and `isle dump table`"
        );
    }

    /// Lets every table go whose retention has ended, as the newest manifest says.
    ///
    /// # Errors
    /// [`JobError`]; [`JobError::Stale`] where there is none any more.
    pub async fn expire(&self) -> Result<Expired, JobError> {
        let shared = &self.0;
        let gone = retain::expire(&shared.db, &shared.node, &shared.settings).await?;
        shared.status.lock().expired_tables += gone.tables;
        shared.metrics.expired(&gone);
        Ok(gone)
    }

    async fn expire_and_see(&self) -> Result<(Went, MergeReport, Version), JobError> {
        let gone = self.expire().await?;
        let version = self.0.db.load().await?.manifest.version;
        Ok((Went::Expired(gone.tables), MergeReport::default(), version))
    }

    /// Claims, merges and commits; stops at `deadline` unless the commit has begun.
    ///
    /// # Errors
    /// [`JobError`]; the outputs were taken back unless the commit's outcome is unknown.
    pub async fn merge(
        &self,
        planned: &MergePlan,
        deadline: Option<Instant>,
    ) -> Result<MergeReport, JobError> {
        let task = Task::Merge(planned.clone());
        self.0.busy.lock().begin(&task);
        self.perform(&task, deadline).await.map(|(_, report, _)| report)
    }

    async fn merge_claimed(
        &self,
        planned: &MergePlan,
        id: JobId,
        claimed: &Claimed,
    ) -> Result<(Went, MergeReport, Version), JobError> {
        let (db, settings) = (&self.0.db, &self.0.settings);
        // Read after the claim: what the job is checked against is never older than its right to do it.
        let loaded = db.load().await?;
        let plan = refresh(planned, &loaded.manifest)?;
        let inputs = runs(&loaded.manifest, &plan.inputs)?;
        let (emptied, only) = emptied_by(&plan, self.emptied(&loaded.manifest))?;
        let snapshots: Vec<Held> = loaded.manifest.snapshots.values().map(Held::from).collect();
        let expired_by = plan::certain(db.env.clock.now(), settings);
        let parts = self.parts_of(&plan);
        if parts > 1 {
            let splits = claimed.guard(parts::splits(db, &inputs, parts)).await?;
            if !splits.is_empty() {
                let change = Change::BeginMerge {
                    expiry: expire(&inputs).then(|| JudgedExpiry::new(Some(expired_by), &snapshots)),
                    inputs: plan.inputs,
                    splits,
                    snapshots: plan.snapshots,
                    planned_mode: plan.mode,
                    bottom: plan.bottom,
                    at: db.env.clock.now(),
                };
                let begun = self.commit(id, &claimed.authority, vec![change]).await?;
                return Ok((Went::Begun, MergeReport::default(), begun.manifest.version));
            }
        }
        let work = Work {
            inputs,
            range: Default::default(),
            snapshots: remembered(snapshots.clone()),
            expired_by,
            bottom: plan.bottom,
            owner: self.owner(id),
            emptied: Arc::new(emptied),
            only,
        };
        let made = execute::merge(db, settings, &self.0.resources, &work, claimed).await?;
        let change = Change::Merge {
            inputs: plan.inputs.clone(),
            tables: made.tables.clone(),
            snapshots: plan.snapshots,
            planned_mode: plan.mode,
            dropped: made.dropped,
            judged: made.judged,
            expiry: expire(&work.inputs).then(|| JudgedExpiry::new(made.expired_by, &snapshots)),
        };
        let done = self.commit_made(id, claimed, &made, change).await?;
        let report = report(plan.inputs.len(), plan.bytes, &made);
        Ok((Went::Merged, report, done.manifest.version))
    }

    async fn part_claimed(
        &self,
        merge: Version,
        part: u32,
        id: JobId,
        claimed: &Claimed,
    ) -> Result<(Went, MergeReport, Version), JobError> {
        let db = &self.0.db;
        let loaded = db.load().await?;
        let ended = || JobError::Stale(format!("the merge in parts {merge} has ended"));
        let staged = loaded.manifest.staged.get(&merge).ok_or_else(ended)?;
        if staged.parts.contains_key(&part) || part >= staged.part_count() {
            return Err(JobError::Stale(format!("part {part} of merge {merge} is done")));
        }
        let bytes = Task::Part(merge, part).bytes(&loaded.manifest);
        let planned = staged.planned_with();
        let work = Work {
            inputs: runs(&loaded.manifest, &staged.inputs)?,
            range: staged.range(part),
            // Those it was planned with, whether they still stand or not, and harmless ones.
            snapshots: remembered(
                loaded.manifest.snapshots.values().map(Held::from).chain(planned).collect(),
            ),
            expired_by: horizon(staged, plan::certain(db.env.clock.now(), &self.0.settings)),
            bottom: staged.bottom,
            owner: self.owner(id),
            emptied: Arc::new(self.emptied(&loaded.manifest)),
            only: None,
        };
        let made = match execute::merge(db, &self.0.settings, &self.0.resources, &work, claimed).await {
            Err(error @ JobError::Damaged { .. }) => {
                self.abandon(merge, id, claimed).await;
                return Err(error);
            }
            made => made?,
        };
        let change = Change::StagePart {
            merge,
            part,
            made: StagedPart {
                tables: made.tables.clone(),
                dropped: made.dropped,
                judged: made.judged,
                expired_by: made.expired_by,
            },
            at: db.env.clock.now(),
        };
        let done = self.commit_made(id, claimed, &made, change).await?;
        let went = if done.manifest.staged.contains_key(&merge) { Went::Staged } else { Went::Merged };
        Ok((went, report(work.inputs.len(), bytes, &made), done.manifest.version))
    }

    /// A part cannot be done, and so the merge cannot: its inputs are free again, for merges that leave out what is damaged.
    async fn abandon(&self, merge: Version, id: JobId, claimed: &Claimed) {
        match self.commit(id, &claimed.authority, vec![Change::AbandonMerge { merge }]).await {
            Ok(_) => tracing::warn!(%merge, "an input is damaged; the merge in parts is abandoned"),
            // Somebody else has, or it is forsaken in the end.
            Err(error) => {
                tracing::warn!(%merge, %error, "an input is damaged; the merge in parts could not be abandoned")
            }
        }
    }

    /// What a job makes is named after it, and never twice.
    fn owner(&self, id: JobId) -> String {
        format!("{id}-{:016x}", self.0.db.env.entropy.next_u64())
    }

    /// Commits what names `made`, or takes it back where it is certain that nobody will.
    async fn commit_made(
        &self,
        id: JobId,
        claimed: &Claimed,
        made: &Made,
        change: Change,
    ) -> Result<Loaded, JobError> {
        let blobs = made.blobs.clone();
        let added = (!blobs.is_empty()).then_some(Change::AddBlobs { blobs });
        let changes = added.into_iter().chain([change]).collect();
        let committed = self.commit(id, &claimed.authority, changes).await;
        if let Err(error) = &committed
            && !matches!(error, JobError::Unknown(_))
        {
            execute::take_back(&self.0.db, &made.outputs).await;
        }
        committed
    }

    /// Commits on top of the head as it is now. Of the one the work began with, after hours of other people's commits,
    /// the manifest would no longer remember who made the next version, and nobody could tell whether it was us.
    async fn commit(
        &self,
        id: JobId,
        authority: &Authority,
        changes: Vec<Change>,
    ) -> Result<Loaded, JobError> {
        let db = &self.0.db;
        let now = db.load().await?;
        job::commit_changes(db, authority, &Author::Job(id), changes, now).await
    }

    /// Has the whole fleet begin no further merge, until [`Compactor::resume`] or for so long; what is under way comes to
    /// its end, and retention, checkpoints and garbage go on. Kept in the manifest: it outlives every process.
    ///
    /// # Errors
    /// [`JobError`].
    pub async fn pause(&self, lasting: Option<Duration>) -> Result<Pause, JobError> {
        let (pause, done) = pause::begin(&self.0.db, &self.0.node, lasting).await?;
        self.show(&done).await;
        Ok(pause)
    }

    /// Merges again.
    ///
    /// # Errors
    /// [`JobError`].
    pub async fn resume(&self) -> Result<(), JobError> {
        let done = pause::end(&self.0.db, &self.0.node).await?;
        self.show(&done).await;
        Ok(())
    }

    /// Whoever asks for the status next is shown what he asked for.
    async fn show(&self, done: &Loaded) {
        let version = done.manifest.version;
        let mut view = self.0.current.clone();
        let seen = view.wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.version >= version));
        let _shown = tokio::time::timeout(UNTIL_SHOWN, seen).await;
    }
}

pub(crate) fn describe(task: &Task) -> String {
    match task {
        Task::Merge(planned) => format!("{} runs, {}", planned.inputs.len(), planned.reason),
        Task::Part(merge, part) => format!("part {part} of merge {merge}"),
        Task::Expire => "retention".to_owned(),
    }
}

fn remembered(snapshots: Vec<Held>) -> Vec<Held> {
    if broken(Rule::MergeForSnapshots) { Vec::new() } else { snapshots }
}

/// By which instant a part takes rows for expired: the merge's own, or `certain` where it names none, as one does that
/// an older program began.
fn horizon(merge: &StagedMerge, certain: Timestamp) -> Timestamp {
    merge.expiry.as_ref().map_or(certain, |e| e.by.unwrap_or(Timestamp(i64::MIN)))
}

/// Whether any row of `inputs` expires: only then it matters by which instant a merge judges.
fn expire(inputs: &[Arc<Run>]) -> bool {
    inputs.iter().flat_map(|r| &r.tables).any(|t| t.min_expires.is_some())
}

fn report(inputs: usize, bytes_read: u64, made: &Made) -> MergeReport {
    MergeReport {
        inputs,
        bytes_read,
        bytes_written: made.bytes_written,
        rows_in: made.rows_in,
        rows_out: made.rows_out,
    }
}

fn runs(manifest: &Manifest, ids: &[isle_storage::ids::RunId]) -> Result<Vec<Arc<Run>>, JobError> {
    let find = |id| manifest.runs.iter().find(|r| r.id == id).cloned();
    let found: Option<Vec<_>> = ids.iter().map(|id| find(*id)).collect();
    found.ok_or_else(|| JobError::Stale("an input is gone: another job merged it".to_owned()))
}

/// The blob files whose values `plan` moves, of those that are `due`, and where it is about nothing else, the tables.
fn emptied_by(
    plan: &MergePlan,
    due: BTreeSet<BlobId>,
) -> Result<(BTreeSet<BlobId>, Option<BTreeSet<String>>), JobError> {
    let Some(moving) = &plan.moving else { return Ok((due, None)) };
    let files: BTreeSet<BlobId> = moving.files.intersection(&due).cloned().collect();
    match files.is_empty() {
        true => Err(JobError::Stale("there is nothing left to move out of the blob files".to_owned())),
        false => Ok((files, Some(moving.tables.clone()))),
    }
}

/// The plan against a newer manifest: the same inputs, with today's snapshots and today's bottom.
fn refresh(planned: &MergePlan, manifest: &Manifest) -> Result<MergePlan, JobError> {
    let first = planned.inputs.first();
    let at = manifest
        .runs
        .iter()
        .position(|r| Some(&r.id) == first)
        .ok_or_else(|| JobError::Stale("an input is gone: another job merged it".to_owned()))?;
    if let Some(by) = planned.inputs.iter().find_map(|id| manifest.held_by(*id)) {
        return Err(JobError::Stale(format!("the merge in parts {by} works on an input")));
    }
    let mut snapshots: Vec<SeqNo> = manifest.snapshots.values().map(|s| s.seq).collect();
    snapshots.sort_unstable();
    snapshots.dedup();
    if planned.mode != manifest.compaction {
        return Err(JobError::Stale("the compaction mode has changed".to_owned()));
    }
    let bottom = at + planned.inputs.len() == manifest.runs.len();
    Ok(MergePlan { snapshots, bottom, ..planned.clone() })
}

/// Merges in parts of which nothing was done for `age`: they are given up.
pub(super) fn forsaken(manifest: &Manifest, now: Timestamp, age: Duration) -> Vec<Change> {
    let old = manifest.staged.iter().filter(|(_, m)| m.touched.plus(age) < now);
    old.map(|(id, _)| Change::AbandonMerge { merge: *id }).collect()
}
