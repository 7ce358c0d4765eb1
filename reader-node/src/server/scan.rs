//! `GET` and `POST /v1/scan`: a page of rows.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Uri};
use isle_service::ApiError;
use isle_service::wire::position::check_token;
use isle_service::wire::{Encoding, Format, Query, base64, duration, json_body, media};
use isle_storage::row::MAX_KEY_LEN;
use serde::Deserialize;

use super::Face;
use super::answers::{Form, Source, answer};
use super::failure::Failure;
use super::params::{READ, min_seq, read_options};
use crate::options::{ReadOptions, ScanRequest};
use crate::page::PageToken;
use crate::settings::ReaderSettings;
use isle_storage::range::KeyRange;

const PARAMS: [&str; 16] = [
    "prefix",
    "prefix_b64",
    "start",
    "start_b64",
    "end",
    "end_b64",
    "limit",
    "reverse",
    "keys_only",
    "page",
    "consistent",
    READ[0],
    READ[1],
    READ[2],
    "encoding",
    "format",
];

pub(super) async fn by_query(
    State(face): State<Face>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let query = Query::parse(&uri, &PARAMS)?;
    let asked = Asked {
        prefix: query.key("prefix", "prefix_b64")?,
        start: query.key("start", "start_b64")?,
        end: query.key("end", "end_b64")?,
        limit: query.u64("limit")?,
        reverse: query.bool("reverse")?,
        keys_only: query.bool("keys_only")?,
        page: query.token("page")?.map(str::to_owned),
        consistent: query.bool("consistent")?,
        options: read_options(&query)?,
        encoding: query.encoding()?,
        format: query.text("format")?.map(str::to_owned),
    };
    scan(&face, &headers, asked).await
}

pub(super) async fn by_json(
    State(face): State<Face>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    Query::parse(&uri, &[])?;
    let json: ScanJson = json_body(body).await?;
    scan(&face, &headers, json.asked()?).await
}

async fn scan(face: &Face, headers: &HeaderMap, asked: Asked) -> Result<Response, Failure> {
    let format = media::answer(headers, asked.format.as_deref(), &[Format::Ndjson, Format::Frames])?;
    let form = Form { format, encoding: asked.encoding, keys_only: asked.keys_only };
    let reader = face.reader()?;
    let request = asked.request(reader.settings())?;
    let scan = reader.scan(&request).await?;
    Ok(answer(Source::Scan(Box::new(scan)), form).await)
}

/// A scan as it was asked for, whichever way it came.
#[derive(Debug)]
struct Asked {
    prefix: Option<Bytes>,
    start: Option<Bytes>,
    end: Option<Bytes>,
    limit: Option<u64>,
    reverse: bool,
    keys_only: bool,
    page: Option<String>,
    consistent: bool,
    options: ReadOptions,
    encoding: Encoding,
    format: Option<String>,
}

impl Asked {
    fn request(self, settings: &ReaderSettings) -> Result<ScanRequest, Failure> {
        let range = match (self.prefix, self.start, self.end) {
            (Some(prefix), None, None) => KeyRange::prefix(&prefix),
            (None, start, end) => KeyRange { start: start.unwrap_or_default(), end },
            _ => {
                return Err(
                    ApiError::invalid("prefix stands alone: it goes with neither start nor end").into()
                );
            }
        };
        let page: Option<PageToken> =
            self.page.map(|p| p.parse()).transpose().map_err(crate::error::ReadError::from)?;
        Ok(ScanRequest {
            range,
            limit: Some(limit(self.limit, settings)?),
            max_bytes: Some(settings.max_page_bytes),
            reverse: self.reverse,
            keys_only: self.keys_only,
            page,
            consistent: self.consistent,
            options: self.options,
        })
    }
}

fn limit(asked: Option<u64>, settings: &ReaderSettings) -> Result<usize, ApiError> {
    let Some(asked) = asked else { return Ok(settings.default_limit) };
    match usize::try_from(asked).ok().filter(|n| (1..=settings.max_limit).contains(n)) {
        Some(limit) => Ok(limit),
        None => {
            let message = format!("limit={asked} is not between 1 and {}", settings.max_limit);
            Err(ApiError::invalid(message).field("limit", settings.max_limit))
        }
    }
}

/// The body of `POST /v1/scan`: the parameters of the other form, as JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ScanJson {
    prefix: Option<String>,
    prefix_b64: Option<String>,
    start: Option<String>,
    start_b64: Option<String>,
    end: Option<String>,
    end_b64: Option<String>,
    limit: Option<u64>,
    reverse: bool,
    keys_only: bool,
    page: Option<String>,
    consistent: bool,
    min_seq: Option<NumberOrText>,
    wait: Option<NumberOrText>,
    snapshot: Option<String>,
    encoding: Option<String>,
    format: Option<String>,
}

/// What may be written as a number or as text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl NumberOrText {
    fn text(self) -> String {
        match self {
            Self::Number(n) => n.to_string(),
            Self::Text(text) => text,
        }
    }
}

impl ScanJson {
    fn asked(self) -> Result<Asked, ApiError> {
        let min_seq = match self.min_seq {
            Some(text) => Some(min_seq(text.text().parse()?)),
            None => None,
        };
        let wait = self.wait.map(|w| duration::parse(&w.text())).transpose();
        let wait = wait.map_err(|e| ApiError::invalid(format!("wait: {e}")))?;
        let encoding = match self.encoding.as_deref() {
            None => Encoding::Auto,
            Some("b64") => Encoding::Base64,
            Some(other) => return Err(ApiError::invalid(format!("encoding {other:?} is not b64"))),
        };
        if let Some(page) = &self.page {
            check_token("page", page)?;
        }
        Ok(Asked {
            prefix: bound("prefix", self.prefix, self.prefix_b64)?,
            start: bound("start", self.start, self.start_b64)?,
            end: bound("end", self.end, self.end_b64)?,
            limit: self.limit,
            reverse: self.reverse,
            keys_only: self.keys_only,
            page: self.page,
            consistent: self.consistent,
            options: ReadOptions { min_seq, wait, snapshot: self.snapshot },
            encoding,
            format: self.format,
        })
    }
}

fn bound(name: &str, text: Option<String>, encoded: Option<String>) -> Result<Option<Bytes>, ApiError> {
    let bytes: Bytes = match (text, encoded) {
        (Some(_), Some(_)) => return Err(ApiError::invalid(format!("both {name} and {name}_b64 are given"))),
        (Some(text), None) => text.into(),
        (None, Some(encoded)) => match base64::decode(encoded.as_bytes()) {
            Ok(bytes) => bytes.into(),
            Err(e) => return Err(ApiError::invalid(format!("{name}_b64 is {e}"))),
        },
        (None, None) => return Ok(None),
    };
    if bytes.len() > MAX_KEY_LEN {
        return Err(ApiError::invalid_key(format!(
            "{name} has {} bytes, a key at most {MAX_KEY_LEN}",
            bytes.len()
        )));
    }
    Ok(Some(bytes))
}
