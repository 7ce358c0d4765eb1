//! Reader errors as answers: the one place where they meet HTTP.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use isle_service::wire::body;
use isle_service::{ApiError, ErrorCode};

use crate::error::ReadError;

/// How long a client is told to wait before it asks a reader again that could not answer at present.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A request that has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The request itself is at fault.
    Request(ApiError),
    /// The read is.
    Read(ReadError),
}

impl From<ApiError> for Failure {
    fn from(e: ApiError) -> Self {
        Self::Request(e)
    }
}

impl From<body::ReadError> for Failure {
    fn from(e: body::ReadError) -> Self {
        Self::Request(e.into())
    }
}

impl From<ReadError> for Failure {
    fn from(e: ReadError) -> Self {
        Self::Read(e)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        // The code of a page whose view is no longer held stands for a read whose view has expired too; but that is
        // for the reader to mend, not for the client.
        let expired = matches!(&self, Self::Read(ReadError::ViewExpired { .. }));
        let mut response = match self {
            Self::Request(e) => e.into_response(),
            Self::Read(e) => api_error(&e).into_response(),
        };
        if expired {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER.as_secs()));
        }
        response
    }
}

/// The error as the API shows it.
pub(super) fn api_error(e: &ReadError) -> ApiError {
    let message = e.to_string();
    match e {
        ReadError::NotReady(_) => ApiError::new(ErrorCode::NotReady, message).retry_after(RETRY_AFTER),
        ReadError::InvalidKey(_) => ApiError::invalid_key(message),
        ReadError::OverLimit { limit, asked, .. } => {
            ApiError::new(ErrorCode::RequestTooLarge, message).field("limit", *limit).field("size", *asked)
        }
        ReadError::InvalidId(_) | ReadError::InvalidPage(_) => ApiError::invalid(message),
        ReadError::ViewBehind { seq, .. } => {
            ApiError::new(ErrorCode::ViewBehind, message).field("view_seq", seq.0)
        }
        ReadError::WriteLost { position } => {
            ApiError::new(ErrorCode::WriteLost, message).field("position", position.to_string())
        }
        ReadError::ViewExpired { object } => {
            ApiError::new(ErrorCode::ViewExpired, message).field("object", object.as_str())
        }
        ReadError::PageExpired | ReadError::SnapshotChanged(_) => {
            ApiError::new(ErrorCode::ViewExpired, message)
        }
        ReadError::UnknownSnapshot(_) => ApiError::new(ErrorCode::UnknownSnapshot, message),
        ReadError::Damaged { object, .. } => {
            ApiError::new(ErrorCode::Damaged, message).field("object", object.as_str())
        }
        ReadError::Store(_) => ApiError::new(ErrorCode::StoreUnavailable, message).retry_after(RETRY_AFTER),
        ReadError::Closed => ApiError::new(ErrorCode::ShuttingDown, message).retry_after(RETRY_AFTER),
    }
}
