//! SIGTERM and SIGINT: the first begins the stop, the second ends the process at once. Handlers are installed explicitly,
//! so they also hold for process 1 of a container, which has no default ones.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::EXIT_FAILURE;

/// Tells when the first signal has come.
#[derive(Debug, Clone)]
pub struct Signals(CancellationToken);

impl Signals {
    /// Installs the handlers for the life of the process. Must be called within a tokio runtime.
    pub fn install() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let first = CancellationToken::new();
        tokio::spawn(watch(terminate, interrupt, first.clone()));
        Ok(Self(first))
    }

    /// No signals: the stop begins when `stop` is cancelled. For hosts that handle signals themselves, and for tests.
    #[must_use]
    pub fn from_token(stop: CancellationToken) -> Self {
        Self(stop)
    }

    /// Waits for the first signal.
    pub async fn first(&self) {
        self.0.cancelled().await;
    }
}

async fn watch(mut terminate: Signal, mut interrupt: Signal, first: CancellationToken) {
    loop {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        if first.is_cancelled() {
            tracing::warn!(signal = name, "second signal: ending at once");
            std::process::exit(i32::from(EXIT_FAILURE));
        }
        tracing::info!(signal = name, "stopping");
        first.cancel();
    }
}
