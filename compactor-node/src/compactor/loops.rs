//! The loops beside the merges: checkpoints and what else keeps house, garbage, the sweep. They never wait for one
//! another, nor for a merge.

use std::collections::BTreeMap;
use std::time::Duration;

use isle_storage::coordination::groups::{self, Groups};
use isle_storage::coordination::{Loaded, fold};
use isle_storage::ids::Timestamp;
use isle_storage::manifest::{Author, Lag};

use super::merging::forsaken;
use super::{Backoff, Compactor, loaded_of};
use crate::collector;
use crate::error::JobError;
use crate::house::{self, House};
use crate::job::{self, Attempt};
use crate::plan;
use crate::sweep::Swept;

/// Pause between two passes of one round of the sweep.
const BETWEEN_PASSES: Duration = Duration::from_secs(1);

impl Compactor {
    pub(super) async fn checkpoint_loop(self) {
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
                    Err(_) if self.is_closed() => return,
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

    /// Folds where due, trims the log by its retention, ends expired snapshots, gives up forsaken merges. Gives back how
    /// long until the clock makes more work of that kind.
    pub(crate) async fn keep_house(&self, loaded: &Loaded) -> Result<Option<Duration>, JobError> {
        let (db, settings) = (&self.0.db, &self.0.settings);
        let now = db.env.clock.now();
        let (house, _) = self.house(loaded, now).await?;
        let again = house.again;
        let again = again.map(|at| Duration::from_micros(at.0.saturating_sub(now.0).max(0).unsigned_abs()));
        let tidied;
        let mut newest = loaded;
        if !house.changes.is_empty() {
            self.tidy(now).await?;
            tidied = db.load().await?;
            newest = &tidied;
        }
        let bounds = fold::FoldBounds { edits: settings.fold_edits };
        if fold::is_due(&newest.manifest, &newest.state, bounds) && fold::fold(db, newest).await?.is_some() {
            self.0.status.lock().checkpoints += 1;
        }
        Ok(again)
    }

    /// What is to be let go, and the groups it was planned with, if any log is.
    async fn house(&self, loaded: &Loaded, now: Timestamp) -> Result<(House, Option<Groups>), JobError> {
        let (db, settings, manifest) = (&self.0.db, &self.0.settings, &loaded.manifest);
        let mut house = house::plan(manifest, &BTreeMap::new(), settings, now);
        let mut read = None;
        // Without old log there is nothing to ask the groups about.
        if house.trims() {
            let groups = groups::beside(db.coordination.as_ref(), manifest).await?;
            house = house::plan(manifest, &groups.cursors, settings, now);
            read = Some(groups);
        }
        let age = Duration::from_secs(settings.parts_max_age_seconds);
        house.changes.extend(forsaken(manifest, now, age));
        Ok((house, read))
    }

    /// Plans on the newest head and commits; planned anew wherever the head, or a group, has moved meanwhile: what a group
    /// needs that has just begun is not let go.
    async fn tidy(&self, now: Timestamp) -> Result<(), JobError> {
        let (db, id) = (&self.0.db, plan::job_named("house"));
        let author = Author::Job(id);
        let left_behind = job::under_claim(db, &self.0.node, id, &self.bounds(None), async |authority| {
            let mut fresh = db.coordination.load().await?;
            for _ in 0..job::MAX_COMMIT_ATTEMPTS {
                let (House { changes, left_behind, .. }, groups) = self.house(&fresh, now).await?;
                if changes.is_empty() {
                    return Ok(Vec::new());
                }
                match job::attempt(db, &authority, &author, changes, groups.as_ref(), &fresh).await? {
                    Attempt::Committed(_) => return Ok(left_behind),
                    Attempt::Moved(newer) => fresh = newer,
                }
            }
            Err(job::lost())
        })
        .await?;
        for (group, Lag { records, bytes, .. }) in &left_behind {
            tracing::warn!(
                %group, records, bytes,
                "this consumer group is further behind than it may be; log it has not consumed was let go"
            );
        }
        Ok(())
    }

    pub(super) async fn garbage_loop(self) {
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
                    Err(_) if self.is_closed() => return,
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
    pub(super) async fn sweep_loop(self) {
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
                Err(_) if self.is_closed() => return,
                Err(error) => {
                    self.ill("sweep", &error, &mut backoff).await;
                    Duration::ZERO
                }
            };
        }
    }

    /// Sleeps, or until the compactor is closed.
    pub(super) async fn pause_for(&self, pause: Duration) {
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
}

/// Resolves after `pause`, or never.
async fn after(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}
