//! Which retired objects may be deleted, as a pure judgement (PROTOCOL section 9, invariant 8).
//!
//! An object was retired by the edit of some version `v`. Every manifest below `v` names it, none from `v` on does.
//! It may go once nobody can still come to read a manifest below `v`:
//!
//! ```text
//!   version:     …  v-1 │ v ……… c2 ……… c1 ……… head         c1, c2: the newest two checkpoints
//!                named  │ retired                             both must lie at or above v
//! ```
//! * **The head's checkpoint and the newest other one up to it lie at or above `v`**, both verified: a load, or a recover,
//!   that starts from either never sees the object as live. (A checkpoint above the head's is not named yet, and may be
//!   the leftover of a fold that died before it looked at what it had written.)
//! * **The collector's floor is at or above `v`**: no pin holds an older version. The floor is raised only for what
//!   nothing else holds back any more: a reader may pin any view that is younger than the grace.
//! * **The grace has passed**, in the store's own time: from the writing of the oldest checkpoint that stands and covers
//!   the retirement to a marker written just now. No host's clock is asked. Readers of an older view have long followed
//!   the head, or find out that their view has expired. (Counted from the newest two, nothing would ever go while a busy
//!   database writes checkpoints faster than the grace passes.) A few old checkpoints are kept as witnesses for this.
//! * **Blob files go after every object that points at them**: a retired referrer still in the list holds them back.

use std::collections::BTreeSet;
use std::time::Duration;

use isle_storage::ids::{Timestamp, Version};
use isle_storage::manifest::{CheckpointRef, Manifest, Retired};
use isle_storage::names::ObjectPath;
use isle_storage::sabotage::{Rule, broken};

/// Checkpoints kept at most as witnesses of when something was retired: one for each such part of the grace.
const WITNESSES: u32 = 8;

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
    /// The checkpoint the head names.
    pub head: &'a CheckpointRef,
    /// Every checkpoint in the bucket, newest first (by version, then by writing time).
    pub checkpoints: &'a [ListedCheckpoint],
    /// The collector's floor.
    pub floor: Version,
    /// The store's present time, as learned from a marker.
    pub store_now: Timestamp,
    /// The grace.
    pub grace: Duration,
    /// Objects that could not be deleted lately: they come last.
    pub stubborn: &'a BTreeSet<ObjectPath>,
}

/// What may be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Retired objects that may be deleted now, in the order they were retired.
    pub delete: Vec<ObjectPath>,
    /// Their bytes.
    pub bytes: u64,
    /// The highest version that retired one of them: what the floor must reach.
    pub upto: Version,
    /// Whether more might be deleted than was handed out.
    pub more: bool,
    /// Objects that a pin holds back.
    pub pinned: u64,
    /// Whether a new checkpoint is needed before anything more can go.
    pub needs_checkpoint: bool,
    /// When the next object's grace ends, if that is all it waits for.
    pub wait: Option<Duration>,
}

/// Judges every retired object; at most `most` are handed out for deletion.
#[must_use]
pub fn judge(evidence: &Evidence<'_>, most: usize) -> Judgement {
    let mut out = Judgement::default();
    let live = live_paths(evidence.manifest);
    let held_blobs = blobs_with_retired_referrers(evidence.manifest);
    let free = evidence.manifest.retired.iter().filter(|r| !live.contains(&r.path));
    let (last, first): (Vec<_>, Vec<_>) =
        free.filter(|r| !held_blobs.contains(&r.path)).partition(|r| evidence.stubborn.contains(&r.path));
    for r in first.into_iter().chain(last) {
        match verdict(evidence, r) {
            Verdict::Delete if out.delete.len() < most => {
                out.delete.push(r.path.clone());
                out.bytes += r.len;
                out.upto = out.upto.max(r.version);
            }
            Verdict::Delete => (out.more, out.wait) = (true, Some(Duration::ZERO)),
            Verdict::Wait(left) => out.wait = Some(out.wait.map_or(left, |w| w.min(left))),
            Verdict::NeedsCheckpoint => out.needs_checkpoint = true,
            Verdict::Pinned => out.pinned += 1,
        }
    }
    out
}

/// The two checkpoints that must cover whatever is deleted: the head's, and the newest other one up to it. Fewer where
/// there are not two.
#[must_use]
pub fn covering<'a>(checkpoints: &'a [ListedCheckpoint], head: &CheckpointRef) -> Vec<&'a ListedCheckpoint> {
    let named = checkpoints.iter().find(|c| c.path == head.path.as_str());
    let other = checkpoints.iter().find(|c| c.version <= head.version && c.path != head.path.as_str());
    named.into_iter().chain(other).collect()
}

