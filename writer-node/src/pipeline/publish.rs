//! Publishing: what the next edit carries, and what its outcome means.

use std::sync::Arc;

use isle_storage::coordination::commit::{Resolved, propose};
use isle_storage::coordination::{CoordinationError, Loaded, Proposal};
use isle_storage::ids::{CommitId, SeqNo};
use isle_storage::manifest::{Author, Change, Edit, EditError};
use isle_storage::row::BlobId;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tracing::debug;

use super::commit::{Committed, commit_until_known};
use super::{End, Pipeline};
use crate::generation::Flushed;
use crate::intake::Outcome;
use crate::snapshots::{Admitted, EditInDoubt};

/// What is under way at the head; one at a time.
#[derive(Debug)]
pub(super) struct Turn {
    work: JoinHandle<TurnResult>,
}

/// A commit, or a fold.
#[derive(Debug)]
pub(super) enum TurnResult {
    /// A commit whose outcome is known.
    Commit(Box<Committed>),
    /// A fold: the head after it.
    Fold(Result<Loaded, String>),
    /// A look at the head, for those that an older one would refuse.
    Look(Result<Loaded, CoordinationError>),
}

/// What is to be done at the head next.
enum Next {
    Commit(Box<Proposal>),
    /// There is nothing to commit, and something that only a look decides.
    Look,
    Nothing,
}

/// What the proposal under way carries.
#[derive(Debug, Default)]
pub(super) struct Publishing {
    segments: usize,
    flush: Option<SeqNo>,
    /// Requests about snapshots that it grants, and the edit itself.
    pub(super) granting: Option<EditInDoubt>,
}

impl Turn {
    pub(super) fn new(work: impl Future<Output = TurnResult> + Send + 'static) -> Self {
        Self { work: tokio::spawn(work) }
    }

