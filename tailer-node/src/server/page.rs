//! `GET /v1/changes`: one bounded page, for clients that poll.
//!
//! The wait budget starts with the request and nothing extends it, not even a log that grows faster than it is passed over:
//! beyond what was there when the page was asked for, it reads only until the deadline. A page ends at its limit of changes or bytes, at
//! the head, or, where a filter lets nothing through, after a bounded stretch of log: then it is empty and still
//! advances.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, Uri, header};
use isle_service::ApiError;
use isle_service::slot::Slot;
use isle_service::wire::{Format, Query, text};
use isle_storage::ids::SeqNo;
use isle_storage::row::RowRef;
use tokio::time::Instant;

use super::content::{load, shown_len};
use super::render::Render;
use super::start;
use crate::error::TailError;
use crate::tailer::{Consumer, Tailer};

/// Changes a filtered page passes over at most before it is answered, even if it is empty.
const MAX_PASSED_OVER: u64 = 1_000_000;

pub(super) async fn changes(
    State(slot): State<Slot<Tailer>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let known = ["from", "prefix", "prefix_b64", "limit", "max_bytes", "wait", "encoding"];
    let query = Query::parse(&uri, &known)?;
    let tailer = slot.get()?;
    let settings = tailer.settings();
    let limit = query.u64("limit")?.unwrap_or(1000);
    if limit == 0 || limit > settings.max_page_changes as u64 {
        return Err(ApiError::invalid(format!("limit={limit} is not in 1..={}", settings.max_page_changes)));
    }
    let max_bytes = query.u64("max_bytes")?.unwrap_or(settings.max_page_bytes);
    if max_bytes == 0 || max_bytes > settings.max_page_bytes {
        return Err(ApiError::invalid(format!(
            "max_bytes={max_bytes} is not in 1..={}",
            settings.max_page_bytes
        )));
    }
    let wait = query.duration("wait")?.unwrap_or(Duration::ZERO);
    let most = Duration::from_secs(settings.max_wait_seconds);
    if wait > most {
        return Err(ApiError::invalid(format!("wait={wait:?} is above {most:?}")));
    }
    let deadline = Instant::now() + wait;
    let prefix = query.key("prefix", "prefix_b64")?.unwrap_or_default();
    let consumer = start::start(&query, &headers)?.open(&tailer).await?;
    let render = Render { format: Format::Json, encoding: query.encoding()? };
    let until = consumer.head();
    let (count, bytes, passed, json) = (0, 0, 0, Vec::new());
    let tailer = Tailer::clone(&tailer);
    let mut page =
        Page { tailer, consumer, render, prefix, limit, max_bytes, until, count, bytes, passed, json };
    page.fill(deadline).await?;
    Ok(page.answer())
}

struct Page {
    tailer: Tailer,
    consumer: Consumer,
    render: Render,
    prefix: Bytes,
    limit: u64,
    max_bytes: u64,
    /// The head when the page was asked for.
    until: SeqNo,
    count: u64,
    bytes: u64,
    passed: u64,
    json: Vec<u8>,
}

impl Page {
    async fn fill(&mut self, deadline: Instant) -> Result<(), ApiError> {
        while self.count < self.limit && self.passed < MAX_PASSED_OVER {
            if self.consumer.caught_up() && self.count > 0 {
                return Ok(());
            }
            let delivery = if self.consumer.cursor().seq >= self.until {
                if self.passed > 0 && Instant::now() >= deadline {
                    return Ok(());
                }
                match tokio::time::timeout_at(deadline, self.consumer.next()).await {
                    Err(_) | Ok(Err(TailError::Closing)) => return Ok(()),
                    Ok(delivery) => delivery?,
                }
            } else {
                self.consumer.next().await?
            };
            for row in delivery.rows() {
                self.passed += 1;
                if row.key.starts_with(&self.prefix) && !self.take(&row).await? {
                    self.consumer.rewind_to(SeqNo(row.seq.0 - 1));
                    return Ok(());
                }
                if self.count == self.limit {
                    self.consumer.rewind_to(row.seq);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Adds a change; false where it does not fit. The first one always does.
    async fn take(&mut self, row: &RowRef<'_>) -> Result<bool, ApiError> {
        let bytes = row.key.len() as u64 + shown_len(row);
        if self.count > 0 && self.bytes + bytes > self.max_bytes {
            return Ok(false);
        }
        let value = load(&self.tailer, row).await?;
        if self.count > 0 {
            self.json.push(b',');
        }
        let cursor = self.consumer.cursor_at(row.seq).to_string();
        self.render.row(&mut self.json, row, value.content(), Some(&cursor));
        self.count += 1;
        self.bytes += bytes;
        Ok(true)
    }

    fn answer(self) -> Response {
        let mut out = Vec::with_capacity(self.json.len() + 160);
        out.extend_from_slice(b"{\"changes\":[");
        out.extend_from_slice(&self.json);
        out.extend_from_slice(b"],\"next\":");
        text::write_string(&mut out, &self.consumer.cursor().to_string());
        out.extend_from_slice(b",\"head\":");
        text::write_u64(&mut out, self.consumer.head().0);
        let caught_up: &[u8] = if self.consumer.caught_up() { b"true" } else { b"false" };
        out.extend_from_slice(b",\"caught_up\":");
        out.extend_from_slice(caught_up);
        out.extend_from_slice(b"}\n");
        ([(header::CONTENT_TYPE, Format::Json.media_type())], out).into_response()
    }
}
