//! The tail of a log object: header, index and footer, which decode by themselves.
//!
//! The object's bytes from `index_offset` (recorded in its manifest entry) to its end:
//!
//! | bytes | field |
//! | --- | --- |
//! | n | sections: the header's (`header.rs`) and the index |
//! | 8 | `index_offset`, little-endian |
//! | 4 | CRC32C of everything from `index_offset` to here, and of the eight bytes that follow |
//! | 8 | magic and version, as at the object's start |
//!
//! The index section:
//!
//! | bytes | field |
//! | --- | --- |
//! | varint | number of blocks |
//! | 8 | write time of the first record |
//! | per block | stored length (varint), records (varint), base time less the block's before (varint), its CRC32C (4) |
//!
//! Offsets are not stored: blocks lie one after the other from byte 8 to `index_offset`, without a gap. Since each
//! block's checksum stands here, and this part has its own, a block of another object or another place is noticed
//! even where it is sound in itself.

use super::header::{self, INDEX, KNOWN};
use super::{BlockHandle, LogHeader, LogIndex};
use crate::format::{Crc, FormatError, Preamble, Reader, SectionWriter, Sections, block, preamble, varint};
use crate::ids::{SeqNo, Timestamp};

/// Magic and version of log objects.
pub(crate) const PREAMBLE: Preamble = Preamble { what: "log object", magic: *b"ISLL", version: 1 };

/// Length of the fixed part at the end.
pub(super) const FOOTER_LEN: usize = 8 + 4 + preamble::LEN;

/// Fewest bytes one block takes in the index.
const MIN_HANDLE: usize = 7;

const WHAT: &str = "log index";

/// Encodes the tail of an object whose blocks are `blocks`.
pub(super) fn encode(header: &LogHeader, blocks: &[BlockHandle], index_offset: u64) -> Vec<u8> {
    let mut sections = SectionWriter::new();
    header::encode(header, &mut sections);
    sections.put(INDEX, &handles(blocks));
    let mut out = sections.finish();
    out.extend_from_slice(&index_offset.to_le_bytes());
    let fixed = PREAMBLE.encode();
    let crc = Crc::of(&out).then(&fixed);
    out.extend_from_slice(&crc.value().to_le_bytes());
    out.extend_from_slice(&fixed);
    out
}

fn handles(blocks: &[BlockHandle]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + blocks.len() * 16);
    varint::put(&mut out, blocks.len() as u64);
    let mut before = blocks.first().map(|b| b.base_time).unwrap_or_default();
    out.extend_from_slice(&before.0.to_le_bytes());
    for b in blocks {
        varint::put(&mut out, u64::from(b.len));
        varint::put(&mut out, u64::from(b.count));
        varint::put(&mut out, b.base_time.0.wrapping_sub(before.0) as u64);
        out.extend_from_slice(&b.crc.to_le_bytes());
        before = b.base_time;
    }
    out
}

/// Where the tail of a whole object starts, as its last bytes say. Not yet verified.
pub(super) fn offset_in(object: &[u8]) -> Result<u64, FormatError> {
    PREAMBLE.check(object)?;
    let Some(footer) = object.last_chunk::<FOOTER_LEN>() else {
        return Err(FormatError::damaged(PREAMBLE.what, format!("{} bytes are too few", object.len())));
    };
    let offset = Reader::new(WHAT, footer).u64()?;
    if offset < preamble::LEN as u64 || offset > (object.len() - FOOTER_LEN) as u64 {
        return Err(FormatError::damaged(PREAMBLE.what, format!("its index cannot start at byte {offset}")));
    }
    Ok(offset)
}

/// Decodes a tail and holds every part of it against the others.
pub(super) fn decode(tail: &[u8], index_offset: u64) -> Result<LogIndex, FormatError> {
    let damaged = |why: String| FormatError::damaged(WHAT, why);
    let Some((body, footer)) = tail.split_last_chunk::<FOOTER_LEN>() else {
        return Err(damaged(format!("{} bytes are too few", tail.len())));
    };
    let (numbers, fixed) = footer.split_at(FOOTER_LEN - preamble::LEN);
    PREAMBLE.check(fixed)?;
    let mut r = Reader::new(WHAT, numbers);
    let offset = r.u64()?;
    if Crc::of(body).then(&offset.to_le_bytes()).then(fixed).value() != r.u32()? {
        return Err(damaged("its checksum does not match".to_owned()));
    }
    if offset != index_offset {
        return Err(damaged(format!("it says that it starts at byte {offset}, not {index_offset}")));
    }
    let sections = Sections::parse(WHAT, body, KNOWN)?;
    let header = header::decode(&sections)?;
    let blocks = read_handles(&header, sections.need(INDEX)?, index_offset)?;
    Ok(LogIndex { header, blocks })
}

fn read_handles(
    header: &LogHeader,
    mut r: Reader<'_>,
    index_offset: u64,
) -> Result<Vec<BlockHandle>, FormatError> {
    let count = r.count(MIN_HANDLE)?;
    let mut base_time = Timestamp(r.i64()?);
    let mut offset = preamble::LEN as u64;
    let mut first_seq = header.first_seq;
    let mut blocks = Vec::with_capacity(count);
    for _ in 0..count {
        let (len, count, later) = (r.varint()?, r.varint()?, r.varint()?);
        let crc = r.u32()?;
        let (Ok(len), Ok(count)) = (u32::try_from(len), u32::try_from(count)) else {
            return Err(r.damaged("a block is longer than 4 GiB"));
        };
        let time = base_time.0.checked_add_unsigned(later);
        let end = first_seq.0.checked_add(u64::from(count));
        let (Some(time), Some(end)) = (time, end) else {
            return Err(r.damaged("a block's numbers run over"));
        };
        if count == 0 || (len as usize) < block::TRAILER_LEN {
            return Err(r.damaged("a block is empty"));
        }
        base_time = Timestamp(time);
        blocks.push(BlockHandle { offset, len, first_seq, count, base_time, crc });
        offset += u64::from(len);
        first_seq = SeqNo(end);
    }
    r.end()?;
    if offset != index_offset {
        return Err(r.damaged(format!("the blocks end at byte {offset}, the index starts at {index_offset}")));
    }
    if first_seq != header.last_seq.next() {
        return Err(
            r.damaged(format!("the blocks end before {first_seq}, the object at {}", header.last_seq))
        );
    }
    Ok(blocks)
}
