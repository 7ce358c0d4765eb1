//! Object names: every path below a database's prefix is built and parsed here.
//!
//! Names carry who made the object (epoch and incarnation, or a job id), so that no name is ever used twice. All of
//! them are relative to the prefix, so a prefix can be copied or moved.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Incarnation, SeqNo, Version};

/// A path relative to the database's prefix: `[A-Za-z0-9._/-]`, no empty, `.` or `..` segment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectPath(String);

impl ObjectPath {
    /// Validates and wraps a path.
    ///
    /// # Errors
    /// A text saying which rule the path breaks.
    pub fn new(path: impl Into<String>) -> Result<Self, String> {
        let path = path.into();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
        if path.len() > 512 || !path.bytes().all(allowed) {
            return Err(format!(
                "object path {path:?} is too long or has a character outside [A-Za-z0-9._/-]"
            ));
        }
        if path.split('/').any(|s| matches!(s, "" | "." | "..")) {
            return Err(format!("object path {path:?} has an empty or dot segment"));
        }
        Ok(Self(path))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn built(path: String) -> Self {
        debug_assert!(Self::new(path.clone()).is_ok(), "{path}");
        Self(path)
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for ObjectPath {
    type Error = String;

    fn try_from(path: String) -> Result<Self, String> {
        Self::new(path)
    }
}

impl From<ObjectPath> for String {
    fn from(path: ObjectPath) -> Self {
        path.0
    }
}

/// Longest name of a named snapshot.
pub const MAX_SNAPSHOT_NAME: usize = 128;

/// Longest name of a consumer group.
pub const MAX_GROUP_NAME: usize = 64;

/// A snapshot's name: 1 to [`MAX_SNAPSHOT_NAME`] of `[A-Za-z0-9._-]`, of which the first is a letter or a digit, so that
/// it stands in URLs and on command lines as it is.
///
/// # Errors
/// A sentence with the rule.
pub fn check_snapshot(name: &str) -> Result<(), String> {
    check_label("snapshot", name, MAX_SNAPSHOT_NAME)
}

/// A consumer group's name: the same rule, up to [`MAX_GROUP_NAME`].
///
/// # Errors
/// A sentence with the rule.
pub fn check_group(name: &str) -> Result<(), String> {
    check_label("consumer group", name, MAX_GROUP_NAME)
}

fn check_label(what: &str, name: &str, most: usize) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let fits = (1..=most).contains(&name.len()) && name.bytes().all(allowed);
    if fits && name.as_bytes()[0].is_ascii_alphanumeric() {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no {what}'s name: use 1 to {most} of a-z, A-Z, 0-9, '.', '_' and '-', and begin with a letter or a \
         digit"
    ))
}

/// Whether a log object is one group commit's segment or a rewritten generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    /// The mutations of one group commit.
    Segment,
    /// The segments of one flushed generation, rewritten as one large object.
    Chunk,
}

/// Identity of a log object: who wrote it and where it starts. Segments of one epoch have computable names, since
/// the successor of a segment ending at `s` starts at `s + 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId {
    /// The writer's epoch.
    pub epoch: Epoch,
    /// The writer's incarnation within that epoch.
    pub incarnation: Incarnation,
    /// First sequence number inside.
    pub first_seq: SeqNo,
}

impl LogId {
    /// `log/<epoch:020>-<incarnation>-<first_seq:020>.seg` or `.chunk`.
    #[must_use]
    pub fn path(&self, kind: LogKind) -> ObjectPath {
        let ext = match kind {
            LogKind::Segment => "seg",
            LogKind::Chunk => "chunk",
        };
        ObjectPath::built(format!(
            "log/{:020}-{}-{:020}.{ext}",
            self.epoch.0, self.incarnation, self.first_seq.0
        ))
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.epoch, self.incarnation, self.first_seq)
    }
}

