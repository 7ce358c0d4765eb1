//! A log object as text, for people and tests: its header, then a line per record.
//!
//! ```text
//! log segment 3-000000000000beef-41..43 database=… lineage=… starts
//! previous 2-000000000000feed-31..40
//! blob 3-000000000000beef-1
//! block 41..43
//! 41 put time=1000000 key="k" value="v"
//! 42 delete time=1000001 expires=9000000 key="\xff"
//! 43 blob time=1000002 key="k" blob=3-000000000000beef-1 at=0..1048576 crc=0x0a1b2c3d
//! ```
//! Keys and values are ASCII with everything else escaped; of a long one the beginning is shown, and its length.

use std::fmt::{self, Display, Formatter};

use super::{LogHeader, LogObject, RawBlock};
use crate::manifest::LogTail;
use crate::names::LogKind;
use crate::row::{RowRef, ValueRef};

/// Most bytes of a key or a value that are shown.
const SHOWN: usize = 120;

/// The object as text, ending with a line feed.
#[must_use]
pub fn print(object: &LogObject) -> String {
    Whole(object).to_string()
}

/// The header's lines.
#[must_use]
pub fn header(header: &LogHeader) -> String {
    Header(header).to_string()
}

/// A record's line, without its end: also that of a table's row.
#[must_use]
pub fn row(row: &RowRef<'_>) -> String {
    OneRow(row).to_string()
}

struct OneRow<'a>(&'a RowRef<'a>);

impl Display for OneRow<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_row(f, self.0)
    }
}

struct Whole<'a>(&'a LogObject);

impl Display for Whole<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Header(&self.0.header).fmt(f)?;
        self.0.blocks.iter().try_for_each(|b| block(f, b))
    }
}

struct Header<'a>(&'a LogHeader);

impl Display for Header<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(h) = self;
        let kind = match h.kind {
            LogKind::Segment => "segment",
            LogKind::Chunk => "chunk",
        };
        write!(f, "log {kind} {} database={} lineage={}", Link(&h.tail()), h.database, h.lineage)?;
        writeln!(f, "{}", if h.starts_generation { " starts" } else { "" })?;
        if let Some(previous) = &h.previous {
            writeln!(f, "previous {}", Link(previous))?;
        }
        h.parts.iter().try_for_each(|p| writeln!(f, "part {}", Link(p)))?;
        h.blobs.iter().try_for_each(|b| writeln!(f, "blob {b}"))
    }
}

fn block(f: &mut Formatter<'_>, b: &RawBlock) -> fmt::Result {
    writeln!(f, "block {}..{}", b.first_seq, b.last_seq())?;
    b.rows().try_for_each(|r| {
        write_row(f, &r)?;
        writeln!(f)
    })
}

fn write_row(f: &mut Formatter<'_>, r: &RowRef<'_>) -> fmt::Result {
    let kind = match r.value {
        ValueRef::Put(_) => "put",
        ValueRef::Delete => "delete",
        ValueRef::Blob(_) => "blob",
    };
    write!(f, "{} {kind} time={}", r.seq, r.time.0)?;
    if let Some(expires) = r.expires {
        write!(f, " expires={}", expires.0)?;
    }
    write!(f, " key={}", Shown(r.key))?;
    match r.value {
        ValueRef::Put(v) => write!(f, " value={}", Shown(v)),
        ValueRef::Delete => Ok(()),
        ValueRef::Blob(p) => {
            let end = u128::from(p.offset) + u128::from(p.len);
            write!(f, " blob={} at={}..{end} crc={:#010x}", p.blob, p.offset, p.crc)
        }
    }
}

struct Link<'a>(&'a LogTail);

impl Display for Link<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.0.id, self.0.last_seq)
    }
}

struct Shown<'a>(&'a [u8]);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        let head = &bytes[..bytes.len().min(SHOWN)];
        write!(f, "\"{}\"", head.escape_ascii())?;
        if bytes.len() > SHOWN { write!(f, "…({} bytes)", bytes.len()) } else { Ok(()) }
    }
}
