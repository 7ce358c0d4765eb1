//! Reading the bucket form: finding the newest fold, catching up with edits, and proving that nothing was missed.

use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::{Duration, Instant};

use super::record::{FoldRecord, NumberedEdit};
use super::tip::Tip;
use super::{Inner, Turn};
use crate::coordination::write_once::get_if_there;
use crate::coordination::{CoordinationError, Loaded, checkpoint};
use crate::ids::Version;
use crate::names;

/// Edits read in one go; after each go the names are proven and the edits installed.
const BATCH: u64 = 256;

/// Edits read at the same time where a listing has shown that they are there.
const PARALLEL: usize = 16;

/// How often a load starts over because folds overtook it; at the limit it fails in passing.
const RESTARTS: usize = 16;

/// How long a look for new edits goes without a look for new fold records. Until then a watcher may miss that it has
/// been left behind; it never claims to be fresh on that ground.
const PROVE_EVERY: Duration = Duration::from_secs(1);

/// What a look at the bucket brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// So many new edits; whether there may be more.
    Edits { count: usize, more: bool },
    /// Folds have overtaken us: the tip is dropped, and everything is to be loaded anew.
    Overtaken,
}

impl Inner {
    /// The newest state, read now.
    pub(super) async fn load(&self, turn: &mut Turn) -> Result<Loaded, CoordinationError> {
        let as_of = Instant::now();
        for _ in 0..RESTARTS {
            if self.tip(|_| ()).is_none() {
                self.load_fold(turn).await?;
            }
            loop {
                match self.advance(turn, true).await? {
                    Progress::Edits { more: true, .. } => {}
                    Progress::Edits { more: false, .. } => {
                        if let Some(loaded) = self.tip(|tip| tip.loaded(as_of)) {
                            return Ok(loaded);
                        }
                    }
                    Progress::Overtaken => break,
                }
            }
        }
        Err(CoordinationError::Unavailable("folds keep overtaking the load of the manifest".to_owned()))
    }

    /// Starts at the newest fold record: one listing finds its number and how far the edits reach. (The listing finds
    /// where to start, never data: a record it missed is found by asking for the next number.)
    async fn load_fold(&self, turn: &mut Turn) -> Result<(), CoordinationError> {
        let fresh = Instant::now();
        let (mut newest, mut edits) = (0, Version::ZERO);
        let mut listing = self.bucket.list("manifest");
        while let Some(object) = listing.try_next().await? {
            newest = newest.max(names::parse_fold(&object.path).unwrap_or_default());
            edits = edits.max(names::parse_edit(&object.path).unwrap_or_default());
        }
        if newest == 0 {
            return Err(CoordinationError::NotFound(self.bucket.url()));
        }
        let mut record = self.fold_record(newest).await?.ok_or_else(|| {
            CoordinationError::Damaged(format!("{} was listed and is gone", names::fold(newest)))
        })?;
        loop {
            match checkpoint::read(self.bucket.as_ref(), &record.checkpoint).await {
                Ok(manifest) => {
                    turn.listed = edits;
                    self.install(Some(Tip::at_fold(&record, manifest, fresh)));
                    return Ok(());
                }
                // The collector may have deleted it, if a newer fold has taken its place meanwhile.
                Err(e) => match self.fold_record(record.number + 1).await? {
                    Some(newer) => record = newer,
                    None => return Err(e),
                },
            }
        }
    }

    /// Reads the edits after the tip, as many as there are up to a bound. Where `prove` is set, or it has not been done
    /// for a while, or there were any, asks for the next fold record afterwards: see the head of this folder.
    pub(super) async fn advance(&self, turn: &mut Turn, prove: bool) -> Result<Progress, CoordinationError> {
        let as_of = Instant::now();
        let Some(at) = self.tip(Tip::version) else { return Ok(Progress::Overtaken) };
        let edits = self.edits_after(at, turn.listed).await?;
        let more = edits.len() as u64 == BATCH;
        if edits.is_empty() && !prove && turn.proven.elapsed() < PROVE_EVERY {
            return Ok(Progress::Edits { count: 0, more: false });
        }
        let folds = self.newer_folds().await?;
        turn.proven = Instant::now();
        if self.overtaken(at.next(), &folds) {
            self.install(None);
            return Ok(Progress::Overtaken);
        }
        let (count, reached) = (edits.len(), Version(at.0 + edits.len() as u64));
        if !more && reached < turn.listed {
            self.install(None);
            return Err(CoordinationError::Damaged(format!(
                "{} is missing, though {} is there and no fold covers it",
                names::edit(reached.next()),
                names::edit(turn.listed)
            )));
        }
        self.update(|tip| {
            for edit in edits {
                tip.read(edit)?;
            }
            if let Some(newest) = folds.last() {
                tip.folded(newest);
            }
            if !more {
                tip.fresh = as_of;
            }
            Ok(())
        })?;
        Ok(Progress::Edits { count, more })
    }

    /// The fold records after the tip's, in order.
    pub(super) async fn newer_folds(&self) -> Result<Vec<FoldRecord>, CoordinationError> {
        let mut folds = Vec::new();
        let Some(mut number) = self.tip(Tip::fold) else { return Ok(folds) };
        loop {
            number += 1;
            match self.fold_record(number).await? {
                Some(record) => folds.push(record),
                None => return Ok(folds),
            }
        }
    }

    /// Whether names from `lowest` on may have been deleted and created anew, or belong to another lineage.
    pub(super) fn overtaken(&self, lowest: Version, folds: &[FoldRecord]) -> bool {
        let Some((gone, lineage)) = self.tip(|tip| (tip.gone, tip.manifest.lineage)) else { return true };
        gone >= lowest || folds.iter().any(|f| f.gone >= lowest || f.lineage != lineage)
    }

    pub(super) async fn fold_record(&self, number: u64) -> Result<Option<FoldRecord>, CoordinationError> {
        let bytes = get_if_there(self.bucket.as_ref(), &names::fold(number)).await?;
        bytes.map(|b| FoldRecord::decode(number, &b)).transpose()
    }

    /// One numbered edit. What it says is to be believed only after the fold records have been asked.
    pub(super) async fn edit(&self, version: Version) -> Result<Option<NumberedEdit>, CoordinationError> {
        let bytes = get_if_there(self.bucket.as_ref(), &names::edit(version)).await?;
        bytes.map(|b| NumberedEdit::decode(version, &b)).transpose()
    }

    /// Edits after `at` up to the first that is not there: those known to be listed in parallel, then one by one.
    async fn edits_after(
        &self,
        at: Version,
        listed: Version,
    ) -> Result<Vec<NumberedEdit>, CoordinationError> {
        let end = at.0 + BATCH;
        let known = at.0 + 1..=listed.0.min(end);
        let mut found = Vec::new();
        let mut parallel = stream::iter(known).map(|v| self.edit(Version(v))).buffered(PARALLEL);
        while let Some(edit) = parallel.try_next().await? {
            match edit {
                Some(edit) => found.push(edit),
                None => return Ok(found),
            }
        }
        while at.0 + (found.len() as u64) < end {
            match self.edit(Version(at.0 + found.len() as u64 + 1)).await? {
                Some(edit) => found.push(edit),
                None => break,
            }
        }
        Ok(found)
    }
}
