//! A table's metadata: everything behind the data blocks, fetched by one ranged read.
//!
//! ```text
//! data blocks │ sections                                         │ footer, 28 bytes in every version
//!             │ filter 0x0001 · index 0x8002 · properties 0x8003 │ offset u64 · len u64 · crc u32 · magic, version (8)
//!             ^ offset                                                          len counts sections and footer
//! ```
//!
//! Each section ends in the CRC32C of its tag and content, so that damage is found where it lies: a damaged filter
//! costs reads, a damaged index or property the table. Tags work as [`crate::format::section`] says: a section that
//! an older reader does not know is skipped, or refused where its high bit is set.

use std::ops::Range;

use bytes::Bytes;

use super::filter::Filter;
use super::index::{self, Index};
use super::properties::Properties;
use crate::format::checksum::crc32c_of;
use crate::format::preamble::LEN as PREAMBLE_LEN;
use crate::format::{FormatError, Preamble, REQUIRED, Reader, SectionWriter, Sections};
use crate::manifest::BlobUse;

const FILTER: u16 = 1;
const INDEX: u16 = REQUIRED | 2;
const PROPERTIES: u16 = REQUIRED | 3;
const KNOWN: [u16; 3] = [FILTER, INDEX, PROPERTIES];

const WHAT: &str = "table metadata";
const PREAMBLE: Preamble = Preamble { what: "table footer", magic: *b"ISST", version: 1 };

/// Length of the footer: the last bytes of a table, from which [`meta_offset`] finds the rest.
pub const FOOTER_LEN: usize = EXTENT_LEN + CRC_LEN + PREAMBLE_LEN;

/// Where the metadata starts and how long it is.
const EXTENT_LEN: usize = 16;

const CRC_LEN: usize = 4;

/// A table's decoded metadata: filter, index, properties.
#[derive(Debug)]
pub struct TableMeta {
    filter: Option<Filter>,
    index: Index,
    properties: Properties,
}

impl TableMeta {
    /// Decodes the object's bytes from `meta_offset` to its end; all of it is checked. A damaged filter alone leaves
    /// a table that answers "may contain" to everything. Nothing of `tail` is kept.
    ///
    /// # Errors
    /// [`FormatError`] where index, properties or footer are damaged.
    pub fn decode(tail: Bytes, meta_offset: u64) -> Result<Self, FormatError> {
        let stated = read_footer(&tail)?;
        let given = Extent { offset: meta_offset, len: tail.len() as u64 };
        if stated != given {
            let why = format!("it speaks of metadata at {stated:?}, and this is {given:?}");
            return Err(FormatError::damaged(PREAMBLE.what, why));
        }
        let sections = Sections::parse(WHAT, &tail[..tail.len() - FOOTER_LEN], &KNOWN)?;
        let index =
            Index::decode(Reader::new(index::WHAT, needed(&sections, INDEX, index::WHAT)?), meta_offset)?;
        let properties = read_properties(needed(&sections, PROPERTIES, "table properties")?)?;
        if properties.largest.as_slice() != index.separator(index.len() - 1)
            || (properties.blocks, properties.stored_bytes) != (index.len() as u64, meta_offset)
        {
            return Err(FormatError::damaged(WHAT, "index and properties contradict each other"));
        }
        let filter = sections.get(FILTER).and_then(|s| checked(FILTER, s)).and_then(Filter::decode);
        Ok(Self { filter, index, properties })
    }

    /// Whether the filter admits `key`. False means certainly absent.
    #[must_use]
    #[inline]
    pub fn may_contain(&self, key: &[u8]) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.may_contain(key))
    }

    /// Whether there is a working filter; without one [`TableMeta::may_contain`] is always true.
    #[must_use]
    pub fn has_filter(&self) -> bool {
        self.filter.is_some()
    }

    /// Counts and bounds of the rows.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Number of data blocks, at least one.
    #[must_use]
    pub fn block_count(&self) -> usize {
        self.index.len()
    }

    /// A key at or above every key of block `i` and at or below every key of the next: where tables can be cut.
    #[must_use]
    pub fn separator(&self, i: usize) -> &[u8] {
        self.index.separator(i)
    }

    /// Where data block `i` lies in the object; empty for a block that does not exist.
    #[must_use]
    pub fn block_range(&self, i: usize) -> Range<u64> {
        self.index.range(i)
    }

    /// The block where a row with a key at or above `key` is first found (versions of one key may straddle blocks:
    /// the first of them); `block_count()` where there is none. Separators being shortened, that block may end just
    /// below `key`: then the row is the first of the next block, and `key` itself is in neither.
    #[must_use]
    pub fn seek(&self, key: &[u8]) -> usize {
        self.index.below(key)
    }

    /// The last block that may hold a key below `key` (for reverse scans from an exclusive end); `None` where there
    /// is none. Separators being shortened, that block may start just at or above `key`: then the row is the last of
    /// the block before it.
    #[must_use]
    pub fn seek_before(&self, key: &[u8]) -> Option<usize> {
        if self.properties.smallest.as_slice() >= key {
            return None;
        }
        Some(self.index.below(key).min(self.index.len() - 1))
    }

    /// Whether the last key of block `i` goes on in the next: where it does not, a lookup that ran off the block's
    /// end ([`super::Lookup::Next`]) is over without reading another.
    #[must_use]
    pub fn key_goes_on(&self, i: usize) -> bool {
        self.index.goes_on(i)
    }

    /// Memory this metadata takes, in bytes, for a cache's budget.
    #[must_use]
    pub fn memory(&self) -> usize {
        let bounds = self.properties.smallest.as_slice().len() + self.properties.largest.as_slice().len();
        let blobs: usize = self.properties.blobs.iter().map(|b| size_of_val(b) + b.capacity()).sum();
        let blobs = blobs + self.properties.blob_use.len() * size_of::<BlobUse>();
        let filter = self.filter.as_ref().map_or(0, Filter::memory);
        size_of::<Self>() + bounds + blobs + filter + self.index.memory()
    }
}

