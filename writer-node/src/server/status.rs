//! `GET /v1/status`, `GET /v1/leader`, `POST /v1/flush`.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use isle_service::wire::{Query, headers};
use isle_service::{ApiError, ErrorCode};
use serde_json::json;

use super::{Face, answer};
use crate::standing::Role;

/// `GET /v1/status`: figures of the moment; also while draining.
pub(super) async fn status(State(face): State<Face>, request: Request) -> Result<Response, ApiError> {
    Query::parse(request.uri(), &[])?;
    let writer = face.0.slot.get()?;
    let mut body = json!(writer.status());
    if let Some(object) = body.as_object_mut() {
        let identity = &writer.database().identity;
        object.insert("database".into(), json!(identity.name));
        object.insert("database_id".into(), json!(identity.database));
    }
    Ok(Json(body).into_response())
}

/// `GET /v1/leader`: 200 on the active writer, 503 elsewhere, with its address where it is known.
pub(super) async fn leader(State(face): State<Face>, request: Request) -> Result<Response, ApiError> {
    Query::parse(request.uri(), &[])?;
    let writer = face.writer()?;
    let standing = writer.standing().borrow().clone();
    if standing.role == Role::Leading {
        return Ok(Json(json!({ "leader": true, "leader_info": standing.leader })).into_response());
    }
    let why = standing.why.unwrap_or_else(|| standing.role.to_string());
    let error = ApiError::new(ErrorCode::NotLeader, format!("this node is not the active writer: {why}"));
    Err(match standing.leader.filter(|_| standing.role == Role::Standby) {
        Some(leader) => {
            let address = leader.node.advertise.as_str();
            error.field("leader", address).header(headers::LEADER, address)
        }
        None => error,
    })
}

/// `POST /v1/flush`: waits until everything accepted is committed.
pub(super) async fn flush(State(face): State<Face>, request: Request) -> Result<Response, ApiError> {
    let writer = face.writer()?;
    let request = match face.forwarder().route(&writer, request).await {
        Ok(here) => here,
        Err(answered) => return Ok(answered),
    };
    Query::parse(request.uri(), &[])?;
    Ok(answer::position(writer.flush(None).await?))
}
