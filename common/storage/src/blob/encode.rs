//! Writing a blob file, value after value, each as it arrives.

use super::{CHUNK_BYTES, FIRST, PREAMBLE};
use crate::format::{Crc, varint};

/// Makes the bytes of a blob file. Every method appends what is ready to `out`, which the caller may take away
/// whenever it likes; beyond that nothing is held but the list of values.
///
/// ```
/// use isle_storage::blob::{BlobDirectory, BlobEncoder};
///
/// let (mut file, mut encoder) = (Vec::new(), BlobEncoder::new());
/// encoder.write(b"hello, ", &mut file);
/// encoder.write(b"world", &mut file);
/// let (offset, len, crc) = encoder.end_value(&mut file);
/// encoder.finish(&mut file);
/// assert_eq!((offset, len, crc), (8, 12, crc32c::crc32c(b"hello, world")));
/// assert_eq!(BlobDirectory::of(&file.into())?.values().len(), 1);
/// # Ok::<(), isle_storage::format::FormatError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct BlobEncoder {
    /// Bytes of the file so far.
    len: u64,
    /// The value under way: where it began, its length and checksum so far.
    value: Option<Value>,
    directory: Vec<(u64, u64, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Value {
    offset: u64,
    len: u64,
    crc: Crc,
    /// The chunk under way: its checksum so far, and how long it is.
    chunk: Crc,
    filled: u64,
}

impl BlobEncoder {
    /// A file without a value.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes to the value under way, or begins the next one with them.
    pub fn write(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        self.begin(out);
        while !bytes.is_empty() {
            let Some(v) = &mut self.value else { return };
            let room = (CHUNK_BYTES - v.filled) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(room));
            out.extend_from_slice(now);
            self.len += now.len() as u64;
            v.filled += now.len() as u64;
            v.len += now.len() as u64;
            v.crc = v.crc.then(now);
            v.chunk = v.chunk.then(now);
            if v.filled == CHUNK_BYTES {
                self.end_chunk(out);
            }
            bytes = later;
        }
    }

    /// Ends the value under way (an empty one, if nothing was written): its offset, length and checksum.
    pub fn end_value(&mut self, out: &mut Vec<u8>) -> (u64, u64, u32) {
        self.begin(out);
        self.end_chunk(out);
        let place = self.value.take().map_or((self.len, 0, 0), |v| (v.offset, v.len, v.crc.value()));
        self.directory.push(place);
        place
    }

    /// Bytes of the value under way so far.
    #[must_use]
    pub fn value_len(&self) -> u64 {
        self.value.map_or(0, |v| v.len)
    }

    /// Appends directory and footer.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        if self.len == 0 {
            self.preamble(out);
        }
        let mut tail = Vec::with_capacity(32 + self.directory.len() * 16);
        varint::put(&mut tail, self.directory.len() as u64);
        for (offset, len, crc) in &self.directory {
            varint::put(&mut tail, *offset);
            varint::put(&mut tail, *len);
            tail.extend_from_slice(&crc.to_le_bytes());
        }
        tail.extend_from_slice(&self.len.to_le_bytes());
        let preamble = PREAMBLE.encode();
        let crc = Crc::of(&tail).then(&preamble).value();
        tail.extend_from_slice(&crc.to_le_bytes());
        tail.extend_from_slice(&preamble);
        out.extend_from_slice(&tail);
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.len == 0 {
            self.preamble(out);
        }
        let offset = self.len;
        let fresh = || Value { offset, len: 0, crc: Crc::default(), chunk: Crc::default(), filled: 0 };
        self.value.get_or_insert_with(fresh);
    }

    fn preamble(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&PREAMBLE.encode());
        self.len = FIRST;
    }

    fn end_chunk(&mut self, out: &mut Vec<u8>) {
        let Some(v) = self.value.as_mut().filter(|v| v.filled > 0) else { return };
        let place = self.len - v.filled;
        let crc = v.chunk.then(&place.to_le_bytes()).value();
        out.extend_from_slice(&crc.to_le_bytes());
        self.len += 4;
        (v.chunk, v.filled) = (Crc::default(), 0);
    }
}
