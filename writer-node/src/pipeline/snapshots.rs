//! Requests about named snapshots within the pipeline: which edit carries them, and what its outcome means for them.

use std::sync::Arc;

use isle_storage::coordination::commit::judge_edit_in;
use isle_storage::coordination::{CoordinationError, Loaded};
use isle_storage::manifest::judge::Judgement;
use isle_storage::manifest::{Change, LogEntry};

use super::publish::{Turn, TurnResult};
use super::{End, Pipeline};
use crate::snapshots::{Admitted, Point};

impl Pipeline {
    /// What the next edit, whose newest segment is `newest`, does to snapshots; and whether somebody is left whom only
    /// a look at the head decides.
    pub(super) fn admit_asks(&mut self, newest: Option<&LogEntry>) -> (Vec<Change>, Vec<Admitted>, bool) {
        let m = &self.current.manifest;
        let (last_seq, last_time) =
            newest.map_or((m.last_seq, m.last_write_time), |e| (e.last_seq, e.last_time));
        let mut point = Point {
            last_seq,
            now: m.snapshot_instant(self.engine.db.env.clock.now().max(last_time)),
            epoch: self.term.epoch,
            snapshots: m.snapshots.clone(),
            limit: self.engine.settings.max_snapshots,
        };
        self.asks.admit(&mut point)
    }

    pub(super) fn look_turn(&mut self) -> Turn {
        self.asks.read_begins();
        let engine = Arc::clone(&self.engine);
        Turn::new(async move { TurnResult::Look(engine.db.load().await) })
    }

    pub(super) fn end_look(&mut self, looked: Result<Loaded, CoordinationError>) -> Result<(), End> {
        match looked {
            Ok(loaded) => {
                self.asks.read_ends();
                self.install(loaded)
            }
            Err(e) => {
                self.asks.read_fails(&e);
                Ok(())
            }
        }
    }

    /// The edit is committed.
    pub(super) fn grant(&mut self) {
        let edit = self.publishing.granting.take();
        edit.into_iter().flat_map(|e| e.admitted).for_each(Admitted::done);
    }

    /// The edit's segments are part of the log; a successor that has adopted them took nothing else of it.
    pub(super) fn judge_granted(&mut self) {
        let Some(edit) = self.publishing.granting.take() else { return };
        match judge_edit_in(&self.current.manifest, edit.version, edit.epoch, edit.commit) {
            Some(Judgement::Committed) => edit.admitted.into_iter().for_each(Admitted::done),
            Some(Judgement::NotCommitted) => self.asks.put_back(edit.admitted),
            Some(Judgement::Unknown) | None => {
                for admitted in edit.admitted {
                    admitted.unknown("the head has moved on too far to tell");
                }
            }
        }
    }

    /// The edit was certainly not committed, and is made anew.
    pub(super) fn take_back_granted(&mut self) {
        if let Some(edit) = self.publishing.granting.take() {
            self.asks.put_back(edit.admitted);
        }
    }
}
