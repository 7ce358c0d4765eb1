//! What can still be read of a damaged blob file.
//!
//! As with tables ([`crate::sst::Salvage`]): every chunk that is whole, and the place of what is not. Where the directory
//! is lost, chunks are found one after the other: full ones lie at known distances, and the last one of a value is as long
//! as its checksum says. A damaged chunk in the midst of a value is stepped over; what comes after one that was the last
//! of its value cannot be found.

use std::ops::Range;

use bytes::Bytes;

use super::decode::{BlobDirectory, FOOTER_LEN, Stored, chunks, directory_offset};
use super::{CHUNK_BYTES, CRC_BYTES, FIRST, PREAMBLE, chunk_crc};
use crate::format::{Crc, Damage, FormatError};

const WHAT: &str = "blob file";

/// A blob file read as far as it can be.
#[derive(Debug)]
pub struct Salvage {
    /// Its values; without a directory, as the chunks tell them apart.
    pub values: Vec<SalvagedValue>,
    /// Whether the directory could be read.
    pub listed: bool,
    /// What cannot be read, in the file's order.
    pub damage: Vec<Damage>,
}

/// A value, with what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalvagedValue {
    /// First byte of its first chunk.
    pub offset: u64,
    /// Its length in bytes, without checksums.
    pub len: u64,
    /// CRC32C of the value, where the directory tells it.
    pub crc: Option<u32>,
    /// Its chunks in order; `None` for one that cannot be read.
    pub chunks: Vec<Option<Bytes>>,
}

impl SalvagedValue {
    /// Whether every chunk is there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.chunks.iter().all(Option::is_some)
    }
}

impl Salvage {
    /// Reads what can be read of the whole file `bytes`.
    #[must_use]
    pub fn of(bytes: &Bytes) -> Self {
        let mut salvage = Self { values: Vec::new(), listed: false, damage: Vec::new() };
        let len = bytes.len() as u64;
        if let Err(error) = PREAMBLE.check(bytes) {
            salvage.damage.push(Damage { range: 0..len.min(FIRST), error });
        }
        let directory = directory_offset(bytes).and_then(|offset| {
            let tail = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
            BlobDirectory::decode(tail, offset)
        });
        match directory {
            Ok(directory) => {
                salvage.listed = true;
                directory.values().iter().for_each(|v| salvage.listed_value(bytes, v));
            }
            Err(error) => {
                let end = salvage.walk(bytes);
                let footer = len.saturating_sub(FOOTER_LEN as u64).max(end);
                salvage.damage.push(Damage { range: end.min(footer)..len, error });
            }
        }
        salvage.damage.sort_by_key(|d| d.range.start);
        salvage
    }

    fn listed_value(&mut self, bytes: &Bytes, v: &Stored) {
        let (mut at, mut found, mut whole) = (v.offset, Vec::new(), Crc::of(&[]));
        while at < v.end() {
            let range = at..v.end().min(at + CHUNK_BYTES + CRC_BYTES);
            at = range.end;
            let chunk = chunk(bytes, &range);
            match &chunk {
                Ok(bytes) => whole = whole.then(bytes),
                Err(error) => self.damage.push(Damage { range, error: error.clone() }),
            }
            found.push(chunk.ok());
        }
        let value = SalvagedValue { offset: v.offset, len: v.len, crc: Some(v.crc), chunks: found };
        if value.is_whole() && whole.value() != v.crc {
            let why = format!("the checksum of the value at byte {} does not match", v.offset);
            self.damage.push(Damage { range: v.offset..v.end(), error: FormatError::damaged(WHAT, why) });
        }
        self.values.push(value);
    }

    /// Finds values by their chunks alone; where it stopped.
    fn walk(&mut self, bytes: &Bytes) -> u64 {
        let full = CHUNK_BYTES + CRC_BYTES;
        let (mut at, mut open) = (FIRST, None::<SalvagedValue>);
        loop {
            let value = || SalvagedValue { offset: at, len: 0, crc: None, chunks: Vec::new() };
            if let Ok(data) = chunk(bytes, &(at..at + full)) {
                let value = open.get_or_insert_with(value);
                value.len += data.len() as u64;
                value.chunks.push(Some(data));
                at += full;
            } else if let Some(end) = last_chunk_end(bytes, at) {
                let mut value = open.take().unwrap_or_else(value);
                let data = bytes.slice(at as usize..(end - CRC_BYTES) as usize);
                value.len += data.len() as u64;
                value.chunks.push(Some(data));
                self.values.push(value);
                at = end;
            } else if chunk(bytes, &(at + full..at + 2 * full)).is_ok() {
                let value = open.get_or_insert_with(value);
                value.len += CHUNK_BYTES;
                value.chunks.push(None);
                let why = format!("the checksum of the chunk at byte {at} does not match");
                self.damage.push(Damage { range: at..at + full, error: FormatError::damaged(WHAT, why) });
                at += full;
            } else {
                self.values.extend(open);
                return at.min(bytes.len() as u64);
            }
        }
    }
}

