//! The writer as a program.

use std::sync::Arc;

use isle_node::NodeEnvironment;
use isle_service::config::Settings;
use isle_service::health::State;
use isle_service::server::{Encoder, HttpMetrics, Routes};
use isle_service::shell::{FaceParts, NoArgs, OpenError, OpenParts, Program};
use isle_storage::coordination::Backend;
use isle_storage::coordination::identity::OpenMode;
use isle_storage::manifest::CompactionMode;
use tokio::time::Instant;

use super::{DEFAULT_PORT, ROLE, routes, show_health};
use crate::settings::WriterSettings;
use crate::writer::Writer;

/// The program `writer-node`.
#[derive(Debug)]
pub struct WriterNode;

impl Program for WriterNode {
    const ROLE: &'static str = ROLE;
    const NAME: &'static str = "writer-node";
    const ABOUT: &'static str = "Isle's writer: takes mutations, commits them in groups, flushes tables";
    const DEFAULT_PORT: u16 = DEFAULT_PORT;

    type Args = NoArgs;
    type Config = WriterSettings;
    type Environment = NodeEnvironment;
    type Engine = Writer;

    fn check(settings: &Settings<WriterSettings>) -> Result<(), String> {
        settings.role.validate().map_err(|e| format!("writer: {e}"))
    }

    fn environment(database: &str, http: &HttpMetrics) -> (NodeEnvironment, Encoder) {
        NodeEnvironment::system(ROLE, database, http)
    }

    fn routes(parts: FaceParts<Self>) -> Routes {
        routes(parts.slot, parts.drain, &parts.settings.role)
    }

    async fn open(parts: OpenParts<Self>) -> Result<Writer, OpenError> {
        let mode = OpenMode::CreateIfMissing(CompactionMode::default());
        let db = parts.environment.database(&parts.settings, &mode).await?;
        let node = parts.environment.node(ROLE, &parts.advertise);
        let mut settings = parts.settings.role.clone();
        if db.coordination.backend() == Backend::Etcd {
            settings.max_commits_per_second.get_or_insert(parts.settings.coordination.max_commits_per_second);
        }
        let writer =
            Writer::open(db, settings, node).map_err(|e| OpenError::bad_setting(format!("writer: {e}")))?;
        // Before the start is over, or the program would be ready for a moment with nothing to serve.
        parts.health.set("writer", State::not_ready("opening"));
        tokio::spawn(show_health(writer.clone(), parts.health));
        Ok(writer)
    }

    async fn drain(engine: Arc<Writer>, deadline: Instant) {
        engine.close(deadline.saturating_duration_since(Instant::now())).await;
    }
}
