//! Reading a blob file: chunks by a pointer, or everything by the directory.

use bytes::Bytes;

use super::{CHUNK_BYTES, CRC_BYTES, FIRST, PREAMBLE, chunk_crc, stored_len};
use crate::format::{Crc, FormatError, Reader, preamble};

/// Length of the footer.
pub const FOOTER_LEN: usize = 8 + 4 + preamble::LEN;

/// Fewest bytes a value takes in the directory.
const MIN_ENTRY: usize = 6;

const WHAT: &str = "blob file";

/// One value of a blob file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// First byte of its first chunk.
    pub offset: u64,
    /// Its length in bytes, without checksums.
    pub len: u64,
    /// CRC32C of the value.
    pub crc: u32,
}

impl Stored {
    /// The first byte after its last checksum.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(stored_len(self.len))
    }
}

/// The chunks in `stored`, which are the bytes of a file from `place` on and end with a chunk: each verified, in
/// order, without its checksum. Shares the buffer.
///
/// # Errors
/// [`FormatError::Damaged`] where a checksum does not match.
pub fn chunks(stored: &Bytes, place: u64) -> Result<Vec<Bytes>, FormatError> {
    let whole = (CHUNK_BYTES + CRC_BYTES) as usize;
    let mut verified = Vec::with_capacity(stored.len().div_ceil(whole));
    let mut at = 0;
    while at < stored.len() {
        let end = stored.len().min(at + whole);
        let chunk = &stored[at..end];
        let here = place + at as u64;
        let Some((data, crc)) = chunk.split_last_chunk::<4>().filter(|(data, _)| !data.is_empty()) else {
            return Err(FormatError::damaged(WHAT, format!("the chunk at byte {here} is cut short")));
        };
        if chunk_crc(data, here) != u32::from_le_bytes(*crc) {
            let why = format!("the checksum of the chunk at byte {here} does not match");
            return Err(FormatError::damaged(WHAT, why));
        }
        verified.push(stored.slice(at..end - CRC_BYTES as usize));
        at = end;
    }
    Ok(verified)
}

/// Every value of a blob file, ascending by place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlobDirectory {
    values: Vec<Stored>,
}

impl BlobDirectory {
    /// The directory of a whole file in memory.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn of(file: &Bytes) -> Result<Self, FormatError> {
        PREAMBLE.check(file)?;
        let offset = directory_offset(file)?;
        let tail = usize::try_from(offset).ok().and_then(|at| file.get(at..));
        let tail = tail.ok_or_else(|| {
            FormatError::damaged(WHAT, format!("its directory cannot begin at byte {offset}"))
        })?;
        Self::decode(tail, offset)
    }

    /// Decodes the bytes from the directory's offset to the file's end.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn decode(tail: &[u8], offset: u64) -> Result<Self, FormatError> {
        let damaged = |why: &str| FormatError::damaged(WHAT, why);
        let Some((covered, end)) = tail.split_last_chunk::<{ 4 + preamble::LEN }>() else {
            return Err(damaged("its end is cut short"));
        };
        let (crc, fixed) = end.split_at(4);
        PREAMBLE.check(fixed)?;
        if Crc::of(covered).then(fixed).value().to_le_bytes() != crc {
            return Err(damaged("the checksum of its directory does not match"));
        }
        let Some((entries, told)) = covered.split_last_chunk::<8>() else {
            return Err(damaged("its end is cut short"));
        };
        if u64::from_le_bytes(*told) != offset {
            return Err(damaged("its directory says that it begins somewhere else"));
        }
        let mut r = Reader::new(WHAT, entries);
        let count = r.count(MIN_ENTRY)?;
        let mut values = Vec::with_capacity(count);
        let mut next = FIRST;
        for _ in 0..count {
            let value = Stored { offset: r.varint()?, len: r.varint()?, crc: r.u32()? };
            if value.offset != next || value.end() > offset || value.len > offset {
                return Err(damaged("its values do not follow one another"));
            }
            next = value.end();
            values.push(value);
        }
        r.end()?;
        if next != offset {
            return Err(damaged("there are bytes between its values and its directory"));
        }
        Ok(Self { values })
    }

    /// The values.
    #[must_use]
    pub fn values(&self) -> &[Stored] {
        &self.values
    }

    /// The value that begins at `offset`.
    #[must_use]
    pub fn at(&self, offset: u64) -> Option<&Stored> {
        let i = self.values.partition_point(|v| v.offset < offset);
        // Empty values share their place with the next one; any of them will do.
        self.values.get(i).filter(|v| v.offset == offset)
    }

    /// Whether a value of that place, length and checksum is among them.
    #[must_use]
    pub fn holds(&self, value: &Stored) -> bool {
        let from = self.values.partition_point(|v| v.offset < value.offset);
        self.values[from..].iter().take_while(|v| v.offset == value.offset).any(|v| v == value)
    }
}

/// Length of what [`check_start`] looks at.
pub const START_LEN: u64 = FIRST;

/// Whether a file begins as one does: asked by those who look at every byte.
///
/// # Errors
/// [`FormatError`].
pub fn check_start(start: &[u8]) -> Result<(), FormatError> {
    PREAMBLE.check(start).map(drop)
}

/// Where the directory begins, by the last [`FOOTER_LEN`] bytes of the file (or more). Not yet verified.
///
/// # Errors
/// [`FormatError`].
pub fn directory_offset(end: &[u8]) -> Result<u64, FormatError> {
    let Some(footer) = end.last_chunk::<FOOTER_LEN>() else {
        return Err(FormatError::damaged(WHAT, format!("{} bytes are too few", end.len())));
    };
    PREAMBLE.check(&footer[FOOTER_LEN - preamble::LEN..])?;
    let offset = Reader::new(WHAT, footer).u64()?;
    if offset < FIRST {
        return Err(FormatError::damaged(WHAT, format!("its directory cannot begin at byte {offset}")));
    }
    Ok(offset)
}
