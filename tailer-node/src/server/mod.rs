//! The tailer's HTTP face.
//!
//! | module | holds |
//! | --- | --- |
//! | [`start`] | where a consumer begins: `from`, `Last-Event-ID` |
//! | [`render`] | changes, heartbeats and endings as SSE, NDJSON or frames |
//! | [`stream`] | `/v1/tail`, endless |
//! | [`page`] | `/v1/changes`, bounded |
//! | [`program`] | the process around it |

mod errors;
mod page;
pub mod program;
mod render;
mod start;
mod stream;

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use isle_service::ApiError;
use isle_service::slot::Slot;

use crate::tailer::{Tailer, TailerStatus};

pub use program::TailerProgram;

/// Every route of this role, as the OpenAPI document names them.
pub const ROUTES: &[(&str, &str)] = &[("GET", "/v1/tail"), ("GET", "/v1/changes"), ("GET", "/v1/status")];

/// The routes over a slot that is filled when the engine is open.
pub fn router(slot: Slot<Tailer>) -> Router {
    Router::new()
        .route("/v1/tail", get(stream::tail))
        .route("/v1/changes", get(page::changes))
        .route("/v1/status", get(status))
        .with_state(slot)
}

async fn status(State(slot): State<Slot<Tailer>>) -> Result<Json<TailerStatus>, ApiError> {
    let tailer: Arc<Tailer> = slot.get()?;
    Ok(Json(tailer.status()))
}
