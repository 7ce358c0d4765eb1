//! `GET /v1/value?seq=`: the value of one change, or a range of it, as it is: for those too large to be among others.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use isle_service::slot::Slot;
use isle_service::wire::{Query, headers, range};
use isle_service::{ApiError, ErrorCode};
use isle_storage::blob::ValueReader;
use isle_storage::ids::SeqNo;
use isle_storage::row::Value;

use crate::tailer::Tailer;

/// Bytes of a value that one request to the bucket brings, and one client holds.
const WINDOW_BYTES: u64 = 4 << 20;

pub(super) async fn value(
    State(slot): State<Slot<Tailer>>,
    asked: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let query = Query::parse(&uri, &["seq"])?;
    let seq =
        query.u64("seq")?.ok_or_else(|| ApiError::invalid("seq is missing: the number of the change"))?;
    let tailer = slot.get()?;
    let row = tailer.change(SeqNo(seq)).await?;
    let absent = || ApiError::new(ErrorCode::NotFound, format!("change {seq} is not there, or is a delete"));
    let tag = HeaderValue::from_str(&format!("\"{seq}\"")).map_err(|e| ApiError::internal(e.to_string()))?;
    let len = match row.as_ref().map(|r| &r.value) {
        Some(Value::Put(value)) => value.len() as u64,
        Some(Value::Blob(pointer)) => pointer.len,
        Some(Value::Delete) | None => return Err(absent()),
    };
    let part = range::requested(&asked, len, &tag)?;
    let bytes = part.clone().unwrap_or(0..len);
    let length = bytes.end - bytes.start;
    let body = match row.map(|r| r.value) {
        Some(Value::Put(value)) => Body::from(value.slice(bytes.start as usize..bytes.end as usize)),
        Some(Value::Blob(pointer)) => {
            stream(&tailer, ValueReader::new(&pointer, bytes, WINDOW_BYTES)).await?
        }
        _ => return Err(absent()),
    };
    let mut response = Response::new(body);
    let head = response.headers_mut();
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    head.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    head.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    head.insert(header::ETAG, tag);
    head.insert(headers::SEQ, HeaderValue::from(seq));
    if let Some(part) = part {
        let text = range::content_range(&part, len);
        let text = HeaderValue::from_str(&text).map_err(|e| ApiError::internal(e.to_string()))?;
        head.insert(header::CONTENT_RANGE, text);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// The value as the client takes it; its first window is fetched before the answer begins.
async fn stream(tailer: &Tailer, mut reader: ValueReader) -> Result<Body, ApiError> {
    let first = tailer.window(&mut reader).await?.unwrap_or_default();
    let state = (tailer.clone(), reader, std::collections::VecDeque::from(first));
    Ok(Body::from_stream(futures::stream::try_unfold(state, async |(tailer, mut reader, mut pieces)| {
        if pieces.is_empty() {
            match tailer.window(&mut reader).await {
                Ok(more) => pieces.extend(more.unwrap_or_default()),
                Err(e) => {
                    tracing::warn!(error = %e, "a value could not be sent to its end");
                    return Err(e);
                }
            }
        }
        Ok(pieces.pop_front().map(|piece: Bytes| (piece, (tailer, reader, pieces))))
    })))
}
