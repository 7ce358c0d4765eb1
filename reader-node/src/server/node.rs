//! The reader as a program.

use std::sync::Arc;

use isle_node::NodeEnvironment;
use isle_service::config::Settings;
use isle_service::health::State;
use isle_service::server::{Encoder, HttpMetrics, Routes};
use isle_service::shell::{FaceParts, NoArgs, OpenError, OpenParts, Program};
use isle_storage::coordination::identity::OpenMode;
use tokio::time::Instant;

use super::{DEFAULT_PORT, ROLE, router, show_health};
use crate::reader::Reader;
use crate::settings::ReaderSettings;

/// The program `reader-node`.
#[derive(Debug)]
pub struct ReaderNode;

impl Program for ReaderNode {
    const ROLE: &'static str = ROLE;
    const NAME: &'static str = "reader-node";
    const ABOUT: &'static str = "Isle's reader: gets, multi-gets and scans at a consistent view";
    const DEFAULT_PORT: u16 = DEFAULT_PORT;

    type Args = NoArgs;
    type Config = ReaderSettings;
    type Environment = NodeEnvironment;
    type Engine = Reader;

    fn check(settings: &Settings<ReaderSettings>) -> Result<(), String> {
        settings.role.validate().map_err(|e| e.to_string())
    }

    fn environment(database: &str, http: &HttpMetrics) -> (NodeEnvironment, Encoder) {
        NodeEnvironment::system(ROLE, database, http)
    }

    fn routes(parts: FaceParts<Self>) -> Routes {
        router(parts.slot)
    }

    async fn open(parts: OpenParts<Self>) -> Result<Reader, OpenError> {
        let db = parts.environment.database(&parts.settings, &OpenMode::Existing).await?;
        let reader = Reader::open(db, parts.settings.role.clone())
            .map_err(|e| OpenError::bad_setting(e.to_string()))?;
        // It listens and says what it waits for, but is not ready before there is something to read.
        // Before the start is over, or the program would be ready for a moment with nothing to serve.
        parts.health.set("view", State::not_ready("opening"));
        tokio::spawn(show_health(reader.clone(), parts.health.clone()));
        Ok(reader)
    }

    async fn drain(engine: Arc<Reader>, _deadline: Instant) {
        // A reader accepts nothing that could be lost: requests in progress end by themselves while the server stops.
        engine.close();
    }
}
