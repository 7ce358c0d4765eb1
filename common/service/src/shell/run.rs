//! The life of a program.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _};
use tokio::time::Instant;

use super::open::{Refusal, open_until_done};
use super::program::{FaceParts, OpenParts, Program};
use super::signals::Signals;
use super::{EXIT_FAILURE, EXIT_SETTINGS};
use crate::config::{CommonArgs, ConfigError, Settings};
use crate::health::Health;
use crate::server::{Drain, HttpMetrics, ServerHandle, ServerParts, bind, serve};
use crate::slot::Slot;
use crate::telemetry;

/// How long tasks that are still running may hold up the exit after the drain.
const RUNTIME_GRACE: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Parser)]
struct Cli<A: clap::Args> {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    own: A,
}

/// Runs a program from its command line to its end.
#[must_use]
pub fn run<P: Program>() -> ExitCode {
    let command = Cli::<P::Args>::command().name(P::NAME).about(P::ABOUT).version(env!("CARGO_PKG_VERSION"));
    let matches = command.get_matches();
    let cli = match Cli::<P::Args>::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(e) => e.exit(),
    };
    let settings = match prepare::<P>(&cli.common) {
        Ok(Some(settings)) => settings,
        Ok(None) => return ExitCode::SUCCESS,
        Err(e) => return ExitCode::from(say_error(&e, EXIT_SETTINGS)),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return ExitCode::from(say_error(&format!("the runtime cannot start: {e}"), EXIT_FAILURE)),
    };
    let code = runtime.block_on(async {
        match Signals::install() {
            Ok(signals) => run_until::<P>(cli.own, settings, signals).await,
            Err(e) => fail(&format!("signals cannot be handled: {e}"), EXIT_FAILURE),
        }
    });
    runtime.shutdown_timeout(RUNTIME_GRACE);
    ExitCode::from(code)
}

/// Settings and logs; `None` when the flags asked only for the settings.
fn prepare<P: Program>(args: &CommonArgs) -> Result<Option<Settings<P::Config>>, ConfigError> {
    let settings = Settings::<P::Config>::load(args, P::ROLE, environment_variables()?)?;
    if args.print_config {
        say(&settings.to_toml(P::ROLE)?);
    }
    telemetry::check_level(&settings.log.level).map_err(|e| ConfigError::at("log.level", e))?;
    check_store(&settings.store.url)?;
    P::check(&settings).map_err(ConfigError::new)?;
    if args.check_config {
        say("the settings are in order\n");
    }
    if args.print_config || args.check_config {
        return Ok(None);
    }
    telemetry::init(&settings.log).map_err(|e| ConfigError::at("log.level", e))?;
    Ok(Some(settings))
}

/// The environment; a variable of ours that is not UTF-8 is an error, others do not matter.
fn environment_variables() -> Result<Vec<(String, String)>, ConfigError> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) if name.starts_with("ISLE__") => {
                return Err(ConfigError::new(format!("environment: {name} is not UTF-8")));
            }
            Err(_) => {}
        }
    }
    Ok(variables)
}

fn check_store(url: &str) -> Result<(), ConfigError> {
    if url.is_empty() {
        let message = "no store: give --store URL (file:///path, s3://bucket/prefix, gs://…, az://…)";
        return Err(ConfigError::at("store.url", message));
    }
    if url.starts_with("memory:") {
        let message =
            "memory:// lives in one process and is for isle up and tests; use file:///path or a bucket";
        return Err(ConfigError::at("store.url", message));
    }
    Ok(())
}