/// Parses `log/<epoch>-<incarnation>-<first_seq>.<ext>`; `None` where the path is not a log object's.
#[must_use]
pub fn parse_log(path: &str) -> Option<(LogId, LogKind)> {
    let name = path.strip_prefix("log/")?;
    let (stem, ext) = name.rsplit_once('.')?;
    let kind = match ext {
        "seg" => LogKind::Segment,
        "chunk" => LogKind::Chunk,
        _ => return None,
    };
    let mut parts = stem.split('-');
    let id = LogId {
        epoch: Epoch(parts.next()?.parse().ok()?),
        incarnation: parts.next()?.parse().ok()?,
        first_seq: SeqNo(parts.next()?.parse().ok()?),
    };
    parts.next().is_none().then_some((id, kind))
}

/// Longest `<owner>-<n>` name of a table or a blob.
pub const MAX_NAME_LEN: usize = 200;

/// Whether `name` can be a table's or a blob's `<owner>-<n>`: `[A-Za-z0-9_-]`, so that no name read from somewhere can
/// leave its folder.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_LEN).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// Who made a table or a blob: a writer's `<epoch>-<incarnation>` or a job's id, as it stands in names.
#[must_use]
pub fn writer_owner(epoch: Epoch, incarnation: Incarnation) -> String {
    format!("{epoch}-{incarnation}")
}

/// `table/<shard:02x>/<owner>-<n>.sst`; `name` is `<owner>-<n>`.
#[must_use]
pub fn table(name: &str) -> ObjectPath {
    ObjectPath::built(format!("table/{:02x}/{name}.sst", shard(name)))
}

/// `blob/<shard:02x>/<owner>-<n>.blob`; `name` is `<owner>-<n>`.
#[must_use]
pub fn blob(name: &str) -> ObjectPath {
    ObjectPath::built(format!("blob/{:02x}/{name}.blob", shard(name)))
}

/// Whether the path is that of a log object, a table or a blob file.
#[must_use]
pub fn is_data(path: &str) -> bool {
    let name = |folder: &str, suffix: &str| {
        let (_shard, file) = path.strip_prefix(folder)?.split_once('/')?;
        file.strip_suffix(suffix).filter(|name| is_name(name))
    };
    parse_log(path).is_some_and(|(id, kind)| id.path(kind).as_str() == path)
        || name("table/", ".sst").is_some_and(|name| table(name).as_str() == path)
        || name("blob/", ".blob").is_some_and(|name| blob(name).as_str() == path)
}

/// A hash of the name's first byte of entropy, so that a store which splits its key space by prefix can do so.
fn shard(name: &str) -> u8 {
    (xxhash_rust::xxh3::xxh3_64(name.as_bytes()) & 0xff) as u8
}

/// `manifest/checkpoint-<version:020>-<nonce:016x>`.
#[must_use]
pub fn checkpoint(version: Version, nonce: u64) -> ObjectPath {
    ObjectPath::built(format!("manifest/checkpoint-{:020}-{nonce:016x}", version.0))
}

/// The version in a checkpoint's name; `None` where the path is not a checkpoint's.
#[must_use]
pub fn parse_checkpoint(path: &str) -> Option<Version> {
    let (version, _nonce) = path.strip_prefix("manifest/checkpoint-")?.split_once('-')?;
    Some(Version(version.parse().ok()?))
}

/// `manifest/epoch-<epoch:020>`.
#[must_use]
pub fn epoch(epoch: Epoch) -> ObjectPath {
    ObjectPath::built(format!("manifest/epoch-{:020}", epoch.0))
}

/// The epoch in an epoch object's name; `None` where the path is not one.
#[must_use]
pub fn parse_epoch(path: &str) -> Option<Epoch> {
    Some(Epoch(path.strip_prefix("manifest/epoch-")?.parse().ok()?))
}

/// `manifest/lineage-<n:020>`.
#[must_use]
pub fn lineage(n: u64) -> ObjectPath {
    ObjectPath::built(format!("manifest/lineage-{n:020}"))
}

/// The number in a lineage object's name; `None` where the path is not one.
#[must_use]
pub fn parse_lineage(path: &str) -> Option<u64> {
    path.strip_prefix("manifest/lineage-")?.parse().ok()
}

/// `manifest/edit-<version:020>`: the bucket backend's numbered edits.
#[must_use]
pub fn edit(version: Version) -> ObjectPath {
    ObjectPath::built(format!("manifest/edit-{:020}", version.0))
}

