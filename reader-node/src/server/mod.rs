//! The reader's face on the network.
//!
//! | request | file |
//! | --- | --- |
//! | `GET`, `HEAD /v1/kv/{key}` | `kv` |
//! | `POST /v1/mget` | `mget` |
//! | `GET`, `POST /v1/scan` | `scan` |
//! | `GET /v1/status` | here |
//!
//! [`router`] serves them over any reader, also one that shares its process and its [`Database`] with other roles;
//! [`ReaderNode`] is the program around it.
//!
//! [`Database`]: isle_storage::database::Database

mod answers;
mod failure;
mod kv;
mod mget;
mod node;
mod params;
mod scan;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use http::Uri;
use isle_service::ApiError;
use isle_service::health::{Health, State as Standing};
use isle_service::server::Routes;
use isle_service::slot::Slot;
use isle_service::wire::Query;
use serde_json::json;

pub use self::node::ReaderNode;
use crate::reader::Reader;
use crate::status::Status;

/// The port where none is given.
pub const DEFAULT_PORT: u16 = 7302;

/// The reader's name as a role.
pub const ROLE: &str = "reader";

/// How often the program's health is brought up to date with the reader's.
const HEALTH_PERIOD: Duration = Duration::from_millis(500);

/// What handlers know.
#[derive(Debug, Clone)]
struct Face {
    slot: Slot<Reader>,
}

impl Face {
    fn reader(&self) -> Result<Arc<Reader>, ApiError> {
        self.slot.get()
    }
}

/// The reader's routes over the reader in `slot`; 503 `not_ready` until it is filled.
#[must_use]
pub fn router(slot: Slot<Reader>) -> Routes {
    Routes::new()
        .get("/v1/kv/{*key}", kv::get)
        .head("/v1/kv/{*key}", kv::head)
        .post("/v1/mget", mget::mget)
        .get("/v1/scan", scan::by_query)
        .post("/v1/scan", scan::by_json)
        .get("/v1/status", status)
        .with_state(Face { slot })
}

async fn status(State(face): State<Face>, uri: Uri) -> Result<axum::Json<Status>, ApiError> {
    Query::parse(&uri, &[])?;
    Ok(axum::Json(face.reader()?.status()))
}

/// Shows the reader's health as the program's, until the reader is closed.
pub async fn show_health(reader: Reader, health: Health) {
    health.set_details({
        let reader = reader.clone();
        move || {
            let status = reader.status();
            json!({
                "view_version": status.version,
                "view_seq": status.seq,
                "view_age_seconds": status.view_age_seconds,
                "view_reasons": status.reasons,
                "coordination": reader.database().coordination.describe(),
                "store": reader.database().bucket.url(),
            })
        }
    });
    let mut period = tokio::time::interval(HEALTH_PERIOD);
    while !reader.is_closed() {
        period.tick().await;
        let state = reader.health();
        let reasons = state.reasons.join("; ");
        health.set(
            "view",
            match (state.serving, reasons.is_empty()) {
                (false, _) => Standing::NotReady(reasons),
                (true, false) => Standing::Degraded(reasons),
                (true, true) => Standing::Ok,
            },
        );
    }
}
