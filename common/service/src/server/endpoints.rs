//! The endpoints every program has.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, Uri, header};
use serde_json::{Value, json};

use super::routes::Routes;
use super::{Encoder, ServerParts};
use crate::error::ApiError;
use crate::health::Health;
use crate::openapi;
use crate::wire::Query;

/// Media type of the OpenMetrics text form.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether a path is one that balancers and collectors ask, and that stays open when nothing else does.
pub(super) fn is_health(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/metrics" | "/version")
}

#[derive(Clone)]
struct Face {
    program: &'static str,
    role: &'static str,
    health: Health,
    metrics: Encoder,
}

/// Adds them to a program's own routes.
pub(super) fn add(routes: Routes, parts: &ServerParts) -> Routes {
    let face = Face {
        program: parts.program,
        role: parts.role,
        health: parts.health.clone(),
        metrics: parts.metrics.clone(),
    };
    let own = Routes::new()
        .get("/livez", livez)
        .get("/readyz", readyz)
        .get("/metrics", metrics)
        .get("/version", version)
        .get("/v1/openapi.json", document)
        .with_state(face);
    routes.merge(own)
}

async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(face): State<Face>, uri: Uri) -> Result<Response, ApiError> {
    let verbose = Query::parse(&uri, &["verbose"])?.bool("verbose")?;
    let status = if face.health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if verbose {
        return Ok((status, axum::Json(face.health.verbose())).into_response());
    }
    let mut text = String::from(if status.is_success() { "ready\n" } else { "not ready\n" });
    for reason in face.health.reasons() {
        text.push_str(&reason);
        text.push('\n');
    }
    Ok((status, text).into_response())
}

async fn metrics(State(face): State<Face>) -> Response {
    let mut response = face.metrics.encode().into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS));
    response
}

async fn version(State(face): State<Face>) -> axum::Json<Value> {
    axum::Json(json!({
        "program": face.program,
        "role": face.role,
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

async fn document() -> axum::Json<Value> {
    axum::Json(openapi::document())
}
