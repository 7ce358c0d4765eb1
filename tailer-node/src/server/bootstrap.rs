//! `GET /v1/bootstrap`: everything that is in the database at one number, as rows in key order, and, last, the cursor that
//! goes on from there.
//!
//! What can be refused is refused before the answer begins: the first rows are there, or the end, before its head is
//! sent. After that every answer ends in a trailer or an error line; one that ends in neither is incomplete.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Uri, header};
use isle_service::ApiError;
use isle_service::slot::Slot;
use isle_service::wire::{
    Encoding, Format, Kind, Query, RowJson, frame, headers, media, time, write_row_json,
};
use isle_storage::names;
use isle_storage::row::{Row, Value};
use serde_json::json;

use crate::bootstrap::{Bootstrap, BootstrapRequest, Copied};
use crate::error::TailError;
use crate::tailer::Tailer;

pub(super) async fn bootstrap(
    State(slot): State<Slot<Tailer>>,
    asked: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let known = ["prefix", "prefix_b64", "snapshot", "ttl", "format", "encoding"];
    let query = Query::parse(&uri, &known)?;
    let format = media::answer(&asked, query.text("format")?, &[Format::Ndjson, Format::Frames])?;
    let form = Form { format, encoding: query.encoding()? };
    let tailer = slot.get()?;
    let mut copy = tailer.bootstrap(request(&query, &tailer)?).await?;
    let first = match copy.next().await? {
        Some(rows) => form.rows(&rows),
        None => form.end(&copy),
    };
    let (seq, over) = (copy.seq(), copy.copied().is_some());
    let body = match over {
        true => Body::from(first),
        false => Body::from_stream(pieces(first, copy, form)),
    };
    let mut response = Response::new(body);
    let head = response.headers_mut();
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    head.insert(headers::VIEW_SEQ, HeaderValue::from(seq.0));
    Ok(response)
}

fn request(query: &Query, tailer: &Tailer) -> Result<BootstrapRequest, ApiError> {
    let snapshot = query.text("snapshot")?.map(str::to_owned);
    if let Some(name) = &snapshot {
        names::check_snapshot(name).map_err(ApiError::invalid)?;
    }
    let at_most = query.ttl()?.map(|ttl| ttl.duration());
    let most = tailer.settings().bootstrap_hold_seconds;
    if at_most.is_some_and(|ttl| ttl.is_zero() || ttl.as_secs_f64() > most as f64) {
        let message =
            format!("ttl: a bootstrap is held for at most {most} s (tailer.bootstrap_hold_seconds)");
        return Err(ApiError::invalid(message).field("limit", most));
    }
    let prefix = query.key("prefix", "prefix_b64")?.unwrap_or_default();
    Ok(BootstrapRequest { prefix, snapshot, at_most })
}

/// The answer, a batch of rows at a time, each made when the connection asks for it.
fn pieces(
    first: Vec<u8>,
    copy: Bootstrap,
    form: Form,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let rest = futures::stream::unfold(Some((copy, form)), async |at| {
        let (mut copy, form) = at?;
        match copy.next().await {
            Ok(Some(rows)) => Some((form.rows(&rows), Some((copy, form)))),
            Ok(None) => Some((form.end(&copy), None)),
            Err(error) => {
                tracing::warn!(%error, "a bootstrap has ended in an error");
                Some((form.error(error), None))
            }
        }
    });
    futures::stream::once(std::future::ready(first)).chain(rest).map(|piece| Ok(piece.into()))
}

/// How the answer is written.
#[derive(Debug, Clone, Copy)]
struct Form {
    format: Format,
    encoding: Encoding,
}

impl Form {
    fn rows(self, rows: &[Row]) -> Vec<u8> {
        let mut out = Vec::new();
        rows.iter().for_each(|row| self.row(&mut out, row));
        out
    }

    fn row(self, out: &mut Vec<u8>, row: &Row) {
        // A pointer that is still one is to a value too large for a row.
        let (value, value_len) = match &row.value {
            Value::Put(value) => (Some(&value[..]), None),
            Value::Blob(pointer) => (None, Some(pointer.len)),
            Value::Delete => return,
        };
        let expires = row.expires.map(|e| e.0);
        if self.format == Format::Frames {
            let len = value_len.unwrap_or_default().to_le_bytes();
            let (kind, value) = value.map_or((Kind::Elsewhere, &len[..]), |value| (Kind::Put, value));
            frame::encode(out, kind, row.seq.0, row.time.0, expires.unwrap_or_default(), &row.key, value);
            return;
        }
        let json = RowJson {
            op: None,
            key: &row.key,
            value,
            value_len,
            seq: row.seq.0,
            time: row.time.0,
            expires,
            cursor: None,
        };
        write_row_json(out, &json, self.encoding);
        out.push(b'\n');
    }

    /// The trailer, which says that everything is there, and where to go on.
    fn end(self, copy: &Bootstrap) -> Vec<u8> {
        let Some(copied) = copy.copied() else { return self.error(TailError::Closing) };
        let Copied { cursor, rows, snapshot, held_until } = copied;
        let trailer = json!({
            "cursor": cursor.to_string(),
            "view_seq": cursor.seq.0,
            "rows": rows,
            "snapshot": snapshot,
            "held_until": held_until.map(|t| time::rfc3339(t.0)),
        });
        self.last(Kind::Trailer, &trailer.to_string())
    }

    fn error(self, error: TailError) -> Vec<u8> {
        self.last(Kind::Error, &ApiError::from(error).to_json())
    }

    fn last(self, kind: Kind, json: &str) -> Vec<u8> {
        let mut out = Vec::new();
        if self.format == Format::Frames {
            frame::encode_json(&mut out, kind, json.as_bytes());
        } else {
            out.extend_from_slice(json.as_bytes());
            out.push(b'\n');
        }
        out
    }
}
