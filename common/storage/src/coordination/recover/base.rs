//! The checkpoint to build on: the newest that verifies, is of this database, and whose objects are all there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::coordination::lineage::LineageObject;
use crate::ids::{DatabaseId, Lineage};
use crate::manifest::{Edit, EditError, Manifest};
use crate::names;

/// How many missing objects a rejection lists.
const MOST_LISTED: usize = 5;

/// A checkpoint that cannot be built on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The checkpoint.
    pub path: String,
    /// Why.
    pub why: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}

/// The manifest to build on.
#[derive(Debug, Clone)]
pub(super) struct Base {
    /// The checkpoint it was read from.
    pub(super) path: String,
    /// Its manifest, with whatever edits could be replayed onto it.
    pub(super) manifest: Arc<Manifest>,
}

/// Length of every object in `log/`, `table/` and `blob/`, by path.
pub(super) type Objects = BTreeMap<String, u64>;

/// Judges a verified checkpoint. Edits are replayed onto it where they lead to objects that are there.
pub(super) fn judge(
    path: &str,
    manifest: Manifest,
    edits: &[Arc<Edit>],
    database: DatabaseId,
    lineages: &[LineageObject],
    objects: &Objects,
) -> Result<Base, Rejected> {
    let rejected = |why: String| Rejected { path: path.to_owned(), why };
    if manifest.database != database {
        return Err(rejected(format!("it is of database {}", manifest.database)));
    }
    if number_of(lineages, manifest.lineage).is_none() {
        return Err(rejected(format!(
            "it is of lineage {}, which no lineage object lists",
            manifest.lineage
        )));
    }
    let replayed = replay(&manifest, edits);
    let found = |manifest: Manifest| Base { path: path.to_owned(), manifest: manifest.into() };
    if replayed.version > manifest.version && missing(&replayed, objects).is_empty() {
        return Ok(found(replayed));
    }
    let missing = missing(&manifest, objects);
    if missing.is_empty() {
        return Ok(found(manifest));
    }
    let more = missing.len().saturating_sub(MOST_LISTED);
    let listed = missing[..missing.len() - more].join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(rejected(format!("it names objects that are not there as they should be: {listed}{more}")))
}

/// A lineage's place in the row of histories.
pub(super) fn number_of(lineages: &[LineageObject], lineage: Lineage) -> Option<u64> {
    lineages.iter().find(|l| l.lineage == lineage).map(|l| l.number)
}

/// Replays edits from the one after `start` up to the first that is missing or does not fit. A void one (of a fenced
/// maker) uses up its number.
fn replay(start: &Manifest, edits: &[Arc<Edit>]) -> Manifest {
    let mut at = start.clone();
    for edit in edits.iter().skip_while(|e| e.version <= start.version) {
        if edit.version != at.version.next() {
            break;
        }
        at = match at.apply(edit) {
            Ok(next) => next,
            Err(EditError::WrongEpoch { .. } | EditError::WrongLineage { .. }) => at.skip_void(edit.version),
            Err(_) => break,
        };
    }
    at
}

/// The live objects of `manifest` that are not there, or not as long as they should be.
fn missing(manifest: &Manifest, objects: &Objects) -> Vec<String> {
    let log = manifest.log.iter().map(|e| (e.path(), e.len));
    let tables = manifest.tables().map(|t| (t.path(), t.len));
    let blobs = manifest.blobs.iter().map(|(name, len)| (names::blob(name), *len));
    let named = log.chain(tables).chain(blobs);
    let wrong = named.filter_map(|(path, len)| match objects.get(path.as_str()) {
        Some(found) if *found == len => None,
        Some(found) => Some(format!("{path} ({found} bytes instead of {len})")),
        None => Some(format!("{path} (gone)")),
    });
    wrong.collect()
}