/// How long a new checkpoint would be of little use, where objects wait for one: the head's is so young that it is no
/// witness of its own. A second one that covers what the first one does may come as late as this, since the grace counts
/// from the first; and what was retired since the head's waits so much longer. Otherwise a busy database, in which
/// something is always retired, would get a checkpoint, the whole manifest, with every pass.
#[must_use]
pub fn until_of_use(
    checkpoints: &[ListedCheckpoint],
    head: &CheckpointRef,
    store_now: Timestamp,
    grace: Duration,
) -> Duration {
    let named = checkpoints.iter().find(|c| c.path == head.path.as_str());
    let due = named.map_or(store_now, |c| c.written.plus(between_checkpoints(grace)));
    Duration::from_micros(u64::try_from(due.0.saturating_sub(store_now.0)).unwrap_or_default())
}

/// Checkpoints that nobody needs: behind the newest two, and no witness of a grace under way. None that a head may yet
/// name is among them: a fold never moves the start back, so that one below the head's own is named no more.
#[must_use]
pub fn surplus_checkpoints<'a>(
    checkpoints: &'a [ListedCheckpoint],
    head: &CheckpointRef,
    store_now: Timestamp,
    grace: Duration,
) -> Vec<&'a ListedCheckpoint> {
    let kept: Vec<&str> = covering(checkpoints, head).iter().map(|c| c.path.as_str()).collect();
    if kept.len() < 2 {
        return Vec::new();
    }
    let below = checkpoints.iter().rev().filter(|c| c.version < head.version);
    let mut witness: Option<Timestamp> = None;
    below
        .filter(|c| !kept.contains(&c.path.as_str()))
        .filter(|c| {
            let told = c.written.plus(grace) < store_now;
            let near = witness.is_some_and(|w| c.written < w.plus(between_checkpoints(grace)));
            if !told && !near {
                witness = Some(c.written);
            }
            told || near
        })
        .collect()
}

/// How far apart checkpoints are of use as witnesses of a grace.
#[must_use]
pub fn between_checkpoints(grace: Duration) -> Duration {
    grace / WITNESSES
}

enum Verdict {
    Delete,
    Wait(Duration),
    NeedsCheckpoint,
    Pinned,
}

fn verdict(evidence: &Evidence<'_>, retired: &Retired) -> Verdict {
    if broken(Rule::GarbageWaits) {
        return Verdict::Delete;
    }
    let v = retired.version;
    let covering = covering(evidence.checkpoints, evidence.head);
    let [one, other] = covering.as_slice() else { return Verdict::NeedsCheckpoint };
    if one.version < v || other.version < v {
        return Verdict::NeedsCheckpoint;
    }
    if evidence.floor < v {
        return Verdict::Pinned;
    }
    let witnesses = evidence.checkpoints.iter().filter(|c| c.version >= v);
    let covered_since = witnesses.map(|c| c.written).min().unwrap_or(one.written);
    let due = covered_since.plus(evidence.grace);
    if evidence.store_now >= due {
        Verdict::Delete
    } else {
        Verdict::Wait(Duration::from_micros((due.0 - evidence.store_now.0).unsigned_abs()))
    }
}

