//! Connections: how many, with which limits, and how they end.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ServerParts;
use super::endpoints::is_health;
use super::listen::Listener;
use super::request::{Ids, handle};
use crate::error::{ApiError, ErrorCode};

/// Connections taken beyond `max_connections`, so that health is still answered when the house is full. Beyond these the
/// listener stops accepting and the kernel's queue holds the rest.
const HEALTH_CONNECTIONS: usize = 64;

/// Wait after an accept that failed for want of something, such as file descriptors.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// Largest sum of header fields on HTTP/2, in bytes: the longest request target there is, and 64 KiB besides. HTTP/1 is
/// bounded by hyper's buffer (about 400 KiB) and its 100 headers.
const HTTP2_HEADER_BYTES: u32 = 128 * 1024;

/// How often a silent HTTP/2 peer is asked whether it is there, and how long it may take to answer.
const HTTP2_PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

pub(super) struct Connections {
    router: Router,
    parts: ServerParts,
    ids: Arc<Ids>,
    room: Arc<Semaphore>,
    stop: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
}

impl Connections {
    pub(super) fn new(
        router: Router,
        parts: ServerParts,
        stop: CancellationToken,
        cut: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        let room = Arc::new(Semaphore::new(parts.settings.max_connections + HEALTH_CONNECTIONS));
        Self { router, parts, ids: Arc::new(Ids::new()), room, stop, cut, tasks }
    }

    /// Takes connections until the stop begins, then closes the listener.
    pub(super) async fn accept(self: Arc<Self>, listener: Listener) {
        loop {
            let next = async {
                let permit = Arc::clone(&self.room).acquire_owned().await.ok()?;
                Some((permit, listener.tcp.accept().await))
            };
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = next => accepted,
            };
            match accepted {
                None => return,
                Some((permit, Ok((stream, _)))) => {
                    // Judged here: the next turn of the loop takes a permit before there is a connection for it.
                    let crowded = self.room.available_permits() < HEALTH_CONNECTIONS;
                    self.tasks.spawn(Arc::clone(&self).serve(stream, permit, crowded));
                }
                Some((_, Err(e))) if is_about_peer(&e) => {}
                Some((_, Err(e))) => {
                    tracing::warn!(error = %e, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, permit: OwnedSemaphorePermit, crowded: bool) {
        // Answers are written whole; waiting to fill a packet only adds delay.
        let _best_effort = stream.set_nodelay(true);
        let builder = self.builder();
        let spoken = Arc::new(AtomicBool::new(false));
        let (this, says) = (Arc::clone(&self), Arc::clone(&spoken));
        let service = service_fn(move |request| {
            says.store(true, Ordering::Relaxed);
            let this = Arc::clone(&this);
            async move { Ok::<_, Infallible>(this.answer(request, crowded).await) }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            biased;
            ended = connection.as_mut() => return note_end(ended),
            () = self.stop.cancelled() => connection.as_mut().graceful_shutdown(),
            () = self.silence(&spoken) => return,
        }
        tokio::select! {
            biased;
            ended = connection => note_end(ended),
            () = self.cut.cancelled() => {}
        }
        drop(permit);
    }

    /// Returns when a connection has brought no request at all within the time a head may take. Hyper bounds the heads of
    /// HTTP/1, but not the wait for the first bytes, which tell HTTP/1 from HTTP/2.
    async fn silence(&self, spoken: &AtomicBool) {
        tokio::time::sleep(self.parts.settings.header_timeout).await;
        if spoken.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    }

    async fn answer(&self, request: Request<Incoming>, crowded: bool) -> Response {
        if crowded && !is_health(request.uri().path()) {
            let limit = self.parts.settings.max_connections;
            let error = ApiError::new(ErrorCode::Overloaded, format!("all {limit} connections are in use"));
            let mut response = error.field("limit", limit).into_response();
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
        handle(self.router.clone(), self.parts.http.clone(), Arc::clone(&self.ids), request).await
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let settings = &self.parts.settings;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(settings.header_timeout);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(HTTP2_HEADER_BYTES)
            .max_concurrent_streams(settings.max_streams_per_connection)
            .keep_alive_interval(HTTP2_PING.0)
            .keep_alive_timeout(HTTP2_PING.1);
        builder
    }
}

/// Whether a failed accept is the peer's doing, and the next one may be tried at once.
fn is_about_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

fn note_end(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(e) = ended {
        tracing::debug!(error = %e, "a connection ended early");
    }
}
