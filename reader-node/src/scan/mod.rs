//! Scans: every source of a view merged into one ordered stream of the rows that are visible.
//!
//! ```text
//!  generation ──batches──┐
//!  run ──blocks, windows─┼─▶ merge ─▶ newest version at or below the view ─▶ no delete, not expired ─▶ record
//!  run ──blocks, windows─┘
//! ```
//! Merging and judging are [`isle_storage::merge`]; here are the sources, the limits, and the pages.

mod source;
mod window;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use isle_storage::ids::{SeqNo, Timestamp};
use isle_storage::merge::{Direction, Feed, Merge, Step, Visibility, Visible};
use isle_storage::row::{BlobPointer, MAX_INLINE_VALUE_LEN, ValueRef};
use prometheus_client::metrics::counter::Counter;

use self::source::Source;
use crate::error::ReadError;
use crate::memory::MemorySource;
use crate::options::ScanRequest;
use crate::page::PageToken;
use crate::pins::Hold;
use crate::reader::HeldViews;
use crate::tables::{FetchError, Reads};
use crate::view::ReadPoint;

/// Pieces fed to the merge without a row to show for it, before the task lets others run.
const FEEDS_PER_TURN: u32 = 16;

/// Values below this are copied out of their block, larger ones shared with it: a caller that keeps a small value must
/// not keep a large block.
const SHARE_FROM: usize = 4096;

/// One visible row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Bytes,
    /// The value; empty where the scan asked for keys only.
    pub value: Bytes,
    /// Length of a value that is too large for a row, over 8 MiB: [`Record::value`] is empty then, and
    /// [`crate::Reader::open_value`] has it.
    pub elsewhere: Option<u64>,
    /// Its sequence number.
    pub seq: SeqNo,
    /// When it was written.
    pub time: Timestamp,
    /// When it stops being visible, if ever.
    pub expires: Option<Timestamp>,
}

/// A scan under way. It reads one view at one instant, whatever happens to the database meanwhile; an error ends it.
#[derive(Debug)]
pub struct Scan {
    point: ReadPoint,
    held: Arc<HeldViews>,
    hold: Hold,
    reads: Arc<Reads>,
    reverse: bool,
    keys_only: bool,
    rows_left: usize,
    bytes_left: u64,
    rows: Visible,
    sources: Vec<Source>,
    last: Option<Bytes>,
    exhausted: bool,
    delivered: Counter,
}

impl Scan {
    /// Starts a scan: every source is asked for its first rows at once.
    pub(crate) async fn open(
        reads: &Arc<Reads>,
        held: &Arc<HeldViews>,
        hold: Hold,
        point: ReadPoint,
        request: &ScanRequest,
        read_ahead: u64,
        delivered: Counter,
    ) -> Result<Self, FetchError> {
        let mut range = request.range.clone();
        if let Some(page) = &request.page {
            range = range.after(&page.last, request.reverse);
        }
        let direction = if request.reverse { Direction::Reverse } else { Direction::Forward };
        let rows_left = request.limit.unwrap_or(usize::MAX);
        let mut sources = Vec::new();
        if !range.is_empty() {
            let memory = point.view.generations.iter().map(|g| {
                Source::Memory(MemorySource::new(Arc::clone(g), range.clone(), direction, point.max_seq))
            });
            let runs = point.view.runs.iter().filter(|r| r.min_seq <= point.max_seq);
            let runs = runs.filter_map(|r| Source::run(reads, r, &range, direction, read_ahead));
            sources.extend(memory.chain(runs));
        }
        let bound = if request.reverse { Some(range.start.clone()) } else { range.end.clone() };
        let merge = Merge::new(sources.len(), direction).bounded(bound);
        let mut rows = Visible::new(merge, Visibility { max_seq: point.max_seq, now: point.now });
        let feeds = join_all(sources.iter_mut().map(|s| s.next_feed(rows_left))).await;
        for (i, feed) in feeds.into_iter().enumerate() {
            rows.feed(i, feed?);
        }
        Ok(Self {
            point,
            held: Arc::clone(held),
            hold,
            reads: Arc::clone(reads),
            reverse: request.reverse,
            keys_only: request.keys_only,
            rows_left,
            bytes_left: request.max_bytes.unwrap_or(u64::MAX),
            rows,
            sources,
            last: request.page.as_ref().map(|p| p.last.clone()),
            exhausted: false,
            delivered,
        })
    }

