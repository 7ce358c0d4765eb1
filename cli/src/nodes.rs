//! Calling running nodes: of several addresses of a role, the first that can answer.

use http::Method;
use isle_service::ErrorCode;
use isle_service::client::{Answer, BaseUrl, Body, CallError, Client, ClientError};

use crate::args::Nodes;
use crate::output::Failure;

/// The roles a command talks to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum To {
    Writer,
    Reader,
    Tailer,
    Compactor,
}

impl To {
    fn name(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Reader => "reader",
            Self::Tailer => "tailer",
            Self::Compactor => "compactor",
        }
    }
}

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The method.
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    /// The body.
    pub(crate) body: bytes::Bytes,
    /// Headers.
    pub(crate) headers: Vec<(http::HeaderName, String)>,
}

impl Request {
    /// A request without body or headers.
    pub(crate) fn new(method: Method, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), body: bytes::Bytes::new(), headers: Vec::new() }
    }
}

/// A client of the nodes a command line names.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    client: Client,
    nodes: Nodes,
}

impl Api {
    pub(crate) fn new(nodes: &Nodes) -> Self {
        Self { client: Client::default(), nodes: nodes.clone() }
    }

    /// Every address of a role.
    pub(crate) fn bases(&self, to: To) -> Result<Vec<BaseUrl>, Failure> {
        let texts = match to {
            To::Writer => &self.nodes.writers,
            To::Reader => &self.nodes.readers,
            To::Tailer => &self.nodes.tailers,
            To::Compactor => &self.nodes.compactors,
        };
        texts
            .iter()
            .map(|t| t.parse().map_err(|e: ClientError| Failure::usage(format!("--{}: {e}", to.name()))))
            .collect()
    }

    /// Sends the request to each address in turn until one has taken it. An address is passed over only where it
    /// certainly did not: it cannot be reached, is not ready, or does not lead.
    pub(crate) async fn call(&self, to: To, request: &Request) -> Result<Answer, Failure> {
        self.try_call(to, request).await?.map_err(|e| self.failure(to, e))
    }

    /// What a call's error means for the command: a value that the program refuses is the user's mistake, as one that the
    /// command line refuses is; and of a program that is not there the message says which it was, and which flag names it.
    pub(crate) fn failure(&self, to: To, error: CallError) -> Failure {
        match error {
            CallError::Remote(e) if e.status == http::StatusCode::BAD_REQUEST => {
                Failure::usage(e.to_string())
            }
            CallError::Client(e @ ClientError::Unreachable { .. }) => {
                let name = to.name();
                let direct = match to {
                    To::Compactor => {
                        ", or work without one on the database itself with --store (and --coordination)"
                    }
                    _ => "",
                };
                Failure::new(format!(
                    "{e}. This command needs a {name}: start a {name}-node (or `isle up`), or say where it listens \
                     with --{name} or ISLE_{}{direct}",
                    name.to_uppercase()
                ))
            }
            e => Failure::new(e.to_string()),
        }
    }

    /// The same, for callers that act on the error.
    pub(crate) async fn try_call(
        &self,
        to: To,
        request: &Request,
    ) -> Result<Result<Answer, CallError>, Failure> {
        let mut last = None;
        for base in self.bases(to)? {
            match self.send(&base, request).await {
                Err(error) if surely_not_applied(&error) => last = Some(error),
                other => return Ok(other),
            }
        }
        last.map(Err).ok_or_else(|| Failure::usage(format!("no --{} is given", to.name())))
    }

    /// Sends a request to the writer with a body that can be read only once. So it goes to one address, and the one that
    /// leads is asked for before.
    pub(crate) async fn put_once(&self, request: &Request, body: Body) -> Result<Answer, Failure> {
        let base = self.leader().await?;
        let call = self.client.request(request.method.clone(), &base, &request.target).body(body);
        // Its answer comes once the whole body has gone, however slowly that is read.
        let answer = call.head_timeout(None).send().await?.ok().await?;
        Ok(answer)
    }

    /// The first address of a writer that leads.
    async fn leader(&self) -> Result<BaseUrl, Failure> {
        let asked = Request::new(Method::GET, "/v1/leader");
        let mut last = None;
        for base in self.bases(To::Writer)? {
            match self.send(&base, &asked).await {
                Ok(_leads) => return Ok(base),
                Err(e) => last = Some(e),
            }
        }
        Err(last.map_or_else(|| Failure::usage("no --writer is given"), Failure::from))
    }

    /// Sends the request to one address; an error of the API is an error here.
    pub(crate) async fn send(&self, base: &BaseUrl, request: &Request) -> Result<Answer, CallError> {
        let call = self.client.request(request.method.clone(), base, &request.target);
        let mut call = call.body(request.body.clone());
        for (name, value) in &request.headers {
            call = call.header(name.clone(), value);
        }
        call.send().await?.ok().await
    }
}

/// Whether the request certainly changed nothing, so that it may be sent elsewhere.
pub(crate) fn surely_not_applied(error: &CallError) -> bool {
    match error {
        CallError::Client(e) => e.surely_not_sent(),
        CallError::Remote(e) => {
            let status = e.status.as_u16();
            e.code != Some(ErrorCode::OutcomeUnknown) && (status == 429 || status == 503)
        }
        CallError::Read(_) | CallError::Answer(_) => false,
    }
}
