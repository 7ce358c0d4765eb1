//! The compactor: four loops that never wait for one another, and the single run for cron.
//!
//! | loop | wakes when | does |
//! | --- | --- | --- |
//! | merge | the manifest has changed, somebody asked, or the planner's instant has come | plans, claims, merges or lets tables go, commits |
//! | checkpoints | the manifest has changed | folds when due; trims the log; drops expired snapshots |
//! | garbage | something was retired, or its grace ends | one collector pass |
//! | sweep | its interval is over, an hour by default | one sweep for orphans |
//!
//! They are apart so that deletes never hold up merges and checkpoints never starve behind them. All but the sweep
//! sleep on the follower's view of the head: an idle database sees no request from here between two sweeps.

use std::sync::Arc;
use std::time::Duration;

use isle_storage::coordination::follow::{self, Current};
use isle_storage::coordination::{Loaded, NodeInfo, fold};
use isle_storage::database::Database;
use isle_storage::ids::{JobId, Timestamp};
use isle_storage::manifest::{Author, CompactionMode, Manifest};
use isle_storage::watch;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::collector::{self, Collector};
use crate::error::JobError;
use crate::execute::{self, Merged};
use crate::house::{self, House, Lag};
use crate::job::{self, Bounds, Claimed};
use crate::metrics::CompactorMetrics;
use crate::mode::{self, Changed, Forecast};
use crate::plan::{self, MergePlan, Outlook, Plan};
use crate::retain::{self, Expired};
use crate::settings::CompactorSettings;
use crate::sweep::{Sweeper, Swept};

/// How long a loop has to end by itself when the compactor is closed.
const CLOSING: Duration = Duration::from_secs(5);

/// Pause between two passes of one round of the sweep.
const BETWEEN_PASSES: Duration = Duration::from_secs(1);

/// A sleep until an instant of the wall clock takes at least and at most so long: the clock may be set meanwhile.
const SHORTEST_NAP: Duration = Duration::from_millis(10);
const LONGEST_NAP: Duration = Duration::from_secs(3600);

/// What a merge did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct MergeReport {
    /// Runs merged.
    pub inputs: usize,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Rows read.
    pub rows_in: u64,
    /// Rows written.
    pub rows_out: u64,
}

/// What the compactor is doing and has done since it started.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct CompactorStatus {
    /// Whether merges are paused.
    pub paused: bool,
    /// The manifest's version, 0 before the first load.
    pub version: u64,
    /// L0 runs.
    pub l0_runs: usize,
    /// Sorted runs, L0 included.
    pub runs: usize,
    /// Tables.
    pub tables: usize,
    /// Objects retired and not yet deleted.
    pub retired: usize,
    /// Bytes that should have been merged by now.
    pub debt_bytes: u64,
    /// The merge under way, if any.
    pub merging: Option<String>,
    /// Merges done.
    pub merges: u64,
    /// Bytes they read.
    pub bytes_read: u64,
    /// Bytes they wrote.
    pub bytes_written: u64,
    /// Tables that retention has taken out of the tree.
    pub expired_tables: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Retired objects deleted.
    pub deleted: u64,
    /// Orphans deleted.
    pub swept: u64,
    /// Garbage that the last passes could not delete.
    pub undeletable: u64,
    /// Objects with names that are none of ours, as the last sweep found them.
    pub unknown: u64,
    /// The newest failure of each loop, while it lasts.
    pub trouble: std::collections::BTreeMap<&'static str, String>,
}

#[derive(Debug)]
struct Shared {
    db: Database,
    node: NodeInfo,
    settings: CompactorSettings,
    metrics: CompactorMetrics,
    current: watch::Receiver<Option<Current>>,
    paused: watch::Sender<bool>,
    full: Mutex<Option<JobId>>,
    asked: Notify,
    status: Mutex<CompactorStatus>,
    collector: tokio::sync::Mutex<Collector>,
    sweeper: tokio::sync::Mutex<Sweeper>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A running compactor. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Compactor(Arc<Shared>);

impl Compactor {
    /// Starts the loops over `db`.
    ///
    /// # Errors
    /// A sentence naming the setting that is wrong.
    pub fn open(db: Database, node: NodeInfo, settings: CompactorSettings) -> Result<Self, String> {
        let this = Self::idle(db, node, settings)?;
        this.spawn("merge", |c| async move { c.merge_loop().await });
        this.spawn("checkpoint", |c| async move { c.checkpoint_loop().await });
        this.spawn("garbage", |c| async move { c.garbage_loop().await });
        this.spawn("sweep", |c| async move { c.sweep_loop().await });
        this.0.tasks.close();
        Ok(this)
    }