/// The life of a program within a runtime: from its settings until it has drained after the first of `signals`, or until
/// something ends it before. Returns the exit code.
pub async fn run_until<P: Program>(args: P::Args, settings: Settings<P::Config>, signals: Signals) -> u8 {
    let http = HttpMetrics::new();
    let (environment, metrics) = P::environment(&settings.store.database, &http);
    let health = Health::new(P::ROLE);
    let mut parts = OpenParts {
        args,
        settings: Arc::new(settings),
        environment,
        health: health.clone(),
        drain: Drain::new(),
        advertise: String::new(),
    };
    if P::is_once(&parts.args) {
        return once(parts, signals).await;
    }
    let listener = match bind(parts.settings.server.listen_or(P::DEFAULT_PORT)).await {
        Ok(listener) => listener,
        Err(e) => return fail(&e, EXIT_FAILURE),
    };
    parts.advertise = parts.settings.server.advertise_or(listener.local_addr());
    tracing::info!(program = P::NAME, listen = %listener.local_addr(), advertise = parts.advertise, "listening");
    health.begin("start", "opening");
    let slot = Slot::new();
    let settings = parts.settings.server.clone();
    let server_parts = ServerParts { program: P::NAME, role: P::ROLE, health, metrics, http, settings };
    let server = serve(listener, P::routes(face(&slot, &parts)), server_parts);
    let code = match work::<P>(&slot, &parts, &signals).await {
        Ok(()) => 0,
        Err(refusal) => fail(&refusal, refusal.exit),
    };
    stop::<P>(&slot, parts, server).await;
    code
}

fn face<P: Program>(slot: &Slot<P::Engine>, parts: &OpenParts<P>) -> FaceParts<P> {
    FaceParts {
        slot: slot.clone(),
        health: parts.health.clone(),
        drain: parts.drain.clone(),
        settings: Arc::clone(&parts.settings),
        environment: parts.environment.clone(),
    }
}

/// Opens the engine and waits: `Ok` after a signal, `Err` when the engine must not run.
async fn work<P: Program>(
    slot: &Slot<P::Engine>,
    parts: &OpenParts<P>,
    signals: &Signals,
) -> Result<(), Refusal> {
    let opened = tokio::select! {
        biased;
        () = signals.first() => return Ok(()),
        opened = open_until_done(slot, &parts.health, || P::open(parts.clone())) => opened?,
    };
    tracing::info!(program = P::NAME, "open");
    tokio::select! {
        biased;
        () = signals.first() => Ok(()),
        refusal = P::refused(opened) => Err(refusal),
    }
}

/// Readiness first, then the engine, then the connections; all by one deadline.
async fn stop<P: Program>(slot: &Slot<P::Engine>, parts: OpenParts<P>, server: ServerHandle) {
    let deadline = Instant::now() + parts.settings.server.shutdown_timeout;
    parts.health.begin("shutdown", "the program is stopping");
    parts.drain.start();
    if let Some(engine) = slot.peek().cloned()
        && tokio::time::timeout_at(deadline, P::drain(engine, deadline)).await.is_err()
    {
        tracing::warn!("the drain took longer than server.shutdown_timeout; what is left is cut");
    }
    match server.stop(deadline).await {
        0 => tracing::info!(program = P::NAME, "stopped"),
        cut => tracing::warn!(program = P::NAME, connections = cut, "stopped; connections were cut"),
    }
}

async fn once<P: Program>(parts: OpenParts<P>, signals: Signals) -> u8 {
    let (drain, timeout) = (parts.drain.clone(), parts.settings.server.shutdown_timeout);
    let mut job = std::pin::pin!(P::run_once(parts));
    tokio::select! {
        biased;
        () = signals.first() => drain.start(),
        code = job.as_mut() => return code,
    }
    match tokio::time::timeout(timeout, job).await {
        Ok(code) => code,
        Err(_) => fail(&"the job did not stop within server.shutdown_timeout", EXIT_FAILURE),
    }
}

/// Reports a failure in the log, where one is kept by now.
fn fail(error: &dyn Display, exit: u8) -> u8 {
    tracing::error!(exit, "{error}");
    exit
}

/// Reports a failure before there is a log.
fn say_error(error: &dyn Display, exit: u8) -> u8 {
    // Where stderr is closed there is nobody to tell.
    let _nobody = writeln!(std::io::stderr(), "error: {error}");
    exit
}

fn say(text: &str) {
    let _nobody = std::io::stdout().write_all(text.as_bytes());
}
