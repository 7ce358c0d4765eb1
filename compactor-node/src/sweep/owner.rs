//! What a name says of an object: what it is, and whose.

use isle_storage::ids::{Epoch, Incarnation, JobId};
use isle_storage::names::{self, LogId};

/// Who uploaded an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A writer.
    Writer(Epoch, Incarnation),
    /// A job.
    Job(JobId),
}

/// What an object is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A segment or a chunk.
    Log(LogId),
    /// A table or a blob file.
    Data(Owner),
    /// Something of `manifest/` or the identity: never the sweep's.
    Kept,
    /// No name of ours.
    Unknown,
}

impl Subject {
    /// Reads a path.
    #[must_use]
    pub fn of(path: &str) -> Self {
        let data = |name: &str| match owner(name) {
            Some(owner) => Self::Data(owner),
            None => Self::Unknown,
        };
        match path.split('/').collect::<Vec<_>>().as_slice() {
            ["log", _] => names::parse_log(path).map_or(Self::Unknown, |(id, _)| Self::Log(id)),
            ["table", _, file] => match file.strip_suffix(".sst") {
                Some(name) if names::is_name(name) && names::table(name).as_str() == path => data(name),
                _ => Self::Unknown,
            },
            ["blob", _, file] => match file.strip_suffix(".blob") {
                Some(name) if names::is_name(name) && names::blob(name).as_str() == path => data(name),
                _ => Self::Unknown,
            },
            ["manifest", _] if is_known_of_manifest(path) => Self::Kept,
            ["isle.json"] => Self::Kept,
            _ => Self::Unknown,
        }
    }

    /// Who uploaded it, where that decides.
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        match self {
            Self::Log(id) => Some(Owner::Writer(id.epoch, id.incarnation)),
            Self::Data(owner) => Some(*owner),
            Self::Kept | Self::Unknown => None,
        }
    }
}

fn is_known_of_manifest(path: &str) -> bool {
    names::parse_checkpoint(path).is_some()
        || names::parse_epoch(path).is_some()
        || names::parse_lineage(path).is_some()
        || names::parse_edit(path).is_some()
        || names::parse_fold(path).is_some()
        || names::parse_big_edit(path).is_some()
        || names::parse_pin(path).is_some()
        || names::parse_floor(path).is_some()
        || names::is_marker(path)
}

/// The owner in `<owner>-<n>`. A job's id has sixteen digits, which no epoch reaches in a thousand years; a name that
/// could be either is nobody's.
fn owner(name: &str) -> Option<Owner> {
    let mut parts = name.split('-');
    let (who, nonce, n) = (parts.next()?, parts.next()?, parts.next()?);
    n.parse::<u64>().ok()?;
    let nonce: Incarnation = nonce.parse().ok()?;
    if parts.next().is_some() {
        return None;
    }
    match who.parse::<JobId>() {
        Ok(job) => Some(Owner::Job(job)),
        Err(_) if who.len() < 16 => Some(Owner::Writer(Epoch(who.parse().ok()?), nonce)),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isle_storage::ids::{SeqNo, Version};
    use isle_storage::names::LogKind;

    #[test]
    fn every_name_we_make_is_known_and_tells_its_owner() {
        let (epoch, incarnation) = (Epoch(7), Incarnation(0xabc));
        let log = LogId { epoch, incarnation, first_seq: SeqNo(3) };
        for kind in [LogKind::Segment, LogKind::Chunk] {
            assert_eq!(Subject::of(log.path(kind).as_str()), Subject::Log(log));
        }
        let writers = format!("{}-0", names::writer_owner(epoch, incarnation));
        let jobs = format!("{}-{:016x}-12", JobId(0x5), 0x99);
        for (name, owner) in [(writers, Owner::Writer(epoch, incarnation)), (jobs, Owner::Job(JobId(5)))] {
            assert_eq!(Subject::of(names::table(&name).as_str()), Subject::Data(owner));
            assert_eq!(Subject::of(names::blob(&name).as_str()), Subject::Data(owner));
        }
        for kept in [
            names::checkpoint(Version(1), 2),
            names::epoch(epoch),
            names::lineage(1),
            names::edit(Version(1)),
            names::fold(1),
            names::big_edit(Version(1), 2),
            names::marker(1),
            names::pin(Version(1), 2),
            names::floor(Version(1)),
            names::identity(),
        ] {
            assert_eq!(Subject::of(kept.as_str()), Subject::Kept, "{kept}");
        }
    }

    #[test]
    fn a_name_that_is_not_quite_ours_is_nobodys() {
        let table = names::table("7-0000000000000abc-0");
        let elsewhere = table.as_str().replace("/7-", "/8-");
        for unknown in [
            elsewhere.as_str(),
            "table/00/backup.sst",
            "log/notes.txt",
            "log/1/2.seg",
            "manifest/readme",
            "manifest/epoch-x",
            "my-data/file",
            "",
        ] {
            assert_eq!(Subject::of(unknown), Subject::Unknown, "{unknown}");
        }
        for name in [
            "7-abc-0",
            "7-0000000000000abc",
            "7-0000000000000abc-0-0",
            "99999999999999999-0000000000000abc-0",
        ] {
            assert_eq!(Subject::of(names::table(name).as_str()), Subject::Unknown, "{name}");
        }
    }
}
