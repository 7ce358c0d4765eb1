//! Routes with a memory: each is kept with its method and pattern, so that requests are counted under the pattern and a
//! test can hold the list against the API's document.
//!
//! A pattern that ends in `{*key}` is a **raw** route: everything after the last slash before it, taken from the
//! request's path as it came over the wire. `/v1/kv/{*key}` also takes `/v1/kv/` (a request without a key, which the
//! handler refuses with a reason) and `/v1/kv` (the form with `?key_b64=`). Handlers read the key with
//! [`raw_key`](crate::wire::raw_key) from the request's URI, never with an extractor, which would decode it as UTF-8.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, any, on};
use http::{Method, Uri};
use tower::util::MapRequestLayer;

use crate::error::{ApiError, ErrorCode};

/// A method and a pattern: `("PUT", "/v1/kv/{key}")`.
pub type Route = (&'static str, String);

/// Where a matched route leaves its pattern for the metrics.
#[derive(Debug, Clone, Default)]
pub(super) struct Matched(pub(super) Arc<OnceLock<Arc<str>>>);

/// The routes of a program.
#[derive(Debug)]
pub struct Routes<S = ()> {
    router: Router<S>,
    list: Vec<Route>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No route yet.
    #[must_use]
    pub fn new() -> Self {
        Self { router: Router::new(), list: Vec::new() }
    }

    /// Serves `GET` (and `HEAD`, without the body, unless a route of its own does).
    #[must_use]
    pub fn get<H: Handler<T, S>, T: 'static>(self, pattern: &str, handler: H) -> Self {
        self.on(MethodFilter::GET, "GET", pattern, handler)
    }

    /// Serves `HEAD`.
    #[must_use]
    pub fn head<H: Handler<T, S>, T: 'static>(self, pattern: &str, handler: H) -> Self {
        self.on(MethodFilter::HEAD, "HEAD", pattern, handler)
    }

    /// Serves `PUT`.
    #[must_use]
    pub fn put<H: Handler<T, S>, T: 'static>(self, pattern: &str, handler: H) -> Self {
        self.on(MethodFilter::PUT, "PUT", pattern, handler)
    }

    /// Serves `POST`.
    #[must_use]
    pub fn post<H: Handler<T, S>, T: 'static>(self, pattern: &str, handler: H) -> Self {
        self.on(MethodFilter::POST, "POST", pattern, handler)
    }

    /// Serves `DELETE`.
    #[must_use]
    pub fn delete<H: Handler<T, S>, T: 'static>(self, pattern: &str, handler: H) -> Self {
        self.on(MethodFilter::DELETE, "DELETE", pattern, handler)
    }

    /// Keeps a path of the contract for a later version: every method is 400 `unsupported`, which says `what` is missing.
    /// It is not in [`Routes::list`].
    #[must_use]
    pub fn reserve(mut self, pattern: &str, what: &'static str) -> Self {
        let answer =
            move || async move { ApiError::unsupported(format!("{what} come with a later version")) };
        for path in paths(pattern) {
            self.router = self.router.route(&path, any(answer));
        }
        self
    }

    fn on<H: Handler<T, S>, T: 'static>(
        mut self,
        filter: MethodFilter,
        method: &'static str,
        pattern: &str,
        handler: H,
    ) -> Self {
        let shown = pattern.replace("{*", "{");
        let label: Arc<str> = shown.as_str().into();
        for path in paths(pattern) {
            let label = Arc::clone(&label);
            let leave_label = MapRequestLayer::new(move |request: Request| {
                if let Some(matched) = request.extensions().get::<Matched>() {
                    let _first = matched.0.set(Arc::clone(&label));
                }
                request
            });
            self.router = self.router.route(&path, on(filter, handler.clone()).layer(leave_label));
        }
        self.list.push((method, shown));
        self
    }

    /// Gives the handlers their state.
    #[must_use]
    pub fn with_state(self, state: S) -> Routes {
        Routes { router: self.router.with_state(state), list: self.list }
    }

    /// These routes and those.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.list.extend(other.list);
        self
    }

    /// Every method and pattern served.
    #[must_use]
    pub fn list(&self) -> &[Route] {
        &self.list
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl Routes {
    /// The router, answering what it does not know with errors of the API. Bodies that an extractor reads whole are
    /// bounded by the server; handlers that read bodies themselves have limits of their own.
    pub fn into_router(self) -> Router {
        self.router
            .method_not_allowed_fallback(method_not_allowed)
            .fallback(unknown_endpoint)
            .layer(DefaultBodyLimit::max(crate::wire::body::MAX_JSON_BYTES))
    }
}

/// The paths, in the router's language, that a pattern stands for.
fn paths(pattern: &str) -> Vec<String> {
    match pattern.find("{*") {
        None => vec![pattern.to_owned()],
        Some(at) => {
            let prefix = &pattern[..at];
            vec![pattern.to_owned(), prefix.to_owned(), prefix.trim_end_matches('/').to_owned()]
        }
    }
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    ApiError::new(ErrorCode::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
        .into_response()
}

async fn unknown_endpoint(uri: Uri) -> Response {
    let message = format!("nothing is served at {}; /v1/openapi.json lists what is", uri.path());
    ApiError::new(ErrorCode::UnknownEndpoint, message).into_response()
}
