//! The compactor as a program: a daemon, or with `--once` a job.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use isle_node::NodeEnvironment;
use isle_service::config::Settings;
use isle_service::health::State;
use isle_service::server::{Encoder, HttpMetrics, Routes};
use isle_service::shell::{FaceParts, OpenError, OpenParts, Program};
use isle_storage::coordination::identity::OpenMode;
use isle_storage::database::Database;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{DEFAULT_PORT, ROLE, router, show_health};
use crate::compactor::Compactor;
use crate::once::{self, Limits, Outcome};
use crate::settings::CompactorSettings;

/// Pause between two attempts of a job to reach its database, within `startup_timeout`.
const OPEN_PAUSE: Duration = Duration::from_millis(250);

/// How long a job that was told to stop has to clear away what it has begun.
const STOPPING: Duration = Duration::from_secs(10);

/// Flags of its own.
#[derive(Debug, Clone, Default, Args)]
pub struct CompactorArgs {
    /// Do what there is to do, print one JSON summary and exit: 0 done or nothing to do, 3 work left, 4 claimed elsewhere,
    /// 1 something failed
    #[arg(long)]
    pub once: bool,
    /// With --once: start no merge after this long (10m)
    #[arg(long, value_name = "DURATION", requires = "once", value_parser = isle_service::wire::duration::parse)]
    pub max_time: Option<Duration>,
    /// With --once: start no merge that would bring the bytes read above this (20GiB)
    #[arg(long, value_name = "SIZE", requires = "once", value_parser = isle_service::config::parse_size)]
    pub max_bytes: Option<u64>,
    /// With --once: change nothing, say what would be merged, collected and swept, and why
    #[arg(long, requires = "once")]
    pub dry_run: bool,
    /// With --once: exit 0 also where work is left or claimed elsewhere
    #[arg(long, requires = "once")]
    pub lenient: bool,
}

/// The program `compactor-node`.
#[derive(Debug)]
pub struct CompactorNode;

impl Program for CompactorNode {
    const ROLE: &'static str = ROLE;
    const NAME: &'static str = "compactor-node";
    const ABOUT: &'static str =
        "Isle's compactor: merges tables, writes checkpoints, deletes what nothing needs";
    const DEFAULT_PORT: u16 = DEFAULT_PORT;

    type Args = CompactorArgs;
    type Config = CompactorSettings;
    type Environment = NodeEnvironment;
    type Engine = Compactor;

    fn check(settings: &Settings<CompactorSettings>) -> Result<(), String> {
        settings.role.validate()
    }

    fn environment(database: &str, http: &HttpMetrics) -> (NodeEnvironment, Encoder) {
        NodeEnvironment::system(ROLE, database, http)
    }

    fn routes(parts: FaceParts<Self>) -> Routes {
        router(parts.slot)
    }

    async fn open(parts: OpenParts<Self>) -> Result<Compactor, OpenError> {
        let db = parts.environment.database(&parts.settings, &OpenMode::Existing).await?;
        let node = parts.environment.node(ROLE, &parts.advertise);
        let compactor =
            Compactor::open(db, node, parts.settings.role.clone()).map_err(OpenError::bad_setting)?;
        // Before the start is over, or the program would be ready for a moment with nothing to serve.
        parts.health.set("compaction", State::not_ready("opening"));
        tokio::spawn(show_health(compactor.clone(), parts.health.clone()));
        Ok(compactor)
    }

    async fn drain(engine: Arc<Compactor>, _deadline: Instant) {
        engine.close().await;
    }

    fn is_once(args: &CompactorArgs) -> bool {
        args.once
    }

    async fn run_once(parts: OpenParts<Self>) -> u8 {
        let stop = CancellationToken::new();
        let run = job(&parts, stop.clone());
        tokio::pin!(run);
        tokio::select! {
           biased;
            () = parts.drain.draining() => {}
            code = &mut run => return code,
        }
        tracing::info!("stopped by a signal; what was merged and committed so far stays");
        stop.cancel();
        // What is under way takes back what it has uploaded, and gives its claim back; then the summary is printed.
        match tokio::time::timeout(STOPPING, run).await {
            Ok(code) => code,
            Err(_) => {
                let seconds = STOPPING.as_secs();
                tracing::error!(
                    seconds,
                    "what was under way did not end in time; its claims end by themselves"
                );
                1
            }
        }
    }
}

/// The exit code.
async fn job(parts: &OpenParts<CompactorNode>, stop: CancellationToken) -> u8 {
    let opened = tokio::select! {
        biased;
        () = stop.cancelled() => Err((1, "stopped by a signal before the database was open".to_owned())),
        opened = database(parts) => opened,
    };
    let db = match opened {
        Ok(db) => db,
        Err((exit, message)) => {
            tracing::error!(exit, "{message}");
            return exit;
        }
    };
    let args = &parts.args;
    let limits = Limits { max_time: args.max_time, max_bytes: args.max_bytes, dry_run: args.dry_run, stop };
    let node = parts.environment.node(ROLE, "");
    match once::once(db, node, parts.settings.role.clone(), limits).await {
        Ok(summary) => {
            let line = serde_json::to_string(&summary).unwrap_or_default();
            // Where standard output is closed there is nobody to tell.
            let _nobody = writeln!(std::io::stdout(), "{line}");
            match summary.outcome {
                Outcome::WorkLeft | Outcome::ClaimedElsewhere if args.lenient => 0,
                outcome => outcome.exit_code(),
            }
        }
        Err(error) => {
            tracing::error!("{error}");
            1
        }
    }
}

/// The database, waited for no longer than `startup_timeout`: a job that waits for ever is a cron job that piles up.
async fn database(parts: &OpenParts<CompactorNode>) -> Result<Database, (u8, String)> {
    let deadline = Instant::now() + parts.settings.server.startup_timeout;
    loop {
        match parts.environment.database(&parts.settings, &OpenMode::Existing).await {
            Ok(db) => return Ok(db),
            Err(OpenError::Refused(refusal)) => return Err((refusal.exit, refusal.message)),
            Err(OpenError::Passing(why)) if Instant::now() >= deadline => return Err((1, why)),
            Err(OpenError::Passing(_)) => tokio::time::sleep(OPEN_PAUSE).await,
        }
    }
}
