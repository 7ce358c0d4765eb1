//! What can still be read of a damaged log object.
//!
//! As with tables ([`crate::sst::Salvage`]): every block that is whole, and the place of what is not. The numbers and
//! the times of a block stand in the index alone. Without it the blocks are found by their trailers, their records are
//! counted on from the number in the object's name, and their times count from their block's unknown beginning.

use std::ops::Range;

use bytes::Bytes;

use super::{LogHeader, LogIndex, RawBlock, decode_block, index};
use crate::format::{Damage, FormatError, Reader, block, open, preamble};
use crate::ids::SeqNo;

/// A log object read as far as it can be.
#[derive(Debug)]
pub struct Salvage {
    /// Its header, where the index can be read.
    pub header: Option<LogHeader>,
    /// The blocks that can be read, ascending, each with its place.
    pub blocks: Vec<(Range<u64>, RawBlock)>,
    /// Whether numbers and times are known, or counted from the beginning of what was found.
    pub numbered: bool,
    /// What cannot be read, in the object's order.
    pub damage: Vec<Damage>,
}

impl Salvage {
    /// Reads what can be read of the whole object `bytes`; `first_seq` is the number in its name, for an object that no
    /// longer tells it.
    #[must_use]
    pub fn of(bytes: &Bytes, first_seq: SeqNo) -> Self {
        let mut salvage = Self { header: None, blocks: Vec::new(), numbered: true, damage: Vec::new() };
        if let Err(error) = index::PREAMBLE.check(bytes) {
            let range = 0..bytes.len().min(preamble::LEN) as u64;
            salvage.damage.push(Damage { range, error });
        }
        match read_index(bytes) {
            Ok(index) => salvage.indexed(bytes, index),
            Err(damage) => {
                salvage.damage.push(damage);
                salvage.guessed(bytes, first_seq);
            }
        }
        salvage.damage.sort_by_key(|d| d.range.start);
        salvage
    }

    fn indexed(&mut self, bytes: &Bytes, index: LogIndex) {
        for handle in &index.blocks {
            let range = handle.offset..handle.offset + u64::from(handle.len);
            match decode_block(handle, &bytes.slice(range.start as usize..range.end as usize)) {
                Ok(block) => self.blocks.push((range, block)),
                Err(error) => self.damage.push(Damage { range, error }),
            }
        }
        self.header = Some(index.header);
    }

    fn guessed(&mut self, bytes: &Bytes, first_seq: SeqNo) {
        self.numbered = false;
        let mut next = first_seq;
        for range in block::find_all(bytes, preamble::LEN) {
            let stored = bytes.slice(range.start as usize..range.end as usize);
            let raw = match open("log block", &stored) {
                Ok(raw) => raw,
                Err(error) => {
                    self.damage.push(Damage { range, error });
                    continue;
                }
            };
            let (block, malformed) = RawBlock::guessed(next, raw);
            if let Some(at) = malformed {
                let error =
                    FormatError::damaged("log block", format!("the record at byte {at} is malformed"));
                self.damage.push(Damage { range: range.clone(), error });
            }
            next = SeqNo(next.0.saturating_add(u64::from(block.count)));
            self.blocks.push((range, block));
        }
    }
}

/// The index, where the footer says that it lies.
fn read_index(bytes: &Bytes) -> Result<LogIndex, Damage> {
    let len = bytes.len();
    let at = len.saturating_sub(index::FOOTER_LEN);
    let footer = at as u64..len as u64;
    let fail = |range: Range<u64>, error: FormatError| Err(Damage { range, error });
    let offset = match Reader::new("log index", &bytes[at..]).u64() {
        Ok(offset) if offset <= at as u64 => offset,
        Ok(offset) => {
            let why = format!("its index cannot start at byte {offset} of {len}");
            return fail(footer, FormatError::damaged("log object", why));
        }
        Err(error) => return fail(footer, error),
    };
    index::decode(&bytes[offset as usize..], offset).or_else(|error| fail(offset..len as u64, error))
}
