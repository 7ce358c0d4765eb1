//! What the HTTP face measures, and how the whole registry is written out.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

/// Upper bounds of the time buckets, in seconds: half a millisecond to half a minute.
const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Labels of a request's counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route's pattern, never a path a client made up: `/v1/kv/{key}`, or `other`.
    pub route: String,
    /// The answer's status.
    pub status: u16,
}

/// Labels of a request's time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    /// The route's pattern.
    pub route: String,
}

/// Requests by route and status, and the time until the head of the answer. The program registers both under the names
/// given here, and its registry adds the prefix `isle_` and the suffix of counters.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    /// To be registered as [`HttpMetrics::REQUESTS`].
    pub requests: Family<RequestLabels, Counter>,
    /// To be registered as [`HttpMetrics::SECONDS`].
    pub seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
}

impl HttpMetrics {
    /// Name and help of the counter, without prefix and suffix.
    pub const REQUESTS: (&'static str, &'static str) = ("http_requests", "HTTP requests answered");
    /// Name and help of the histogram, without prefix.
    pub const SECONDS: (&'static str, &'static str) =
        ("http_request_seconds", "Time from a request's head to the head of its answer");

    /// Nothing measured yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
        }
    }

    pub(super) fn observe(&self, route: &str, status: u16, seconds: f64) {
        let route = route.to_owned();
        self.seconds.get_or_create(&RouteLabels { route: route.clone() }).observe(seconds);
        self.requests.get_or_create(&RequestLabels { route, status }).inc();
    }
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes the whole registry in the OpenMetrics text form.
#[derive(Clone)]
pub struct Encoder(Arc<dyn Fn() -> String + Send + Sync>);

impl Encoder {
    /// From the function that does it.
    pub fn new(encode: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self(Arc::new(encode))
    }

    /// A registry without metrics.
    #[must_use]
    pub fn none() -> Self {
        Self::new(|| "# EOF\n".to_owned())
    }

    pub(super) fn encode(&self) -> String {
        (self.0)()
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encoder")
    }
}
