//! The self-describing header of a log object, as tagged sections (see [`crate::format::section`]).
//!
//! | tag | content |
//! | --- | --- |
//! | 0x8001 identity | database (16), lineage (16), epoch (8), incarnation (8), first and last sequence number (8 each), kind (1: 0 segment, 1 chunk), flags (1: bit 0 starts a generation) |
//! | 0x8002 previous | the segment before: epoch, incarnation, first and last sequence number (8 each); absent at the log's beginning |
//! | 0x8003 blobs | count (varint), then each name with its length (varint) before it, ascending |
//! | 0x8004 parts | count (varint), then each segment as in `previous` |
//! | 0x8005 index | see `index.rs` |
//!
//! All of them are required: a reader that skipped one would lose a blob's reference or a link of the log.

use super::LogHeader;
use crate::format::{FormatError, REQUIRED, Reader, SectionWriter, Sections, varint};
use crate::ids::{DatabaseId, Epoch, Incarnation, Lineage, SeqNo};
use crate::manifest::LogTail;
use crate::names::{LogId, LogKind};

const IDENTITY: u16 = REQUIRED | 1;
const PREVIOUS: u16 = REQUIRED | 2;
const BLOBS: u16 = REQUIRED | 3;
const PARTS: u16 = REQUIRED | 4;
pub(super) const INDEX: u16 = REQUIRED | 5;
pub(super) const KNOWN: &[u16] = &[IDENTITY, PREVIOUS, BLOBS, PARTS, INDEX];

const STARTS_GENERATION: u8 = 1;
const LINK_LEN: usize = 32;
const WHAT: &str = "log header";

/// Appends the header's sections.
pub(super) fn encode(h: &LogHeader, out: &mut SectionWriter) {
    let mut identity = Vec::with_capacity(66);
    identity.extend_from_slice(&h.database.0.to_le_bytes());
    identity.extend_from_slice(&h.lineage.0.to_le_bytes());
    for n in [h.epoch.0, h.incarnation.0, h.first_seq.0, h.last_seq.0] {
        identity.extend_from_slice(&n.to_le_bytes());
    }
    identity.push(match h.kind {
        LogKind::Segment => 0,
        LogKind::Chunk => 1,
    });
    identity.push(if h.starts_generation { STARTS_GENERATION } else { 0 });
    out.put(IDENTITY, &identity);
    if let Some(previous) = &h.previous {
        let mut link = Vec::with_capacity(LINK_LEN);
        put_link(&mut link, previous);
        out.put(PREVIOUS, &link);
    }
    if !h.blobs.is_empty() {
        let mut names = Vec::new();
        varint::put(&mut names, h.blobs.len() as u64);
        for b in &h.blobs {
            varint::put(&mut names, b.len() as u64);
            names.extend_from_slice(b.as_bytes());
        }
        out.put(BLOBS, &names);
    }
    if !h.parts.is_empty() {
        let mut links = Vec::with_capacity(2 + h.parts.len() * LINK_LEN);
        varint::put(&mut links, h.parts.len() as u64);
        h.parts.iter().for_each(|p| put_link(&mut links, p));
        out.put(PARTS, &links);
    }
}

fn put_link(out: &mut Vec<u8>, link: &LogTail) {
    for n in [link.id.epoch.0, link.id.incarnation.0, link.id.first_seq.0, link.last_seq.0] {
        out.extend_from_slice(&n.to_le_bytes());
    }
}

/// Reads the header's sections and holds them against each other.
pub(super) fn decode(sections: &Sections<'_>) -> Result<LogHeader, FormatError> {
    let mut header = identity(sections)?;
    if let Some(mut r) = sections.reader(PREVIOUS) {
        header.previous = Some(link(&mut r)?);
        r.end()?;
    }
    if let Some(mut r) = sections.reader(BLOBS) {
        header.blobs = blobs(&mut r)?;
    }
    if let Some(mut r) = sections.reader(PARTS) {
        let count = r.count(LINK_LEN)?;
        header.parts = (0..count).map(|_| link(&mut r)).collect::<Result<_, _>>()?;
        r.end()?;
    }
    check(&header)?;
    Ok(header)
}

fn identity(sections: &Sections<'_>) -> Result<LogHeader, FormatError> {
    let mut r = sections.need(IDENTITY)?;
    let database = DatabaseId(r.u128()?);
    let lineage = Lineage(r.u128()?);
    let epoch = Epoch(r.u64()?);
    let incarnation = Incarnation(r.u64()?);
    let (first_seq, last_seq) = (SeqNo(r.u64()?), SeqNo(r.u64()?));
    let kind = match r.u8()? {
        0 => LogKind::Segment,
        1 => LogKind::Chunk,
        other => return Err(FormatError::too_new(WHAT, format!("log objects of kind {other} are unknown"))),
    };
    let flags = r.u8()?;
    if flags & !STARTS_GENERATION != 0 {
        return Err(FormatError::too_new(WHAT, format!("flags {flags:#04x} are unknown")));
    }
    r.end()?;
    Ok(LogHeader {
        kind,
        database,
        lineage,
        epoch,
        incarnation,
        first_seq,
        last_seq,
        previous: None,
        starts_generation: flags & STARTS_GENERATION != 0,
        blobs: Vec::new(),
        parts: Vec::new(),
    })
}

fn link(r: &mut Reader<'_>) -> Result<LogTail, FormatError> {
    let (epoch, incarnation) = (Epoch(r.u64()?), Incarnation(r.u64()?));
    let (first_seq, last_seq) = (SeqNo(r.u64()?), SeqNo(r.u64()?));
    Ok(LogTail { id: LogId { epoch, incarnation, first_seq }, last_seq })
}

fn blobs(r: &mut Reader<'_>) -> Result<Vec<String>, FormatError> {
    let count = r.count(2)?;
    let mut names: Vec<String> = Vec::with_capacity(count);
    for _ in 0..count {
        let name = r.text()?;
        if !crate::names::is_name(name) {
            return Err(r.damaged(format!("{name:?} is no blob file's name")));
        }
        if names.last().is_some_and(|last| last.as_str() >= name) {
            return Err(r.damaged("the names of blob files do not ascend"));
        }
        names.push(name.to_owned());
    }
    r.end()?;
    Ok(names)
}

/// The links of the log: dense, forwards and within.
fn check(h: &LogHeader) -> Result<(), FormatError> {
    let damaged = |why: String| Err(FormatError::damaged(WHAT, why));
    if h.first_seq == SeqNo::ZERO || h.last_seq < h.first_seq {
        return damaged(format!("it covers {}..={}", h.first_seq, h.last_seq));
    }
    if h.last_seq.0 == u64::MAX {
        return damaged("there is no number after its last".to_owned());
    }
    if let Some(p) = &h.previous
        && (p.last_seq.0 != h.first_seq.0 - 1 || p.id.first_seq > p.last_seq)
    {
        return damaged(format!("its predecessor ends at {}, it starts at {}", p.last_seq, h.first_seq));
    }
    if h.kind == LogKind::Segment && !h.parts.is_empty() {
        return damaged("a segment has no parts".to_owned());
    }
    let mut next = h.first_seq;
    for p in &h.parts {
        if p.id.first_seq != next || p.last_seq < next || p.last_seq > h.last_seq {
            return damaged(format!("part {} does not start at {next}", p.id));
        }
        next = p.last_seq.next();
    }
    if !h.parts.is_empty() && next != h.last_seq.next() {
        return damaged(format!("its parts end before {next}, it at {}", h.last_seq));
    }
    Ok(())
}