    /// A compactor whose loops do not run: for [`crate::once`].
    pub(crate) fn idle(db: Database, node: NodeInfo, settings: CompactorSettings) -> Result<Self, String> {
        settings.validate()?;
        let metrics = CompactorMetrics::register(&db.env.metrics);
        let (mut events, current) = follow::follow(&db);
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        // The loops only need the newest manifest; the events are read so that the follower never waits for them.
        tasks.spawn(async move {
            loop {
                tokio::select! {
                   biased;
                    () = stopped.cancelled() => return,
                    event = events.recv() => if event.is_none() { return },
                }
            }
        });
        let shared = Shared {
            db,
            node,
            settings,
            metrics,
            current,
            paused: watch::Sender::new(false),
            full: Mutex::new(None),
            asked: Notify::new(),
            status: Mutex::default(),
            collector: tokio::sync::Mutex::default(),
            sweeper: tokio::sync::Mutex::default(),
            stop,
            tasks,
        };
        Ok(Self(Arc::new(shared)))
    }

    /// What it is doing and has done.
    #[must_use]
    pub fn status(&self) -> CompactorStatus {
        let mut status = self.0.status.lock().clone();
        status.paused = *self.0.paused.borrow();
        if let Some(current) = self.0.current.borrow().as_ref() {
            let m = &current.manifest;
            status.version = m.version.0;
            status.l0_runs = m.runs.iter().filter(|r| r.l0).count();
            status.runs = m.runs.len();
            status.tables = m.tables().count();
            status.retired = m.retired.len();
            status.debt_bytes = plan::debt_bytes(m, &self.0.settings);
            if let Some(why) = &current.trouble {
                status.trouble.insert("follow", why.clone());
            }
        } else {
            status
                .trouble
                .entry("follow")
                .or_insert_with(|| "the manifest has not been loaded yet".to_owned());
        }
        status
    }

    /// Asks for a merge of everything into one run; answers with the id of the request, which need not be kept.
    pub fn compact(&self) -> JobId {
        let id = *self.0.full.lock().get_or_insert_with(|| JobId(self.0.db.env.entropy.next_u64()));
        self.0.asked.notify_one();
        id
    }

    /// Starts no further merge until [`Compactor::resume`]; checkpoints and garbage go on.
    pub fn pause(&self) {
        self.0.paused.send_replace(true);
    }

    /// Merges again.
    pub fn resume(&self) {
        self.0.paused.send_replace(false);
    }

    /// What `mode` would mean for `manifest` now.
    #[must_use]
    pub fn foresee(&self, manifest: &Manifest, mode: &CompactionMode) -> Forecast {
        mode::foresee(manifest, mode, &self.0.settings, self.0.db.env.clock.now())
    }

    /// Sets the compaction mode of the database.
    ///
    /// # Errors
    /// [`JobError::Refused`] where it contradicts itself; otherwise what claims and commits fail with.
    pub async fn set_mode(&self, mode: &CompactionMode) -> Result<Changed, JobError> {
        mode::set(&self.0.db, &self.0.node, &self.0.settings, mode).await
    }

    /// Stops: work under way is dropped, its claim given back, its outputs taken back.
    pub async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// The database it works on.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.0.db
    }

    /// Whether [`Compactor::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    /// Where the head can be followed.
    #[must_use]
    pub fn current(&self) -> watch::Receiver<Option<Current>> {
        self.0.current.clone()
    }

