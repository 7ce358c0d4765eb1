//! The compactor's HTTP face: what it does, and the three things a person can ask of it.

pub mod mode;
mod node;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri};
use isle_service::health::{Health, State as Standing};
use isle_service::server::Routes;
use isle_service::slot::Slot;
use isle_service::wire::Query;
use isle_service::wire::time::rfc3339;
use isle_service::{ApiError, ErrorCode};
use isle_storage::manifest::Pause;
use serde_json::{Value, json};

pub use self::node::{CompactorArgs, CompactorNode};
use crate::compactor::{Compactor, CompactorStatus};
use crate::error::JobError;

/// The port where none is given.
pub const DEFAULT_PORT: u16 = 7304;

/// The compactor's name as a role.
pub const ROLE: &str = "compactor";

/// How often the program's health is brought up to date with the compactor's.
const HEALTH_PERIOD: Duration = Duration::from_millis(500);

/// The compactor's routes over the compactor in `slot`; 503 `not_ready` until it is filled.
#[must_use]
pub fn router(slot: Slot<Compactor>) -> Routes {
    Routes::new()
        .get("/v1/status", status)
        .post("/v1/compact", compact)
        .post("/v1/pause", pause)
        .post("/v1/resume", resume)
        .get("/v1/mode", mode::show)
        .put("/v1/mode", mode::set)
        .with_state(slot)
}

async fn status(State(slot): State<Slot<Compactor>>, uri: Uri) -> Result<Json<Value>, ApiError> {
    Query::parse(&uri, &[])?;
    Ok(Json(status_json(&slot.get()?.status())))
}

/// The status, with instants as RFC 3339.
fn status_json(status: &CompactorStatus) -> Value {
    let mut json = serde_json::to_value(status).unwrap_or_default();
    if let Some(pause) = &status.pause {
        json["pause"] = pause_json(pause);
    }
    json
}

/// A pause for people and scripts.
#[must_use]
pub fn pause_json(pause: &Pause) -> Value {
    json!({
        "by": pause.by,
        "since": rfc3339(pause.since.micros()),
        "until": pause.until.map(|until| rfc3339(until.micros())),
    })
}

async fn compact(State(slot): State<Slot<Compactor>>, uri: Uri) -> Result<Response, ApiError> {
    Query::parse(&uri, &[])?;
    let job = slot.get()?.compact();
    Ok((StatusCode::ACCEPTED, Json(json!({"job": job}))).into_response())
}

async fn pause(State(slot): State<Slot<Compactor>>, uri: Uri) -> Result<Response, ApiError> {
    let query = Query::parse(&uri, &["for"])?;
    let lasting = query.duration("for")?;
    let compactor: Arc<Compactor> = slot.get()?;
    let pause = compactor.pause(lasting).await.map_err(|e| refused(&e))?;
    Ok(Json(json!({"paused": true, "pause": pause_json(&pause)})).into_response())
}

async fn resume(State(slot): State<Slot<Compactor>>, uri: Uri) -> Result<Response, ApiError> {
    Query::parse(&uri, &[])?;
    let compactor: Arc<Compactor> = slot.get()?;
    compactor.resume().await.map_err(|e| refused(&e))?;
    Ok(Json(json!({"paused": false})).into_response())
}

/// Why a pause could not be committed. Pausing twice is pausing once, so asking again is always right.
fn refused(error: &JobError) -> ApiError {
    let code = match error {
        JobError::Refused(why) => return ApiError::invalid(why.clone()),
        JobError::Unknown(_) => ErrorCode::OutcomeUnknown,
        JobError::Store(_) => ErrorCode::StoreUnavailable,
        JobError::Coordination(e) if e.is_passing() => ErrorCode::NotReady,
        JobError::Stale(_) | JobError::ClaimLost(_) | JobError::Stopped(_) => ErrorCode::NotReady,
        _ => ErrorCode::Internal,
    };
    ApiError::new(code, format!("the pause could not be committed: {error}; ask again"))
}

/// Shows the compactor's troubles as the program's health, until it is closed.
pub async fn show_health(compactor: Compactor, health: Health) {
    health.set_details({
        let compactor = compactor.clone();
        move || {
            let mut details = status_json(&compactor.status());
            details["coordination"] = compactor.database().coordination.describe().into();
            details["store"] = compactor.database().bucket.url().into();
            details
        }
    });
    let mut period = tokio::time::interval(HEALTH_PERIOD);
    while !compactor.is_closed() {
        period.tick().await;
        let status = compactor.status();
        let reasons: Vec<String> = status.trouble.iter().map(|(l, why)| format!("{l}: {why}")).collect();
        let state = match reasons.is_empty() {
            true => Standing::Ok,
            false if status.version == 0 => Standing::NotReady(reasons.join("; ")),
            false => Standing::Degraded(reasons.join("; ")),
        };
        health.set("compaction", state);
    }
}
