//! Limbo: segments whose leadership ended between their dispatch and their commit.
//!
//! Their objects may be in the bucket, or may still land there, and the next takeover may adopt them. The truth is
//! in the path that the highest epoch object and the head describe: a segment is committed if the log leads through
//! it, and certainly not once a later epoch's cut leaves it out. Until one of the two can be read, its callers wait;
//! one that waits no longer is told `outcome_unknown`, never a failure.
//!
//! An edit that takes or drops a snapshot is judged by its commit's id: the path of the log says nothing of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use isle_storage::coordination::CoordinationError;
use isle_storage::coordination::commit::{judge_edit, judge_segment};
use isle_storage::ids::Epoch;
use isle_storage::manifest::LogTail;
use isle_storage::manifest::judge::Judgement;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::engine::Engine;
use crate::intake::Outcome;
use crate::pipeline::InDoubt;
use crate::snapshots::EditInDoubt;
use crate::standing::Trouble;

/// Segments in doubt, bounded by what one leadership may have under way times the takeovers nobody could judge.
#[derive(Debug, Default)]
pub(crate) struct Limbo {
    in_doubt: Mutex<Vec<InDoubt>>,
    edits: Mutex<Vec<EditInDoubt>>,
    judging: AtomicBool,
    changed: Notify,
    emptied: Notify,
}

impl Limbo {
    pub(crate) fn put(&self, more: Vec<InDoubt>, edit: Option<EditInDoubt>) {
        self.in_doubt.lock().extend(more);
        self.edits.lock().extend(edit);
    }

    pub(crate) fn take_edits(&self) -> Vec<EditInDoubt> {
        std::mem::take(&mut self.edits.lock())
    }

    pub(crate) fn take(&self) -> Vec<InDoubt> {
        std::mem::take(&mut self.in_doubt.lock())
    }

    pub(crate) fn len(&self) -> usize {
        self.in_doubt.lock().len() + self.edits.lock().len()
    }

    fn settle(&self, tail: &LogTail, outcome: Outcome) {
        let mut all = self.in_doubt.lock();
        if let Some(at) = all.iter().position(|d| d.tail == *tail) {
            all.remove(at).completion.end(outcome);
        }
        drop(all);
        self.tell_if_empty();
    }

    fn tell_if_empty(&self) {
        if self.len() == 0 {
            self.emptied.notify_waiters();
        }
    }

    /// Resolves once nothing is in doubt.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Something has happened that may decide: look at once.
    pub(crate) fn look_again(&self) {
        self.changed.notify_one();
    }
}

/// Judges until nothing is in doubt; one judge at a time.
pub(crate) fn spawn_judge(engine: &Arc<Engine>) {
    if engine.limbo.len() == 0 || engine.limbo.judging.swap(true, Ordering::AcqRel) {
        return;
    }
    let engine = Arc::clone(engine);
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = judge_all(&engine) => {}
            () = engine.stop.cancelled() => {}
        }
        engine.limbo.judging.store(false, Ordering::Release);
    });
}

async fn judge_all(engine: &Engine) {
    let mut backoff = engine.backoff();
    while engine.limbo.len() > 0 {
        match judge_once(engine).await {
            Ok(()) => engine.troubles.clear(Trouble::Judge),
            Err(e) => {
                warn!(error = %e, "batches in doubt cannot be judged yet");
                engine.troubles.set(Trouble::Judge, e.to_string());
            }
        }
        if engine.limbo.len() == 0 {
            break;
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(backoff.pause()) => {}
            () = engine.limbo.changed.notified() => {}
        }
    }
    engine.troubles.clear(Trouble::Judge);
}

/// One look at everything in doubt.
async fn judge_once(engine: &Engine) -> Result<(), CoordinationError> {
    judge_segments(engine).await?;
    judge_edits(engine).await
}

/// One look at every edit in doubt.
async fn judge_edits(engine: &Engine) -> Result<(), CoordinationError> {
    let edits: Vec<_> = engine.limbo.edits.lock().iter().map(|e| (e.version, e.epoch, e.commit)).collect();
    for (version, epoch, commit) in edits {
        let judgement = judge_edit(&engine.db, version, epoch, commit).await?;
        debug!(%version, %commit, ?judgement, "an edit in doubt is judged");
        if judgement == Some(Judgement::Unknown) {
            continue;
        }
        let edit = {
            let mut edits = engine.limbo.edits.lock();
            let at = edits.iter().position(|e| e.commit == commit);
            at.map(|at| edits.remove(at))
        };
        let why = format!("epoch {epoch} ended before it was committed");
        for admitted in edit.into_iter().flat_map(|e| e.admitted) {
            match judgement {
                Some(Judgement::Committed) => admitted.done(),
                Some(_) => admitted.refused(engine.refused(why.clone()).into()),
                None => admitted.unknown("it was made so long ago that nobody remembers by whom"),
            }
        }
        engine.limbo.tell_if_empty();
    }
    Ok(())
}

/// One look at every segment in doubt, in order. Within one epoch one that is not committed leaves out all that follow
/// it.
async fn judge_segments(engine: &Engine) -> Result<(), CoordinationError> {
    let tails: Vec<LogTail> = engine.limbo.in_doubt.lock().iter().map(|d| d.tail).collect();
    let mut cut: Option<Epoch> = None;
    for tail in tails {
        let judgement = match cut {
            Some(epoch) if epoch == tail.id.epoch => Judgement::NotCommitted,
            _ => judge_segment(&engine.db, &tail).await?,
        };
        debug!(segment = %tail.id, last_seq = %tail.last_seq, ?judgement, "a batch in doubt is judged");
        match judgement {
            Judgement::Committed => engine.limbo.settle(&tail, Outcome::Committed),
            Judgement::NotCommitted => {
                cut = Some(tail.id.epoch);
                let why = format!("epoch {} ended before it was committed", tail.id.epoch);
                engine.limbo.settle(&tail, Outcome::Refused(engine.refused(why)));
            }
            Judgement::Unknown => return Ok(()),
        }
    }
    Ok(())
}
