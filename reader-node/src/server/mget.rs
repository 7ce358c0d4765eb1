//! `POST /v1/mget`: many keys in, their rows out in the same order.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Uri};
use isle_service::wire::body::BODY_IDLE;
use isle_service::wire::{Format, Query, Records, media};
use isle_service::{ApiError, ErrorCode};

use super::Face;
use super::answers::{Form, Source, answer};
use super::failure::Failure;
use super::params::{READ, read_options};

const PARAMS: [&str; 5] = [READ[0], READ[1], READ[2], "encoding", "format"];

/// Bytes of keys in one request.
const MAX_KEY_BYTES: usize = 16 << 20;

pub(super) async fn mget(
    State(face): State<Face>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let query = Query::parse(&uri, &PARAMS)?;
    let format = media::answer(&headers, query.text("format")?, &[Format::Ndjson, Format::Frames])?;
    let form = Form { format, encoding: query.encoding()?, keys_only: false };
    let options = read_options(&query)?;
    let reader = face.reader()?;
    let records = Records::new(body, media::bulk_request(&headers)?, Some(BODY_IDLE));
    let keys = keys(records, reader.settings().max_mget_keys).await?;
    let answers = reader.mget_rows(keys, &options).await?;
    Ok(answer(Source::Mget(Box::new(answers)), form).await)
}

/// Reads the keys, refusing more than a request may hold before they are in memory.
async fn keys(mut records: Records<Body>, most: usize) -> Result<Vec<Bytes>, Failure> {
    let mut keys = Vec::new();
    let mut bytes = 0;
    while let Some(record) = records.next().await? {
        let key = record.key()?;
        bytes += key.len();
        if keys.len() == most {
            return Err(too_large(format!("more than {most} keys in one request"), most).into());
        }
        if bytes > MAX_KEY_BYTES {
            let message = format!("the keys together take more than {MAX_KEY_BYTES} bytes");
            return Err(too_large(message, MAX_KEY_BYTES).into());
        }
        keys.push(Bytes::copy_from_slice(&key));
    }
    Ok(keys)
}

fn too_large(message: String, limit: usize) -> ApiError {
    ApiError::new(ErrorCode::RequestTooLarge, message).field("limit", limit)
}
