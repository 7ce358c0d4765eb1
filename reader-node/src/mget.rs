//! Multi-gets: several keys at one view, answered in their order, a few looked up at once.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::future::try_join_all;
use isle_storage::ids::SeqNo;
use isle_storage::row::Row;

use crate::error::ReadError;
use crate::options::ReadOptions;
use crate::reader::{Found, Reader};
use crate::tables::FetchError;
use crate::view::ReadPoint;

/// A multi-get under way: answers come key by key, so that however large the values are, few are in memory at once.
#[derive(Debug)]
pub struct Mget {
    reader: Reader,
    options: ReadOptions,
    point: ReadPoint,
    keys: Vec<Bytes>,
    /// The first key not looked up yet.
    next: usize,
    /// Rows of the keys before `next`, in order. Values in blob files are fetched one by one, when their turn comes.
    ready: VecDeque<Option<Row>>,
}

impl Mget {
    pub(crate) fn new(reader: Reader, options: ReadOptions, point: ReadPoint, keys: Vec<Bytes>) -> Self {
        Self { reader, options, point, keys, next: 0, ready: VecDeque::new() }
    }

    /// The sequence number up to which the answers are true.
    #[must_use]
    pub fn view_seq(&self) -> SeqNo {
        self.point.max_seq
    }

    /// The next key with its value, if it has one; `None` after the last.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn next(&mut self) -> Result<Option<(Bytes, Option<Found>)>, ReadError> {
        if self.ready.is_empty() && self.next < self.keys.len() {
            self.look_up().await?;
        }
        let Some(row) = self.ready.pop_front() else { return Ok(None) };
        let at = self.next - self.ready.len() - 1;
        let found = match row {
            Some(row) => match self.reader.found_in(row).await {
                Ok(found) => found,
                Err(e) => {
                    self.keys.truncate(self.next);
                    self.ready.clear();
                    return Err(e.into());
                }
            },
            None => None,
        };
        Ok(self.keys.get(at).map(|key| (key.clone(), found)))
    }

    /// Looks up the first keys. Until one has been answered the view may still be changed for a newer one.
    pub(crate) async fn begin(&mut self) -> Result<(), ReadError> {
        match self.fetch().await {
            Err(FetchError::Gone { object }) => {
                self.point = self.reader.reload(&self.point, object, &self.options).await?;
                Ok(self.fetch().await?)
            }
            other => Ok(other?),
        }
    }

    async fn look_up(&mut self) -> Result<(), ReadError> {
        let result = self.fetch().await;
        if result.is_err() {
            // Nothing is answered past a key that could not be.
            self.keys.truncate(self.next);
        }
        Ok(result?)
    }

    async fn fetch(&mut self) -> Result<(), FetchError> {
        let end = self.keys.len().min(self.next + self.reader.settings().mget_parallelism);
        let keys = self.keys.get(self.next..end).unwrap_or_default();
        let found = try_join_all(keys.iter().map(|key| self.reader.row_at(&self.point, key))).await?;
        self.ready.extend(found);
        self.next = end;
        Ok(())
    }
}