/// The version in a numbered edit's name; `None` where the path is not one.
#[must_use]
pub fn parse_edit(path: &str) -> Option<Version> {
    Some(Version(path.strip_prefix("manifest/edit-")?.parse().ok()?))
}

/// `manifest/fold-<n:020>`: the bucket backend's numbered fold records, never deleted.
#[must_use]
pub fn fold(n: u64) -> ObjectPath {
    ObjectPath::built(format!("manifest/fold-{n:020}"))
}

/// The number in a fold record's name; `None` where the path is not one.
#[must_use]
pub fn parse_fold(path: &str) -> Option<u64> {
    path.strip_prefix("manifest/fold-")?.parse().ok()
}

/// `manifest/bigedit-<version:020>-<nonce:016x>`: an edit too large for the coordination service, which then holds a
/// reference to this object.
#[must_use]
pub fn big_edit(version: Version, nonce: u64) -> ObjectPath {
    ObjectPath::built(format!("manifest/bigedit-{:020}-{nonce:016x}", version.0))
}

/// `manifest/marker-<nonce:016x>`: written and deleted again, to learn the store's own time.
#[must_use]
pub fn marker(nonce: u64) -> ObjectPath {
    ObjectPath::built(format!("manifest/marker-{nonce:016x}"))
}

/// `manifest/pin-<version:020>-<nonce:016x>`: a hold on what that version names (bucket backend).
#[must_use]
pub fn pin(version: Version, nonce: u64) -> ObjectPath {
    ObjectPath::built(format!("manifest/pin-{:020}-{nonce:016x}", version.0))
}

/// The version in a pin's name; `None` where the path is not one.
#[must_use]
pub fn parse_pin(path: &str) -> Option<Version> {
    let (version, _nonce) = path.strip_prefix("manifest/pin-")?.split_once('-')?;
    Some(Version(version.parse().ok()?))
}

/// `manifest/floor-<version:020>`: how far the collector may delete (bucket backend).
#[must_use]
pub fn floor(version: Version) -> ObjectPath {
    ObjectPath::built(format!("manifest/floor-{:020}", version.0))
}

/// The version in a floor's name; `None` where the path is not one.
#[must_use]
pub fn parse_floor(path: &str) -> Option<Version> {
    Some(Version(path.strip_prefix("manifest/floor-")?.parse().ok()?))
}

/// Whether the path is that of a marker.
#[must_use]
pub fn is_marker(path: &str) -> bool {
    path.strip_prefix("manifest/marker-").is_some_and(|n| n.len() == 16)
}

/// The version in a big edit's name; `None` where the path is not one.
#[must_use]
pub fn parse_big_edit(path: &str) -> Option<Version> {
    let (version, _nonce) = path.strip_prefix("manifest/bigedit-")?.split_once('-')?;
    Some(Version(version.parse().ok()?))
}

/// `isle.json`, the identity of the database.
#[must_use]
pub fn identity() -> ObjectPath {
    ObjectPath::built("isle.json".to_owned())
}

/// `backup/<n:010>.json`, the record of a finished backup, in a store of its own.
#[must_use]
pub fn backup(number: u64) -> ObjectPath {
    ObjectPath::built(format!("backup/{number:010}.json"))
}

/// The number of a backup's record; `None` where the path is none.
#[must_use]
pub fn parse_backup(path: &str) -> Option<u64> {
    let number = path.strip_prefix("backup/")?.strip_suffix(".json")?.parse().ok()?;
    (backup(number).as_str() == path).then_some(number)
}

/// `backup/<n:010>-<nonce>-manifest`, the manifest that a backup holds.
#[must_use]
pub fn backup_manifest(number: u64, nonce: u64) -> ObjectPath {
    ObjectPath::built(format!("backup/{number:010}-{nonce:016x}-manifest"))
}

/// Whether the path is that of a manifest which a backup holds, or which one that was cut off has left.
#[must_use]
pub fn is_backup_manifest(path: &str) -> bool {
    let parts = path.strip_prefix("backup/").and_then(|rest| rest.strip_suffix("-manifest"));
    let Some((number, nonce)) = parts.and_then(|rest| rest.split_once('-')) else { return false };
    let (Ok(number), Ok(nonce)) = (number.parse(), u64::from_str_radix(nonce, 16)) else { return false };
    backup_manifest(number, nonce).as_str() == path
}

