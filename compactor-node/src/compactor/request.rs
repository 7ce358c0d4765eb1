//! A person's request to merge everything into one run, from the asking until it is done.
//!
//! Everything is what was in tables when it was asked for: otherwise a request would never be done while somebody writes.
//! It is done where the one merge that takes all of that has ended, or where it is one run and nothing in it could be
//! dropped now. Not by a merge that was under way when the request came, and not by those that only bring the number of
//! runs down to what one merge takes.
//!
//! A large merge is cut into parts, and any process may do the last one. So the request remembers which merge in parts it
//! has become. From then on it asks for nothing: what else is due goes on beside its parts.

use isle_storage::ids::{JobId, RunId, SeqNo, Timestamp, Version};
use isle_storage::manifest::Manifest;

use crate::plan::{self, MergePlan};
use crate::settings::CompactorSettings;

/// A request that is not done yet.
#[derive(Debug)]
pub(super) struct Request {
    /// What it is called.
    pub(super) id: JobId,
    /// The newest row that was in a table when it was first looked at.
    upto: Option<SeqNo>,
    /// The merge in parts that it has become, and one of the inputs.
    begun: Option<(Version, RunId)>,
}

/// Where a request stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stands {
    /// This merge is to be done for it, before everything else.
    Asks(MergePlan),
    /// It is a merge in parts, among others.
    Begun,
    /// There is nothing left to do for it.
    Done,
}

impl Request {
    pub(super) fn new(id: JobId) -> Self {
        Self { id, upto: None, begun: None }
    }

    /// Where it stands by `manifest`.
    pub(super) fn look(
        &mut self,
        manifest: &Manifest,
        settings: &CompactorSettings,
        now: Timestamp,
    ) -> Stands {
        let upto = *self.upto.get_or_insert(manifest.flushed_seq);
        if let Some((merge, input)) = self.begun {
            if manifest.staged.contains_key(&merge) {
                return Stands::Begun;
            }
            if manifest.runs.iter().all(|r| r.id != input) {
                return Stands::Done;
            }
            // It was given up, or had become impossible: its inputs are still there.
            self.begun = None;
        }
        let Some(planned) = plan::full(manifest, settings, now, upto) else { return Stands::Done };
        let takes_all = |inputs: &[RunId]| planned.inputs.iter().all(|run| inputs.contains(run));
        let begun = manifest.staged.iter().find(|(_, m)| planned.is_request() && takes_all(&m.inputs));
        self.begun = begun.and_then(|(id, m)| m.inputs.first().map(|input| (*id, *input)));
        if self.begun.is_some() { Stands::Begun } else { Stands::Asks(planned) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tasks::tests::{begin, manifest};
    use super::*;

    const M: u64 = 1 << 20;

    fn look(r: &mut Request, m: &Manifest) -> Result<Vec<u64>, &'static str> {
        match r.look(m, &CompactorSettings::default(), Timestamp(0)) {
            Stands::Asks(p) => Ok(p.inputs.iter().map(|id| id.0).collect()),
            Stands::Begun => Err("begun"),
            Stands::Done => Err("done"),
        }
    }

    #[test]
    fn a_request_becomes_a_merge_in_parts_and_is_done_when_that_is() {
        let mut m = manifest(&[(true, M), (true, M), (false, 10 * M), (false, 50 * M)]);
        let newest = m.runs.remove(0);
        m.flushed_seq = SeqNo(3);
        let mut r = Request::new(JobId(1));
        assert_eq!(look(&mut r, &m), Ok(vec![3, 2, 1]));
        // Somebody else's, of less than everything.
        begin(&mut m, &[2, 1]);
        assert_eq!(look(&mut r, &m), Ok(vec![3, 2, 1]));
        m.staged.clear();
        let merge = begin(&mut m, &[3, 2, 1]);
        // What is flushed from now on was not asked for.
        m.runs.insert(0, newest);
        m.flushed_seq = SeqNo(4);
        assert_eq!(look(&mut r, &m), Err("begun"));
        // It is given up, and begun once more.
        let staged = m.staged.remove(&merge).unwrap();
        assert_eq!(look(&mut r, &m), Ok(vec![3, 2, 1]));
        m.staged.insert(Version(12), staged);
        assert_eq!(look(&mut r, &m), Err("begun"));
        m.staged.clear();
        let mut merged = Arc::clone(&m.runs[1]);
        Arc::make_mut(&mut merged).id = RunId(20);
        m.runs.truncate(1);
        m.runs.push(merged);
        assert_eq!(look(&mut r, &m), Err("done"));
    }

    #[test]
    fn there_may_be_nothing_to_do() {
        assert_eq!(look(&mut Request::new(JobId(1)), &manifest(&[])), Err("done"));
        let mut one = manifest(&[(false, M)]);
        one.flushed_seq = SeqNo(1);
        assert_eq!(look(&mut Request::new(JobId(1)), &one), Err("done"));
    }
}
