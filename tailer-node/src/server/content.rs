//! The value of a change, wherever it lies.

use bytes::Bytes;
use isle_storage::row::{MAX_INLINE_VALUE_LEN, RowRef, ValueRef};

use super::render::Content;
use crate::error::TailError;
use crate::tailer::Tailer;

/// The value of a change, and what keeps it in memory.
#[derive(Debug)]
pub(super) enum Loaded<'a> {
    /// It lies in the log.
    Here(&'a [u8]),
    /// It was fetched from its blob file.
    Fetched(Bytes),
    /// It is too large to be among others.
    Elsewhere(u64),
    /// A delete has none.
    Nothing,
}

impl Loaded<'_> {
    /// What is rendered.
    pub(super) fn content(&self) -> Content<'_> {
        match self {
            Self::Here(value) => Content::Value(value),
            Self::Fetched(value) => Content::Value(value),
            Self::Elsewhere(len) => Content::Elsewhere(*len),
            Self::Nothing => Content::Nothing,
        }
    }
}

/// Length of the value that a rendered row will hold.
pub(super) fn shown_len(row: &RowRef<'_>) -> u64 {
    match row.value {
        ValueRef::Put(value) => value.len() as u64,
        ValueRef::Blob(p) if p.len <= MAX_INLINE_VALUE_LEN as u64 => p.len,
        ValueRef::Blob(_) | ValueRef::Delete => 0,
    }
}

/// Makes the value of `row` ready: one fetch from a blob file for all consumers.
pub(super) async fn load<'a>(tailer: &Tailer, row: &RowRef<'a>) -> Result<Loaded<'a>, TailError> {
    match row.value {
        ValueRef::Put(value) => Ok(Loaded::Here(value)),
        ValueRef::Delete => Ok(Loaded::Nothing),
        ValueRef::Blob(p) if p.len > MAX_INLINE_VALUE_LEN as u64 => Ok(Loaded::Elsewhere(p.len)),
        ValueRef::Blob(p) => tailer.value(&p.to_owned()).await.map(Loaded::Fetched),
    }
}
