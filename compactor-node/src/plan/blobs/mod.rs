//! Blob files of which little is alive: their values move into new ones, and the file goes with its last pointer.
//!
//! Whatever drops rows (a merge, retention) leaves bytes in blob files that nothing points at. A file is **due** when
//! `blob_garbage_percent` of it are garbage, as the tables' counts tell ([`Manifest::blob_files`]); what is not known, and
//! what the log points at, is not. Any merge moves the values of its rows that lie in due files, since their rows are
//! written again in any case. Where no merge comes along, a run is merged with itself for that reason alone, and only those of
//! its tables are written again that point at such files.
//!
//! # Worth it
//! A table may point at thousands of files, so it must not be written again for one that has become due. What a file would
//! set free is shared out among the tables that point at it, by their lengths. A table is worth it when its shares are as
//! much as it is long, and a file when all of its tables are. So such a merge never writes more than about what it sets
//! free, and what is left lying about in due files is less than the tables that point at them.
//!
//! # It comes to an end
//! Each merge moves at least one value out of a due file into one of which all is alive, and nothing but dropping more rows
//! makes that one due. A file that loses values without losing all becomes more garbage, not less, and is planned again; with
//! the last pointer it is gone. Rows that only a snapshot sees are kept, and count as alive. One merge moves about
//! `part_bytes`, whole tables from the smallest key on: it needs no parts, and what is moved is committed.
//!
//! # What is left to others
//! Flushed runs: a merge is on its way to them, and in `fifo` and `time_window` a run that is no longer counted as flushed
//! would not be joined. In these two modes also runs in the second half of their retention: their garbage goes by itself
//! sooner than it could have lain there, and every row would be written once more for that.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isle_storage::ids::Timestamp;
use isle_storage::manifest::{BlobFile, Manifest, Run, TableEntry};
use isle_storage::row::BlobId;

use super::{MergePlan, Stretch, percent};
use crate::settings::CompactorSettings;

/// What a merge is about that only moves values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moving {
    /// The files whose values move.
    pub files: BTreeSet<BlobId>,
    /// The tables whose rows are written again; all others stay as they are.
    pub tables: BTreeSet<String>,
    /// Bytes of values to move.
    pub live: u64,
    /// Bytes that nobody points at, in these files.
    pub garbage: u64,
}

/// The files of which enough is garbage, but for those that cannot be read.
#[must_use]
pub fn due(
    manifest: &Manifest,
    settings: &CompactorSettings,
    unreadable: &BTreeSet<BlobId>,
) -> BTreeSet<BlobId> {
    due_files(manifest, settings, unreadable).into_keys().cloned().collect()
}

/// Merges of one run with itself, one for each run that has something to move.
pub(super) fn plans(
    manifest: &Manifest,
    settings: &CompactorSettings,
    now: Timestamp,
    unreadable: &BTreeSet<BlobId>,
) -> Vec<MergePlan> {
    let files = due_files(manifest, settings, unreadable);
    if files.is_empty() {
        return Vec::new();
    }
    let worth = worth(manifest, &files, now);
    let runs = manifest.runs.iter().enumerate();
    runs.filter_map(|(at, run)| of_run(manifest, settings, at, run, &files, &worth)).collect()
}

fn due_files<'m>(
    manifest: &'m Manifest,
    settings: &CompactorSettings,
    unreadable: &BTreeSet<BlobId>,
) -> BTreeMap<&'m BlobId, BlobFile> {
    let is_due = |name: &BlobId, file: &BlobFile| {
        file.live.values > 0
            && percent(file.garbage(), file.len) >= settings.blob_garbage_percent
            && !unreadable.contains(name)
    };
    manifest.blob_files().into_iter().filter(|(name, file)| is_due(name, file)).collect()
}

/// The due files all of whose tables are worth being written again.
fn worth<'m>(
    manifest: &'m Manifest,
    files: &BTreeMap<&'m BlobId, BlobFile>,
    now: Timestamp,
) -> BTreeSet<&'m BlobId> {
    let pointing: Vec<(bool, &Arc<TableEntry>, Vec<&BlobId>)> = manifest
        .runs
        .iter()
        .flat_map(|run| run.tables.iter().map(move |table| (run, table)))
        .map(|(run, table)| (is_free(manifest, run, now), table, pointed(table, files)))
        .filter(|(.., names)| !names.is_empty())
        .collect();
    let mut lens: BTreeMap<&BlobId, u64> = BTreeMap::new();
    for (_, table, names) in &pointing {
        names.iter().for_each(|name| *lens.entry(name).or_default() += table.len);
    }
    let mut worth: BTreeSet<&BlobId> = lens.keys().copied().collect();
    for (is_free, table, names) in &pointing {
        let share = |name: &BlobId| {
            let garbage = files.get(name).map_or(0, BlobFile::garbage);
            u128::from(garbage) * u128::from(table.len)
                / u128::from(lens.get(name).copied().unwrap_or(1).max(1))
        };
        let gain: u128 = names.iter().map(|name| share(name)).sum();
        if !is_free || gain < u128::from(table.len) {
            for name in names {
                worth.remove(name);
            }
        }
    }
    worth
}

/// Whether a merge of this run alone takes nothing away from others.
fn is_free(manifest: &Manifest, run: &Run, now: Timestamp) -> bool {
    let young = |us: i64| now.0.saturating_sub(run.max_time().0) < us / 2;
    !run.l0 && manifest.compaction.retention_us().is_none_or(young)
}

fn of_run(
    manifest: &Manifest,
    settings: &CompactorSettings,
    at: usize,
    run: &Run,
    files: &BTreeMap<&BlobId, BlobFile>,
    worth: &BTreeSet<&BlobId>,
) -> Option<MergePlan> {
    let mut moving = Moving { files: BTreeSet::new(), tables: BTreeSet::new(), live: 0, garbage: 0 };
    let (mut bytes, mut whole) = (0u64, 0u64);
    for table in &run.tables {
        let used = table.blobs.iter().zip(&table.blob_use).filter(|(name, _)| worth.contains(name));
        let before = moving.live;
        for (name, used) in used {
            moving.live = moving.live.saturating_add(used.bytes);
            moving.tables.insert(table.name.clone());
            if moving.files.insert(name.clone())
                && let Some(file) = files.get(name)
            {
                moving.garbage = moving.garbage.saturating_add(file.garbage());
                whole = whole.saturating_add(file.len);
            }
        }
        if moving.tables.contains(&table.name) {
            bytes = bytes.saturating_add(table.len).saturating_add(moving.live - before);
        }
        if moving.live >= settings.part_bytes {
            break;
        }
    }
    if moving.tables.is_empty() {
        return None;
    }
    let due = percent(moving.garbage, whole).saturating_mul(100) / settings.blob_garbage_percent.max(1);
    let plan = Stretch::whole(manifest).plan(at, at + 1, "blob_garbage", due);
    Some(MergePlan { bytes, moving: Some(moving), ..plan })
}

/// The due files that a table points at.
fn pointed<'m>(table: &'m TableEntry, files: &BTreeMap<&'m BlobId, BlobFile>) -> Vec<&'m BlobId> {
    table.blobs.iter().filter(|name| files.contains_key(name)).collect()
}
