//! Blob files of a test that has no bucket: names, lengths as the real encoder makes them, and what lies where.

use std::collections::BTreeMap;

use isle_storage::blob::BlobEncoder;
use isle_storage::merge::Move;
use isle_storage::row::{BlobId, BlobPointer};

/// Every blob file there is, named or not.
#[derive(Debug, Default)]
pub(crate) struct Files(BTreeMap<BlobId, File>);

#[derive(Debug, Default)]
struct File {
    len: u64,
    values: BTreeMap<u64, Vec<u8>>,
}

impl Files {
    /// Writes a file of these values: where each one lies.
    pub(crate) fn write(&mut self, name: &str, values: Vec<Vec<u8>>) -> Vec<BlobPointer> {
        let (mut bytes, mut encoder, mut file) = (Vec::new(), BlobEncoder::new(), File::default());
        let mut places = Vec::new();
        for value in values {
            encoder.write(&value, &mut bytes);
            let (offset, len, crc) = encoder.end_value(&mut bytes);
            places.push(BlobPointer { blob: name.to_owned(), offset, len, crc });
            file.values.insert(offset, value);
        }
        encoder.finish(&mut bytes);
        file.len = bytes.len() as u64;
        assert!(self.0.insert(name.to_owned(), file).is_none(), "{name} is written twice");
        places
    }

    /// Copies values to where they were moved to.
    pub(crate) fn copy(&mut self, moves: &[Move]) {
        for moved in moves.chunk_by(|a, b| a.to == b.to) {
            let values = moved.iter().map(|m| self.value(&m.from).to_vec()).collect();
            let places = self.write(&moved[0].to, values);
            assert!(places.iter().map(|p| p.offset).eq(moved.iter().map(|m| m.at)), "{moved:?}");
        }
    }

    /// The value at `pointer`, which must be there.
    pub(crate) fn value(&self, pointer: &BlobPointer) -> &[u8] {
        let file = self.0.get(&pointer.blob).unwrap_or_else(|| panic!("{} is gone", pointer.blob));
        &file.values[&pointer.offset]
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn len(&self, name: &str) -> u64 {
        self.0[name].len
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&BlobId) -> bool) {
        self.0.retain(|name, _| keep(name));
    }
}
