//! The HTTP face and the program around the engine.
//!
//! ```text
//! request ─▶ draining? ─▶ leading? ──yes──▶ body (within a byte budget) ─▶ engine ─▶ answer with its position
//!                            └─no─▶ forward to the leader, one hop, path as it came ─▶ its answer
//! ```
//! `isle up` hosts the same face: [`routes`] over a [`Slot`] that it fills itself, and [`show_health`].

mod answer;
mod body;
mod bulk;
mod forward;
mod ingest;
mod kv;
mod large;
mod node;
mod params;
mod snapshots;
mod status;
mod ttl;

use std::sync::Arc;
use std::time::Duration;

use isle_service::ApiError;
use isle_service::health::{Health, State};
use isle_service::server::{Drain, Routes};
use isle_service::slot::Slot;
use serde_json::json;

use crate::settings::WriterSettings;
use crate::standing::Role;
use crate::writer::Writer;
use body::Bodies;
use forward::Forwarder;
pub use node::WriterNode;

/// Name of the role, in labels and settings.
pub const ROLE: &str = "writer";

/// Port where nothing else is said.
pub const DEFAULT_PORT: u16 = 7301;

/// How often health is brought up to date between changes of the role.
const HEALTH_PERIOD: Duration = Duration::from_millis(500);

/// What every handler holds.
#[derive(Debug, Clone)]
pub(crate) struct Face(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    slot: Slot<Writer>,
    drain: Drain,
    bodies: Bodies,
    forwarder: Forwarder,
}

impl Face {
    /// The engine, unless the stop has begun or it is not open yet.
    fn writer(&self) -> Result<Arc<Writer>, ApiError> {
        self.0.drain.check()?;
        self.0.slot.get()
    }

    fn drain(&self) -> &Drain {
        &self.0.drain
    }

    fn bodies(&self) -> &Bodies {
        &self.0.bodies
    }

    fn forwarder(&self) -> &Forwarder {
        &self.0.forwarder
    }
}

/// Every endpoint of the writer over `slot`; until it is filled they answer `not_ready`.
#[must_use]
pub fn routes(slot: Slot<Writer>, drain: Drain, settings: &WriterSettings) -> Routes {
    let bodies = Bodies::new(settings);
    let face = Face(Arc::new(Inner { slot, drain, bodies, forwarder: Forwarder::new(settings) }));
    Routes::new()
        .put("/v1/kv/{*key}", kv::put)
        .delete("/v1/kv/{*key}", kv::delete)
        .post("/v1/batch", bulk::batch)
        .post("/v1/ingest", ingest::ingest)
        .post("/v1/events/{*stream}", bulk::events)
        .post("/v1/flush", status::flush)
        .get("/v1/status", status::status)
        .get("/v1/leader", status::leader)
        .post("/v1/snapshots", snapshots::take)
        .get("/v1/snapshots", snapshots::list)
        .get("/v1/snapshots/{name}", snapshots::one)
        .delete("/v1/snapshots/{name}", snapshots::drop)
        .get("/v1/ttl", ttl::show)
        .put("/v1/ttl", ttl::set)
        .with_state(face)
}

/// Keeps `health` as the engine is, until the engine closes.
pub async fn show_health(writer: Writer, health: Health) {
    let verbose = writer.clone();
    health.set_details(move || {
        let status = verbose.status();
        json!({
            "role": status.role,
            "epoch": status.epoch,
            "leader": status.leader_info,
            "version": status.version,
            "accepted_seq": status.accepted_seq,
            "committed_seq": status.committed_seq,
            "flushed_seq": status.flushed_seq,
            "queue_bytes": status.queue_bytes,
            "coordination": verbose.database().coordination.describe(),
            "store": verbose.database().bucket.url(),
        })
    });
    let mut standing = writer.standing();
    loop {
        let seen = writer.health();
        let why = seen.reasons.join("; ");
        let state = match (seen.ready, why.is_empty()) {
            (true, true) => State::Ok,
            (true, false) => State::Degraded(why),
            (false, _) => State::NotReady(format!("{}: {why}", seen.role)),
        };
        health.set("writer", state);
        if seen.role == Role::Closed {
            return;
        }
        // A closed channel ends the wait at once, and then the role is closed.
        let _changed = tokio::time::timeout(HEALTH_PERIOD, standing.changed()).await;
    }
}

#[cfg(test)]
mod tests {
    use isle_service::openapi;

    use super::*;

    /// What is served is what the API's document lists for the writer.
    #[test]
    fn the_routes_are_those_of_the_document() {
        let routes = routes(Slot::new(), Drain::new(), &WriterSettings::default());
        assert_eq!(openapi::differences(ROLE, &routes), Vec::<String>::new());
    }
}
