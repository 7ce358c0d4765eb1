//! The folder `manifest/`: every object in it decodes, says what its name says, and fits the others.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::From;
use super::fetch::{Fault, Fetch};
use super::report::{Damage, Report, UnknownObject};
use crate::coordination::bucket::inspect;
use crate::coordination::identity::Identity;
use crate::coordination::lineage::LineageObject;
use crate::coordination::sealed;
use crate::ids::{Epoch, Lineage, Version};
use crate::manifest::judge::EpochObject;
use crate::manifest::{CheckpointRef, Edit, Manifest, checkpoint};
use crate::names::{self, ObjectPath};
use crate::object::ObjectMeta;

/// What the folder holds, gathered while it is listed.
#[derive(Debug, Default)]
pub(super) struct ManifestFolder {
    /// The checkpoint the head names.
    pub(super) head_checkpoint: Option<CheckpointRef>,
    lineages: BTreeMap<u64, LineageObject>,
    /// Whether a lineage object is there that cannot be read: then nothing is said of what it might have named.
    unreadable_lineages: bool,
    /// The numbers of all lineage objects and fold records that are there.
    numbers: Numbers,
    epochs: BTreeMap<Epoch, EpochObject>,
    folds: BTreeMap<u64, inspect::Fold>,
    /// Checkpoints by version, with their lineage.
    checkpoints: Vec<(Version, Lineage, String)>,
    seen: u64,
}

#[derive(Debug, Default)]
struct Numbers {
    lineages: BTreeSet<u64>,
    folds: BTreeSet<u64>,
}

/// What an object of this folder is, by its name.
enum Kind {
    Identity,
    Lineage(u64),
    Epoch(Epoch),
    Fold(u64),
    Edit(Version),
    BigEdit(Version),
    Checkpoint(Version),
    /// A pin, a floor, a marker: its name says all, its bytes nothing.
    Note,
}

fn kind(path: &str) -> Option<Kind> {
    if path == names::identity().as_str() {
        return Some(Kind::Identity);
    }
    let lineage = names::parse_lineage(path).map(Kind::Lineage);
    lineage
        .or_else(|| names::parse_epoch(path).map(Kind::Epoch))
        .or_else(|| names::parse_fold(path).map(Kind::Fold))
        .or_else(|| names::parse_edit(path).map(Kind::Edit))
        .or_else(|| names::parse_big_edit(path).map(Kind::BigEdit))
        .or_else(|| names::parse_checkpoint(path).map(Kind::Checkpoint))
        .or_else(|| names::parse_pin(path).or(names::parse_floor(path)).map(|_| Kind::Note))
        .or_else(|| path.starts_with("manifest/marker-").then_some(Kind::Note))
}

impl ManifestFolder {
    /// Whether this object is for this folder to judge.
    pub(super) fn takes(&self, path: &str) -> bool {
        kind(path).is_some() || path.starts_with("manifest/")
    }

    /// How many objects were taken.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether the bucket has ever held this lineage, as far as the lineage objects can be read.
    pub(super) fn knows(&self, lineage: Lineage) -> bool {
        self.unreadable_lineages || self.lineages.values().any(|l| l.lineage == lineage)
    }

    /// Whether there is an epoch object of this lineage.
    pub(super) fn knows_epochs_of(&self, lineage: Lineage) -> bool {
        self.epochs.values().any(|e| e.lineage == lineage)
    }

    /// Takes an object the listing shows.
    pub(super) async fn take(&mut self, fetch: &Fetch<'_>, object: &ObjectMeta, report: &mut Report) {
        self.seen += 1;
        let (Some(kind), Ok(path)) = (kind(&object.path), ObjectPath::new(object.path.clone())) else {
            report.unknown.push(UnknownObject { object: object.path.clone(), len: object.len });
            return;
        };
        // The identity was judged before anything else.
        if matches!(kind, Kind::Identity | Kind::Note) {
            return;
        }
        let bytes = match fetch.get(&path).await {
            Ok(bytes) => bytes,
            Err(Fault::Gone) => return gone(&kind, &path, report),
            Err(Fault::Unreadable(what)) => {
                report.unreadable.push(Damage { object: object.path.clone(), what });
                return;
            }
        };
        let of_lineage = matches!(kind, Kind::Lineage(_));
        if let Err(what) = self.decode(kind, &path, &bytes, report) {
            self.unreadable_lineages |= of_lineage;
            report.damaged(path.as_str(), said_of(&path, what));
        }
    }

    fn decode(
        &mut self,
        kind: Kind,
        path: &ObjectPath,
        bytes: &Bytes,
        report: &mut Report,
    ) -> Result<(), String> {
        let text = |e: crate::coordination::CoordinationError| e.to_string();
        let other = |what: &dyn std::fmt::Display| Err(format!("it is that of {what}"));
        report.counts.records_of_coordination += u64::from(!matches!(kind, Kind::Checkpoint(_)));
        match kind {
            Kind::Lineage(number) => {
                self.numbers.lineages.insert(number);
                let found: LineageObject = sealed::open("lineage", path.as_str(), bytes).map_err(text)?;
                if found.number != number {
                    return other(&format!("number {}", found.number));
                }
                self.lineages.insert(number, found);
            }
            Kind::Epoch(epoch) => {
                let found: EpochObject = sealed::open("epoch", path.as_str(), bytes).map_err(text)?;
                if found.epoch != epoch {
                    return other(&format!("epoch {}", found.epoch));
                }
                self.epochs.insert(epoch, found);
            }
            Kind::Fold(number) => {
                self.numbers.folds.insert(number);
                self.folds.insert(number, inspect::fold(number, bytes).map_err(text)?);
            }
            Kind::Edit(version) => inspect::edit(version, bytes).map_err(text)?,
            Kind::BigEdit(version) => {
                let found: Edit = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
                if found.version != version {
                    return other(&format!("version {}", found.version));
                }
            }
            Kind::Checkpoint(version) => {
                let found = self.checkpoint(version, path, bytes)?;
                self.checkpoints.push((version, found.lineage, path.to_string()));
                report.counts.checkpoints += 1;
            }
            Kind::Identity | Kind::Note => {}
        }
        Ok(())
    }

