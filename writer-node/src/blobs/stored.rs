//! Calls whose large values are in memory: stored in one blob file, then accepted together.

use isle_storage::row::BlobPointer;

use super::{BlobFile, Complete, POINTER_BYTES};
use crate::error::WriteError;
use crate::intake::{Accepted, EVENT_SUFFIX, Event, Mutation, Options, charge};
use crate::writer::Writer;

/// Where the values of a call lie that were stored apart, and the file they are in.
struct Large {
    places: Vec<Option<BlobPointer>>,
    file: Complete,
}

impl Writer {
    /// The mutations, where one of their values is to be stored apart.
    pub(crate) fn has_large(&self, batch: &[Mutation<'_>]) -> bool {
        batch.iter().any(|m| self.is_large(m.value_len()))
    }

    /// Whether a value of that length is stored apart.
    pub(crate) fn is_large(&self, len: usize) -> bool {
        let threshold = self.settings().blob_threshold;
        threshold > 0 && len > threshold
    }

    /// Stores the large values in a file of their own, then accepts all of them in one segment.
    pub(crate) async fn submit_large(
        &self,
        batch: &[Mutation<'_>],
        options: Options,
    ) -> Result<Accepted, WriteError> {
        let total = batch.iter().map(|m| self.charged(m.key().len(), m.value_len())).sum();
        self.check_batch(total)?;
        let mut large = self.store(batch.iter().map(Mutation::value), options).await?;
        let (now, ack) = (self.database().env.clock.now(), options.ack);
        self.accept(total, options.patience, |s| {
            large.file.accept()?;
            Ok(s.stored(batch, &large.places, now, ack))
        })
        .await
    }

    /// The same for events of a stream.
    pub(crate) async fn append_large(
        &self,
        stream: &[u8],
        events: &[Event<'_>],
        options: Options,
    ) -> Result<Accepted, WriteError> {
        let key_len = stream.len() + EVENT_SUFFIX;
        let total = events.iter().map(|e| self.charged(key_len, e.value.len())).sum();
        self.check_batch(total)?;
        let mut large = self.store(events.iter().map(|e| e.value), options).await?;
        let (now, ack) = (self.database().env.clock.now(), options.ack);
        self.accept(total, options.patience, |s| {
            large.file.accept()?;
            Ok(s.stored_events(stream, events, &large.places, now, ack))
        })
        .await
    }

    fn charged(&self, key: usize, value: usize) -> usize {
        charge(key, if self.is_large(value) { POINTER_BYTES } else { value })
    }

    async fn store<'a>(
        &self,
        values: impl Iterator<Item = &'a [u8]> + Clone,
        options: Options,
    ) -> Result<Large, WriteError> {
        let apart = |v: &&[u8]| self.is_large(v.len());
        let expected = values.clone().filter(apart).map(|v| v.len() as u64).sum();
        let mut file = BlobFile::begin(self.shared(), Some(expected), options.patience).await?;
        let mut places = Vec::new();
        for value in values {
            let place = if apart(&value) {
                file.write(value).await?;
                Some(file.end_value().await?)
            } else {
                None
            };
            places.push(place);
        }
        Ok(Large { places, file: file.finish().await? })
    }
}
