//! A single value that arrives piece by piece.

use std::time::Duration;

use isle_storage::ids::Position;
use isle_storage::row::{BlobPointer, MAX_KEY_LEN};

use super::{BlobFile, Complete, POINTER_BYTES};
use crate::error::WriteError;
use crate::intake::{Accepted, Ack, EVENT_SUFFIX, Event, Mutation, Options, charge};
use crate::writer::Writer;

/// A value on its way into a blob file of its own. Nothing is applied until [`ValueUpload::put`] or
/// [`ValueUpload::append`]; dropped before, its upload is aborted.
#[derive(Debug)]
#[must_use = "a value that is neither put nor appended is thrown away"]
pub struct ValueUpload {
    writer: Writer,
    file: BlobFile,
    limit: usize,
}

impl Writer {
    /// Begins a value that is not in memory, `expected` bytes long where that is known. However small, it is stored in a
    /// blob file: put what fits the threshold with [`Writer::put`].
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn begin_value(
        &self,
        expected: Option<u64>,
        options: Options,
    ) -> Result<ValueUpload, WriteError> {
        self.available(options.ack)?;
        let limit = self.settings().max_value_bytes;
        if let Some(len) = expected.filter(|n| *n > limit as u64) {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            return Err(WriteError::ValueTooLarge { len, limit });
        }
        if self.settings().blob_threshold == 0 {
            return Err(WriteError::Unsupported(
                "blob_threshold is 0: values are not stored apart".to_owned(),
            ));
        }
        let file = BlobFile::begin(self.shared(), expected, options.patience).await?;
        Ok(ValueUpload { writer: self.clone(), file, limit })
    }
}

impl ValueUpload {
    /// Appends bytes; waits while too many are on their way.
    ///
    /// # Errors
    /// [`WriteError`]: the value is given up. `ValueTooLarge` as soon as it is.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let len = usize::try_from(self.file.value_len()).unwrap_or(usize::MAX).saturating_add(bytes.len());
        if len > self.limit {
            return Err(WriteError::ValueTooLarge { len, limit: self.limit });
        }
        self.file.write(bytes).await
    }

    /// Everything was written: `key` gets the value. Its position, once it is acknowledged as asked.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn put(
        self,
        key: &[u8],
        ttl: Option<Duration>,
        options: Options,
    ) -> Result<Position, WriteError> {
        if key.is_empty() || key.len() > MAX_KEY_LEN {
            return Err(WriteError::InvalidKey { len: key.len() });
        }
        let (writer, place, mut file) = self.complete().await?;
        let (now, total) = (writer.database().env.clock.now(), charge(key.len(), POINTER_BYTES));
        let put = [Mutation::Put { key, value: &[], ttl }];
        let accepted = writer
            .accept(total, options.patience, |s| {
                file.accept()?;
                Ok(s.stored(&put, &[Some(place)], now, Ack::Bucket))
            })
            .await?;
        writer.acknowledge(&accepted, options).await?;
        Ok(accepted.position())
    }

    /// Everything was written: the value is appended to `stream`.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn append(
        self,
        stream: &[u8],
        ttl: Option<Duration>,
        options: Options,
    ) -> Result<Accepted, WriteError> {
        let key_len = stream.len() + EVENT_SUFFIX;
        if stream.is_empty() || key_len > MAX_KEY_LEN {
            return Err(WriteError::InvalidKey { len: if stream.is_empty() { 0 } else { key_len } });
        }
        let (writer, place, mut file) = self.complete().await?;
        let (now, total) = (writer.database().env.clock.now(), charge(key_len, POINTER_BYTES));
        let event = [Event { value: &[], ttl }];
        let accepted = writer
            .accept(total, options.patience, |s| {
                file.accept()?;
                Ok(s.stored_events(stream, &event, &[Some(place)], now, Ack::Bucket))
            })
            .await?;
        writer.acknowledge(&accepted, options).await?;
        Ok(accepted)
    }

    async fn complete(self) -> Result<(Writer, BlobPointer, Complete), WriteError> {
        let Self { writer, mut file, .. } = self;
        let place = file.end_value().await?;
        Ok((writer, place, file.finish().await?))
    }
}
