//! A standby sends mutations on to the leader: one hop, path and body as they came.
//!
//! What becomes of a forwarded request when something breaks: before it was sent, it was certainly not applied (503
//! `not_leader`); after that nobody here can tell (504 `outcome_unknown`).

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, header};
use isle_service::client::{BaseUrl, Client, ClientError, ClientSettings};
use isle_service::wire::headers::{FORWARDED, LEADER, REQUEST_ID, TRACEPARENT};
use isle_service::{ApiError, ErrorCode};
use isle_storage::coordination::LeaderInfo;

use super::large::may_be_large;
use crate::settings::WriterSettings;
use crate::standing::Role;
use crate::writer::Writer;

/// Longest wait for a connection to the leader.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Added to the leader's own limit for an acknowledgement, so that its answer wins over ours.
const MARGIN: Duration = Duration::from_secs(5);

/// Headers that describe one connection, and are not passed on.
const HOP_BY_HOP: [HeaderName; 5] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE, header::TRAILER];

/// Headers of a request that the leader needs.
const PASSED_ON: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::ACCEPT,
    header::AUTHORIZATION,
    REQUEST_ID,
    TRACEPARENT,
];

/// Sends requests on.
#[derive(Debug)]
pub(super) struct Forwarder {
    client: Client,
}

impl Forwarder {
    pub(super) fn new(settings: &WriterSettings) -> Self {
        let head_timeout = Some(Duration::from_millis(settings.ack_timeout_ms) + MARGIN);
        let settings =
            ClientSettings { connect_timeout: CONNECT_TIMEOUT, head_timeout, ..ClientSettings::default() };
        Self { client: Client::new(settings) }
    }

    /// The request itself where it is to be served here (also where that means an error), or the leader's answer.
    pub(super) async fn route(&self, writer: &Writer, request: Request) -> Result<Request, Response> {
        let Some(leader) = elsewhere(writer, request.headers()) else { return Ok(request) };
        let head_timeout = true;
        Err(self.send(&leader, request, head_timeout).await.unwrap_or_else(IntoResponse::into_response))
    }

    /// The same for a request whose answer may begin only when its body ends.
    pub(super) async fn route_stream(&self, writer: &Writer, request: Request) -> Result<Request, Response> {
        let Some(leader) = elsewhere(writer, request.headers()) else { return Ok(request) };
        let head_timeout = false;
        Err(self.send(&leader, request, head_timeout).await.unwrap_or_else(IntoResponse::into_response))
    }

    /// The same for a value by itself, which may take as long as it is large.
    pub(super) async fn route_value(&self, writer: &Writer, request: Request) -> Result<Request, Response> {
        if may_be_large(request.body(), writer.settings()) {
            self.route_stream(writer, request).await
        } else {
            self.route(writer, request).await
        }
    }

    async fn send(&self, leader: &LeaderInfo, request: Request, bounded: bool) -> Result<Response, ApiError> {
        let address = leader.node.advertise.as_str();
        let base: BaseUrl = address.parse().map_err(|e: ClientError| not_leader(address, &e))?;
        let target = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let (head, body) = request.into_parts();
        let mut call = self.client.request(head.method, &base, &target).body(body).header(FORWARDED, "1");
        for name in PASSED_ON {
            if let Some(value) = head.headers.get(&name).and_then(|v| v.to_str().ok()) {
                call = call.header(name, value);
            }
        }
        if !bounded {
            call = call.head_timeout(None);
        }
        let answer = call
            .send()
            .await
            .map_err(|e| if e.surely_not_sent() { not_leader(address, &e) } else { unknown(address, &e) })?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = answer.status();
        for (name, value) in answer.headers() {
            if !HOP_BY_HOP.contains(name) {
                response.headers_mut().append(name, value.clone());
            }
        }
        *response.body_mut() = Body::new(answer.into_body());
        Ok(response)
    }
}

/// Who should get the request instead: a leader that is known, where this node stands by and nobody has forwarded it
/// before.
fn elsewhere(writer: &Writer, headers: &HeaderMap) -> Option<LeaderInfo> {
    let standing = writer.standing();
    let standing = standing.borrow();
    if standing.role != Role::Standby || headers.contains_key(FORWARDED) {
        return None;
    }
    standing.leader.clone()
}

fn not_leader(address: &str, e: &ClientError) -> ApiError {
    ApiError::new(ErrorCode::NotLeader, format!("this node stands by, and the leader cannot be reached: {e}"))
        .field("leader", address)
        .header(LEADER, address)
        .retry_after(Duration::from_secs(1))
}

fn unknown(address: &str, e: &ClientError) -> ApiError {
    ApiError::new(ErrorCode::OutcomeUnknown, format!("the request was sent on to the leader, and then: {e}"))
        .field("leader", address)
}
