//! A blob file of version 1.

use isle_storage::blob::{BlobDirectory, BlobEncoder, CHUNK_BYTES, Stored, ValueReader};
use isle_storage::row::BlobPointer;

use super::fixture;

fn make(lens: &[u64]) -> Vec<u8> {
    let (mut out, mut encoder) = (Vec::new(), BlobEncoder::new());
    for (n, len) in lens.iter().enumerate() {
        encoder.write(&vec![b'a' + n as u8; *len as usize], &mut out);
        encoder.end_value(&mut out);
    }
    encoder.finish(&mut out);
    out
}

#[test]
fn the_first_blob_file_is_read() {
    let lens = [5, CHUNK_BYTES, CHUNK_BYTES + 7];
    let file = bytes::Bytes::from(fixture("values.blob", || make(&lens)));
    assert!(file == make(&lens), "and it is written the same way");
    let directory = BlobDirectory::of(&file).unwrap();
    let told: Vec<u64> = directory.values().iter().map(|v| v.len).collect();
    assert_eq!(told, lens);
    for (n, &Stored { offset, len, crc }) in directory.values().iter().enumerate() {
        let pointer = BlobPointer { blob: "1-b-1".to_owned(), offset, len, crc };
        let mut reader = ValueReader::whole(&pointer, u64::MAX / 2);
        let range = reader.wants().unwrap();
        let pieces = reader.take(&file.slice(range.start as usize..range.end as usize)).unwrap();
        assert!(pieces.iter().flatten().all(|b| *b == b'a' + n as u8));
    }
}

/// Small ones: a fuzzer changes them all over.
pub(super) fn seeds() -> Vec<(String, Vec<u8>)> {
    [("none", &[][..]), ("one", &[20]), ("three", &[0, 3, 9])]
        .map(|(name, lens)| (name.to_owned(), make(lens)))
        .to_vec()
}
