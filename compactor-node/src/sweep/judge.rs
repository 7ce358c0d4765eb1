//! The sweep's verdict on one object: pure.

use std::collections::BTreeSet;
use std::time::Duration;

use isle_storage::ids::{Epoch, JobId, Timestamp};
use isle_storage::manifest::Manifest;
use isle_storage::names;
use isle_storage::object::ObjectMeta;

use super::owner::{Owner, Subject};

/// Every object that a manifest names, live or retired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    live: BTreeSet<String>,
    retired: BTreeSet<String>,
}

impl Named {
    /// What `manifest` names. A blob file counts as live while anything points at it, even before the manifest's own
    /// list has it.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        let log = manifest.log.iter().map(|e| e.path());
        let tables = manifest.named_tables().map(|t| t.path());
        let pointed = manifest.log.iter().flat_map(|e| &e.blobs);
        let pointed = pointed.chain(manifest.named_tables().flat_map(|t| &t.blobs));
        let pointed = pointed.chain(manifest.retired.iter().flat_map(|r| &r.blobs));
        let blobs = manifest.blobs.keys().chain(pointed).map(|b| names::blob(b));
        Self {
            live: log.chain(tables).chain(blobs).map(String::from).collect(),
            retired: manifest.retired.iter().map(|r| r.path.to_string()).collect(),
        }
    }
}

/// What the sweep knows when it judges.
#[derive(Debug)]
pub struct Ground<'a> {
    /// What the newest manifest names.
    pub named: &'a Named,
    /// The newest epoch whose adoption is committed and whose record stands in the bucket: older ones are over.
    pub settled: Epoch,
    /// Jobs that are claimed.
    pub claimed: &'a BTreeSet<JobId>,
    /// The store's time, from before the listing.
    pub store_now: Timestamp,
    /// No object goes before this age.
    pub least_age: Duration,
}

/// What becomes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The manifest names it.
    Referenced,
    /// It is on the retired list: the collector's.
    Retired,
    /// Its owner may still name it.
    OwnerAlive,
    /// Not old enough yet.
    Young,
    /// Never the sweep's.
    Kept,
    /// No name of ours: left alone and reported.
    Unknown,
    /// Nobody names it and nobody ever will; for people, why.
    Orphan(&'static str),
}