fn live_paths(manifest: &Manifest) -> BTreeSet<ObjectPath> {
    let log = manifest.log.iter().map(|e| e.path());
    let tables = manifest.named_tables().map(|t| t.path());
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
            path: isle_storage::names::checkpoint(version, written_s as u64).to_string(),
            version,
            written: Timestamp(written_s * SECOND),
        }
    }

    fn named(c: &ListedCheckpoint) -> CheckpointRef {
        let path = ObjectPath::new(c.path.clone()).unwrap();
        CheckpointRef { path, len: 1, crc: 0, version: c.version }
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
            head: &named(&checkpoints[0]),
            checkpoints,
            floor: Version(floor),
            store_now: Timestamp(now_s * SECOND),
            grace: Duration::from_secs(60),
            stubborn: &BTreeSet::new(),
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

    /// The second of two that cover the same comes in time for the grace, which counts from the first.
    #[test]
    fn checkpoints_for_the_sake_of_garbage_keep_a_distance() {
        let (head, grace) = (checkpoint(20, 100), Duration::from_secs(80));
        let wait = |all: &[ListedCheckpoint], now: i64| {
            until_of_use(all, &named(&head), Timestamp(now * SECOND), grace).as_secs()
        };
        let all = [head.clone(), checkpoint(10, 50)];
        assert_eq!([100, 109, 110, 500].map(|now| wait(&all, now)), [10, 1, 0, 0]);
        assert_eq!(wait(&all[1..], 100), 0, "the head's is gone or damaged");
        assert_eq!(
            until_of_use(&all, &named(&head), Timestamp(100 * SECOND), Duration::ZERO),
            Duration::ZERO
        );
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
    fn one_pass_is_bounded_says_that_more_is_waiting_and_takes_the_stubborn_last() {
        let covering = [checkpoint(20, 0), checkpoint(19, 0)];
        let mut manifest = Manifest::genesis(DatabaseId(1), Lineage(1), CompactionMode::Merge);
        manifest.retired = (0..5).map(|i| retired(&format!("t{i}"), 10 + i, &[])).collect();
        let mut evidence = Evidence {
            manifest: &manifest,
            head: &named(&covering[0]),
            checkpoints: &covering,
            floor: Version(99),
            store_now: Timestamp(1000 * SECOND),
            grace: Duration::from_secs(60),
            stubborn: &BTreeSet::new(),
        };
        let j = judge(&evidence, 3);
        assert_eq!((j.delete.len(), j.wait, j.upto), (3, Some(Duration::ZERO), Version(12)));
        assert!(j.more && !judge(&evidence, 5).more);
        let stubborn = manifest.retired[..3].iter().map(|r| r.path.clone()).collect();
        evidence.stubborn = &stubborn;
        let j = judge(&evidence, 3);
        assert_eq!(j.delete[..2], [manifest.retired[3].path.clone(), manifest.retired[4].path.clone()]);
    }

    fn surplus<'a>(all: &'a [ListedCheckpoint], head: &CheckpointRef) -> Vec<&'a ListedCheckpoint> {
        surplus_checkpoints(all, head, Timestamp(1000 * SECOND), Duration::from_secs(60))
    }

    /// A checkpoint above the head's may never have been looked at; it covers nothing, and it may yet be named.
    #[test]
    fn a_checkpoint_that_no_head_has_named_covers_nothing_and_stays() {
        let all =
            [checkpoint(40, 4), checkpoint(30, 3), checkpoint(20, 2), checkpoint(10, 1), checkpoint(5, 0)];
        let head = named(&all[2]);
        let versions = |of: Vec<&ListedCheckpoint>| of.iter().map(|c| c.version.0).collect::<Vec<_>>();
        assert_eq!(versions(covering(&all, &head)), [20, 10]);
        assert_eq!(versions(surplus(&all, &head)), [5]);
        // Of one version there may be several; any of them may be the head's next.
        let same = [checkpoint(20, 3), checkpoint(20, 2), checkpoint(20, 1), checkpoint(10, 0)];
        assert_eq!(versions(surplus(&same, &named(&same[1]))), [10]);
        // With one alone, nothing is behind the newest two.
        assert!(surplus(&all[3..], &named(&all[3])).is_empty());
        assert!(surplus(&all[4..], &head).is_empty());
    }

    /// A checkpoint every five seconds, and a grace of a minute: what was retired goes a minute later all the same, on
    /// the word of a few old checkpoints.
    #[test]
    fn a_busy_database_is_collected_all_the_same() {
        let grace = Duration::from_secs(60);
        let mut all: Vec<ListedCheckpoint> = Vec::new();
        let mut gone_at = None;
        for step in 1..=200u64 {
            let now = Timestamp(step as i64 * 5 * SECOND);
            all.insert(0, checkpoint(step, step as i64 * 5));
            let head = named(&all[0]);
            let surplus: Vec<String> =
                surplus_checkpoints(&all, &head, now, grace).iter().map(|c| c.path.clone()).collect();
            all.retain(|c| !surplus.contains(&c.path));
            assert!(all.len() <= 2 + WITNESSES as usize + 1, "{} are kept", all.len());
            let mut manifest = Manifest::genesis(DatabaseId(1), Lineage(1), CompactionMode::Merge);
            manifest.retired = vec![retired("a", 100, &[])];
            let evidence = Evidence {
                manifest: &manifest,
                head: &head,
                checkpoints: &all,
                floor: Version(u64::MAX),
                store_now: now,
                grace,
                stubborn: &BTreeSet::new(),
            };
            if gone_at.is_none() && !judge(&evidence, 10).delete.is_empty() {
                gone_at = Some(step * 5 - 500);
            }
        }
        let after = gone_at.unwrap();
        assert!((60..=75).contains(&after), "{after} s");
    }
}
