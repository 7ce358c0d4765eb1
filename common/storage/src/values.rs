//! Fetching values out of blob files: the requests that [`ValueReader`] wants, and what can go wrong with them.

use bytes::Bytes;

use crate::blob::ValueReader;
use crate::format::FormatError;
use crate::object::{Bucket, StoreError};

/// Why a value could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ValueError {
    /// The store failed, or the file is gone.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bytes are not those of the value.
    #[error("{object} is damaged: {why}")]
    Damaged {
        /// The blob file.
        object: String,
        /// What contradicts what.
        why: String,
    },
}

impl ValueError {
    /// What is wrong with the value that `reader` reads.
    #[must_use]
    pub fn damaged(reader: &ValueReader, why: FormatError) -> Self {
        let why = match why {
            FormatError::Damaged { why, .. } => why,
            other @ FormatError::TooNew { .. } => other.to_string(),
        };
        Self::Damaged { object: reader.path().to_string(), why }
    }
}

/// Fetches the next window of `reader`'s value, in pieces; `None` after the last. One request.
///
/// # Errors
/// [`ValueError`].
pub async fn next_window(
    bucket: &dyn Bucket,
    reader: &mut ValueReader,
) -> Result<Option<Vec<Bytes>>, ValueError> {
    let Some(range) = reader.wants() else {
        reader.end().map_err(|why| ValueError::damaged(reader, why))?;
        return Ok(None);
    };
    let stored = bucket.get_range(reader.path(), range).await?;
    reader.take(&stored).map(Some).map_err(|why| ValueError::damaged(reader, why))
}

/// The rest of `reader`'s value in one buffer: for values that are known to be small enough.
///
/// # Errors
/// [`ValueError`].
pub async fn rest(bucket: &dyn Bucket, reader: &mut ValueReader) -> Result<Bytes, ValueError> {
    let mut all = Vec::with_capacity(usize::try_from(reader.remaining()).unwrap_or_default());
    while let Some(pieces) = next_window(bucket, reader).await? {
        pieces.iter().for_each(|p| all.extend_from_slice(p));
    }
    Ok(all.into())
}
