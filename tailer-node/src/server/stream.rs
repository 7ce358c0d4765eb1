//! `GET /v1/tail`: an endless stream of changes.
//!
//! One delivery of the consumer becomes one or a few chunks of the answer; the next delivery is asked for only when
//! the connection has taken them, so a slow client holds one block and nothing else. A heartbeat goes out when the
//! stream first catches up, and then whenever nothing was written for `heartbeat_seconds`, also while a filter passes
//! over changes that do not match.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures::Stream;
use http::{HeaderMap, HeaderValue, Uri, header};
use isle_service::ApiError;
use isle_service::slot::Slot;
use isle_service::wire::{Format, Query, media};
use isle_storage::ids::SeqNo;
use tokio::time::Instant;

use super::content::load;
use super::render::{Progress, Render};
use super::start;
use crate::error::TailError;
use crate::tailer::{Consumer, Delivery, Tailer};

/// A chunk of the answer is sent once it has grown to this many bytes.
const CHUNK_BYTES: usize = 64 << 10;

pub(super) async fn tail(
    State(slot): State<Slot<Tailer>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let query = Query::parse(&uri, &["from", "prefix", "prefix_b64", "format", "encoding"])?;
    let offered = [Format::Sse, Format::Ndjson, Format::Frames];
    let format = media::answer(&headers, query.text("format")?, &offered)?;
    let render = Render { format, encoding: query.encoding()? };
    let prefix = query.key("prefix", "prefix_b64")?.unwrap_or_default();
    let tailer = slot.get()?;
    let consumer = start::start(&query, &headers)?.open(&tailer).await?;
    let heartbeat = Duration::from_secs(tailer.settings().heartbeat_seconds);
    let state = Tailing {
        tailer: Tailer::clone(&tailer),
        open: None,
        consumer,
        render,
        prefix,
        heartbeat,
        due: Instant::now(),
        greeted: false,
        ready: VecDeque::new(),
        ended: false,
    };
    let mut response = Response::new(Body::from_stream(state.chunks()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Some proxies hold an answer back until it is complete; this one never is.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Tailing {
    tailer: Tailer,
    /// A delivery that is not rendered to its end, and the number it goes on with: what is rendered is bounded by a
    /// chunk and one value, not by what a block of pointers points at.
    open: Option<(Delivery, SeqNo)>,
    consumer: Consumer,
    render: Render,
    prefix: Bytes,
    heartbeat: Duration,
    /// When the next heartbeat is due.
    due: Instant,
    /// Whether the stream has said once that it has caught up.
    greeted: bool,
    ready: VecDeque<Bytes>,
    ended: bool,
}

impl Tailing {
    fn chunks(self) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
        futures::stream::unfold(self, |mut tailing| async move {
            loop {
                if let Some(chunk) = tailing.ready.pop_front() {
                    return Some((Ok(chunk), tailing));
                }
                if tailing.ended {
                    return None;
                }
                tailing.advance().await;
            }
        })
    }

    async fn advance(&mut self) {
        if let Some((delivery, from)) = self.open.take() {
            self.deliver(delivery, from).await;
            return;
        }
        if !self.greeted && self.consumer.caught_up() {
            self.greeted = true;
            self.beat();
            return;
        }
        let next = tokio::time::timeout_at(self.due, self.consumer.next());
        match next.await {
            // The timer is polled after the delivery: a stream that has something to say never starves it.
            Err(_) => self.beat(),
            Ok(Ok(delivery)) => self.deliver(delivery, SeqNo::ZERO).await,
            Ok(Err(TailError::Closing)) => {
                let chunk = self.render.closing(self.progress());
                self.end(chunk);
            }
            Ok(Err(error)) => {
                let chunk = self.render.error(&error.into());
                self.end(chunk);
            }
        }
    }

    /// Renders what `delivery` holds from `from` on, as far as one chunk goes.
    async fn deliver(&mut self, delivery: Delivery, from: SeqNo) {
        let mut chunk = Vec::new();
        let mut rest = None;
        for row in delivery.rows().filter(|r| r.seq >= from && r.key.starts_with(&self.prefix)) {
            if chunk.len() >= CHUNK_BYTES {
                rest = Some(row.seq);
                break;
            }
            match load(&self.tailer, &row).await {
                Ok(value) => {
                    let cursor = self.consumer.cursor_at(row.seq);
                    self.render.change(&mut chunk, &row, value.content(), cursor);
                }
                Err(error) => {
                    self.push(chunk);
                    let last = self.render.error(&error.into());
                    self.end(last);
                    return;
                }
            }
        }
        self.push(chunk);
        match rest {
            Some(from) => self.open = Some((delivery, from)),
            None if self.ready.is_empty() && Instant::now() >= self.due => self.beat(),
            None => {}
        }
    }

    fn push(&mut self, chunk: Vec<u8>) {
        if !chunk.is_empty() {
            self.due = Instant::now() + self.heartbeat;
            self.ready.push_back(chunk.into());
        }
    }

    fn beat(&mut self) {
        let chunk = self.render.heartbeat(self.progress());
        self.push(chunk);
    }

    fn end(&mut self, last: Vec<u8>) {
        self.push(last);
        self.ended = true;
    }

    fn progress(&self) -> Progress {
        Progress {
            next: self.consumer.cursor(),
            head: self.consumer.head().0,
            caught_up: self.consumer.caught_up(),
        }
    }
}
