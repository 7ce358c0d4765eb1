//! Blob files: what is written is read, whole and in any range; no damage passes.

use bytes::Bytes;
use isle_storage::blob::{BlobDirectory, BlobEncoder, CHUNK_BYTES, Stored, ValueReader};
use isle_storage::format::FormatError;
use isle_storage::row::BlobPointer;
use proptest::prelude::*;

const CHUNK: usize = CHUNK_BYTES as usize;

fn value(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|n| (n / 251 + n * 7 + salt) as u8).collect()
}

/// A file of `values`, written in pieces of `step`, and where each of them lies.
fn file(values: &[Vec<u8>], step: usize) -> (Bytes, Vec<BlobPointer>) {
    let (mut out, mut encoder, mut places) = (Vec::new(), BlobEncoder::new(), Vec::new());
    for value in values {
        value.chunks(step).for_each(|piece| encoder.write(piece, &mut out));
        let (offset, len, crc) = encoder.end_value(&mut out);
        places.push(BlobPointer { blob: "1-00000000000000ab-7".to_owned(), offset, len, crc });
    }
    encoder.finish(&mut out);
    (out.into(), places)
}

fn read(file: &Bytes, mut reader: ValueReader) -> Result<Vec<u8>, FormatError> {
    let mut all = Vec::new();
    while let Some(range) = reader.wants() {
        let stored = file.slice(range.start as usize..range.end as usize);
        reader.take(&stored)?.iter().for_each(|p| all.extend_from_slice(p));
    }
    reader.end()?;
    Ok(all)
}

fn lens() -> impl Strategy<Value = usize> {
    prop_oneof![0usize..200, CHUNK - 2..CHUNK + 3, 2 * CHUNK - 1..2 * CHUNK + 2, 0..5 * CHUNK]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_value_and_every_range_of_it_is_read_back(
        lens in proptest::collection::vec(lens(), 1..5),
        step in 1000usize..200_000,
        window in 1u64..300_000,
        cuts in any::<[prop::sample::Index; 2]>(),
    ) {
        let values: Vec<_> = lens.iter().enumerate().map(|(salt, len)| value(*len, salt)).collect();
        let (file, places) = file(&values, step);
        let directory = BlobDirectory::of(&file).unwrap();
        prop_assert_eq!(directory.values().len(), values.len());
        for (value, place) in values.iter().zip(&places) {
            let stored = Stored { offset: place.offset, len: place.len, crc: place.crc };
            prop_assert!(directory.holds(&stored));
            prop_assert_eq!(&read(&file, ValueReader::whole(place, window)).unwrap(), value);
            let [a, b] = cuts.map(|c| c.index(value.len() + 1));
            let (from, to) = (a.min(b), a.max(b));
            let some = ValueReader::new(place, from as u64..to as u64, window);
            prop_assert_eq!(some.remaining(), (to - from) as u64);
            prop_assert_eq!(&read(&file, some).unwrap()[..], &value[from..to]);
        }
    }

    /// A flipped bit anywhere in a file is noticed by whoever reads what it lies in.
    #[test]
    fn a_flipped_bit_is_noticed(len in 1usize..3 * CHUNK, at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let whole = value(len, 1);
        let (file, places) = file(std::slice::from_ref(&whole), 70_000);
        let mut bytes = file.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let damaged = Bytes::from(bytes);
        let end = (places[0].offset + isle_storage::blob::stored_len(places[0].len)) as usize;
        if (8..end).contains(&at) {
            prop_assert!(read(&damaged, ValueReader::whole(&places[0], 100_000)).is_err());
            // A range that does not touch the damaged chunk is answered, and rightly; one that does is not.
            let chunk = ((at - 8) / (CHUNK + 4)) as u64;
            for n in 0..places[0].len.div_ceil(CHUNK_BYTES) {
                let range = n * CHUNK_BYTES..n * CHUNK_BYTES + 1;
                let got = read(&damaged, ValueReader::new(&places[0], range.clone(), 1));
                match n == chunk {
                    true => prop_assert!(got.is_err()),
                    false => prop_assert_eq!(&got.unwrap()[..], &whole[range.start as usize..][..1]),
                }
            }
        } else {
            prop_assert!(BlobDirectory::of(&damaged).is_err());
        }
    }
}

#[test]
fn a_whole_chunk_in_another_place_is_noticed() {
    let (file, places) = file(&[vec![5; CHUNK], vec![5; CHUNK]], CHUNK);
    let (first, second) = (places[0].offset as usize, places[1].offset as usize);
    let mut swapped = file.to_vec();
    swapped.copy_within(second..second + CHUNK + 4, first);
    assert!(read(&swapped.into(), ValueReader::whole(&places[0], 1)).is_err());
}

#[test]
fn a_pointer_to_another_value_is_noticed() {
    let (file, places) = file(&[value(100, 0), value(100, 9)], 100);
    let wrong = BlobPointer { offset: places[1].offset, ..places[0].clone() };
    assert!(read(&file, ValueReader::whole(&wrong, 1)).is_err());
}

#[test]
fn a_file_without_values_and_one_cut_short() {
    let mut out = Vec::new();
    BlobEncoder::new().finish(&mut out);
    let file = Bytes::from(out);
    assert!(BlobDirectory::of(&file).unwrap().values().is_empty());
    for len in 0..file.len() {
        assert!(BlobDirectory::of(&file.slice(..len)).is_err(), "{len} bytes");
    }
}
