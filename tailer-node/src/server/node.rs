//! The tailer as a program.

use std::sync::Arc;

use isle_node::NodeEnvironment;
use isle_service::config::Settings;
use isle_service::health::State;
use isle_service::server::{Encoder, HttpMetrics, Routes};
use isle_service::shell::{FaceParts, NoArgs, OpenError, OpenParts, Program};
use isle_storage::coordination::identity::OpenMode;
use tokio::time::Instant;

use super::{DEFAULT_PORT, ROLE, router, show_health};
use crate::settings::TailerSettings;
use crate::tailer::Tailer;

/// The program `tailer-node`.
#[derive(Debug)]
pub struct TailerNode;

impl Program for TailerNode {
    const ROLE: &'static str = ROLE;
    const NAME: &'static str = "tailer-node";
    const ABOUT: &'static str = "Isle's tailer: streams mutations in order to many consumers";
    const DEFAULT_PORT: u16 = DEFAULT_PORT;

    type Args = NoArgs;
    type Config = TailerSettings;
    type Environment = NodeEnvironment;
    type Engine = Tailer;

    fn check(settings: &Settings<TailerSettings>) -> Result<(), String> {
        settings.role.validate()
    }

    fn environment(database: &str, http: &HttpMetrics) -> (NodeEnvironment, Encoder) {
        NodeEnvironment::system(ROLE, database, http)
    }

    fn routes(parts: FaceParts<Self>) -> Routes {
        router(parts.slot)
    }

    async fn open(parts: OpenParts<Self>) -> Result<Tailer, OpenError> {
        let db = parts.environment.database(&parts.settings, &OpenMode::Existing).await?;
        let tailer = Tailer::open(db, parts.settings.role.clone()).map_err(OpenError::bad_setting)?;
        // Before the start is over, or the program would be ready for a moment with nothing to serve.
        parts.health.set("view", State::not_ready("opening"));
        tokio::spawn(show_health(tailer.clone(), parts.health.clone()));
        Ok(tailer)
    }

    async fn drain(engine: Arc<Tailer>, _deadline: Instant) {
        // Streams end with their closing event, bootstraps with an error and without their hold; everything else ends by
        // itself.
        engine.close();
        engine.drained().await;
    }
}
