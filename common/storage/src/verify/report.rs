//! What a verification found.

use std::fmt;

use serde::Serialize;

use crate::ids::{DatabaseId, Lineage, SeqNo, Version};

/// Entries of one list that are kept; beyond, they are counted.
pub const LISTED: usize = 1000;

/// A list that keeps its first [`LISTED`] entries and counts all.
#[derive(Debug, Clone, Serialize)]
pub struct Listed<T> {
    /// How many there are.
    pub total: u64,
    /// The first of them.
    pub first: Vec<T>,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { total: 0, first: Vec::new() }
    }
}

impl<T> Listed<T> {
    pub(super) fn push(&mut self, entry: T) {
        self.total += 1;
        if self.first.len() < LISTED {
            self.first.push(entry);
        }
    }
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The object, relative to the prefix; empty where it concerns several.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.object.is_empty() {
            f.write_str(&self.what)
        } else {
            write!(f, "{}: {}", self.object, self.what)
        }
    }
}

/// Whether an object's maker can still come to name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// It can: a newer writer has not taken over, or the job's claim stands.
    Alive,
    /// It cannot: the object is garbage that the collector will sweep.
    Dead,
    /// Not known from here.
    Unknown,
}

/// An object nobody names. No damage: crashed uploads and abandoned merges leave some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Orphan {
    /// The object.
    pub object: String,
    /// Its length in bytes.
    pub len: u64,
    /// Who made it, as its name says.
    pub owner: String,
    /// Whether its maker lives.
    pub state: Owner,
}

/// An object that an edit retired and that waits for its deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetiredObject {
    /// The object.
    pub object: String,
    /// Its length in bytes.
    pub len: u64,
    /// The version that retired it.
    pub version: Version,
    /// Whether it is still in the bucket.
    pub present: bool,
}

/// An object whose name means nothing here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnknownObject {
    /// The object.
    pub object: String,
    /// Its length in bytes.
    pub len: u64,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Objects in the bucket.
    pub objects: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Log objects decoded.
    pub log_objects: u64,
    /// … and their records.
    pub records: u64,
    /// Tables decoded.
    pub tables: u64,
    /// … and their rows.
    pub rows: u64,
    /// … and their keys, each asked of its filter.
    pub keys: u64,
    /// Blob files decoded.
    pub blobs: u64,
    /// … and the values in them.
    pub values: u64,
    /// Checkpoints decoded.
    pub checkpoints: u64,
    /// Lineage, epoch and fold objects, and numbered edits, decoded.
    pub records_of_coordination: u64,
    /// Objects that had gone when they were to be read, and that a newer manifest no longer names.
    pub collected_meanwhile: u64,
}

/// What a verification found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Where the database lies.
    pub store: String,
    /// The database.
    pub database: Option<DatabaseId>,
    /// Its history.
    pub lineage: Option<Lineage>,
    /// The version that was verified.
    pub version: Version,
    /// The last sequence number of that version.
    pub last_seq: SeqNo,
    /// How that version was found.
    pub source: String,
    /// What is not as it must be.
    pub damage: Listed<Damage>,
    /// Objects that could not be read, so that nothing is known of them.
    pub unreadable: Listed<Damage>,
    /// Objects nobody names.
    pub orphans: Listed<Orphan>,
    /// Objects waiting for their deletion.
    pub retired: Listed<RetiredObject>,
    /// Objects of unknown names.
    pub unknown: Listed<UnknownObject>,
    /// How much was looked at.
    pub counts: Counts,
}

impl Report {
    /// Whether everything could be read and nothing is damaged. Orphans, retired and unknown objects are no damage.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damage.total == 0 && self.unreadable.total == 0
    }

    pub(super) fn damaged(&mut self, object: impl Into<String>, what: impl Into<String>) {
        self.damage.push(Damage { object: object.into(), what: what.into() });
    }
}
