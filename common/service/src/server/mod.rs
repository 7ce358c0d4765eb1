//! The HTTP face: what is the same for every program, whatever it serves.
//!
//! ```text
//! listener ─> connection (limits, TCP_NODELAY, HTTP/1 and 2) ─> request (id, span, metrics, panics) ─> routes
//!                 ▲ drain: idle ones close, busy ones finish, the rest is cut at the deadline
//! ```
//!
//! The order of a stop matters: readiness goes first, while the listener still accepts, so that a balancer sees it; then
//! the engine drains and refuses new work by itself; only then does the listener close.

mod connection;
mod drain;
mod endpoints;
mod listen;
mod metrics;
mod request;
mod routes;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use drain::Drain;
pub use listen::{BindError, Listener, bind};
pub use metrics::{Encoder, HttpMetrics, RequestLabels, RouteLabels};
pub use request::RequestId;
pub use routes::{Route, Routes};

use crate::config::ServerSettings;
use crate::health::Health;

/// What a server needs besides its listener and its routes.
#[derive(Debug, Clone)]
pub struct ServerParts {
    /// Name of the program, as `/version` says it: `writer-node`.
    pub program: &'static str,
    /// Its role: `writer`.
    pub role: &'static str,
    /// Answers `/readyz`.
    pub health: Health,
    /// Answers `/metrics`.
    pub metrics: Encoder,
    /// Counts requests; registered by the program.
    pub http: HttpMetrics,
    /// Limits.
    pub settings: ServerSettings,
}

/// A running server. Dropping it stops nothing; call [`ServerHandle::stop`].
#[derive(Debug)]
pub struct ServerHandle {
    local: SocketAddr,
    stop: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
}

/// Serves `routes` and the endpoints every program has. Must be called within a tokio runtime.
pub fn serve(listener: Listener, routes: Routes, parts: ServerParts) -> ServerHandle {
    let local = listener.local_addr();
    let stop = CancellationToken::new();
    let cut = CancellationToken::new();
    let tasks = TaskTracker::new();
    let router = endpoints::add(routes, &parts).into_router();
    let connections = connection::Connections::new(router, parts, stop.clone(), cut.clone(), tasks.clone());
    tasks.spawn(Arc::new(connections).accept(listener));
    ServerHandle { local, stop, cut, tasks }
}

impl ServerHandle {
    /// The address it really listens at.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Connections open at present.
    #[must_use]
    pub fn connections(&self) -> usize {
        // One task accepts; every other one is a connection.
        self.tasks.len().saturating_sub(1)
    }

    /// Closes the listener, lets requests in progress finish until `deadline`, and cuts what is left. Returns how many
    /// connections were cut.
    pub async fn stop(self, deadline: Instant) -> usize {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout_at(deadline, self.tasks.wait()).await.is_ok() {
            return 0;
        }
        let left = self.tasks.len();
        self.cut.cancel();
        self.tasks.wait().await;
        left
    }
}
