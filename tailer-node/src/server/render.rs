//! Changes, heartbeats and endings in the three forms a stream takes.
//!
//! | | SSE | NDJSON | frames |
//! | --- | --- | --- | --- |
//! | change | `id`, `event: put\|delete`, `data` | a row with `op` and `cursor` | kind 1 or 2 |
//! | heartbeat | `id`, `event: heartbeat`, `data` | `{"heartbeat":true,…}` | kind 5, the same JSON |
//! | end | `event: closing` | `{"closing":true,…}` | kind 5, the same JSON |
//! | error | `event: error` | `{"error":…}` | kind 6 |
//!
//! A value above 8 MiB is in none of them: in its place stands its length (`value_len`, kind 7), and `/v1/value` has it.
//! A line, an event and a frame are read whole by whoever takes them, so a bound on them is a bound on every client.

use isle_service::ApiError;
use isle_service::wire::frame::{self, Kind};
use isle_service::wire::{Encoding, Format, Op, RowJson, write_row_json};
use isle_storage::row::RowRef;
use serde_json::json;

use crate::cursor::Cursor;

/// Renders one stream's form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Render {
    pub(super) format: Format,
    pub(super) encoding: Encoding,
}

/// What a change carries besides its key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content<'a> {
    /// A value.
    Value(&'a [u8]),
    /// A value of this length, which is fetched by itself.
    Elsewhere(u64),
    /// It is a delete.
    Nothing,
}

/// Where a stream stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    pub(super) next: Cursor,
    pub(super) head: u64,
    pub(super) caught_up: bool,
}

impl Render {
    /// Appends one change; `cursor` is the position after it.
    pub(super) fn change(self, out: &mut Vec<u8>, row: &RowRef<'_>, content: Content<'_>, cursor: Cursor) {
        if self.format == Format::Frames {
            let len;
            let (kind, value) = match content {
                Content::Value(value) => (Kind::Put, value),
                Content::Nothing => (Kind::Delete, &[][..]),
                Content::Elsewhere(n) => {
                    len = n.to_le_bytes();
                    (Kind::Elsewhere, &len[..])
                }
            };
            let expires = row.expires.map_or(0, |e| e.0);
            frame::encode(out, kind, row.seq.0, row.time.0, expires, row.key, value);
            return;
        }
        let cursor = cursor.to_string();
        if self.format == Format::Sse {
            let op = if row.is_delete() { Op::Delete } else { Op::Put };
            sse_head(out, Some(&cursor), op.as_str());
            self.row(out, row, content, None);
            out.extend_from_slice(b"\n\n");
        } else {
            self.row(out, row, content, Some(&cursor));
            out.push(b'\n');
        }
    }

    /// Appends a change as bare JSON.
    pub(super) fn row(self, out: &mut Vec<u8>, row: &RowRef<'_>, content: Content<'_>, cursor: Option<&str>) {
        let (value, value_len) = match content {
            Content::Value(value) => (Some(value), None),
            Content::Nothing => (None, None),
            Content::Elsewhere(len) => (None, Some(len)),
        };
        let change = RowJson {
            op: Some(if row.is_delete() { Op::Delete } else { Op::Put }),
            key: row.key,
            value,
            value_len,
            seq: row.seq.0,
            time: row.time.0,
            expires: row.expires.map(|e| e.0),
            cursor,
        };
        write_row_json(out, &change, self.encoding);
    }

    /// A heartbeat: filtered and idle streams advance by it.
    pub(super) fn heartbeat(self, p: Progress) -> Vec<u8> {
        self.note("heartbeat", Some(p.next), &progress("heartbeat", p))
    }

    /// The last word of a stream that ends because the tailer stops.
    pub(super) fn closing(self, p: Progress) -> Vec<u8> {
        self.note("closing", Some(p.next), &progress("closing", p))
    }

    /// The last word of a stream that failed.
    pub(super) fn error(self, error: &ApiError) -> Vec<u8> {
        match self.format {
            Format::Sse => self.note("error", None, &error.to_json()),
            Format::Frames => {
                let mut out = Vec::new();
                frame::encode(&mut out, Kind::Error, 0, 0, 0, b"", error.to_json().as_bytes());
                out
            }
            _ => {
                let mut out = error.to_json().into_bytes();
                out.push(b'\n');
                out
            }
        }
    }

    fn note(self, event: &str, id: Option<Cursor>, json: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(json.len() + 160);
        match self.format {
            Format::Sse => {
                sse_head(&mut out, id.map(|c| c.to_string()).as_deref(), event);
                out.extend_from_slice(json.as_bytes());
                out.extend_from_slice(b"\n\n");
            }
            Format::Frames => frame::encode(&mut out, Kind::Trailer, 0, 0, 0, b"", json.as_bytes()),
            _ => {
                out.extend_from_slice(json.as_bytes());
                out.push(b'\n');
            }
        }
        out
    }
}

fn progress(what: &str, p: Progress) -> String {
    json!({what: true, "next": p.next.to_string(), "head": p.head, "caught_up": p.caught_up}).to_string()
}

fn sse_head(out: &mut Vec<u8>, id: Option<&str>, event: &str) {
    if let Some(id) = id {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(id.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\ndata: ");
}