    fn checkpoint(&self, version: Version, path: &ObjectPath, bytes: &Bytes) -> Result<Manifest, String> {
        if let Some(named) = self.head_checkpoint.as_ref().filter(|named| named.path == *path)
            && (named.len, named.crc, named.version) != (bytes.len() as u64, crc32c::crc32c(bytes), version)
        {
            return Err("it is not the one the head names: length, checksum or version differ".to_owned());
        }
        let found = checkpoint::decode(bytes).map_err(|e| e.to_string())?;
        if found.version != version {
            return Err(format!("it holds version {}", found.version));
        }
        Ok(found)
    }

    /// Holds the objects against each other and against the manifest.
    pub(super) fn judge(&self, identity: Option<&Identity>, manifest: &Manifest, report: &mut Report) {
        dense("lineage objects", self.numbers.lineages.iter().copied(), report);
        dense("fold records", self.numbers.folds.iter().copied(), report);
        let newest = self.lineages.last_key_value().map(|(_, l)| l.lineage);
        if newest != Some(manifest.lineage) && !self.unreadable_lineages {
            let newest = newest.map_or("none".to_owned(), |l| l.to_string());
            let what = format!(
                "the manifest is of lineage {}, the newest lineage object names {newest}: the coordination service \
                 is an old copy, or another one drives this prefix",
                manifest.lineage
            );
            report.damaged("", what);
        }
        for lineage in self.lineages.values().filter(|l| l.database != manifest.database) {
            let what =
                format!("it is of database {}, the manifest of {}", lineage.database, manifest.database);
            report.damaged(names::lineage(lineage.number).as_str(), what);
        }
        if let Some(identity) = identity {
            let first = self.lineages.get(&1).map(|l| l.lineage);
            if identity.database != manifest.database || first.is_some_and(|first| first != identity.lineage)
            {
                let what = format!(
                    "it names database {} and lineage {}, the manifest database {}, the first lineage object {}",
                    identity.database,
                    identity.lineage,
                    manifest.database,
                    first.map_or("none".to_owned(), |l| l.to_string())
                );
                report.damaged("isle.json", what);
            }
        }
        for epoch in self.epochs.values() {
            if let Some(what) = contradiction(epoch, manifest) {
                report.damaged(names::epoch(epoch.epoch).as_str(), what);
            }
        }
    }

    /// Whether something lies above a head that was read after the folder was listed: then the head was set back.
    pub(super) fn judge_heights(&self, from: &From, now: &Manifest, report: &mut Report) {
        if matches!(from, From::Bucket) {
            return;
        }
        let set_back = "the coordination service was set back; stop every role and run `isle recover`";
        for epoch in self.epochs.range(now.epoch.next()..).filter(|(_, e)| e.lineage == now.lineage) {
            let what = format!("it is above the head's epoch {}: {set_back}", now.epoch);
            report.damaged(names::epoch(*epoch.0).as_str(), what);
        }
        for (version, lineage, path) in &self.checkpoints {
            if *version > now.version && *lineage == now.lineage {
                report.damaged(path, format!("it is above the head's version {}: {set_back}", now.version));
            }
        }
    }
}

/// What listed objects that are gone mean.
fn gone(kind: &Kind, path: &ObjectPath, report: &mut Report) {
    match kind {
        Kind::Lineage(_) | Kind::Epoch(_) | Kind::Fold(_) => {
            report.damaged(path.as_str(), "it was listed, and is gone: nobody ever deletes such an object");
        }
        _ => report.counts.collected_meanwhile += 1,
    }
}

/// A message about an object without the object's name at its beginning, which stands before it anyway.
fn said_of(path: &ObjectPath, what: String) -> String {
    match what.strip_prefix(path.as_str()) {
        Some(rest) => format!("it {}", rest.trim_start_matches([':', ' '])),
        None => what,
    }
}

fn dense(what: &str, numbers: impl Iterator<Item = u64>, report: &mut Report) {
    let numbers: Vec<u64> = numbers.collect();
    if let Some((at, _)) = (1..).zip(&numbers).find(|(expected, found)| *expected != **found) {
        report.damaged("", format!("the {what} are numbered from 1 on, and number {at} is missing"));
    }
}

/// How an epoch object contradicts the manifest, if it does.
fn contradiction(object: &EpochObject, manifest: &Manifest) -> Option<String> {
    if object.database != manifest.database {
        return Some(format!("it is of database {}, the manifest of {}", object.database, manifest.database));
    }
    let listed =
        manifest.epochs.iter().find(|e| e.epoch == object.epoch && object.lineage == manifest.lineage)?;
    let same = listed.incarnation == object.incarnation && listed.cut == object.cut;
    (!same).then(|| {
        format!(
            "it says incarnation {} and cut {:?}, the manifest {} and {:?}",
            object.incarnation, object.cut, listed.incarnation, listed.cut
        )
    })
}
