//! The manifest's text form: one fact a line, printed for people and tests, and parsed back.
//!
//! ```text
//! manifest format=1 database=… lineage=… version=7 epoch=2
//! numbers last=40 last_time=1700000000000000 flushed=30 trimmed=10 floor=0
//! compaction mode=merge
//! epoch 1 incarnation=00000000000000ab
//! epoch 2 incarnation=00000000000000cd cut=1-00000000000000ab-11..20
//! tail 2-00000000000000cd-31..40
//! log chunk 2-00000000000000cd-11..30 len=900 index=700 crc=0x0a1b2c3d time=5..9 raw=2000 starts
//! log segment 2-00000000000000cd-31..40 len=300 index=200 crc=0x0a1b2c3d time=9..9 raw=400
//! run 6 l0
//! table 2-00000000000000cd-1 len=800 meta=600 crc=0x0a1b2c3d from="a" to="k" seq=11..30 time=5..9 rows=20 deletes=0 raw=1000
//! staged 12 inputs=[6,4] splits=["m"] mode={"mode":"merge"} touched=9 bottom
//! part 0 judged=30 dropped
//! pause by="c1" since=9
//! snapshot "nightly" seq=30 created=9
//! retired log/….seg len=300 version=6
//! commit 7 0123456789abcdef
//! ```
//! A table belongs to the run, or the part of a merge, above it; log objects, runs and tables stand in the manifest's order. Texts are JSON
//! strings; what a newer version has added stands last on its line as `extra={…}`. Lines that are empty or start with `#`
//! are skipped. `parse(print(m)) == m` for every manifest.

mod line;
mod parse;
mod print;

use std::fmt;

use super::state::Manifest;
use crate::ids::SeqNo;
use crate::names::LogId;

/// The manifest as text, ending with a line feed.
#[must_use]
pub fn print(manifest: &Manifest) -> String {
    print::manifest(manifest)
}

/// Reads the text form back. The result is not judged: [`super::check::whole`] does that.
///
/// # Errors
/// A text that names the line and what is wrong with it.
pub fn parse(text: &str) -> Result<Manifest, String> {
    parse::manifest(text)
}

/// `<epoch>-<incarnation>-<first>..<last>`: a log object or a segment with both its ends.
struct Span(LogId, SeqNo);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.0, self.1)
    }
}

impl Span {
    fn parse(text: &str) -> Option<Self> {
        let (id, last) = text.split_once("..")?;
        let mut parts = id.split('-');
        let mut next = || parts.next();
        let (epoch, incarnation, first) = (next()?, next()?, next()?);
        let id = LogId {
            epoch: line::number(epoch)?.into(),
            incarnation: incarnation.parse().ok()?,
            first_seq: line::number(first)?.into(),
        };
        next().is_none().then_some(Self(id, line::number(last)?.into()))
    }
}
