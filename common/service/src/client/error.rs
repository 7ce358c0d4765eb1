//! What can go wrong with a request, told apart by whether it may have been applied.

use std::error::Error as _;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value};

use super::BaseUrl;
use crate::error::ErrorCode;

/// A request without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// It could not even be put together.
    #[error("{0}")]
    Url(String),
    /// No connection: the request was certainly not received.
    #[error("{base} cannot be reached: {why}")]
    Unreachable {
        /// Where.
        base: String,
        /// Why.
        why: String,
    },
    /// The connection broke after the request may have been received.
    #[error("{base} broke the connection: {why}")]
    Broken {
        /// Where.
        base: String,
        /// Why.
        why: String,
    },
    /// No answer in time; the request may have been received.
    #[error("{base} did not answer within {} s", after.as_secs_f64())]
    Timeout {
        /// Where.
        base: String,
        /// The limit.
        after: Duration,
    },
}

impl ClientError {
    /// Whether the request certainly never reached a program.
    #[must_use]
    pub fn surely_not_sent(&self) -> bool {
        matches!(self, Self::Url(_) | Self::Unreachable { .. })
    }

    pub(super) fn of(base: &BaseUrl, error: &hyper_util::client::legacy::Error) -> Self {
        let why = innermost(error);
        let base = base.to_string();
        if error.is_connect() { Self::Unreachable { base, why } } else { Self::Broken { base, why } }
    }
}

/// The cause at the bottom, which says more than the wrapping around it.
fn innermost(error: &hyper_util::client::legacy::Error) -> String {
    let mut cause = error.source();
    let mut said = error.to_string();
    while let Some(inner) = cause {
        said = inner.to_string();
        cause = inner.source();
    }
    said
}

/// An answer that is an error of the API.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteError {
    /// HTTP status.
    pub status: StatusCode,
    /// The code, where it is one this version knows.
    pub code: Option<ErrorCode>,
    /// What the program said.
    pub message: String,
    /// The whole `error` object.
    pub fields: Map<String, Value>,
}

impl RemoteError {
    /// Reads an error's JSON; anything else becomes the message.
    #[must_use]
    pub fn parse(status: StatusCode, body: &[u8]) -> Self {
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let fields = json.and_then(|mut j| match j.get_mut("error").map(Value::take) {
            Some(Value::Object(fields)) => Some(fields),
            _ => None,
        });
        let Some(fields) = fields else {
            let text = String::from_utf8_lossy(body);
            let message = format!("status {status} without an error of Isle: {}", text.trim());
            return Self { status, code: None, message, fields: Map::new() };
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
        Self { status, code: text("code").parse().ok(), message: text("message").to_owned(), fields }
    }

    /// Whether the same request may be sent again without being applied twice.
    #[must_use]
    pub fn retryable(&self) -> bool {
        self.fields.get("retryable").and_then(Value::as_bool).unwrap_or(false)
    }
}

impl std::fmt::Display for RemoteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.fields.get("code").and_then(Value::as_str) {
            Some(code) => write!(f, "{code}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for RemoteError {}

/// A request that did not get the answer it was for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CallError {
    /// No answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An error as the answer.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// An answer that broke off.
    #[error("the answer cannot be read: {0}")]
    Read(#[from] crate::wire::body::ReadError),
    /// An answer that is not what the API promises.
    #[error("the answer is not understood: {0}")]
    Answer(String),
}
