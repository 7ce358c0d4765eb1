//! What can still be read of a damaged table.
//!
//! Readers refuse a table whose index or footer does not match its checksum, and rightly: an answer from half a table is
//! a wrong answer. A person who looks at the object wants the opposite: every block that is whole, and the place of
//! what is not. Where the index is lost, the blocks are found by their own trailers, one after the other from the
//! object's first byte; behind a block that is damaged as well there is then no telling where the next begins.

use std::ops::Range;

use bytes::Bytes;

use super::meta::{self, FOOTER_LEN};
use super::{Block, Properties};
use crate::format::{Damage, FormatError, block};

/// A table read as far as it can be.
#[derive(Debug)]
pub struct Salvage {
    bytes: Bytes,
    /// Where its data blocks lie.
    pub blocks: Vec<Range<u64>>,
    /// Counts and bounds, where they can be read.
    pub properties: Option<Properties>,
    /// Whether its filter is sound.
    pub filter: bool,
    /// What cannot be read of everything but the blocks, in the object's order.
    pub damage: Vec<Damage>,
}

impl Salvage {
    /// Reads what can be read of the whole object `bytes`.
    #[must_use]
    pub fn of(bytes: &Bytes) -> Self {
        let len = bytes.len() as u64;
        let mut damage = Vec::new();
        let stated = match meta::read_footer(bytes) {
            Ok(extent) if extent.offset.checked_add(extent.len) == Some(len) => Some(extent.offset),
            Ok(extent) => {
                let why = format!("it speaks of metadata at {extent:?} in an object of {len} bytes");
                damage.push(Damage { range: footer(len), error: FormatError::damaged("table footer", why) });
                None
            }
            Err(error) => {
                damage.push(Damage { range: footer(len), error });
                None
            }
        };
        let mut found = None;
        let mut scan =
            |limit: u64| found.get_or_insert_with(|| block::find_all(&bytes[..limit as usize], 0)).clone();
        let meta_offset = stated.unwrap_or_else(|| scan(len).last().map_or(0, |b| b.end));
        let sections = meta_offset..footer(len).start.max(meta_offset);
        let parts = meta::salvage(&bytes[sections.start as usize..sections.end as usize], meta_offset);
        let blocks = match parts.index {
            Ok(blocks) => blocks,
            Err(error) => {
                damage.push(Damage { range: sections.clone(), error });
                let blocks = scan(meta_offset);
                let read = blocks.last().map_or(0, |b| b.end);
                if read < meta_offset {
                    let why = "without an index nothing tells where a block ends behind one that is damaged";
                    let error = FormatError::damaged("table data", why);
                    damage.push(Damage { range: read..meta_offset, error });
                }
                blocks
            }
        };
        let properties =
            parts.properties.map_err(|error| damage.push(Damage { range: sections, error })).ok();
        damage.sort_by_key(|d| d.range.start);
        damage.dedup();
        Self { bytes: bytes.clone(), blocks, properties, filter: parts.filter, damage }
    }

    /// Data block `i`, or what is wrong with it.
    ///
    /// # Errors
    /// [`Damage`]; also where there is no such block.
    pub fn block(&self, i: usize) -> Result<Block, Damage> {
        let range = self.blocks.get(i).cloned().unwrap_or_default();
        let stored = self.bytes.slice(range.start as usize..range.end as usize);
        Block::decode(&stored).map_err(|error| Damage { range, error })
    }
}

fn footer(len: u64) -> Range<u64> {
    len.saturating_sub(FOOTER_LEN as u64)..len
}
