//! `GET`, `PUT /v1/ttl`: how long a put lives that says nothing of it.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use isle_service::wire::{Query, Ttl, duration, json_body};
use isle_service::{ApiError, ErrorCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Face;
use super::snapshots::{AskedTtl, coordination};
use crate::ttl::SetTtlError;

/// The body of `PUT /v1/ttl`; `null` and `"none"`: for ever. It must say which.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(deserialize_with = "Option::deserialize")]
    ttl: Option<AskedTtl>,
}

/// `PUT /v1/ttl`: from the answer on.
pub(super) async fn set(State(face): State<Face>, request: Request) -> Result<Response, ApiError> {
    let writer = face.writer()?;
    let request = match face.forwarder().route(&writer, request).await {
        Ok(here) => here,
        Err(answered) => return Ok(answered),
    };
    Query::parse(request.uri(), &[])?;
    let asked: Asked = json_body(request.into_body()).await?;
    let ttl = asked.ttl.as_ref().map(AskedTtl::ttl).transpose()?.filter(|ttl| *ttl != Ttl::NEVER);
    let ttl = ttl.map(Ttl::duration);
    writer.set_default_ttl(ttl, None).await?;
    Ok(Json(shown(ttl)).into_response())
}

/// `GET /v1/ttl`: as the head has it now; on a standby too.
pub(super) async fn show(State(face): State<Face>, request: Request) -> Result<Response, ApiError> {
    Query::parse(request.uri(), &[])?;
    let ttl = face.writer()?.default_ttl().await.map_err(|e| coordination(&e))?;
    Ok(Json(shown(ttl)).into_response())
}

fn shown(ttl: Option<Duration>) -> Value {
    json!({ "ttl": ttl.map(duration::format) })
}

impl From<SetTtlError> for ApiError {
    fn from(e: SetTtlError) -> Self {
        let message = e.to_string();
        match e {
            SetTtlError::Zero => Self::invalid(message),
            SetTtlError::Refused(e) => e.into(),
            SetTtlError::OutcomeUnknown(_) => Self::new(ErrorCode::OutcomeUnknown, message),
        }
    }
}
