//! An HTTP client that sends what it is given: the path and query go out byte for byte, because here a path *is* a key.
//! General clients normalise paths; this one never does.
//!
//! ```text
//! let client = Client::new(ClientSettings::default());
//! let base: BaseUrl = "http://127.0.0.1:7301".parse()?;
//! let answer = client.request(Method::PUT, &base, &target).body(value).send().await?.ok().await?;
//! ```

mod answer;
mod error;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use axum::body::Body;
use http::uri::{Parts, PathAndQuery};
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::wire::key::MAX_TARGET_BYTES;

pub use answer::{Answer, MAX_ANSWER_BYTES};
pub use error::{CallError, ClientError, RemoteError};

/// Limits of a client.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the head of an answer, unless a request sets its own. Streams may be silent for longer after it.
    pub head_timeout: Option<Duration>,
    /// Idle connections to one host are closed after this. Shorter than servers keep them, so that a request is not sent
    /// into a connection that is just being closed.
    pub idle_timeout: Duration,
    /// Idle connections kept to one host.
    pub idle_per_host: usize,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            head_timeout: Some(Duration::from_secs(60)),
            idle_timeout: Duration::from_secs(30),
            idle_per_host: 64,
        }
    }
}

/// Scheme and authority of a program: `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl(String);

impl FromStr for BaseUrl {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let bad = |why: &str| ClientError::Url(format!("{text:?} {why}"));
        let uri: Uri = text.parse().map_err(|e| bad(&format!("is not a URL: {e}")))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(bad("needs TLS, which comes with a later version; use http://")),
            _ => return Err(bad("is not a URL such as http://127.0.0.1:7301")),
        }
        let authority = uri.authority().ok_or_else(|| bad("names no host"))?;
        if authority.as_str().contains('@') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("has more than scheme, host and port"));
        }
        Ok(Self(format!("http://{authority}")))
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Sends requests over a shared pool of connections; clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Pool<HttpConnector, Body>,
    head_timeout: Option<Duration>,
}

impl Client {
    /// A client with an empty pool.
    #[must_use]
    pub fn new(settings: ClientSettings) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(settings.connect_timeout));
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(settings.idle_timeout)
            .pool_max_idle_per_host(settings.idle_per_host)
            .build(connector);
        Self { pool, head_timeout: settings.head_timeout }
    }

    /// A request for `target`, a path and query that begin with `/` and are sent as they are.
    #[must_use]
    pub fn request(&self, method: Method, base: &BaseUrl, target: &str) -> Call {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        let failed = match uri_of(base, target) {
            Ok(uri) => {
                *request.uri_mut() = uri;
                None
            }
            Err(e) => Some(e),
        };
        Call { client: self.clone(), request, failed, base: base.clone(), head_timeout: self.head_timeout }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new(ClientSettings::default())
    }
}

/// One request being put together.
#[derive(Debug)]
pub struct Call {
    client: Client,
    request: Request<Body>,
    failed: Option<ClientError>,
    base: BaseUrl,
    head_timeout: Option<Duration>,
}

impl Call {
    /// Sets the body: bytes, or [`Body::from_stream`] for a streamed one.
    #[must_use]
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        *self.request.body_mut() = body.into();
        self
    }

    /// Sets a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => {
                self.request.headers_mut().insert(name, value);
            }
            Err(_) => self.failed = Some(ClientError::Url(format!("{value:?} cannot be the header {name}"))),
        }
        self
    }

    /// Longest wait for the head of the answer; `None` for a request whose body is streamed without end.
    #[must_use]
    pub fn head_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.head_timeout = timeout;
        self
    }

    /// Sends it and waits for the head of the answer, whatever its status.
    pub async fn send(self) -> Result<Answer, ClientError> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let answer = self.client.pool.request(self.request);
        let answer = match self.head_timeout {
            None => answer.await,
            Some(timeout) => tokio::time::timeout(timeout, answer)
                .await
                .map_err(|_elapsed| ClientError::Timeout { base: self.base.to_string(), after: timeout })?,
        };
        answer.map(Answer::new).map_err(|e| ClientError::of(&self.base, &e))
    }
}

/// The absolute form that the pool chooses a connection by; on the wire goes `target` alone. It is put together from its
/// parts because parsing it whole would count scheme and host into the longest length a target may have.
fn uri_of(base: &BaseUrl, target: &str) -> Result<Uri, ClientError> {
    let bad = |why: &dyn fmt::Display| ClientError::Url(format!("the target {} {why}", shorten(target)));
    if !target.starts_with('/') {
        return Err(bad(&"does not begin with /"));
    }
    if target.len() > MAX_TARGET_BYTES {
        return Err(bad(&"is too long for a URL; long keys go into the body forms"));
    }
    let path = PathAndQuery::try_from(target).map_err(|e| bad(&format!("is not a path: {e}")))?;
    let mut parts: Parts = base.0.parse::<Uri>().map_err(|e| bad(&e))?.into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|e| bad(&e))
}

fn shorten(text: &str) -> String {
    const SHOWN: usize = 100;
    match text.char_indices().nth(SHOWN) {
        None => format!("{text:?}"),
        Some((at, _)) => format!("{:?}… ({} bytes)", &text[..at], text.len()),
    }
}
