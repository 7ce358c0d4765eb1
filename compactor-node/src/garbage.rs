//! Which retired objects may be deleted, as a pure judgement (PROTOCOL section 9, invariant 8).
//!
//! An object was retired by the edit of some version `v`. Every manifest below `v` names it, none from `v` on does.
//! It may go once nobody can still come to read a manifest below `v`:
//!
//! ```text
//!   version:     …  v-1 │ v ……… c2 ……… c1 ……… head         c1, c2: the newest two checkpoints
//!                named  │ retired                             both must lie at or above v
//! ```
//! * **Both newest checkpoints lie at or above `v`**, and the head names one that does: a load that starts from
//!   either never sees the object as live, even where the newest turns out damaged.
//! * **The collector's floor is at or above `v`**: no pin holds an older version.
//! * **The grace has passed**, in the store's own time: from the writing of the older of the two checkpoints to a
//!   marker written just now. No host's clock is asked. Readers of an older view have long followed the head, or find
//!   out that their view has expired.
//! * **Blob files go after every object that points at them**: a retired referrer still in the list holds them back.

use std::collections::BTreeSet;
use std::time::Duration;

use isle_storage::ids::{Timestamp, Version};
use isle_storage::manifest::{Manifest, Retired};
use isle_storage::names::ObjectPath;

/// A checkpoint as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedCheckpoint {
    /// The object.
    pub path: String,
    /// The version in its name.
    pub version: Version,
    /// When it was written, by the store's clock.
    pub written: Timestamp,
}

/// What the collector knows when it judges.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// The newest manifest.
    pub manifest: &'a Manifest,
    /// The version of the checkpoint the head names.
    pub head_checkpoint: Version,
    /// Every checkpoint in the bucket, newest first (by version, then by writing time).
    pub checkpoints: &'a [ListedCheckpoint],
    /// The collector's floor.
    pub floor: Version,
    /// The store's present time, as learned from a marker.
    pub store_now: Timestamp,
    /// The grace.
    pub grace: Duration,
}

/// What may be done.
#[derive(Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Retired objects that may be deleted now, in the order they were retired.
    pub delete: Vec<ObjectPath>,
    /// Their bytes.
    pub bytes: u64,
    /// Whether a new checkpoint is needed before anything more can go.
    pub needs_checkpoint: bool,
    /// When the next object's grace ends, if that is all it waits for.
    pub wait: Option<Duration>,
}

/// Judges every retired object; at most `most` are handed out for deletion.
#[must_use]
pub fn judge(evidence: &Evidence<'_>, most: usize) -> Judgement {
    let mut out = Judgement { delete: Vec::new(), bytes: 0, needs_checkpoint: false, wait: None };
    let live = live_paths(evidence.manifest);
    let held_blobs = blobs_with_retired_referrers(evidence.manifest);
    for r in &evidence.manifest.retired {
        if live.contains(&r.path) || held_blobs.contains(&r.path) {
            continue;
        }
        match verdict(evidence, r) {
            Verdict::Delete if out.delete.len() < most => {
                out.delete.push(r.path.clone());
                out.bytes += r.len;
            }
            Verdict::Delete | Verdict::Wait(_) if out.delete.len() >= most => out.wait = Some(Duration::ZERO),
            Verdict::Delete => {}
            Verdict::Wait(left) => out.wait = Some(out.wait.map_or(left, |w| w.min(left))),
            Verdict::NeedsCheckpoint => out.needs_checkpoint = true,
            Verdict::Pinned => {}
        }
    }
    out
}

/// Checkpoints beyond the newest two, whose deletion harms nobody; the head's is never among them.
#[must_use]
pub fn surplus_checkpoints<'a>(
    checkpoints: &'a [ListedCheckpoint],
    head_path: &str,
) -> Vec<&'a ListedCheckpoint> {
    checkpoints.iter().skip(2).filter(|c| c.path != head_path).collect()
}

enum Verdict {
    Delete,
    Wait(Duration),
    NeedsCheckpoint,
    Pinned,
}

fn verdict(evidence: &Evidence<'_>, retired: &Retired) -> Verdict {
    let v = retired.version;
    let newest_two = evidence.checkpoints.get(..2).unwrap_or_default();
    if newest_two.is_empty() || evidence.head_checkpoint < v || newest_two.iter().any(|c| c.version < v) {
        return Verdict::NeedsCheckpoint;
    }
    if evidence.floor < v {
        return Verdict::Pinned;
    }
    let covered_since = newest_two[1].written.min(newest_two[0].written);
    let due = covered_since.plus(evidence.grace);
    if evidence.store_now >= due {
        Verdict::Delete
    } else {
        Verdict::Wait(Duration::from_micros((due.0 - evidence.store_now.0).unsigned_abs()))
    }
}

fn live_paths(manifest: &Manifest) -> BTreeSet<ObjectPath> {
    let log = manifest.log.iter().map(|e| e.path());
    let tables = manifest.tables().map(|t| t.path());
    let blobs = manifest.blobs.keys().map(|b| isle_storage::names::blob(b));
    log.chain(tables).chain(blobs).collect()
}