    pub(crate) fn settings(&self) -> &CompactorSettings {
        &self.0.settings
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(
        &self,
        name: &'static str,
        body: impl FnOnce(Self) -> F,
    ) {
        let stop = self.0.stop.clone();
        let shared = Arc::clone(&self.0);
        let body = body(self.clone());
        self.0.tasks.spawn(async move {
            let mut running = AbortOnDropHandle::new(tokio::spawn(body));
            tokio::select! {
               biased;
                () = stop.cancelled() => {
                    // A merge under way takes its outputs back and gives its claim back.
                    if tokio::time::timeout(CLOSING, &mut running).await.is_err() {
                        running.abort();
                        let _aborted = running.await;
                    }
                }
                ended = &mut running => if let Err(defect) = ended {
                    tracing::error!(r#loop = name, %defect, "a defect ended this loop; restart the compactor");
                    shared.status.lock().trouble.insert(name, format!("ended by a defect: {defect}"));
                }
            }
        });
    }

    async fn merge_loop(self) {
        let mut view = self.0.current.clone();
        let mut paused = self.0.paused.subscribe();
        let mut backoff = Backoff::new(&self.0.settings);
        loop {
            let outlook =
                if *paused.borrow_and_update() { Outlook::default() } else { self.outlook(&mut view) };
            let Some(planned) = outlook.plan else {
                tokio::select! {
                   biased;
                    () = self.0.stop.cancelled() => return,
                    changed = view.changed() => if changed.is_err() { return },
                    changed = paused.changed() => if changed.is_err() { return },
                    () = self.0.asked.notified() => {}
                    () = self.until(outlook.look_again) => {}
                }
                continue;
            };
            match self.carry_out(&planned).await {
                Ok(()) => self.well("merge", &mut backoff),
                Err(_) if self.is_closed() => return,
                Err(error) => self.ill("merge", &error, &mut backoff).await,
            }
        }
    }

    async fn carry_out(&self, planned: &Plan) -> Result<(), JobError> {
        match planned {
            Plan::Merge(merge) => self.merge(merge, None).await.map(drop),
            Plan::Expire(_) => self.expire().await.map(drop),
        }
    }

    /// Sleeps until the wall clock shows `at`, or for ever; at most [`LONGEST_NAP`], since a wall clock may be set.
    async fn until(&self, at: Option<Timestamp>) {
        let Some(at) = at else { return std::future::pending().await };
        let micros = at.micros().saturating_sub(self.0.db.env.clock.now().micros());
        let left = Duration::from_micros(u64::try_from(micros).unwrap_or_default());
        tokio::time::sleep(left.clamp(SHORTEST_NAP, LONGEST_NAP)).await;
    }

    fn outlook(&self, view: &mut watch::Receiver<Option<Current>>) -> Outlook {
        let current = view.borrow_and_update();
        let Some(manifest) = current.as_ref().map(|c| &c.manifest) else { return Outlook::default() };
        self.0.metrics.observe(manifest, &self.0.settings);
        if self.0.full.lock().is_some() {
            let planned = plan::full(manifest, &self.0.settings);
            if planned.is_none() {
                *self.0.full.lock() = None;
            }
            if let Some(planned) = planned {
                return Outlook { plan: Some(Plan::Merge(planned)), look_again: None };
            }
        }
        plan::next(manifest, &self.0.settings, self.0.db.env.clock.now())
    }

    /// Lets every table go whose retention has ended, as the newest manifest says.
    ///
    /// # Errors
    /// [`JobError`]; [`JobError::Stale`] where there is none any more.
    pub async fn expire(&self) -> Result<Expired, JobError> {
        let shared = &self.0;
        let gone = retain::expire(&shared.db, &shared.node, &shared.settings).await?;
        shared.status.lock().expired_tables += gone.tables;
        Ok(gone)
    }

    /// Claims, merges, commits; stops at `deadline` unless the commit has begun.
    ///
    /// # Errors
    /// [`JobError`]; the outputs were taken back unless the commit's outcome is unknown.
    pub async fn merge(
        &self,
        planned: &MergePlan,
        deadline: Option<Instant>,
    ) -> Result<MergeReport, JobError> {
        let shared = &self.0;
        let id = planned.job();
        let started = Instant::now();
        shared.status.lock().merging = Some(format!("{} runs, {}", planned.inputs.len(), planned.reason));
        let bounds = self.bounds(deadline);
        let result = job::with_claim(&shared.db, &shared.node, id, bounds, async |claimed| {
            self.merge_claimed(planned, id, &claimed).await
        })
        .await;
        let mut status = shared.status.lock();
        status.merging = None;
        let report = result?;
        status.merges += 1;
        status.bytes_read += report.bytes_read;
        status.bytes_written += report.bytes_written;
        drop(status);
        *shared.full.lock() = None;
        shared.metrics.merged(&report);
        tracing::info!(
            job = %id,
            reason = planned.reason,
            inputs = report.inputs,
            bytes_read = report.bytes_read,
            bytes_written = report.bytes_written,
            rows_in = report.rows_in,
            rows_out = report.rows_out,
            seconds = started.elapsed().as_secs_f64(),
            "merged"
        );
        Ok(report)
    }

    async fn merge_claimed(
        &self,
        planned: &MergePlan,
        id: JobId,
        claimed: &Claimed,
    ) -> Result<MergeReport, JobError> {
        let db = &self.0.db;
        // Read after the claim: what the job is checked against is never older than its right to do it.
        let loaded = db.load().await?;
        let replanned = refresh(planned, &loaded.manifest)?;
        let owner = format!("{id}-{:016x}", db.env.entropy.next_u64());
        let settings = &self.0.settings;
        let merged = execute::merge(db, settings, &replanned, &loaded.manifest, &owner, claimed).await?;
        match self.commit_merge(id, claimed, &merged).await {
            Ok(()) => Ok(MergeReport {
                inputs: replanned.inputs.len(),
                bytes_read: replanned.bytes,
                bytes_written: merged.bytes_written,
                rows_in: merged.rows_in,
                rows_out: merged.rows_out,
            }),
            Err(error) => {
                if !matches!(error, JobError::Unknown(_)) {
                    execute::take_back(db, &merged.outputs).await;
                }
                Err(error)
            }
        }
    }

    /// Commits on top of the head as it is now. Of the one the merge began with, after hours of other people's commits,
    /// the manifest would no longer remember who made the next version, and nobody could tell whether it was us.
    async fn commit_merge(&self, id: JobId, claimed: &Claimed, merged: &Merged) -> Result<(), JobError> {
        let db = &self.0.db;
        let now = db.load().await?;
        let changes = vec![merged.change.clone()];
        job::commit_changes(db, &claimed.authority, &Author::Job(id), changes, now).await.map(drop)
    }

    /// What ends a job here before its time.
    pub(crate) fn bounds(&self, deadline: Option<Instant>) -> Bounds {
        Bounds { deadline, stop: self.0.stop.clone() }
    }

    async fn checkpoint_loop(self) {
        let mut view = self.0.current.clone();
        let mut backoff = Backoff::new(&self.0.settings);
        while !self.is_closed() {
            let loaded = view.borrow_and_update().as_ref().map(loaded_of);
            let mut again = None;
            if let Some(loaded) = loaded {
                match self.keep_house(&loaded).await {
                    Ok(pause) => {
                        self.well("checkpoint", &mut backoff);
                        again = pause;
                    }
                    Err(error) => {
                        self.ill("checkpoint", &error, &mut backoff).await;
                        continue;
                    }
                }
            }
            tokio::select! {
                biased;
                () = self.0.stop.cancelled() => return,
                changed = view.changed() => if changed.is_err() { return },
                () = after(again) => {}
            }
        }
    }

    /// Folds where due, trims the log by its retention, ends expired snapshots. Gives back how long until the clock
    /// makes more work of that kind.
    pub(crate) async fn keep_house(&self, loaded: &Loaded) -> Result<Option<Duration>, JobError> {
        let (db, settings) = (&self.0.db, &self.0.settings);
        let now = db.env.clock.now();
        let House { changes, left_behind, again } = house::plan(&loaded.manifest, settings, now);
        let again = again.map(|at| Duration::from_micros(at.0.saturating_sub(now.0).max(0).unsigned_abs()));
        if !changes.is_empty() {
            let id = plan::job_named("house");
            let node = &self.0.node;
            job::under_claim(db, node, id, async |authority| {
                let fresh = db.coordination.load().await?;
                job::commit_changes(db, &authority, &Author::Job(id), changes, fresh).await.map(drop)
            })
            .await?;
            for (group, lag) in &left_behind {
                let Lag { records, bytes, .. } = lag;
                tracing::warn!(
                    %group, records, bytes,
                    "this consumer group is further behind than it may be; log it has not consumed was let go"
                );
            }
            return Ok(again);
        }
        let bounds = fold::FoldBounds { edits: settings.fold_edits };
        if fold::is_due(&loaded.manifest, &loaded.state, bounds) && fold::fold(db, loaded).await?.is_some() {
            self.0.status.lock().checkpoints += 1;
        }
        Ok(again)
    }

    async fn garbage_loop(self) {
        let mut view = self.0.current.clone();
        let mut backoff = Backoff::new(&self.0.settings);
        while !self.is_closed() {
            let waiting = view.borrow_and_update().as_ref().is_some_and(|c| !c.manifest.retired.is_empty());
            let mut again = None;
            if waiting {
                match self.collect(false).await {
                    Ok(pass) => {
                        self.well("garbage", &mut backoff);
                        again = pass.again;
                    }
                    Err(error) => {
                        self.ill("garbage", &error, &mut backoff).await;
                        continue;
                    }
                }
            }
            // Every flush retires something; the grace, not the flush, decides when to look again.
            match again {
                Some(pause) => self.pause_for(pause).await,
                None => tokio::select! {
                    biased;
                    () = self.0.stop.cancelled() => return,
                    changed = view.changed() => if changed.is_err() { return },
                },
            }
        }
    }

    /// The first sweep comes an interval after the start: a crash loop must not become a loop of listings.
    async fn sweep_loop(self) {
        let interval = Duration::from_secs(self.0.settings.sweep_interval_seconds);
        let mut backoff = Backoff::new(&self.0.settings);
        let mut pause = interval;
        loop {
            self.pause_for(pause).await;
            if self.is_closed() {
                return;
            }
            pause = match self.sweep(false).await {
                Ok(swept) => {
                    self.well("sweep", &mut backoff);
                    if swept.complete { interval } else { BETWEEN_PASSES }
                }
                Err(JobError::ClaimedElsewhere(who)) => {
                    tracing::debug!(%who, "another compactor sweeps");
                    interval
                }
                Err(error) => {
                    self.ill("sweep", &error, &mut backoff).await;
                    Duration::ZERO
                }
            };
        }
    }

    /// Sleeps, or until the compactor is closed.
    async fn pause_for(&self, pause: Duration) {
        tokio::select! {
            biased;
            () = self.0.stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// One collector pass.
    pub(crate) async fn collect(&self, dry_run: bool) -> Result<collector::Pass, JobError> {
        let shared = &self.0;
        let mut collector = shared.collector.lock().await;
        let pass = collector.pass(&shared.db, &shared.node, &shared.settings, dry_run).await?;
        if !dry_run {
            let mut status = shared.status.lock();
            status.deleted += pass.deleted;
            status.undeletable = pass.failed;
            shared.metrics.collected(&pass);
        }
        Ok(pass)
    }

    /// One pass of the orphan sweep.
    pub(crate) async fn sweep(&self, dry_run: bool) -> Result<Swept, JobError> {
        let shared = &self.0;
        let mut sweeper = shared.sweeper.lock().await;
        let swept = sweeper.pass(&shared.db, &shared.node, &shared.settings, dry_run).await?;
        if !dry_run {
            let mut status = shared.status.lock();
            status.swept += swept.deleted;
            status.undeletable = swept.failed;
            status.unknown = swept.unknown;
            shared.metrics.swept(&swept);
        }
        Ok(swept)
    }

    fn well(&self, name: &'static str, backoff: &mut Backoff) {
        backoff.reset();
        self.0.status.lock().trouble.remove(name);
    }

    async fn ill(&self, name: &'static str, error: &JobError, backoff: &mut Backoff) {
        let pause = backoff.next();
        match error {
            JobError::ClaimedElsewhere(_) | JobError::Stale(_) => {
                tracing::debug!(r#loop = name, %error, "will plan again");
            }
            _ => {
                tracing::warn!(r#loop = name, %error, retry_in_seconds = pause.as_secs_f64(), "failed; will try again");
                self.0.status.lock().trouble.insert(name, error.to_string());
            }
        }
        self.pause_for(pause).await;
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
    let mut snapshots: Vec<_> = manifest.snapshots.values().map(|s| s.seq).collect();
    snapshots.sort_unstable();
    snapshots.dedup();
    if planned.mode != manifest.compaction {
        return Err(JobError::Stale("the compaction mode has changed".to_owned()));
    }
    let bottom = at + planned.inputs.len() == manifest.runs.len();
    Ok(MergePlan { snapshots, bottom, ..planned.clone() })
}

/// Resolves after `pause`, or never.
async fn after(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

fn loaded_of(current: &Current) -> Loaded {
    Loaded { state: current.state.clone(), manifest: Arc::clone(&current.manifest), as_of: current.as_of }
}

/// Doubling pauses between failures.
#[derive(Debug)]
struct Backoff {
    first: f64,
    longest: f64,
    next: f64,
}

impl Backoff {
    fn new(settings: &CompactorSettings) -> Self {
        let (first, longest) = settings.backoff_seconds;
        Self { first, longest, next: first }
    }

    fn reset(&mut self) {
        self.next = self.first;
    }

    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2.0).min(self.longest);
        Duration::from_secs_f64(pause)
    }
}
