//! An answer: its head, and its body to be read whole or as it comes.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::error::{CallError, RemoteError};
use crate::wire::body::{MAX_FRAME_BYTES, MAX_LINE_BYTES, ReadError, read_body};
use crate::wire::frames::FrameReader;
use crate::wire::lines::LineReader;

/// Longest body of an error answer that is read.
const MAX_ERROR_BYTES: usize = 256 * 1024;

/// Longest single JSON document, or value, read whole: a value of 256 MiB.
pub const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// The head of an answer, and its body.
#[derive(Debug)]
pub struct Answer {
    response: Response<Incoming>,
}

impl Answer {
    pub(super) fn new(response: Response<Incoming>) -> Self {
        Self { response }
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// A header's text.
    #[must_use]
    pub fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// Itself when its status is 2xx, else the error it carries.
    pub async fn ok(self) -> Result<Self, CallError> {
        if self.status().is_success() {
            return Ok(self);
        }
        let status = self.status();
        let body = read_body(self.response.into_body(), MAX_ERROR_BYTES).await?;
        Err(RemoteError::parse(status, &body).into())
    }

    /// Its body, at most `limit` bytes.
    pub async fn bytes(self, limit: usize) -> Result<Bytes, ReadError> {
        read_body(self.response.into_body(), limit).await
    }

    /// Its body as JSON.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, CallError> {
        let body = self.bytes(MAX_ANSWER_BYTES).await?;
        serde_json::from_slice(&body).map_err(|e| CallError::Answer(e.to_string()))
    }

    /// Its body line by line; a body that stands still for `idle` is an error.
    #[must_use]
    pub fn lines(self, idle: Option<Duration>) -> LineReader<Incoming> {
        LineReader::with_idle(self.response.into_body(), MAX_LINE_BYTES, idle)
    }

    /// Its body frame by frame; a body that stands still for `idle` is an error.
    #[must_use]
    pub fn frames(self, idle: Option<Duration>) -> FrameReader<Incoming> {
        FrameReader::with_idle(self.response.into_body(), MAX_FRAME_BYTES, idle)
    }

    /// The body itself, for passing it on.
    pub fn into_body(self) -> Incoming {
        self.response.into_body()
    }
}