fn blobs_with_retired_referrers(manifest: &Manifest) -> BTreeSet<ObjectPath> {
    manifest.retired.iter().flat_map(|r| &r.blobs).map(|b| isle_storage::names::blob(b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use isle_storage::ids::{DatabaseId, Lineage};
    use isle_storage::manifest::CompactionMode;
    use std::sync::Arc;

    const SECOND: i64 = 1_000_000;

    fn retired(name: &str, version: u64, blobs: &[&str]) -> Arc<Retired> {
        let blobs = blobs.iter().map(|b| (*b).to_owned()).collect();
        Arc::new(Retired {
            path: isle_storage::names::table(name),
            len: 10,
            version: Version(version),
            blobs,
        })
    }

    fn checkpoint(version: u64, written_s: i64) -> ListedCheckpoint {
        let version = Version(version);
        ListedCheckpoint {
            path: isle_storage::names::checkpoint(version, 0).to_string(),
            version,
            written: Timestamp(written_s * SECOND),
        }
    }

    fn case(
        retired: Vec<Arc<Retired>>,
        checkpoints: &[ListedCheckpoint],
        floor: u64,
        now_s: i64,
    ) -> Judgement {
        let mut manifest = Manifest::genesis(DatabaseId(1), Lineage(1), CompactionMode::Merge);
        manifest.retired = retired;
        let evidence = Evidence {
            manifest: &manifest,
            head_checkpoint: checkpoints.first().map(|c| c.version).unwrap_or_default(),
            checkpoints,
            floor: Version(floor),
            store_now: Timestamp(now_s * SECOND),
            grace: Duration::from_secs(60),
        };
        judge(&evidence, 100)
    }

    #[test]
    fn an_object_goes_only_when_both_newest_checkpoints_cover_its_retirement() {
        let one_covers = [checkpoint(20, 0), checkpoint(9, 0)];
        let j = case(vec![retired("a", 10, &[])], &one_covers, 99, 1000);
        assert!(j.delete.is_empty() && j.needs_checkpoint);
        let both_cover = [checkpoint(20, 0), checkpoint(10, 0)];
        assert_eq!(case(vec![retired("a", 10, &[])], &both_cover, 99, 1000).delete.len(), 1);
        let only_one = [checkpoint(20, 0)];
        assert!(case(vec![retired("a", 10, &[])], &only_one, 99, 1000).needs_checkpoint);
    }

    #[test]
    fn the_grace_counts_in_store_time_from_the_covering_checkpoint() {
        let covering = [checkpoint(20, 100), checkpoint(10, 50)];
        let j = case(vec![retired("a", 10, &[])], &covering, 99, 109);
        assert!(j.delete.is_empty());
        assert_eq!(j.wait, Some(Duration::from_secs(1)));
        assert_eq!(case(vec![retired("a", 10, &[])], &covering, 99, 110).delete.len(), 1);
    }

    #[test]
    fn a_pin_below_holds_the_object() {
        let covering = [checkpoint(20, 0), checkpoint(19, 0)];
        let j = case(vec![retired("a", 10, &[])], &covering, 9, 1000);
        assert!(j.delete.is_empty() && !j.needs_checkpoint && j.wait.is_none());
    }

    #[test]
    fn a_blob_waits_for_its_referrers() {
        let covering = [checkpoint(20, 0), checkpoint(19, 0)];
        let blob = Retired {
            path: isle_storage::names::blob("b-1"),
            len: 5,
            version: Version(10),
            blobs: Vec::new(),
        };
        let j = case(vec![retired("a", 10, &["b-1"]), Arc::new(blob.clone())], &covering, 99, 1000);
        assert_eq!(j.delete, [isle_storage::names::table("a")]);
        assert_eq!(case(vec![Arc::new(blob.clone())], &covering, 99, 1000).delete, [blob.path]);
    }

    #[test]
    fn one_pass_is_bounded_and_says_that_more_is_waiting() {
        let covering = [checkpoint(20, 0), checkpoint(19, 0)];
        let mut manifest = Manifest::genesis(DatabaseId(1), Lineage(1), CompactionMode::Merge);
        manifest.retired = (0..5).map(|i| retired(&format!("t{i}"), 10, &[])).collect();
        let evidence = Evidence {
            manifest: &manifest,
            head_checkpoint: Version(20),
            checkpoints: &covering,
            floor: Version(99),
            store_now: Timestamp(1000 * SECOND),
            grace: Duration::from_secs(60),
        };
        let j = judge(&evidence, 3);
        assert_eq!((j.delete.len(), j.wait), (3, Some(Duration::ZERO)));
    }

    #[test]
    fn the_newest_two_checkpoints_and_the_heads_are_kept() {
        let all = [checkpoint(30, 3), checkpoint(20, 2), checkpoint(10, 1), checkpoint(5, 0)];
        let surplus: Vec<u64> = surplus_checkpoints(&all, &all[2].path).iter().map(|c| c.version.0).collect();
        assert_eq!(surplus, [5]);
    }
}