/// The chunk that lies there, verified, without its checksum.
fn chunk(bytes: &Bytes, range: &Range<u64>) -> Result<Bytes, FormatError> {
    let (from, to) = (range.start as usize, range.end as usize);
    if bytes.get(from..to).is_none() {
        return Err(FormatError::damaged(WHAT, format!("the chunk at byte {from} is cut short")));
    }
    let mut found = chunks(&bytes.slice(from..to), range.start)?;
    Ok(found.pop().unwrap_or_default())
}

/// Where the chunk at `at` ends, if it is shorter than a full one: where its checksum stands.
fn last_chunk_end(bytes: &[u8], at: u64) -> Option<u64> {
    let from = usize::try_from(at).ok().filter(|from| *from < bytes.len())?;
    let most = bytes.len().min(from + (CHUNK_BYTES + CRC_BYTES) as usize);
    let mut crc = Crc::of(&[]);
    for end in from + 1..most.saturating_sub(CRC_BYTES as usize - 1) {
        crc = crc.then(&bytes[end - 1..end]);
        let stated = bytes[end..].first_chunk().map(|c| u32::from_le_bytes(*c));
        if stated == Some(crc.then(&at.to_le_bytes()).value()) {
            debug_assert_eq!(stated, Some(chunk_crc(&bytes[from..end], at)));
            return Some(end as u64 + CRC_BYTES);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::{BlobEncoder, stored_len};
    use super::*;

    fn value(seed: u8, len: usize) -> Vec<u8> {
        (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed) ^ (i >> 8) as u8).collect()
    }

    fn file() -> (Bytes, Vec<Vec<u8>>) {
        let values = vec![value(1, 200_000), value(2, 10), value(3, CHUNK_BYTES as usize + 5)];
        let (mut out, mut encoder) = (Vec::new(), BlobEncoder::new());
        for v in &values {
            encoder.write(v, &mut out);
            encoder.end_value(&mut out);
        }
        encoder.finish(&mut out);
        (out.into(), values)
    }

    fn content(v: &SalvagedValue) -> Option<Vec<u8>> {
        v.chunks.iter().cloned().collect::<Option<Vec<_>>>().map(|c| c.concat())
    }

    fn flipped(file: &Bytes, at: usize) -> Bytes {
        let mut bad = file.to_vec();
        bad[at] ^= 4;
        bad.into()
    }

    #[test]
    fn a_whole_file_has_no_damage() {
        let (file, values) = file();
        let salvage = Salvage::of(&file);
        assert!(salvage.listed && salvage.damage.is_empty(), "{:?}", salvage.damage);
        let found: Vec<_> = salvage.values.iter().filter_map(content).collect();
        assert_eq!(found, values);
    }

    #[test]
    fn a_bad_byte_costs_one_chunk_and_its_place_is_told() {
        let (file, values) = file();
        let data = stored_len(200_000) + stored_len(10) + stored_len(CHUNK_BYTES + 5) + FIRST;
        for at in (0..file.len()).step_by(1999).chain(data as usize..file.len()) {
            let salvage = Salvage::of(&flipped(&file, at));
            assert!(
                salvage.damage.iter().any(|d| d.range.contains(&(at as u64))),
                "byte {at}: {:?}",
                salvage.damage
            );
            let whole = salvage.values.iter().filter(|v| v.is_whole()).count();
            let in_data = (FIRST..data).contains(&(at as u64));
            assert_eq!(whole, values.len() - usize::from(in_data), "byte {at}");
            for (found, written) in salvage.values.iter().zip(&values) {
                assert!(content(found).is_none_or(|c| c == *written), "byte {at}");
            }
        }
    }

    #[test]
    fn a_cut_file_gives_what_lies_before_the_cut() {
        let (file, values) = file();
        for cut in (0..file.len() - 1).step_by(4999) {
            let salvage = Salvage::of(&file.slice(..cut));
            assert!(!salvage.listed && !salvage.damage.is_empty(), "cut at {cut}");
            for (found, written) in salvage.values.iter().zip(&values) {
                let left: Vec<u8> = found.chunks.iter().flatten().flatten().copied().collect();
                assert!(written.starts_with(&left), "cut at {cut}");
            }
        }
    }

    /// The directory and a chunk in the midst of a value: the chunks after it are found all the same.
    #[test]
    fn a_damaged_chunk_is_stepped_over_without_a_directory() {
        let (file, values) = file();
        let bad = flipped(&flipped(&file, file.len() - 1), 70_000);
        let salvage = Salvage::of(&bad);
        assert_eq!(salvage.values.len(), values.len());
        assert_eq!(salvage.values[0].len, 200_000);
        assert_eq!(salvage.values[0].chunks.iter().filter(|c| c.is_none()).count(), 1);
        assert_eq!(salvage.values[1..].iter().filter_map(content).collect::<Vec<_>>(), values[1..]);
    }
}
