//! How much of each blob file is alive: what the tables' rows point at, held against the file's length.
//!
//! ```text
//!   file  [ value │ value │ value │ value │ value ]        garbage = length - what its live values need
//!             ▲               ▲
//!        row in run 3    row in run 1                      each table counts what its rows point at
//! ```
//! A row lies in exactly one run that is read, so what the tables count adds up. Staged tables are left out: their rows
//! are copies of rows that are read.
//!
//! Where it is not known how much is alive, nothing counts as garbage: an older program wrote one of the tables and
//! counted nothing, or an object of the log points at the file. What the log points at stays where it is in any case, as
//! long as the log is kept.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::state::Manifest;
use crate::blob;
use crate::row::BlobId;

/// What a table's rows point at in one blob file. In JSON `[bytes, values]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct BlobUse {
    /// Bytes that the values take in the file, their chunks' checksums included.
    pub bytes: u64,
    /// How many values.
    pub values: u64,
}

impl From<(u64, u64)> for BlobUse {
    fn from((bytes, values): (u64, u64)) -> Self {
        Self { bytes, values }
    }
}

impl From<BlobUse> for (u64, u64) {
    fn from(used: BlobUse) -> Self {
        (used.bytes, used.values)
    }
}

impl BlobUse {
    /// The value of a pointer more, `len` bytes long.
    pub fn add_value(&mut self, len: u64) {
        self.add(Self { bytes: blob::stored_len(len), values: 1 });
    }

    fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.values = self.values.saturating_add(other.values);
    }
}

/// A blob file as the manifest knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobFile {
    /// Its length in bytes.
    pub len: u64,
    /// What the rows of all tables point at, as far as they count it.
    pub live: BlobUse,
    /// Whether that is all: every table counts, and no object of the log points at the file.
    pub counted: bool,
}

impl BlobFile {
    /// Bytes that nobody points at; none where that is not known, and none of a file whose every value is alive.
    #[must_use]
    pub fn garbage(&self) -> u64 {
        match self.counted {
            true => self.len.saturating_sub(blob::file_len_bound(self.live.bytes, self.live.values)),
            false => 0,
        }
    }
}

impl Manifest {
    /// Every blob file, with what is alive of it.
    #[must_use]
    pub fn blob_files(&self) -> BTreeMap<&BlobId, BlobFile> {
        let fresh =
            |(name, len): (_, &u64)| (name, BlobFile { len: *len, live: BlobUse::default(), counted: true });
        let mut files: BTreeMap<&BlobId, BlobFile> = self.blobs.iter().map(fresh).collect();
        if files.is_empty() {
            return files;
        }
        let logged: BTreeSet<&BlobId> = self.log.iter().flat_map(|e| &e.blobs).collect();
        for name in logged {
            if let Some(file) = files.get_mut(name) {
                file.counted = false;
            }
        }
        for table in self.tables() {
            for (i, name) in table.blobs.iter().enumerate() {
                let Some(file) = files.get_mut(name) else { continue };
                match table.blob_use.get(i) {
                    Some(used) => file.live.add(*used),
                    None => file.counted = false,
                }
            }
        }
        files
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ids::{DatabaseId, Incarnation, Lineage, RunId, SeqNo, Timestamp};
    use crate::manifest::{CompactionMode, Key, LogEntry, Run, TableEntry};
    use crate::names::{LogId, LogKind};

    fn run(id: u64, used: &[(&str, Option<BlobUse>)]) -> Arc<Run> {
        let key = Key(vec![b'k'].into());
        let table = TableEntry {
            name: format!("t{id}"),
            len: 2,
            meta_offset: 1,
            crc: 0,
            smallest: key.clone(),
            largest: key,
            min_seq: SeqNo(id),
            max_seq: SeqNo(id),
            min_time: Timestamp(0),
            max_time: Timestamp(0),
            rows: 1,
            deletes: 0,
            min_expires: None,
            expiring: None,
            raw_bytes: 1,
            blobs: used.iter().map(|(name, _)| (*name).to_owned()).collect(),
            blob_use: used.iter().filter_map(|(_, used)| *used).collect(),
            extra: BTreeMap::new(),
        };
        Arc::new(Run { id: RunId(id), l0: false, tables: vec![Arc::new(table)] })
    }

    fn used(bytes: u64, values: u64) -> Option<BlobUse> {
        Some(BlobUse { bytes, values })
    }

    #[test]
    fn what_is_alive_adds_up_and_what_is_not_known_is_no_garbage() {
        let mut m = Manifest::genesis(DatabaseId(1), Lineage(1), CompactionMode::Merge);
        m.blobs = Arc::new(
            [("a", 1000), ("b", 1000), ("c", 1000), ("d", 1000)].map(|(b, n)| (b.to_owned(), n)).into(),
        );
        m.runs = vec![run(2, &[("a", used(300, 1)), ("b", used(10, 1))]), run(1, &[("a", used(200, 2))])];
        let garbage = |m: &Manifest| m.blob_files().values().map(BlobFile::garbage).collect::<Vec<_>>();
        let whole = 1000 - blob::file_len_bound(0, 0);
        assert_eq!(
            garbage(&m),
            [1000 - blob::file_len_bound(500, 3), 1000 - blob::file_len_bound(10, 1), whole, whole]
        );
        // A table of an older program does not count.
        m.runs.push(run(0, &[("b", None), ("d", None)]));
        assert_eq!(garbage(&m)[1..], [0, whole, 0]);
        // An object of the log holds the file.
        let id = LogId { epoch: Default::default(), incarnation: Incarnation(0), first_seq: SeqNo(1) };
        m.log.push(Arc::new(LogEntry {
            kind: LogKind::Chunk,
            id,
            last_seq: SeqNo(1),
            len: 1,
            index_offset: 0,
            crc: 0,
            first_time: Timestamp(0),
            last_time: Timestamp(0),
            raw_bytes: 1,
            starts_generation: false,
            blobs: vec!["a".to_owned()],
            extra: BTreeMap::new(),
        }));
        assert_eq!(garbage(&m), [0, 0, whole, 0]);
    }

    #[test]
    fn a_use_is_two_numbers_in_json() {
        let used = BlobUse { bytes: 70_000, values: 3 };
        assert_eq!(serde_json::to_string(&used).unwrap(), "[70000,3]");
        assert_eq!(serde_json::from_str::<BlobUse>("[70000,3]").unwrap(), used);
    }
}
