//! Values that are handed out piece by piece.

use std::ops::Range;

use isle_storage::blob::ValueReader;
use isle_storage::ids::SeqNo;
use isle_storage::row::Value;

use super::{Headline, Reader, check_key, headline};
use crate::error::ReadError;
use crate::options::ReadOptions;
use crate::tables::{FetchError, OpenValue, WINDOW_BYTES};
use crate::view::ReadPoint;

/// Answer of [`Reader::open_value`].
#[derive(Debug)]
pub struct OpenAnswer {
    /// The row and the asked part of its value; `None`: certainly absent in this view.
    pub found: Option<(Headline, OpenValue)>,
    /// The sequence number up to which the answer is true.
    pub view_seq: SeqNo,
}

impl Reader {
    /// The value of `key`, or the bytes of it that `part` chooses once the row is known, piece by piece. A value in a
    /// blob file is read in windows of a few mebibytes; the first one is here on return.
    ///
    /// # Errors
    /// [`ReadError`]; absence is not an error.
    pub async fn open_value(
        &self,
        key: &[u8],
        options: &ReadOptions,
        part: &(dyn Fn(&Headline) -> Range<u64> + Sync),
    ) -> Result<OpenAnswer, ReadError> {
        self.inner.metrics.gets.inc();
        if options.is_plain()
            && let Some(answer) = self.get_at_hand(key)
        {
            let answer = answer?;
            let found = answer.found.map(|f| {
                let value_len = f.value.len() as u64;
                let row = Headline { value_len, seq: f.seq, time: f.time, expires: f.expires };
                let value = cut(&f.value, part(&row));
                (row, OpenValue::whole(value))
            });
            return Ok(OpenAnswer { found, view_seq: answer.view_seq });
        }
        check_key(key)?;
        let mut point = self.point(options).await?;
        let found = match self.open_at(&point, key, part).await {
            Err(FetchError::Gone { object }) => {
                point = self.reload(&point, object, options).await?;
                self.open_at(&point, key, part).await?
            }
            other => other?,
        };
        Ok(OpenAnswer { found, view_seq: point.max_seq })
    }

    async fn open_at(
        &self,
        point: &ReadPoint,
        key: &[u8],
        part: &(dyn Fn(&Headline) -> Range<u64> + Sync),
    ) -> Result<Option<(Headline, OpenValue)>, FetchError> {
        let Some(row) = self.row_at(point, key).await? else { return Ok(None) };
        let Some(head) = headline(&row) else { return Ok(None) };
        let part = part(&head);
        let value = match &row.value {
            Value::Blob(pointer) => {
                let reader = ValueReader::new(pointer, part, WINDOW_BYTES);
                OpenValue::stored(&self.inner.reads, reader).await?
            }
            Value::Put(value) => OpenValue::whole(cut(value, part)),
            Value::Delete => return Ok(None),
        };
        Ok(Some((head, value)))
    }
}

fn cut(value: &bytes::Bytes, part: Range<u64>) -> bytes::Bytes {
    let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(value.len());
    value.slice(at(part.start).min(at(part.end))..at(part.end))
}