    /// The sequence number up to which the scan sees.
    #[must_use]
    pub fn view_seq(&self) -> SeqNo {
        self.point.max_seq
    }

    /// The next row; `None` at the end of the range or at the scan's limit.
    ///
    /// # Errors
    /// [`ReadError`]: the scan is over, and what it delivered is right but not everything.
    pub async fn next(&mut self) -> Result<Option<Record>, ReadError> {
        if self.exhausted || self.rows_left == 0 || self.bytes_left == 0 {
            return Ok(None);
        }
        let record = match self.next_record().await {
            Ok(Some(record)) => record,
            Ok(None) => {
                self.exhausted = true;
                return Ok(None);
            }
            Err(e) => {
                // Nothing more is delivered: a second attempt could leave a hole.
                self.rows_left = 0;
                return Err(e.into());
            }
        };
        self.delivered.inc();
        self.rows_left -= 1;
        self.bytes_left = self.bytes_left.saturating_sub((record.key.len() + record.value.len()) as u64);
        self.last = Some(record.key.clone());
        Ok(Some(record))
    }

    /// Where the next page begins; `None` where the range is used up. Asking keeps the view for that page.
    #[must_use]
    pub fn next_page(&mut self) -> Option<PageToken> {
        if self.is_known_to_be_over() {
            self.exhausted = true;
        }
        if self.exhausted {
            return None;
        }
        let last = self.last.clone()?;
        self.held.hold(&self.point.view, self.hold.pinned());
        let view = &self.point.view;
        Some(PageToken::new(
            view.lineage(),
            view.version(),
            self.point.max_seq,
            self.point.now,
            self.reverse,
            last,
        ))
    }

    /// Whether it can be told without waiting for anything that no further row is visible.
    fn is_known_to_be_over(&mut self) -> bool {
        for _ in 0..FEEDS_PER_TURN {
            match self.rows.step() {
                Step::Row => return false,
                Step::Done => return true,
                Step::Need(i) => match self.sources.get_mut(i).and_then(Source::feed_at_hand) {
                    Some(feed) => self.rows.feed(i, feed),
                    None => return false,
                },
            }
        }
        false
    }

    async fn next_record(&mut self) -> Result<Option<Record>, FetchError> {
        let mut feeds = 0;
        loop {
            match self.rows.step() {
                Step::Row => break,
                Step::Done => return Ok(None),
                Step::Need(i) => {
                    let feed = match self.sources.get_mut(i) {
                        Some(source) => source.next_feed(self.rows_left).await?,
                        None => Feed::End,
                    };
                    self.rows.feed(i, feed);
                }
            }
            feeds += 1;
            if feeds % FEEDS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        let Some((mut record, blob)) = self.take_row() else { return Ok(None) };
        match blob {
            Some(pointer) if pointer.len > MAX_INLINE_VALUE_LEN as u64 => {
                record.elsewhere = Some(pointer.len)
            }
            Some(pointer) => record.value = self.reads.value(&pointer).await?,
            None => {}
        }
        Ok(Some(record))
    }

    /// The row at hand, and where its value lies if it lies elsewhere.
    fn take_row(&mut self) -> Option<(Record, Option<BlobPointer>)> {
        let row = self.rows.row()?;
        let (mut value, mut blob) = (Bytes::new(), None);
        match row.value {
            _ if self.keys_only => {}
            ValueRef::Put(v) if v.len() < SHARE_FROM => value = Bytes::copy_from_slice(v),
            ValueRef::Put(_) => value = self.rows.shared_value().unwrap_or_default(),
            ValueRef::Delete => {}
            ValueRef::Blob(p) => {
                blob =
                    Some(BlobPointer { blob: p.blob.to_owned(), offset: p.offset, len: p.len, crc: p.crc });
            }
        }
        let key = Bytes::copy_from_slice(row.key);
        let record =
            Record { key, value, elsewhere: None, seq: row.seq, time: row.time, expires: row.expires };
        self.rows.pop();
        Some((record, blob))
    }
}
