//! Where a large merge is cut: split keys at which the parts are about equal in bytes. Pure, but for reading the
//! tables' indexes.
//!
//! With many tables their bounds are samples enough. With few, each table's index says how many bytes lie below which
//! key. Any key may be a split: the versions of one key are never parted by one.

use std::sync::Arc;

use bytes::Bytes;
use isle_storage::database::Database;
use isle_storage::ids::{JobId, Version};
use isle_storage::manifest::staged::MAX_PARTS;
use isle_storage::manifest::{Key, Run};

use crate::error::JobError;
use crate::execute::read_meta;
use crate::plan::job_named;
use crate::settings::CompactorSettings;

/// With as many tables for every part their bounds are close enough.
const TABLES_PER_PART: usize = 16;

/// Samples taken of one table's index.
const SAMPLES_PER_TABLE: usize = 64;

/// The id under which a part of a merge is claimed.
#[must_use]
pub fn part_job(merge: Version, part: u32) -> JobId {
    job_named(&format!("part/{merge}/{part}"))
}

/// Into how many parts a merge of so many bytes is cut; 1 is not cut.
#[must_use]
pub fn count(bytes: u64, settings: &CompactorSettings) -> usize {
    let parts = bytes / settings.part_bytes.max(1);
    if parts < 2 { 1 } else { (parts as usize).min(MAX_PARTS) }
}

/// The keys to cut `inputs` at, for about `parts` parts; fewer where there are too few keys, none where they cannot be
/// cut.
///
/// # Errors
/// [`JobError::Store`], [`JobError::Damaged`].
pub async fn splits(db: &Database, inputs: &[Arc<Run>], parts: usize) -> Result<Vec<Key>, JobError> {
    let tables: Vec<_> = inputs.iter().flat_map(|r| &r.tables).collect();
    let mut samples = Vec::new();
    for table in &tables {
        if tables.len() >= parts * TABLES_PER_PART {
            samples.push((table.largest.0.clone(), table.len));
            continue;
        }
        let meta = read_meta(db, table).await?;
        let step = meta.block_count().div_ceil(SAMPLES_PER_TABLE).max(1);
        for from in (0..meta.block_count()).step_by(step) {
            let last = (from + step).min(meta.block_count()) - 1;
            let bytes = meta.block_range(last).end - meta.block_range(from).start;
            samples.push((Bytes::copy_from_slice(meta.separator(last)), bytes));
        }
    }
    Ok(cut(samples, parts))
}

/// Cuts at the sampled keys below which about 1, 2, … of `parts` parts of all bytes lie. A sample is a key and the bytes
/// that end with it.
fn cut(mut samples: Vec<(Bytes, u64)>, parts: usize) -> Vec<Key> {
    samples.sort();
    let total: u128 = samples.iter().map(|(_, bytes)| u128::from(*bytes)).sum();
    let largest = samples.last().map(|(key, _)| key.clone()).unwrap_or_default();
    let mut splits: Vec<Key> = Vec::new();
    let mut below = 0u128;
    for (key, bytes) in samples {
        below += u128::from(bytes);
        let due = total * (splits.len() as u128 + 1) / parts as u128;
        let new = splits.last().is_none_or(|last| last.0 < key);
        if splits.len() + 1 < parts && below >= due && new && key < largest && !key.is_empty() {
            splits.push(Key(key));
        }
    }
    splits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(n: u32, bytes: u64) -> (Bytes, u64) {
        (Bytes::copy_from_slice(&n.to_be_bytes()), bytes)
    }

    #[test]
    fn parts_are_about_equal_in_bytes() {
        let samples: Vec<_> = (0..1000).map(|n| sample(n * 7919 % 1000, u64::from(n % 10) + 1)).collect();
        let total: u64 = samples.iter().map(|s| s.1).sum();
        let splits = cut(samples.clone(), 8);
        assert_eq!(splits.len(), 7);
        assert!(splits.windows(2).all(|p| p[0] < p[1]));
        let mut bounds = vec![Bytes::new()];
        bounds.extend(splits.into_iter().map(|k| k.0));
        for (i, from) in bounds.iter().enumerate() {
            let inside = |key: &Bytes| key >= from && bounds.get(i + 1).is_none_or(|to| key < to);
            let bytes: u64 = samples.iter().filter(|(k, _)| inside(k)).map(|s| s.1).sum();
            assert!(bytes.abs_diff(total / 8) < total / 40, "part {i}: {bytes} of {total}");
        }
    }

    #[test]
    fn what_cannot_be_cut_is_not() {
        assert!(cut(Vec::new(), 4).is_empty());
        assert!(cut(vec![sample(1, 5), sample(1, 5)], 4).is_empty());
        // One heavy key: fewer parts than were asked for, each with keys of its own.
        let splits = cut(vec![sample(1, 1), sample(2, 1000), sample(3, 1)], 4);
        assert_eq!(splits.len(), 1);
    }

    #[test]
    fn only_large_merges_are_cut() {
        let settings = CompactorSettings { part_bytes: 100, ..CompactorSettings::default() };
        assert_eq!([99, 199, 200, 1050].map(|bytes| count(bytes, &settings)), [1, 1, 2, 10]);
        assert_eq!(count(u64::MAX, &settings), MAX_PARTS);
    }
}
