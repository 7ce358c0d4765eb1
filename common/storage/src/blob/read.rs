//! Reading a value out of its blob file, in bounded pieces, every byte of it verified.
//!
//! Pure: [`ValueReader`] says which bytes to fetch next and takes them in ([`crate::values`] does the fetching).

use std::ops::Range;

use bytes::Bytes;

use super::{CHUNK_BYTES, decode, stored_range};
use crate::format::{Crc, FormatError};
use crate::names::{self, ObjectPath};
use crate::row::BlobPointer;

/// A range of one value, read window by window. A window is one request.
#[derive(Debug, Clone)]
pub struct ValueReader {
    path: ObjectPath,
    pointer: BlobPointer,
    window: u64,
    /// What is still to be read.
    left: Range<u64>,
    /// Where everything is read, the checksum so far.
    whole: Option<Crc>,
}

impl ValueReader {
    /// Reads the bytes `range` of the value at `pointer`, cut to what there is of it, at most `window` bytes at a time
    /// (rounded up to whole chunks).
    #[must_use]
    pub fn new(pointer: &BlobPointer, range: Range<u64>, window: u64) -> Self {
        let left = range.start.min(pointer.len)..range.end.min(pointer.len);
        let whole = (left == (0..pointer.len)).then(Crc::default);
        let window = window.div_ceil(CHUNK_BYTES).max(1) * CHUNK_BYTES;
        Self { path: names::blob(&pointer.blob), pointer: pointer.clone(), window, left, whole }
    }

    /// All of the value.
    #[must_use]
    pub fn whole(pointer: &BlobPointer, window: u64) -> Self {
        Self::new(pointer, 0..pointer.len, window)
    }

    /// The blob file.
    #[must_use]
    pub fn path(&self) -> &ObjectPath {
        &self.path
    }

    /// Bytes of the value still to be read.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.left.end.saturating_sub(self.left.start)
    }

    /// Bytes that the next window holds.
    #[must_use]
    pub fn next_len(&self) -> u64 {
        self.next_window().map_or(0, |w| w.end - w.start)
    }

    /// The bytes of the value in the next window: it ends at the end of a chunk, or of the range.
    fn next_window(&self) -> Option<Range<u64>> {
        if self.remaining() == 0 {
            return None;
        }
        let start = self.left.start;
        let end = (start / CHUNK_BYTES * CHUNK_BYTES).saturating_add(self.window);
        Some(start..end.min(self.left.end))
    }

    /// The bytes of the file to be fetched next; `None` when all were.
    #[must_use]
    pub fn wants(&self) -> Option<Range<u64>> {
        let window = self.next_window()?;
        Some(stored_range(self.pointer.offset, self.pointer.len, &window).0)
    }

    /// Takes in what [`ValueReader::wants`] asked for: the next bytes of the value, in pieces. The last ones come only
    /// if the checksum of the whole value is right, where the whole value is read.
    ///
    /// # Errors
    /// [`FormatError::Damaged`]: nothing of these bytes may be used.
    pub fn take(&mut self, stored: &Bytes) -> Result<Vec<Bytes>, FormatError> {
        let Some(window) = self.next_window() else { return Ok(Vec::new()) };
        let (at, first) = stored_range(self.pointer.offset, self.pointer.len, &window);
        if stored.len() as u64 != at.end - at.start {
            let why = format!("{} bytes came where {} were asked for", stored.len(), at.end - at.start);
            return Err(FormatError::damaged("blob file", why));
        }
        let mut pieces = decode::chunks(stored, at.start)?;
        let start = first * CHUNK_BYTES;
        let (skip, len) = (window.start - start, window.end - window.start);
        cut(&mut pieces, skip as usize, len as usize);
        if pieces.iter().map(|p| p.len() as u64).sum::<u64>() != len {
            return Err(FormatError::damaged("blob file", "a chunk is shorter than it should be"));
        }
        self.left.start = window.end;
        if let Some(crc) = &mut self.whole {
            *crc = pieces.iter().fold(*crc, |crc, piece| crc.then(piece));
            if self.left.start == self.pointer.len && crc.value() != self.pointer.crc {
                let why = format!("the value at {} does not match its checksum", self.pointer.offset);
                return Err(FormatError::damaged("blob file", why));
            }
        }
        Ok(pieces)
    }

    /// An empty value has no chunk, and its checksum is known: asked when nothing is left to be read.
    ///
    /// # Errors
    /// [`FormatError::Damaged`].
    pub fn end(&self) -> Result<(), FormatError> {
        if self.pointer.len == 0 && self.pointer.crc != Crc::default().value() {
            return Err(FormatError::damaged("blob file", "an empty value with a checksum of something"));
        }
        Ok(())
    }
}

/// Leaves of `pieces` the `len` bytes after the first `skip`.
fn cut(pieces: &mut Vec<Bytes>, mut skip: usize, mut len: usize) {
    for piece in pieces.iter_mut() {
        let from = skip.min(piece.len());
        let to = (from + len).min(piece.len());
        skip -= from;
        len -= to - from;
        *piece = piece.slice(from..to);
    }
    pieces.retain(|p| !p.is_empty());
}