/// Where a table's metadata starts, from the last [`FOOTER_LEN`] bytes of the object (or more of them): for tools that
/// have no manifest entry at hand.
///
/// # Errors
/// [`FormatError`] where the footer is damaged, or the table is of a version this build does not know.
pub fn meta_offset(end: &[u8]) -> Result<u64, FormatError> {
    read_footer(end).map(|extent| extent.offset)
}

/// Where the metadata lies in the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Whether the last bytes are those of a table.
pub(crate) fn ends_like_a_table(object: &[u8]) -> bool {
    object.last_chunk::<PREAMBLE_LEN>().is_some_and(|end| end.starts_with(&PREAMBLE.magic))
}

pub(super) fn read_footer(end: &[u8]) -> Result<Extent, FormatError> {
    let Some(footer) = end.last_chunk::<FOOTER_LEN>() else {
        return Err(FormatError::damaged(PREAMBLE.what, format!("{} bytes cannot hold it", end.len())));
    };
    let mut reader = Reader::new(PREAMBLE.what, footer);
    let extent = reader.bytes(EXTENT_LEN)?;
    let crc = reader.u32()?;
    let preamble = reader.bytes(PREAMBLE_LEN)?;
    if crc32c_of([extent, preamble]) != crc {
        return Err(reader.damaged("its checksum does not match"));
    }
    PREAMBLE.check(preamble)?;
    let mut extent = Reader::new(PREAMBLE.what, extent);
    Ok(Extent { offset: extent.u64()?, len: extent.u64()? })
}

fn write_footer(out: &mut Vec<u8>, offset: u64) {
    let len = (out.len() + FOOTER_LEN) as u64;
    let extent = [offset.to_le_bytes(), len.to_le_bytes()].concat();
    let preamble = PREAMBLE.encode();
    out.extend_from_slice(&extent);
    out.extend_from_slice(&crc32c_of([&extent[..], &preamble]).to_le_bytes());
    out.extend_from_slice(&preamble);
}

/// What can be read of a table's metadata, part by part: `sections` lie between the data blocks, of `data_len` bytes,
/// and the footer. Each part that cannot be read says why.
pub(super) fn salvage(sections: &[u8], data_len: u64) -> Parts {
    let parsed = match Sections::parse(WHAT, sections, &KNOWN) {
        Ok(parsed) => parsed,
        Err(e) => return Parts { filter: false, index: Err(e.clone()), properties: Err(e) },
    };
    let index = needed(&parsed, INDEX, index::WHAT)
        .and_then(|bytes| Index::decode(Reader::new(index::WHAT, bytes), data_len))
        .map(|index| (0..index.len()).map(|i| index.range(i)).collect());
    let properties = needed(&parsed, PROPERTIES, "table properties").and_then(read_properties);
    let filter = parsed.get(FILTER).and_then(|s| checked(FILTER, s)).and_then(Filter::decode).is_some();
    Parts { filter, index, properties }
}

/// What [`salvage`] found.
#[derive(Debug)]
pub(super) struct Parts {
    /// Whether there is a sound filter.
    pub(super) filter: bool,
    /// Where the data blocks lie.
    pub(super) index: Result<Vec<Range<u64>>, FormatError>,
    pub(super) properties: Result<Properties, FormatError>,
}

/// The bytes from `meta_offset` on.
pub(super) fn encode(
    filter: Option<&Filter>,
    index: &Index,
    properties: &Properties,
    meta_offset: u64,
) -> Vec<u8> {
    let mut sections = SectionWriter::new();
    if let Some(filter) = filter {
        put(&mut sections, FILTER, filter.encode());
    }
    put(&mut sections, INDEX, index.encode());
    // Serialising numbers, strings and lists of them cannot fail; were it to, the table would be refused when read.
    put(&mut sections, PROPERTIES, serde_json::to_vec(properties).unwrap_or_default());
    let mut out = sections.finish();
    write_footer(&mut out, meta_offset);
    out
}

fn put(sections: &mut SectionWriter, tag: u16, mut content: Vec<u8>) {
    let crc = section_crc(tag, &content);
    content.extend_from_slice(&crc.to_le_bytes());
    sections.put(tag, &content);
}

/// The content of a section without its checksum, if that matches.
fn checked(tag: u16, section: &[u8]) -> Option<&[u8]> {
    let (content, crc) = section.split_last_chunk::<CRC_LEN>()?;
    (section_crc(tag, content) == u32::from_le_bytes(*crc)).then_some(content)
}

fn needed<'a>(sections: &Sections<'a>, tag: u16, what: &'static str) -> Result<&'a [u8], FormatError> {
    let section = sections.get(tag).ok_or_else(|| FormatError::damaged(what, "it is missing"))?;
    checked(tag, section).ok_or_else(|| FormatError::damaged(what, "its checksum does not match"))
}

fn read_properties(json: &[u8]) -> Result<Properties, FormatError> {
    let damaged = |why: String| FormatError::damaged("table properties", why);
    let properties: Properties = serde_json::from_slice(json).map_err(|e| damaged(e.to_string()))?;
    properties.contradiction().map_or(Ok(properties), |why| Err(damaged(why.to_owned())))
}

fn section_crc(tag: u16, content: &[u8]) -> u32 {
    crc32c_of([&tag.to_le_bytes()[..], content])
}
