//! Blob files: values too large to lie among rows.
//!
//! # Layout
//! ```text
//!   ┌──────────┬────────────────────────────────┬─────────┬───┬───────────┬────────┐
//!   │ preamble │ value 0: chunk│crc chunk│crc … │ value 1 │ … │ directory │ footer │
//!   └──────────┴────────────────────────────────┴─────────┴───┴───────────┴────────┘
//!   0          8 = its offset
//! ```
//! A value is cut into chunks of [`CHUNK_BYTES`], the last one shorter; after each chunk stands its checksum (4 bytes,
//! little-endian): CRC32C of the chunk's bytes and of its own place in the file (8 bytes, little-endian), so that a
//! sound chunk in the wrong place is noticed too. An empty value has no chunk. A [`BlobPointer`] names the place of the
//! value's first chunk, the value's own length (without checksums), and the checksum of the whole value.
//!
//! The directory lists every value: their number (varint), then of each its offset (varint), its length (varint) and its
//! checksum (4 bytes). The footer: the directory's offset (8 bytes), CRC32C of directory and offset and preamble (4),
//! the preamble again.
//!
//! # Why so
//! Where a chunk lies follows from the pointer alone, so a reader of a range fetches the chunks around it and nothing
//! else, and still uses no byte that no checksum covers. The number of bytes need not be known when a value begins, so
//! it can be written as it arrives. Readers need neither directory nor footer; whoever verifies or rewrites a file needs
//! no row that points at it.
//!
//! A reader never looks at the preamble either. What a later version changes is announced by a name in the manifest's
//! `required_features`, as the use of blob files is by `blobs`.
//!
//! Values are not compressed: what is this large mostly is already, and a range of a compressed value cannot be found.
//!
//! [`BlobPointer`]: crate::row::BlobPointer

mod decode;
mod encode;
mod read;
mod salvage;

use std::ops::Range;

pub use decode::{BlobDirectory, FOOTER_LEN, START_LEN, Stored, check_start, chunks, directory_offset};
pub use encode::BlobEncoder;
pub use read::ValueReader;
pub use salvage::{Salvage, SalvagedValue};

use crate::format::{Crc, Preamble, preamble};

/// Bytes of a value in one chunk; the last one of a value is shorter.
pub const CHUNK_BYTES: u64 = 64 << 10;

/// Bytes of a chunk's checksum.
const CRC_BYTES: u64 = 4;

pub(crate) const PREAMBLE: Preamble = Preamble { what: "blob file", magic: *b"ISLB", version: 1 };

/// Where the first value of a file lies.
pub(crate) const FIRST: u64 = preamble::LEN as u64;

/// Bytes that a value of `len` bytes takes in its file.
#[must_use]
pub fn stored_len(len: u64) -> u64 {
    len.saturating_add(len.div_ceil(CHUNK_BYTES).saturating_mul(CRC_BYTES))
}

/// Bytes of a value's entry in the directory at most: its offset and its length as varints, its checksum.
const MOST_ENTRY: u64 = 10 + 10 + 4;

/// Bytes around values and entries at most: preamble, the directory's count, footer.
const MOST_AROUND: u64 = FIRST + 10 + FOOTER_LEN as u64;

/// Bytes that a file takes at most which holds `values` values of `stored` bytes ([`stored_len`]) together, and nothing
/// else.
#[must_use]
pub fn file_len_bound(stored: u64, values: u64) -> u64 {
    stored.saturating_add(values.saturating_mul(MOST_ENTRY)).saturating_add(MOST_AROUND)
}

/// The bytes of the file that hold the chunks around the bytes `range` of a value that begins at `offset` and is `len`
/// long, and the number of the first of those chunks. `range` lies within the value.
#[must_use]
pub fn stored_range(offset: u64, len: u64, range: &Range<u64>) -> (Range<u64>, u64) {
    if range.is_empty() {
        return (offset..offset, 0);
    }
    let whole = CHUNK_BYTES + CRC_BYTES;
    let (first, last) = (range.start / CHUNK_BYTES, (range.end - 1) / CHUNK_BYTES);
    let at = |chunk: u64| offset.saturating_add(chunk.saturating_mul(whole));
    let end = at(last + 1).min(offset.saturating_add(stored_len(len)));
    (at(first)..end, first)
}

/// The checksum of a chunk that lies at `place` in its file.
fn chunk_crc(chunk: &[u8], place: u64) -> u32 {
    Crc::of(chunk).then(&place.to_le_bytes()).value()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever its values are, of a file of which all is alive nothing is garbage.
    #[test]
    fn a_whole_file_is_no_longer_than_its_bound() {
        for len in [0, 1, 100, CHUNK_BYTES, 3 * CHUNK_BYTES + 7] {
            for count in [1u64, 2, 40] {
                let (mut file, mut encoder) = (Vec::new(), BlobEncoder::new());
                for _ in 0..count {
                    encoder.write(&vec![7; len as usize], &mut file);
                    encoder.end_value(&mut file);
                }
                encoder.finish(&mut file);
                let (stored, is) = (count * stored_len(len), file.len() as u64);
                assert!(stored < is && is <= file_len_bound(stored, count), "{count} of {len}: {is}");
            }
        }
    }

    #[test]
    fn a_range_is_found_within_the_chunks_around_it() {
        let (c, w) = (CHUNK_BYTES, CHUNK_BYTES + CRC_BYTES);
        let len = 2 * c + 10;
        assert_eq!(stored_len(len), len + 12);
        assert_eq!((stored_len(0), stored_len(1), stored_len(c)), (0, 5, w));
        assert_eq!(stored_range(8, len, &(0..1)), (8..8 + w, 0));
        assert_eq!(stored_range(8, len, &(c - 1..c + 1)), (8..8 + 2 * w, 0));
        assert_eq!(stored_range(8, len, &(2 * c..len)), (8 + 2 * w..8 + stored_len(len), 2));
        assert_eq!(stored_range(8, len, &(5..5)), (8..8, 0));
    }
}
