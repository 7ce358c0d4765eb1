//! The tailer's HTTP face.
//!
//! | module | holds |
//! | --- | --- |
//! | `start` | where a consumer begins: `from`, `Last-Event-ID` |
//! | `render` | changes, heartbeats and endings as SSE, NDJSON or frames |
//! | `stream` | `/v1/tail`, endless |
//! | `page` | `/v1/changes`, bounded |
//! | `bootstrap` | `/v1/bootstrap`, everything at one number and the cursor after it |
//! | `groups` | `/v1/groups`, durable cursors |
//! | `node` | the process around it |

mod bootstrap;
mod content;
mod errors;
mod groups;
mod node;
mod page;
mod render;
mod start;
mod stream;
mod value;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::Uri;
use isle_service::ApiError;
use isle_service::health::{Health, State as Standing};
use isle_service::server::Routes;
use isle_service::slot::Slot;
use isle_service::wire::Query;

pub use self::node::TailerNode;
use crate::tailer::{Tailer, TailerStatus};

/// The port where none is given.
pub const DEFAULT_PORT: u16 = 7303;

/// The tailer's name as a role.
pub const ROLE: &str = "tailer";

/// How often the program's health is brought up to date with the tailer's.
const HEALTH_PERIOD: Duration = Duration::from_millis(500);

/// The tailer's routes over the tailer in `slot`; 503 `not_ready` until it is filled.
#[must_use]
pub fn router(slot: Slot<Tailer>) -> Routes {
    Routes::new()
        .get("/v1/tail", stream::tail)
        .get("/v1/changes", page::changes)
        .get("/v1/value", value::value)
        .get("/v1/bootstrap", bootstrap::bootstrap)
        .get("/v1/status", status)
        .get("/v1/groups", groups::list)
        .get("/v1/groups/{group}", groups::one)
        .put("/v1/groups/{group}", groups::ensure)
        .delete("/v1/groups/{group}", groups::delete)
        .post("/v1/groups/{group}/commit", groups::commit)
        .with_state(slot)
}

async fn status(State(slot): State<Slot<Tailer>>, uri: Uri) -> Result<Json<TailerStatus>, ApiError> {
    Query::parse(&uri, &[])?;
    let tailer: Arc<Tailer> = slot.get()?;
    Ok(Json(tailer.status()))
}

/// Shows the tailer's health as the program's, until the tailer is closed.
pub async fn show_health(tailer: Tailer, health: Health) {
    health.set_details({
        let tailer = tailer.clone();
        move || {
            let mut details = serde_json::to_value(tailer.status()).unwrap_or_default();
            details["coordination"] = tailer.database().coordination.describe().into();
            details["store"] = tailer.database().bucket.url().into();
            details
        }
    });
    let mut period = tokio::time::interval(HEALTH_PERIOD);
    while !tailer.is_closed() {
        period.tick().await;
        let status = tailer.status();
        let state = match status.trouble {
            None => Standing::Ok,
            // Without a manifest there is nothing to serve; with one, it serves what it knows.
            Some(why) if status.version == 0 => Standing::NotReady(why),
            Some(why) => Standing::Degraded(why),
        };
        health.set("view", state);
    }
}
