//! What an object is, by its own bytes: for tools that are handed one without its place.

use crate::format::Preamble;
use crate::{blob, coordination, log, manifest, sst};

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// A table.
    Table,
    /// A log segment or chunk.
    Log,
    /// A blob file.
    Blob,
    /// A checkpoint.
    Checkpoint,
    /// A sealed record of coordination (`edit`, `fold`, `epoch`, `lineage`), of a backup, or of a restore.
    Sealed(&'a str),
}

impl Content<'_> {
    /// The kind for people, with its article.
    #[must_use]
    pub fn named(&self) -> String {
        match self {
            Self::Table => "a table".to_owned(),
            Self::Log => "a log object".to_owned(),
            Self::Blob => "a blob file".to_owned(),
            Self::Checkpoint => "a checkpoint".to_owned(),
            Self::Sealed(kind) => format!("a record of the kind {kind:?}"),
        }
    }
}

/// What the bytes say that they are; `None` where they say nothing, as those of a damaged object may.
#[must_use]
pub fn content(bytes: &[u8]) -> Option<Content<'_>> {
    let starts = |preamble: Preamble| bytes.starts_with(&preamble.magic);
    if starts(log::PREAMBLE) {
        Some(Content::Log)
    } else if starts(blob::PREAMBLE) {
        Some(Content::Blob)
    } else if starts(manifest::checkpoint::PREAMBLE) {
        Some(Content::Checkpoint)
    } else if let Some(kind) = coordination::sealed::kind(bytes) {
        Some(Content::Sealed(kind))
    } else {
        sst::ends_like_a_table(bytes).then_some(Content::Table)
    }
}
