//! `GET` and `HEAD /v1/kv/{key}`: one value, as it is.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Uri, header};
use isle_service::wire::{Query, headers, raw_key};
use isle_service::{ApiError, ErrorCode};
use isle_storage::ids::SeqNo;

use super::Face;
use super::failure::Failure;
use super::params::{READ, read_options};
use crate::options::ReadOptions;

const PREFIX: &str = "/v1/kv/";
const PARAMS: [&str; 4] = ["key_b64", READ[0], READ[1], READ[2]];

pub(super) async fn get(State(face): State<Face>, uri: Uri) -> Result<Response, Failure> {
    let (key, options) = request(&uri)?;
    let answer = face.reader()?.get(&key, &options).await?;
    match answer.found {
        Some(found) => Ok(row(found.seq, answer.view_seq, Body::from(found.value))),
        None => Ok(not_found(answer.view_seq)),
    }
}

pub(super) async fn head(State(face): State<Face>, uri: Uri) -> Result<Response, Failure> {
    let (key, options) = request(&uri)?;
    let answer = face.reader()?.head(&key, &options).await?;
    let Some(found) = answer.found else { return Ok(not_found(answer.view_seq)) };
    let mut response = row(found.seq, answer.view_seq, Body::empty());
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(found.value_len));
    Ok(response)
}

fn request(uri: &Uri) -> Result<(bytes::Bytes, ReadOptions), ApiError> {
    let query = Query::parse(uri, &PARAMS)?;
    Ok((raw_key(uri, PREFIX)?, read_options(&query)?))
}

fn row(seq: SeqNo, view_seq: SeqNo, body: Body) -> Response {
    let mut response = Response::new(body);
    let head = response.headers_mut();
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    head.insert(headers::SEQ, HeaderValue::from(seq.0));
    head.insert(headers::VIEW_SEQ, HeaderValue::from(view_seq.0));
    response
}

fn not_found(view_seq: SeqNo) -> Response {
    let message = format!("the key is absent at sequence number {view_seq}");
    let error = ApiError::new(ErrorCode::NotFound, message).field("view_seq", view_seq.0);
    error.header(headers::VIEW_SEQ, &view_seq.to_string()).into_response()
}