/// Judges one object.
#[must_use]
pub fn judge(ground: &Ground<'_>, object: &ObjectMeta) -> Verdict {
    let owner = match Subject::of(&object.path) {
        Subject::Kept => return Verdict::Kept,
        Subject::Unknown => return Verdict::Unknown,
        Subject::Log(id) => Owner::Writer(id.epoch, id.incarnation),
        Subject::Data(owner) => owner,
    };
    if ground.named.live.contains(&object.path) {
        return Verdict::Referenced;
    }
    if ground.named.retired.contains(&object.path) {
        return Verdict::Retired;
    }
    let why = match owner {
        Owner::Writer(epoch, _) if epoch >= ground.settled => return Verdict::OwnerAlive,
        Owner::Writer(..) => "its writer was succeeded before anything named it",
        Owner::Job(job) if ground.claimed.contains(&job) => return Verdict::OwnerAlive,
        Owner::Job(_) => "its job has ended and nothing names it",
    };
    if object.last_modified.plus(ground.least_age) > ground.store_now {
        return Verdict::Young;
    }
    Verdict::Orphan(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use isle_storage::ids::{DatabaseId, Incarnation, Lineage, RunId, SeqNo, Version};
    use isle_storage::manifest::{CompactionMode, Key, Retired, Run, TableEntry};
    use isle_storage::names::{LogId, LogKind};
    use std::sync::Arc;

    const HOUR: Duration = Duration::from_secs(3600);

    fn object(path: impl Into<String>) -> ObjectMeta {
        ObjectMeta { path: path.into(), len: 1, last_modified: Timestamp(0) }
    }

    fn writers(epoch: u64) -> String {
        format!("{epoch}-{}-0", Incarnation(1))
    }

    fn jobs(job: u64) -> String {
        format!("{}-{:016x}-0", JobId(job), 7)
    }

    fn segment(epoch: u64, seq: u64) -> String {
        let id = LogId { epoch: Epoch(epoch), incarnation: Incarnation(1), first_seq: SeqNo(seq) };
        id.path(LogKind::Segment).to_string()
    }

    fn table(name: &str, blobs: &[&str]) -> Arc<TableEntry> {
        let key = Key(Bytes::from_static(b"k"));
        Arc::new(TableEntry {
            name: name.to_owned(),
            len: 1,
            meta_offset: 0,
            crc: 0,
            smallest: key.clone(),
            largest: key,
            min_seq: SeqNo(1),
            max_seq: SeqNo(1),
            min_time: Timestamp(0),
            max_time: Timestamp(0),
            rows: 1,
            deletes: 0,
            min_expires: None,
            expiring: None,
            raw_bytes: 1,
            blobs: blobs.iter().map(|b| (*b).to_owned()).collect(),
            blob_use: Vec::new(),
            extra: Default::default(),
        })
    }

    fn verdict(manifest: &Manifest, path: &str) -> Verdict {
        let named = Named::of(manifest);
        let claimed = BTreeSet::from([JobId(0xa11e)]);
        let ground = Ground {
            named: &named,
            settled: Epoch(5),
            claimed: &claimed,
            store_now: Timestamp(0).plus(HOUR),
            least_age: HOUR,
        };
        judge(&ground, &object(path))
    }

    fn manifest() -> Manifest {
        let mut m = Manifest::genesis(DatabaseId(1), Lineage(1), CompactionMode::Merge);
        let blob = format!("{}9", writers(2));
        let live = table(&writers(2), &[&blob]);
        m.runs.push(Arc::new(Run { id: RunId(1), l0: true, tables: vec![live] }));
        let path = names::table(&jobs(9));
        m.retired.push(Arc::new(Retired { path, len: 1, version: Version(3), blobs: Vec::new() }));
        m
    }

    #[test]
    fn what_is_named_stays_whoever_owns_it() {
        let m = manifest();
        assert_eq!(verdict(&m, names::table(&writers(2)).as_str()), Verdict::Referenced);
        assert_eq!(verdict(&m, names::table(&jobs(9)).as_str()), Verdict::Retired);
        let blob = names::blob(&format!("{}9", writers(2)));
        assert_eq!(verdict(&m, blob.as_str()), Verdict::Referenced, "a table points at it");
    }

    #[test]
    fn only_the_dead_leave_orphans() {
        let m = manifest();
        for (name, dead) in [(writers(4), true), (writers(5), false), (writers(6), false), (jobs(1), true)] {
            let verdict = verdict(&m, names::table(&name).as_str());
            assert_eq!(matches!(verdict, Verdict::Orphan(_)), dead, "{name}: {verdict:?}");
        }
        assert_eq!(verdict(&m, names::table(&jobs(0xa11e)).as_str()), Verdict::OwnerAlive);
    }

    /// The next claim may follow it.
    #[test]
    fn a_segment_above_the_head_stays_until_a_later_epoch_is_settled() {
        let m = manifest();
        assert_eq!(verdict(&m, &segment(5, 100)), Verdict::OwnerAlive);
        assert!(matches!(verdict(&m, &segment(4, 100)), Verdict::Orphan(_)));
    }

    #[test]
    fn the_young_are_spared_and_the_unknown_reported() {
        let m = manifest();
        let named = Named::of(&m);
        let claimed = BTreeSet::new();
        let store_now = Timestamp(0).plus(HOUR - Duration::from_secs(1));
        let ground =
            Ground { named: &named, settled: Epoch(5), claimed: &claimed, store_now, least_age: HOUR };
        assert_eq!(judge(&ground, &object(names::table(&jobs(1)))), Verdict::Young);
        assert_eq!(judge(&ground, &object("table/00/mine.sst")), Verdict::Unknown);
        assert_eq!(judge(&ground, &object(names::epoch(Epoch(1)))), Verdict::Kept);
    }
}
