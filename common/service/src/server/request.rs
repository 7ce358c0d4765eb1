//! What happens around every request: its id, its span, its measurement, and the net below its handler.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use http::{HeaderMap, HeaderValue, Request};
use hyper::body::Incoming;
use tower::Service as _;
use tracing::Instrument as _;

use super::metrics::HttpMetrics;
use super::routes::Matched;
use crate::error::{ApiError, Told};
use crate::wire::headers::{REQUEST_ID, TRACEPARENT};

/// Longest request id or trace context that is accepted; a longer one is replaced or dropped.
const MAX_ID_BYTES: usize = 128;

/// The route that unmatched requests are counted under, so that no client can make labels.
const OTHER: &str = "other";

/// The id of the present request, in the request's extensions: taken from `X-Request-Id`, or made up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub HeaderValue);

impl RequestId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// Makes ids nobody else makes: random bits of this process and a counter.
#[derive(Debug)]
pub(super) struct Ids {
    process: u32,
    next: AtomicU64,
}

impl Ids {
    pub(super) fn new() -> Self {
        let mut bits = [0u8; 4];
        // Without a random source ids of two processes may look alike, which harms no data.
        let _unlikely = getrandom::fill(&mut bits);
        Self { process: u32::from_le_bytes(bits), next: AtomicU64::new(1) }
    }

    fn next(&self) -> HeaderValue {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let text = format!("{:08x}-{number:x}", self.process);
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unknown"))
    }
}

/// Runs one request through `router`.
pub(super) async fn handle(
    mut router: Router,
    http: HttpMetrics,
    ids: Arc<Ids>,
    mut request: Request<Incoming>,
) -> Response {
    let started = Instant::now();
    let id = accepted(request.headers(), REQUEST_ID.as_str()).unwrap_or_else(|| ids.next());
    let trace = accepted(request.headers(), TRACEPARENT.as_str());
    let matched = Matched::default();
    request.extensions_mut().insert(matched.clone());
    request.extensions_mut().insert(RequestId(id.clone()));
    let span = tracing::info_span!(
        "request",
        id = id.to_str().unwrap_or_default(),
        trace = trace.as_ref().and_then(|t| t.to_str().ok()),
        method = %request.method(),
        route = tracing::field::Empty,
    );
    let answered = async move { AssertUnwindSafe(router.call(request)).catch_unwind().await };
    let mut response = match answered.instrument(span.clone()).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(panic) => span.in_scope(|| caught(&*panic)),
    };
    let route = matched.0.get().map_or(OTHER, |label| label);
    let elapsed = started.elapsed();
    http.observe(route, response.status().as_u16(), elapsed.as_secs_f64());
    span.record("route", route);
    span.in_scope(|| log(&response, elapsed.as_micros()));
    response.headers_mut().insert(REQUEST_ID, id);
    if let Some(trace) = trace {
        response.headers_mut().insert(TRACEPARENT, trace);
    }
    response
}

/// A header of ours that is fit to be echoed and logged.
fn accepted(headers: &HeaderMap, name: &str) -> Option<HeaderValue> {
    let value = headers.get(name)?;
    let fit = (1..=MAX_ID_BYTES).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
    fit.then(|| value.clone())
}

fn caught(panic: &(dyn Any + Send)) -> Response {
    let said = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    tracing::error!(panic = said, "a request's handler panicked");
    ApiError::internal("a defect ended this request; the log has more under its id").into_response()
}

fn log(response: &Response, micros: u128) {
    let status = response.status().as_u16();
    let Some(told) = response.extensions().get::<Arc<Told>>() else {
        tracing::debug!(status, micros, "answered");
        return;
    };
    let (code, error) = (told.code.as_str(), told.message.as_str());
    match status {
        500 => tracing::error!(status, code, error, micros, "answered"),
        501.. => tracing::info!(status, code, error, micros, "answered"),
        _ => tracing::debug!(status, code, error, micros, "answered"),
    }
}
