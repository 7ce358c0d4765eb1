//! Blob files.

use bytes::Bytes;
use isle_storage::blob::{BlobDirectory, Stored, ValueReader, chunks};
use isle_storage::row::BlobPointer;

/// Any bytes as a whole blob file. What its directory names lies within it, and is either read whole or refused.
pub fn file(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let _judged = chunks(&bytes, 0);
    let Ok(directory) = BlobDirectory::of(&bytes) else { return };
    for value in directory.values() {
        assert!(value.end() <= bytes.len() as u64);
        assert!(directory.holds(value));
        let Stored { offset, len, crc } = *value;
        let pointer = BlobPointer { blob: "1-b-1".to_owned(), offset, len, crc };
        let mut reader = ValueReader::whole(&pointer, 1);
        let mut read = 0;
        while let Some(range) = reader.wants() {
            let stored = bytes.slice(range.start as usize..range.end as usize);
            let Ok(pieces) = reader.take(&stored) else { break };
            read += pieces.iter().map(|p| p.len() as u64).sum::<u64>();
        }
        assert!(read <= len);
    }
}