    /// The turn's end; never, where there is none.
    pub(super) async fn ended(turn: &mut Option<Self>) -> Result<TurnResult, JoinError> {
        match turn {
            Some(turn) => (&mut turn.work).await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn abort(&self) {
        self.work.abort();
    }
}

impl Pipeline {
    /// Starts the next commit or fold, if there is one and none is under way. Returns when to look again, where the
    /// rate of commits is what it waits for.
    pub(super) fn begin_turn(&mut self) -> Result<Option<Instant>, End> {
        if self.turn.is_some() {
            return Ok(None);
        }
        self.begin_fold();
        if let Some(checkpoint) = self.folding.take_ready() {
            self.turn = Some(self.fold_turn(checkpoint));
            return Ok(None);
        }
        let flush = self.generations.publishable();
        let idle = !self.line.is_ready() && flush.is_none();
        if idle && !self.asks.is_due(self.current.manifest.last_seq) {
            return Ok(None);
        }
        let now = Instant::now();
        if let Some(at) = self.pace.next()
            && at > now
        {
            return Ok(Some(at));
        }
        self.pace.count(now);
        self.begin_commit(flush.as_deref())?;
        Ok(None)
    }

    fn begin_commit(&mut self, flush: Option<&Flushed>) -> Result<(), End> {
        let proposal = match self.next_proposal(flush)? {
            Next::Commit(proposal) => *proposal,
            Next::Look => {
                self.turn = Some(self.look_turn());
                return Ok(());
            }
            Next::Nothing => return Ok(()),
        };
        let commit = proposal.edit.commit;
        let segments = proposal.edit.changes.iter().map(appended).sum();
        self.publishing.segments = segments;
        self.publishing.flush = flush.map(|f| f.last_seq);
        self.line.propose(segments, commit);
        self.asks.read_begins();
        debug!(
            epoch = %self.term.epoch, version = %proposal.edit.version, %commit, segments,
            last_seq = %proposal.head.last_seq, flushed_seq = ?self.publishing.flush, "commit begins"
        );
        let (engine, term) = (Arc::clone(&self.engine), Arc::clone(&self.term));
        self.turn = Some(Turn::new(async move {
            TurnResult::Commit(Box::new(commit_until_known(engine, term, proposal).await))
        }));
        Ok(())
    }

    fn next_proposal(&mut self, flush: Option<&Flushed>) -> Result<Next, End> {
        let segments = self.line.ready_front(self.engine.settings.segments_per_commit);
        let (asked, admitted, doubtful) = self.admit_asks(segments.last().map(AsRef::as_ref));
        let mut changes = Vec::new();
        if !segments.is_empty() {
            let blobs = self.engine.blobs.added(&segments, &self.current.manifest).map_err(|blob| {
                End::Fenced(format!("a segment points at blob file {blob}, which is not this writer's"))
            })?;
            if !blobs.is_empty() {
                changes.push(Change::AddBlobs { blobs });
            }
            changes.push(Change::AppendLog { segments });
        }
        changes.extend(flush.map(Flushed::change));
        changes.extend(asked);
        if changes.is_empty() {
            return Ok(if doubtful { Next::Look } else { Next::Nothing });
        }
        let edit = Edit {
            version: self.current.manifest.version.next(),
            lineage: self.term.lineage,
            epoch: self.term.epoch,
            commit: CommitId(self.engine.db.env.entropy.next_u64()),
            author: Author::Writer,
            required_features: required_features(&changes),
            changes,
            extra: Default::default(),
        };
        self.publishing.granting = granting(&edit, admitted);
        let proposal = propose(&self.current.state, &self.current.manifest, edit, &self.term.authority);
        proposal.map(|p| Next::Commit(Box::new(p))).map_err(|e| match e {
            EditError::WrongEpoch { .. } | EditError::WrongLineage { .. } => {
                End::Fenced(format!("the head is another writer's: {e}"))
            }
            // Nobody but the writer of this epoch may append or flush, so this manifest is not what it should be.
            other => {
                End::Fenced(format!("the manifest does not continue what this writer has written: {other}"))
            }
        })
    }

    /// The turn has ended: what it means.
    pub(super) fn end_turn(&mut self, result: Result<TurnResult, JoinError>) -> Result<(), End> {
        self.turn = None;
        match result {
            Ok(TurnResult::Commit(committed)) => self.end_commit(*committed),
            Ok(TurnResult::Fold(folded)) => self.end_fold(folded),
            Ok(TurnResult::Look(looked)) => self.end_look(looked),
            Err(e) => Err(End::Fenced(format!("a commit died: {e}"))),
        }
    }

    fn end_commit(&mut self, committed: Committed) -> Result<(), End> {
        let Committed { proposal, resolved, began } = committed;
        // Whoever is still led after this has installed what the commit read.
        self.asks.read_ends();
        match resolved {
            Resolved::Committed(state) => {
                let manifest = Arc::clone(&proposal.manifest);
                self.install(Loaded { state, manifest, as_of: began })?;
                self.settle(&proposal);
                self.grant();
                Ok(())
            }
            Resolved::CommittedEarlier(loaded) => {
                self.install(loaded)?;
                self.settle(&proposal);
                self.judge_granted();
                Ok(())
            }
            Resolved::Moved(loaded) => {
                self.engine.metrics.conflicts.inc();
                debug!(version = %loaded.manifest.version, commit = %proposal.edit.commit, "the head has moved; proposing again");
                self.line.unpropose();
                self.take_back_granted();
                self.install(loaded)
            }
            // Which of its segments are part of the database is judged with everything else that is in doubt.
            Resolved::Fenced(why) | Resolved::CommittedThrough(_, why) => Err(End::Fenced(why)),
            // `commit_until_known` never ends with it; treated as the loss of the right, which is always safe.
            Resolved::Unknown(why) => {
                Err(End::Fenced(format!("the outcome of a commit stays unknown: {why}")))
            }
        }
    }

    /// Installs a newer manifest; one that is older than what was seen is never installed.
    pub(super) fn install(&mut self, loaded: Loaded) -> Result<(), End> {
        let (old, new) = (&self.current.manifest, &loaded.manifest);
        if new.lineage == old.lineage && (new.version < old.version || new.last_seq < old.last_seq) {
            return Err(End::Fenced(format!(
                "coordination_regressed: the head is at version {} and sequence number {}, after {} and {}",
                new.version, new.last_seq, old.version, old.last_seq
            )));
        }
        let default = new.default_ttl();
        if default != old.default_ttl()
            && let Some(sequencer) = self.engine.seat.lock().as_mut()
        {
            sequencer.set_default_ttl(default);
        }
        self.current = loaded;
        Ok(())
    }

    /// The proposal is part of the database: acknowledge, and let go of what is in tables.
    fn settle(&mut self, proposal: &Proposal) {
        let (now, version) = (Instant::now(), proposal.edit.version);
        let (metrics, mut records, mut waiters) = (&self.engine.metrics, 0, 0);
        metrics.commits.inc();
        for segment in self.line.commit(self.publishing.segments) {
            records += segment.tail.last_seq.0 + 1 - segment.tail.id.first_seq.0;
            waiters += segment.waiters;
            if let Some(ready) = segment.ready_at() {
                metrics.observe(crate::metrics::COMMIT, now - ready);
            }
            segment.completion.end(Outcome::Committed);
        }
        metrics.mutations.inc_by(records);
        self.engine.blobs.named(proposal.edit.changes.iter().flat_map(blobs_added));
        if records > 0 {
            self.rhythm.answered(waiters);
        }
        debug!(
            epoch = %self.term.epoch, %version, commit = %proposal.edit.commit, records,
            last_seq = %proposal.head.last_seq, "committed"
        );
        if let Some(flushed_seq) = self.publishing.flush.take() {
            self.retire(flushed_seq);
        }
    }

    fn retire(&mut self, flushed_seq: SeqNo) {
        let Some((generation, began)) = self.generations.retire(flushed_seq) else { return };
        self.engine.metrics.flushes.inc();
        self.engine.admission.free_flushed(generation.charge(), began);
        // Freeing thousands of blocks takes a while; nobody waits for it.
        self.engine.db.env.offload.detach(move || drop(generation));
    }
}

fn granting(edit: &Edit, admitted: Vec<Admitted>) -> Option<EditInDoubt> {
    let Edit { version, epoch, commit, .. } = *edit;
    (!admitted.is_empty()).then_some(EditInDoubt { version, epoch, commit, admitted })
}

fn required_features(changes: &[Change]) -> Vec<String> {
    changes.iter().filter_map(Change::required_feature).map(str::to_owned).collect()
}

fn blobs_added(change: &Change) -> impl Iterator<Item = &BlobId> {
    let added = match change {
        Change::AddBlobs { blobs } => Some(blobs.keys()),
        _ => None,
    };
    added.into_iter().flatten()
}

fn appended(change: &Change) -> usize {
    match change {
        Change::AppendLog { segments } => segments.len(),
        _ => 0,
    }
}
