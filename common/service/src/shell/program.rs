//! What a role brings to the shell.

use std::future::Future;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::open::{OpenError, Refusal};
use crate::config::Settings;
use crate::health::Health;
use crate::server::{Drain, Encoder, HttpMetrics, Routes};
use crate::slot::Slot;

/// A daemon of one role.
pub trait Program: Sized + Send + Sync + 'static {
    /// `writer`: the name of its section and of its role everywhere.
    const ROLE: &'static str;
    /// `writer-node`: the name of the program.
    const NAME: &'static str;
    /// One line for `--help`.
    const ABOUT: &'static str;
    /// Port where no `--listen` says otherwise.
    const DEFAULT_PORT: u16;

    /// Flags of its own, besides [`crate::config::CommonArgs`]; [`NoArgs`] where there are none.
    type Args: clap::Args + Clone + Send + Sync + 'static;
    /// Its section: `#[serde(default, deny_unknown_fields)]`.
    type Config: Serialize + DeserializeOwned + Default + Clone + Send + Sync + 'static;
    /// Clock, randomness and metrics, made once before anything else.
    type Environment: Clone + Send + Sync + 'static;
    /// What serves.
    type Engine: Send + Sync + 'static;

    /// Judges the settings together; an error names the setting and the reason and ends the program with exit code 2.
    fn check(_settings: &Settings<Self::Config>) -> Result<(), String> {
        Ok(())
    }

    /// Makes the environment, registers the HTTP metrics in its registry, and says how the registry is written out.
    fn environment(database: &str, http: &HttpMetrics) -> (Self::Environment, Encoder);

    /// The role's routes. Handlers hold the slot and answer `not_ready` while it is empty.
    fn routes(parts: FaceParts<Self>) -> Routes;

    /// Opens the engine. Called again after a [`OpenError::Passing`]; dropped when a signal arrives meanwhile.
    fn open(parts: OpenParts<Self>) -> impl Future<Output = Result<Self::Engine, OpenError>> + Send;

    /// Resolves when the open engine finds that it must not go on (its database was wiped or replaced). The default
    /// never does.
    fn refused(_engine: Arc<Self::Engine>) -> impl Future<Output = Refusal> + Send {
        std::future::pending()
    }

    /// Refuses new work, ends what is in progress, and returns; cut at `deadline`.
    fn drain(engine: Arc<Self::Engine>, deadline: Instant) -> impl Future<Output = ()> + Send;

    /// Whether the flags ask for one job without an HTTP face.
    fn is_once(_args: &Self::Args) -> bool {
        false
    }

    /// Does that job and returns the exit code; it should stop early once `parts.drain` begins.
    fn run_once(_parts: OpenParts<Self>) -> impl Future<Output = u8> + Send {
        async { 0 }
    }
}

/// For programs without flags of their own.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct NoArgs {}

/// What a program's routes are made of.
#[derive(Debug)]
pub struct FaceParts<P: Program> {
    /// Holds the engine once it is open.
    pub slot: Slot<P::Engine>,
    /// The program's health.
    pub health: Health,
    /// Tells when the stop begins.
    pub drain: Drain,
    /// All settings.
    pub settings: Arc<Settings<P::Config>>,
    /// Clock, randomness and metrics.
    pub environment: P::Environment,
}

/// What an engine is opened with.
#[derive(Debug)]
pub struct OpenParts<P: Program> {
    /// The role's own flags.
    pub args: P::Args,
    /// All settings.
    pub settings: Arc<Settings<P::Config>>,
    /// Clock, randomness and metrics.
    pub environment: P::Environment,
    /// The program's health.
    pub health: Health,
    /// Tells when the stop begins.
    pub drain: Drain,
    /// The URL others are told.
    pub advertise: String,
}

impl<P: Program> Clone for OpenParts<P> {
    fn clone(&self) -> Self {
        Self {
            args: self.args.clone(),
            settings: Arc::clone(&self.settings),
            environment: self.environment.clone(),
            health: self.health.clone(),
            drain: self.drain.clone(),
            advertise: self.advertise.clone(),
        }
    }
}

impl<P: Program> Clone for FaceParts<P> {
    fn clone(&self) -> Self {
        Self {
            slot: self.slot.clone(),
            health: self.health.clone(),
            drain: self.drain.clone(),
            settings: Arc::clone(&self.settings),
            environment: self.environment.clone(),
        }
    }
}
