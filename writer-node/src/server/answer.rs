//! Answers: positions, and errors as the one table has them.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use isle_service::wire::headers;
use isle_service::{ApiError, ErrorCode};
use isle_storage::ids::{Position, SeqNo};
use serde_json::{Map, Value, json};

use crate::error::WriteError;
use crate::intake::Accepted;

impl From<WriteError> for ApiError {
    fn from(e: WriteError) -> Self {
        let message = e.to_string();
        match e {
            WriteError::InvalidKey { len } => Self::new(ErrorCode::InvalidKey, message).field("size", len),
            WriteError::ValueTooLarge { len, limit } => {
                Self::new(ErrorCode::ValueTooLarge, message).field("size", len).field("limit", limit)
            }
            WriteError::BatchTooLarge { len, limit } => {
                Self::new(ErrorCode::BatchTooLarge, message).field("size", len).field("limit", limit)
            }
            WriteError::EmptyBatch => Self::invalid(message),
            WriteError::Unsupported(_) => Self::unsupported(message),
            WriteError::Overloaded { retry_after, .. } => {
                Self::new(ErrorCode::Overloaded, message).retry_after(retry_after)
            }
            WriteError::NotStored { .. } => {
                Self::new(ErrorCode::StoreUnavailable, message).retry_after(NOT_LEADER_RETRY)
            }
            WriteError::NotLeader { leader, .. } => {
                let error = Self::new(ErrorCode::NotLeader, message).retry_after(NOT_LEADER_RETRY);
                match leader {
                    Some(l) => error
                        .field("leader", l.node.advertise.as_str())
                        .header(headers::LEADER, &l.node.advertise),
                    None => error,
                }
            }
            WriteError::Fenced { .. } => Self::new(ErrorCode::Fenced, message),
            WriteError::Closing => Self::new(ErrorCode::ShuttingDown, message),
            WriteError::OutcomeUnknown { epoch, first_seq, last_seq, commit, .. } => {
                Self::new(ErrorCode::OutcomeUnknown, message)
                    .field("epoch", epoch.get())
                    .field("first_seq", first_seq.get())
                    .field("last_seq", last_seq.get())
                    .field("commit", commit.map(|c| c.to_string()))
            }
        }
    }
}

/// How soon a client that met no leader may try again: takeovers take about as long.
const NOT_LEADER_RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// `{"seq","epoch","position"}`, and the position as a header.
pub(super) fn position(position: Position) -> Response {
    let body = json!({
        "seq": position.seq,
        "epoch": position.epoch,
        "position": position.to_string(),
    });
    with_position(body, position)
}

/// `{"first_seq","last_seq","count","epoch","position"}` and more.
pub(super) fn accepted(accepted: &Accepted, more: Map<String, Value>) -> Response {
    let (first, last) = (accepted.first_seq(), accepted.last_seq());
    let mut body = more;
    body.insert("first_seq".into(), first.get().into());
    body.insert("last_seq".into(), last.get().into());
    body.insert("count".into(), count(first, last).into());
    body.insert("epoch".into(), accepted.epoch().get().into());
    body.insert("position".into(), accepted.position().to_string().into());
    with_position(Value::Object(body), accepted.position())
}

fn count(first: SeqNo, last: SeqNo) -> u64 {
    last.get() + 1 - first.get()
}

/// JSON with the position as a header.
pub(super) fn with_position(body: Value, position: Position) -> Response {
    // Within the request's span: from here its commit can be followed by these numbers.
    tracing::debug!(epoch = %position.epoch, seq = %position.seq, "acknowledged");
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(value) = HeaderValue::from_str(&position.to_string()) {
        headers.insert(headers::POSITION, value);
    }
    (headers, body.to_string()).into_response()
}
