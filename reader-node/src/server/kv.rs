//! `GET` and `HEAD /v1/kv/{key}`: one value, or a range of it, as it is.
//!
//! A value in a blob file is sent window by window as the client takes it. What turns out damaged in the middle breaks
//! the answer off: the length that was announced is not reached, so nobody takes it for complete.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use isle_service::wire::{Query, headers, range, raw_key};
use isle_service::{ApiError, ErrorCode};
use isle_storage::ids::SeqNo;

use super::Face;
use super::failure::Failure;
use super::params::{READ, read_options};
use crate::options::ReadOptions;
use crate::reader::Headline;
use crate::tables::OpenValue;

const PREFIX: &str = "/v1/kv/";
const PARAMS: [&str; 4] = ["key_b64", READ[0], READ[1], READ[2]];

pub(super) async fn get(State(face): State<Face>, asked: HeaderMap, uri: Uri) -> Result<Response, Failure> {
    let (key, options) = request(&uri)?;
    let part = |row: &Headline| match range::requested(&asked, row.value_len, &tag(row.seq)) {
        // Nothing is fetched of what the client has.
        _ if range::is_known(&asked, &tag(row.seq)) => 0..0,
        Ok(part) => part.unwrap_or(0..row.value_len),
        // Nothing is fetched for a range that will be refused.
        Err(_) => 0..0,
    };
    let answer = face.reader()?.open_value(&key, &options, &part).await?;
    let Some((row, mut value)) = answer.found else { return Ok(not_found(answer.view_seq)) };
    if range::is_known(&asked, &tag(row.seq)) {
        return Ok(not_modified(&row, answer.view_seq));
    }
    let part = range::requested(&asked, row.value_len, &tag(row.seq))?;
    let body = value.at_hand().map_or_else(|| stream(value), Body::from);
    let mut response = response(&row, answer.view_seq, body);
    let head = response.headers_mut();
    let len = part.as_ref().map_or(row.value_len, |p| p.end - p.start);
    head.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    if let Some(part) = part {
        let text = range::content_range(&part, row.value_len);
        head.insert(header::CONTENT_RANGE, HeaderValue::from_str(&text).map_err(internal)?);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

pub(super) async fn head(State(face): State<Face>, asked: HeaderMap, uri: Uri) -> Result<Response, Failure> {
    let (key, options) = request(&uri)?;
    let answer = face.reader()?.head(&key, &options).await?;
    let Some(found) = answer.found else { return Ok(not_found(answer.view_seq)) };
    if range::is_known(&asked, &tag(found.seq)) {
        return Ok(not_modified(&found, answer.view_seq));
    }
    let mut response = response(&found, answer.view_seq, Body::empty());
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(found.value_len));
    Ok(response)
}

fn request(uri: &Uri) -> Result<(bytes::Bytes, ReadOptions), ApiError> {
    let query = Query::parse(uri, &PARAMS)?;
    Ok((raw_key(uri, PREFIX)?, read_options(&query)?))
}

/// The rest of a value as the client takes it.
fn stream(value: OpenValue) -> Body {
    Body::from_stream(futures::stream::try_unfold(value, async |mut value| match value.next().await {
        Ok(piece) => Ok(piece.map(|piece| (piece, value))),
        Err(e) => {
            tracing::warn!(error = %e, "a value could not be sent to its end");
            Err(e)
        }
    }))
}

/// A value's entity tag: a key never has two values under one number.
fn tag(seq: SeqNo) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{seq}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

fn internal(e: http::header::InvalidHeaderValue) -> ApiError {
    ApiError::internal(format!("the answer's header cannot be: {e}"))
}

fn response(row: &Headline, view_seq: SeqNo, body: Body) -> Response {
    let mut response = Response::new(body);
    let head = response.headers_mut();
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    head.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    head.insert(header::ETAG, tag(row.seq));
    head.insert(headers::SEQ, HeaderValue::from(row.seq.0));
    head.insert(headers::VIEW_SEQ, HeaderValue::from(view_seq.0));
    response
}

/// The client has this value already.
fn not_modified(row: &Headline, view_seq: SeqNo) -> Response {
    let mut response = response(row, view_seq, Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().remove(header::CONTENT_TYPE);
    response
}

fn not_found(view_seq: SeqNo) -> Response {
    let message = format!("the key is absent at sequence number {view_seq}");
    let error = ApiError::new(ErrorCode::NotFound, message).field("view_seq", view_seq.0);
    error.header(headers::VIEW_SEQ, &view_seq.to_string()).into_response()
}
