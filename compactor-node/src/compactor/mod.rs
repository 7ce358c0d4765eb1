//! The compactor: loops that never wait for one another, and the single run for cron.
//!
//! | loop | wakes when | does |
//! | --- | --- | --- |
//! | merge (one for each of `merge_workers`) | the manifest has changed, somebody asked, or the planner's instant has come | chooses, claims, merges or lets tables go, commits |
//! | checkpoints | the manifest has changed | folds when due; trims the log; drops expired snapshots; gives up forsaken merges |
//! | garbage | something was retired, or its grace ends | one collector pass |
//! | sweep | its interval is over, an hour by default | one sweep for orphans |
//!
//! They are apart so that deletes never hold up merges and checkpoints never starve behind them. All but the sweep
//! sleep on the follower's view of the head: an idle database sees no request from here between two sweeps.

mod backoff;
mod damage;
mod loops;
mod merging;
mod request;
mod tasks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use isle_storage::coordination::follow::{self, Current};
use isle_storage::coordination::{Loaded, NodeInfo};
use isle_storage::database::Database;
use isle_storage::ids::{JobId, Version};
use isle_storage::manifest::{BlobFile, CompactionMode, Manifest};
use isle_storage::watch;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub(crate) use self::backoff::Backoff;
pub use self::damage::DamagedTable;
pub(crate) use self::merging::{Went, describe};
use self::request::Request;
use self::tasks::Busy;
pub(crate) use self::tasks::Task;
use crate::collector::Collector;
use crate::error::JobError;
use crate::execute::Resources;
use crate::job::Bounds;
use crate::metrics::CompactorMetrics;
use crate::mode::{self, Changed, Forecast};
use crate::plan;
use crate::settings::CompactorSettings;
use crate::sweep::Sweeper;

/// How long a loop has to end by itself when the compactor is closed.
const CLOSING: Duration = Duration::from_secs(5);

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
    /// Whether merges are paused, for the whole fleet.
    pub paused: bool,
    /// Who paused them, since when, and until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<isle_storage::manifest::Pause>,
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
    /// Blob files in use.
    pub blob_files: usize,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Those of these bytes that nothing points at, as far as that is known.
    pub blob_garbage_bytes: u64,
    /// What this process is merging, if anything.
    pub merging: Option<String>,
    /// The same, by the job's claim.
    #[serde(skip)]
    working: BTreeMap<JobId, String>,
    /// Merges in parts under way, by whomever.
    pub merges_in_parts: usize,
    /// Their parts that nobody has done yet.
    pub parts_left: usize,
    /// Merges done: each by the process that did the last of it.
    pub merges: u64,
    /// Parts of merges done.
    pub parts: u64,
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
    /// Tables that merges found damaged: their runs are left out of merges for a while.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedTable>,
    /// The newest failure of each loop, while it lasts.
    pub trouble: BTreeMap<&'static str, String>,
}

#[derive(Debug)]
struct Shared {
    db: Database,
    node: NodeInfo,
    settings: CompactorSettings,
    metrics: CompactorMetrics,
    current: watch::Receiver<Option<Current>>,
    busy: Mutex<Busy>,
    request: Mutex<Option<Request>>,
    resources: Resources,
    asked: Notify,
    status: Mutex<CompactorStatus>,
    /// As of that version.
    blob_garbage: Mutex<(Version, u64)>,
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
        let this = Self::new(db, node, settings, Collector::patient)?;
        for _ in 0..this.0.settings.merge_workers {
            this.spawn("merge", |c| async move { c.merge_loop("merge").await });
        }
        this.spawn("checkpoint", |c| async move { c.checkpoint_loop().await });
        this.spawn("garbage", |c| async move { c.garbage_loop().await });
        this.spawn("sweep", |c| async move { c.sweep_loop().await });
        this.0.tasks.close();
        Ok(this)
    }

    /// A compactor whose loops do not run: it merges when it is told to. [`crate::once`] is made of it.
    ///
    /// # Errors
    /// A sentence naming the setting that is wrong.
    pub fn idle(db: Database, node: NodeInfo, settings: CompactorSettings) -> Result<Self, String> {
        Self::new(db, node, settings, Collector::within)
    }

    fn new(
        db: Database,
        node: NodeInfo,
        settings: CompactorSettings,
        collector: fn(Bounds) -> Collector,
    ) -> Result<Self, String> {
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
        let resources = Resources::new(&settings);
        let bounds = Bounds { deadline: None, stop: stop.clone() };
        let shared = Shared {
            db,
            node,
            settings,
            metrics,
            current,
            busy: Mutex::default(),
            request: Mutex::default(),
            resources,
            asked: Notify::new(),
            status: Mutex::default(),
            blob_garbage: Mutex::default(),
            collector: tokio::sync::Mutex::new(collector(bounds.clone())),
            sweeper: tokio::sync::Mutex::new(Sweeper::within(bounds)),
            stop,
            tasks,
        };
        Ok(Self(Arc::new(shared)))
    }

    /// What it is doing and has done.
    #[must_use]
    pub fn status(&self) -> CompactorStatus {
        let mut status = self.0.status.lock().clone();
        status.merging = join(&status.working);
        status.damaged = self.0.busy.lock().damage.shown(Instant::now());
        if let Some(first) = status.damaged.first() {
            status.trouble.insert("damage", format!("{}: {}", first.object, first.error));
        }
        if let Some(current) = self.0.current.borrow().as_ref() {
            let m = &current.manifest;
            status.version = m.version.0;
            status.l0_runs = m.runs.iter().filter(|r| r.l0).count();
            status.runs = m.runs.len();
            status.tables = m.tables().count();
            status.retired = m.retired.len();
            status.paused = self.is_paused(m);
            status.pause = m.pause.clone().filter(|_| status.paused);
            status.merges_in_parts = m.staged.len();
            status.parts_left = m.staged.values().map(|s| s.missing().count()).sum();
            status.debt_bytes = plan::debt_bytes(m, &self.0.settings);
            status.blob_files = m.blobs.len();
            status.blob_bytes = m.blobs.values().sum();
            status.blob_garbage_bytes = self.blob_garbage(m);
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

    /// Bytes of blob files that nothing points at. Counted once for each version: the status is asked for often.
    fn blob_garbage(&self, manifest: &Manifest) -> u64 {
        let mut counted = self.0.blob_garbage.lock();
        if counted.0 != manifest.version {
            *counted = (manifest.version, manifest.blob_files().values().map(BlobFile::garbage).sum());
        }
        counted.1
    }

    /// Asks for a merge of everything into one run; answers with the id of the request, which need not be kept.
    pub fn compact(&self) -> JobId {
        let new = || Request::new(JobId(self.0.db.env.entropy.next_u64()));
        let id = self.0.request.lock().get_or_insert_with(new).id;
        self.0.asked.notify_waiters();
        self.0.asked.notify_one();
        id
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

    /// What ends a job here before its time.
    pub(crate) fn bounds(&self, deadline: Option<Instant>) -> Bounds {
        Bounds { deadline, stop: self.0.stop.clone() }
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

fn loaded_of(current: &Current) -> Loaded {
    Loaded { state: current.state.clone(), manifest: Arc::clone(&current.manifest), as_of: current.as_of }
}

fn join(working: &BTreeMap<JobId, String>) -> Option<String> {
    let all: Vec<&str> = working.values().map(String::as_str).collect();
    (!all.is_empty()).then(|| all.join("; "))
}