/// `backup/running-<nonce>`, the mark of a backup being made.
#[must_use]
pub fn backup_running(nonce: u64) -> ObjectPath {
    ObjectPath::built(format!("{RUNNING}{nonce:016x}"))
}

/// Whether the path is the mark of a backup being made.
#[must_use]
pub fn is_backup_running(path: &str) -> bool {
    path.starts_with(RUNNING)
}

/// `backup/pruning-<nonce>`, the mark of a store of backups being pruned.
#[must_use]
pub fn backup_pruning(nonce: u64) -> ObjectPath {
    ObjectPath::built(format!("{PRUNING}{nonce:016x}"))
}

/// Whether the path is the mark of a store of backups being pruned.
#[must_use]
pub fn is_backup_pruning(path: &str) -> bool {
    path.starts_with(PRUNING)
}

const RUNNING: &str = "backup/running-";
const PRUNING: &str = "backup/pruning-";

/// `restore.json`, the mark of an unfinished restore.
#[must_use]
pub fn restore_mark() -> ObjectPath {
    ObjectPath::built("restore.json".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_names_parse_back_and_sort_by_position() {
        let id = LogId { epoch: Epoch(3), incarnation: Incarnation(0xab), first_seq: SeqNo(17) };
        let path = id.path(LogKind::Chunk);
        assert_eq!(parse_log(path.as_str()), Some((id, LogKind::Chunk)));
        let later = LogId { first_seq: SeqNo(100), ..id }.path(LogKind::Chunk);
        assert!(path < later);
        assert_eq!(parse_log("log/zzz.seg"), None);
    }

    #[test]
    fn paths_refuse_what_could_leave_the_prefix() {
        for bad in ["", "/a", "a//b", "../a", "a/./b", "a b", "ä"] {
            assert!(ObjectPath::new(bad).is_err(), "{bad}");
        }
        assert!(ObjectPath::new("manifest/edit-1").is_ok());
    }

    #[test]
    fn data_is_known_by_its_name() {
        let id = LogId { epoch: Epoch(3), incarnation: Incarnation(0xab), first_seq: SeqNo(17) };
        let data = [id.path(LogKind::Segment), table("w-1"), blob("w-2")];
        for path in &data {
            assert!(is_data(path.as_str()), "{path}");
        }
        let wrong_shard = table("w-1").as_str().replace("table/", "table/x");
        for other in [wrong_shard.as_str(), "table/w-1.sst", "blob/00/a b.blob", "log/x", "isle.json"] {
            assert!(!is_data(other), "{other}");
        }
    }

    #[test]
    fn snapshots_and_backups_have_names_that_parse_back() {
        for good in ["a", "0", "nightly-2026.01.02_x"] {
            assert_eq!(check_snapshot(good), Ok(()));
        }
        for bad in ["", ".", "-a", "a/b", "a b", "ä"] {
            assert!(check_snapshot(bad).is_err() && check_group(bad).is_err(), "{bad}");
        }
        assert!(check_group(&"g".repeat(MAX_GROUP_NAME)).is_ok());
        assert!(check_group(&"g".repeat(MAX_GROUP_NAME + 1)).is_err());
        assert_eq!(parse_backup(backup(12).as_str()), Some(12));
        let marks = [backup_running(1), backup_pruning(1)];
        for other in ["backup/12.json", backup_manifest(12, 1).as_str(), "backup/x.json", marks[0].as_str()] {
            assert_eq!(parse_backup(other), None, "{other}");
        }
        assert!(is_backup_manifest(backup_manifest(12, 0xab).as_str()));
        for other in ["backup/12-1-manifest", backup(12).as_str(), marks[0].as_str(), "backup/-manifest"] {
            assert!(!is_backup_manifest(other), "{other}");
        }
        let is = |mark: &ObjectPath| (is_backup_running(mark.as_str()), is_backup_pruning(mark.as_str()));
        assert_eq!(marks.each_ref().map(is), [(true, false), (false, true)]);
    }
}
