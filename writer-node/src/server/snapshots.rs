//! `POST`, `GET /v1/snapshots`, `GET`, `DELETE /v1/snapshots/{name}`: named snapshots.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::Uri;
use isle_service::wire::{Query, Ttl, json_body, raw_key, time};
use isle_service::{ApiError, ErrorCode};
use isle_storage::coordination::CoordinationError;
use isle_storage::ids::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Face, answer};
use crate::snapshots::{NamedSnapshot, SnapshotError, SnapshotOptions};

const PREFIX: &str = "/v1/snapshots/";

/// The body of `POST /v1/snapshots`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    name: String,
    #[serde(default)]
    ttl: Option<AskedTtl>,
    #[serde(default)]
    holds_log: bool,
}

/// `"1h"`, or whole seconds.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum AskedTtl {
    Seconds(u64),
    Text(String),
}

impl AskedTtl {
    pub(super) fn ttl(&self) -> Result<Ttl, ApiError> {
        let parsed = match self {
            Self::Seconds(s) => Ttl::from_seconds(*s),
            Self::Text(t) => Ttl::parse(t),
        };
        parsed.map_err(|e| ApiError::invalid(format!("ttl: {e}")))
    }
}

/// `POST /v1/snapshots`: takes one of everything accepted so far.
pub(super) async fn take(State(face): State<Face>, request: Request) -> Result<Response, ApiError> {
    let writer = face.writer()?;
    let request = match face.forwarder().route(&writer, request).await {
        Ok(here) => here,
        Err(answered) => return Ok(answered),
    };
    Query::parse(request.uri(), &[])?;
    let asked: Asked = json_body(request.into_body()).await?;
    let ttl = asked.ttl.as_ref().map(AskedTtl::ttl).transpose()?;
    let ttl = ttl.filter(|ttl| *ttl != Ttl::NEVER).map(Ttl::duration);
    let options = SnapshotOptions { ttl, holds_log: asked.holds_log, ack_timeout: None };
    let taken = writer.take_snapshot(&asked.name, options).await?;
    Ok(answer::with_position(shown(&taken), taken.position()))
}

/// `DELETE /v1/snapshots/{name}`: answers what it was.
pub(super) async fn drop(State(face): State<Face>, request: Request) -> Result<Response, ApiError> {
    let writer = face.writer()?;
    let request = match face.forwarder().route(&writer, request).await {
        Ok(here) => here,
        Err(answered) => return Ok(answered),
    };
    let name = name_in(request.uri())?;
    let dropped = writer.drop_snapshot(&name, None).await?;
    Ok(Json(shown(&dropped)).into_response())
}

/// `GET /v1/snapshots`: all of them, as the head has them now; on a standby too.
pub(super) async fn list(State(face): State<Face>, request: Request) -> Result<Response, ApiError> {
    Query::parse(request.uri(), &[])?;
    let all = face.writer()?.snapshots().await.map_err(|e| coordination(&e))?;
    let all: Vec<Value> = all.iter().map(shown).collect();
    Ok(Json(json!({ "snapshots": all })).into_response())
}

/// `GET /v1/snapshots/{name}`.
pub(super) async fn one(State(face): State<Face>, request: Request) -> Result<Response, ApiError> {
    let name = name_in(request.uri())?;
    let all = face.writer()?.snapshots().await.map_err(|e| coordination(&e))?;
    match all.iter().find(|s| s.name == name) {
        Some(found) => Ok(Json(shown(found)).into_response()),
        None => Err(SnapshotError::NotThere(name).into()),
    }
}

fn name_in(uri: &Uri) -> Result<String, ApiError> {
    Query::parse(uri, &[])?;
    let name = raw_key(uri, PREFIX).map_err(|e| ApiError::invalid(e.message))?;
    let name = String::from_utf8_lossy(&name).into_owned();
    isle_storage::names::check_snapshot(&name).map_err(ApiError::invalid)?;
    Ok(name)
}

fn shown(s: &NamedSnapshot) -> Value {
    let instant = |t: Timestamp| time::rfc3339(t.0);
    json!({
        "name": s.name,
        "seq": s.seq,
        "position": s.position().to_string(),
        "created": instant(s.created),
        "expires": s.expires.map(instant),
        "holds_log": s.holds_log,
    })
}

pub(super) fn coordination(e: &CoordinationError) -> ApiError {
    let code = match e {
        CoordinationError::Lost(_) => ErrorCode::CoordinationLost,
        CoordinationError::Regressed(_) => ErrorCode::CoordinationRegressed,
        CoordinationError::Full(_) => ErrorCode::CoordinationFull,
        CoordinationError::WrongDatabase(_) => ErrorCode::WrongDatabase,
        CoordinationError::Damaged(_) => ErrorCode::Damaged,
        _ => ErrorCode::CoordinationUnavailable,
    };
    ApiError::new(code, e.to_string())
}

impl From<SnapshotError> for ApiError {
    fn from(e: SnapshotError) -> Self {
        let message = e.to_string();
        match e {
            SnapshotError::InvalidName(_) => Self::invalid(message),
            SnapshotError::Exists(there) => {
                Self::new(ErrorCode::SnapshotExists, message).field("snapshot", shown(&there))
            }
            SnapshotError::NotThere(name) => {
                Self::new(ErrorCode::UnknownSnapshot, message).field("name", name)
            }
            SnapshotError::TooMany { limit } => {
                Self::new(ErrorCode::TooManySnapshots, message).field("limit", limit)
            }
            SnapshotError::Unavailable(e) => coordination(&e),
            SnapshotError::Refused(e) => e.into(),
            SnapshotError::OutcomeUnknown { name, .. } => {
                Self::new(ErrorCode::OutcomeUnknown, message).field("name", name)
            }
        }
    }
}
