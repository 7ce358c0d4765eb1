//! Values out of blob files: in windows, within a byte budget that all reads share.
//!
//! A value goes past the cache, which it would wash out. One request brings one window ([`WINDOW_BYTES`]), so a value
//! up to that costs one GET, and a slow client holds a window and no connection to the bucket. Who waits too long for
//! the budget, because others do not take their answers, is refused rather than held.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use isle_storage::blob::ValueReader;
use isle_storage::row::BlobPointer;
use isle_storage::values::{self, ValueError};
use tokio::sync::OwnedSemaphorePermit;

use super::reads::{FetchError, Reads};
use crate::error::ReadError;

/// Bytes of a value that one request brings.
pub(crate) const WINDOW_BYTES: u64 = 4 << 20;

/// Unit of the budget.
pub(super) const UNIT: u64 = 1 << 10;

/// Longest wait for the budget.
const PATIENCE: Duration = Duration::from_secs(10);

impl From<ValueError> for FetchError {
    fn from(e: ValueError) -> Self {
        match e {
            ValueError::Store(e) => e.into(),
            ValueError::Damaged { object, why } => Self::Damaged { object, why },
        }
    }
}

impl Reads {
    /// A whole value, which must be small enough to be held.
    pub(crate) async fn value(&self, pointer: &BlobPointer) -> Result<Bytes, FetchError> {
        let _held = self.hold_value(pointer.len).await?;
        let mut reader = ValueReader::whole(pointer, WINDOW_BYTES);
        let mut whole = Vec::with_capacity(usize::try_from(pointer.len).unwrap_or_default());
        while let Some(pieces) = self.value_window(&mut reader).await? {
            pieces.iter().for_each(|p| whole.extend_from_slice(p));
        }
        Ok(whole.into())
    }

    async fn value_window(&self, reader: &mut ValueReader) -> Result<Option<Vec<Bytes>>, FetchError> {
        let _permit = self.permit().await?;
        Ok(values::next_window(self.bucket().as_ref(), reader).await?)
    }

    async fn hold_value(&self, bytes: u64) -> Result<Option<OwnedSemaphorePermit>, FetchError> {
        let (budget, units) = self.value_budget();
        let wanted = u32::try_from(bytes.div_ceil(UNIT).min(units)).unwrap_or(u32::MAX);
        match tokio::time::timeout(PATIENCE, Arc::clone(budget).acquire_many_owned(wanted)).await {
            Ok(held) => Ok(held.ok()),
            Err(_elapsed) => Err(FetchError::Store(
                "too many large values are on their way to clients that do not take them".to_owned(),
            )),
        }
    }
}

/// A value, or a range of one, that is handed out piece by piece.
#[derive(Debug)]
pub struct OpenValue {
    pieces: VecDeque<Bytes>,
    rest: Option<(Arc<Reads>, ValueReader)>,
    /// The window's share of the budget, for as long as its pieces are here.
    held: Option<OwnedSemaphorePermit>,
}

impl OpenValue {
    pub(crate) fn whole(value: Bytes) -> Self {
        let pieces = if value.is_empty() { VecDeque::new() } else { VecDeque::from([value]) };
        Self { pieces, rest: None, held: None }
    }

    /// Opens a value in a blob file: its first window is here on return.
    pub(crate) async fn stored(reads: &Arc<Reads>, reader: ValueReader) -> Result<Self, FetchError> {
        let rest = Some((Arc::clone(reads), reader));
        let mut open = Self { pieces: VecDeque::new(), rest, held: None };
        open.fill().await?;
        Ok(open)
    }

    /// The next piece, never empty; `None` after the last, which comes only if the checksum of everything read is
    /// right.
    ///
    /// # Errors
    /// [`ReadError`]: what was handed out is right, and not everything.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        if self.pieces.is_empty() {
            self.fill().await?;
        }
        Ok(self.pieces.pop_front())
    }

    /// The value, if all of it is here in one piece.
    #[must_use]
    pub fn at_hand(&mut self) -> Option<Bytes> {
        match (&self.rest, self.pieces.len()) {
            (None, 0) => Some(Bytes::new()),
            (None, 1) => self.pieces.pop_front(),
            _ => None,
        }
    }

    async fn fill(&mut self) -> Result<(), FetchError> {
        self.held = None;
        let Some((reads, reader)) = &mut self.rest else { return Ok(()) };
        self.held = reads.hold_value(reader.next_len()).await?;
        match reads.value_window(reader).await {
            Ok(Some(pieces)) => self.pieces.extend(pieces),
            Ok(None) => (self.rest, self.held) = (None, None),
            Err(e) => {
                (self.rest, self.held) = (None, None);
                return Err(e);
            }
        }
        Ok(())
    }
}
