//! The names a manifest holds, and what a name says of its maker.

use std::collections::BTreeMap;
use std::fmt;

use crate::ids::{Epoch, Incarnation, JobId};
use crate::manifest::Manifest;
use crate::names;
pub(super) use crate::names::is_data;

/// Every object a manifest names, with its recorded length.
#[derive(Debug, Default)]
pub(super) struct Names {
    live: BTreeMap<String, Named>,
    retired: BTreeMap<String, Named>,
}

#[derive(Debug)]
struct Named {
    len: u64,
    seen: bool,
}

impl Names {
    pub(super) fn of(manifest: &Manifest) -> Self {
        let named = |len| Named { len, seen: false };
        let log = manifest.log.iter().map(|e| (e.path().to_string(), named(e.len)));
        let tables = manifest.named_tables().map(|t| (t.path().to_string(), named(t.len)));
        let blobs = manifest.blobs.iter().map(|(b, len)| (names::blob(b).to_string(), named(*len)));
        let retired = manifest.retired.iter().map(|r| (r.path.to_string(), named(r.len)));
        Self { live: log.chain(tables).chain(blobs).collect(), retired: retired.collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.live.len() + self.retired.len()
    }

    /// A listing shows this object: its recorded length, if it is named.
    pub(super) fn seen(&mut self, object: &str) -> Option<u64> {
        let named = self.live.get_mut(object).or_else(|| self.retired.get_mut(object))?;
        named.seen = true;
        Some(named.len)
    }

    /// Whether a listing has shown this object.
    pub(super) fn was_seen(&self, object: &str) -> bool {
        self.live.get(object).or_else(|| self.retired.get(object)).is_some_and(|named| named.seen)
    }

    pub(super) fn is_live(&self, object: &str) -> bool {
        self.live.contains_key(object)
    }

    pub(super) fn is_retired(&self, object: &str) -> bool {
        self.retired.contains_key(object)
    }

    /// Named objects of a folder that no listing has shown.
    pub(super) fn unseen<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a String> {
        self.live
            .iter()
            .filter(move |(object, named)| !named.seen && object.starts_with(folder))
            .map(|(o, _)| o)
    }
}

fn table_name(object: &str) -> Option<&str> {
    object.strip_prefix("table/")?.split_once('/')?.1.strip_suffix(".sst").filter(|n| names::is_name(n))
}

fn blob_name(object: &str) -> Option<&str> {
    object.strip_prefix("blob/")?.split_once('/')?.1.strip_suffix(".blob").filter(|n| names::is_name(n))
}

/// Who made an object, as its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Maker {
    /// A writer's incarnation.
    Writer(Epoch, Incarnation),
    /// A compaction job.
    Job(JobId),
    /// Somebody else.
    Nobody,
}

impl fmt::Display for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Writer(epoch, incarnation) => write!(f, "writer of epoch {epoch} ({incarnation})"),
            Self::Job(job) => write!(f, "job {job}"),
            Self::Nobody => f.write_str("unknown"),
        }
    }
}

/// The maker in an object's name: `<epoch>-<incarnation>` or a job's id.
pub(super) fn owner(object: &str) -> Maker {
    if let Some((id, _)) = names::parse_log(object) {
        return Maker::Writer(id.epoch, id.incarnation);
    }
    let Some(name) = table_name(object).or_else(|| blob_name(object)) else { return Maker::Nobody };
    let mut parts = name.split('-');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    // A job's id has sixteen digits; no epoch ever will.
    if let Ok(job) = first.parse() {
        return Maker::Job(job);
    }
    match (first.parse(), second.parse()) {
        (Ok(epoch), Ok(incarnation)) => Maker::Writer(Epoch(epoch), incarnation),
        _ => Maker::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makers_are_read_from_names() {
        let table = |name: &str| owner(names::table(name).as_str());
        assert_eq!(table("12-00000000000000ab-7"), Maker::Writer(Epoch(12), Incarnation(0xab)));
        assert_eq!(table("00000000000000cd-00000000000000ef-7"), Maker::Job(JobId(0xcd)));
        assert_eq!(table("odd"), Maker::Nobody);
        assert_eq!(owner("readme.txt"), Maker::Nobody);
    }

    #[test]
    fn only_names_that_the_engine_builds_are_data() {
        assert!(is_data(names::table("1-00000000000000ab-7").as_str()));
        assert!(is_data(names::blob("1-00000000000000ab-7").as_str()));
        for other in ["table/zz/1-00000000000000ab-7.sst", "table/x.sst", "log/1.seg", "log/a", "x", ""] {
            assert!(!is_data(other), "{other}");
        }
    }
}
