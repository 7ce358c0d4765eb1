//! The writer as a program.

use std::sync::Arc;

use isle_service::config::Settings;
use isle_service::server::{Encoder, HttpMetrics, Routes};
use isle_service::shell::{FaceParts, NoArgs, OpenError, OpenParts, Program};
use isle_storage::coordination::NodeInfo;
use isle_storage::environment::Environment;
use tokio::time::Instant;

use super::open::{self, NodeEnvironment};
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
        let env = Environment::system(ROLE, database);
        let (name, help) = HttpMetrics::REQUESTS;
        env.metrics.register(name, help, http.requests.clone());
        let (name, help) = HttpMetrics::SECONDS;
        env.metrics.register(name, help, http.seconds.clone());
        let metrics = env.metrics.clone();
        (NodeEnvironment::new(env), Encoder::new(move || metrics.encode()))
    }

    fn routes(parts: FaceParts<Self>) -> Routes {
        routes(parts.slot, parts.drain, &parts.settings.role)
    }

    async fn open(parts: OpenParts<Self>) -> Result<Writer, OpenError> {
        let db = open::database(&parts.settings, &parts.environment).await?;
        let node = NodeInfo { node: node_name(&db.env), advertise: parts.advertise };
        let writer = Writer::open(db, parts.settings.role.clone(), node)
            .map_err(|e| OpenError::bad_setting(format!("writer: {e}")))?;
        tokio::spawn(show_health(writer.clone(), parts.health));
        Ok(writer)
    }

    async fn drain(engine: Arc<Writer>, deadline: Instant) {
        engine.close(deadline.saturating_duration_since(Instant::now())).await;
    }
}

/// Unique per start, and readable where the machine has a name.
fn node_name(env: &Environment) -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let host = Some(host.trim()).filter(|h| !h.is_empty()).unwrap_or("writer");
    format!("{host}-{}-{:08x}", std::process::id(), env.entropy.next_u64() as u32)
}
