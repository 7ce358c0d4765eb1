//! The one vocabulary of failures that programs show to the outside.
//!
//! A [`ErrorCode`] is the coarse kind a client branches on; an [`ApiError`] is one occurrence of it, with a message that
//! says what failed and what to do, and with fields a program can read. The same error is written as an HTTP answer, as
//! the last line of an NDJSON answer, as the last frame of a frames answer, or as the data of an SSE `error` event.

use std::fmt;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:ident, $retryable:literal, $meaning:literal;)*) => {
        /// Every kind of failure an interface of Isle can answer with.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode {
            $(#[doc = $meaning] $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code as it stands in `error.code`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The HTTP status it is answered with.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// Whether the same request may be sent again: true only where repeating cannot apply a mutation twice.
            #[must_use]
            pub const fn retryable(self) -> bool {
                match self { $(Self::$variant => $retryable,)* }
            }

            /// What it means, in one line.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

codes! {
    InvalidKey = "invalid_key", BAD_REQUEST, false,
        "The key is empty, too long or not encoded as its place demands.";
    InvalidRequest = "invalid_request", BAD_REQUEST, false,
        "The request cannot be understood; the message says where and why.";
    UnknownParameter = "unknown_parameter", BAD_REQUEST, false,
        "The query holds a parameter this endpoint does not know.";
    Unsupported = "unsupported", BAD_REQUEST, false,
        "Understood, but this version or this node cannot do it.";
    Unauthenticated = "unauthenticated", UNAUTHORIZED, false,
        "No valid credential came with the request.";
    Forbidden = "forbidden", FORBIDDEN, false,
        "The credential does not allow this.";
    NotFound = "not_found", NOT_FOUND, false,
        "There is no such key in the view that was read.";
    UnknownEndpoint = "unknown_endpoint", NOT_FOUND, false,
        "This program serves nothing at that path.";
    UnknownSnapshot = "unknown_snapshot", NOT_FOUND, false,
        "No snapshot has that name, or it has expired.";
    UnknownGroup = "unknown_group", NOT_FOUND, false,
        "No consumer group has that name.";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, false,
        "The path exists, but not with this method.";
    NotAcceptable = "not_acceptable", NOT_ACCEPTABLE, false,
        "None of the media types asked for can be produced here.";
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, false,
        "The request's body stopped arriving; nothing beyond what was acknowledged was applied.";
    AlreadyExists = "already_exists", CONFLICT, false,
        "Something else already has that name.";
    SnapshotExists = "snapshot_exists", CONFLICT, false,
        "A snapshot has that name already; `snapshot` says which, also where an earlier attempt has taken it.";
    TooManySnapshots = "too_many_snapshots", CONFLICT, false,
        "The database holds as many snapshots as max_snapshots allows; drop one.";
    TooManyGroups = "too_many_groups", CONFLICT, false,
        "The database holds as many consumer groups as max_groups allows; delete one.";
    WriteLost = "write_lost", CONFLICT, false,
        "The write at that position was lost with the epoch that accepted it.";
    WrongDatabase = "wrong_database", CONFLICT, false,
        "The prefix or the coordination belongs to another database.";
    ViewExpired = "view_expired", GONE, false,
        "The view this page belongs to is no longer held; start the scan again.";
    CursorExpired = "cursor_expired", GONE, false,
        "The log no longer reaches back to this cursor; `earliest` is where it starts.";
    RangeNotSatisfiable = "range_not_satisfiable", RANGE_NOT_SATISFIABLE, false,
        "The range begins beyond the value's end; `size` is its length.";
    ValueTooLarge = "value_too_large", PAYLOAD_TOO_LARGE, false,
        "A value, or the line that carries it, is above the limit.";
    BatchTooLarge = "batch_too_large", PAYLOAD_TOO_LARGE, false,
        "An atomic batch does not fit one log segment.";
    RequestTooLarge = "request_too_large", PAYLOAD_TOO_LARGE, false,
        "The request's body is above the limit of this endpoint.";
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, false,
        "The request's Content-Type is not one this endpoint reads.";
    Overloaded = "overloaded", TOO_MANY_REQUESTS, true,
        "A budget is used up; nothing was accepted. Wait `Retry-After` and repeat.";
    Damaged = "damaged", INTERNAL_SERVER_ERROR, false,
        "An object in the bucket fails its checksum or breaks its format.";
    Internal = "internal", INTERNAL_SERVER_ERROR, false,
        "A defect of this program; its log says more under the request's id.";
    NotReady = "not_ready", SERVICE_UNAVAILABLE, true,
        "The program is still starting; the message says what it waits for. Nothing was accepted.";
    NotLeader = "not_leader", SERVICE_UNAVAILABLE, true,
        "This node is not the active writer and could not reach one. Nothing was applied.";
    Fenced = "fenced", SERVICE_UNAVAILABLE, true,
        "Another writer took over before this was committed. It was not applied.";
    ShuttingDown = "shutting_down", SERVICE_UNAVAILABLE, true,
        "The program is draining and takes no new work. Nothing was accepted.";
    StoreUnavailable = "store_unavailable", SERVICE_UNAVAILABLE, true,
        "The bucket cannot be reached. Nothing was accepted.";
    CoordinationLost = "coordination_lost", SERVICE_UNAVAILABLE, false,
        "The bucket holds a database and the coordination service no head of it: it was wiped, or the root is wrong.";
    CoordinationRegressed = "coordination_regressed", SERVICE_UNAVAILABLE, false,
        "The coordination backend holds an older state than one already seen; an operator must look.";
    CoordinationUnavailable = "coordination_unavailable", SERVICE_UNAVAILABLE, true,
        "The coordination backend cannot be reached. Nothing was changed, or it was and repeating changes no more.";
    CoordinationFull = "coordination_full", SERVICE_UNAVAILABLE, true,
        "The coordination backend takes no more data until it is folded. Nothing was accepted.";
    OutcomeUnknown = "outcome_unknown", GATEWAY_TIMEOUT, false,
        "The mutation may or may not have been applied; read before repeating it.";
    ViewBehind = "view_behind", GATEWAY_TIMEOUT, true,
        "The view did not reach `min_seq` within the wait.";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for ErrorCode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().copied().find(|c| c.as_str() == text).ok_or(())
    }
}

/// How long a client is told to wait after [`ErrorCode::Overloaded`] where nobody knows better.
pub const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// One failure, ready to be shown to a client.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// The kind a client branches on.
    pub code: ErrorCode,
    /// What failed, on which object, why, and what to do.
    pub message: String,
    /// Further members of the `error` object.
    pub fields: Map<String, Value>,
    retry_after: Option<Duration>,
    headers: Option<Box<HeaderMap>>,
}

impl ApiError {
    /// A failure of kind `code`.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), fields: Map::new(), retry_after: None, headers: None }
    }

    /// 400 `invalid_request`.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    /// 400 `invalid_key`.
    #[must_use]
    pub fn invalid_key(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidKey, message)
    }

    /// 400 `unsupported`.
    #[must_use]
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unsupported, message)
    }

    /// 500 `internal`.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }

    /// Adds a member to the `error` object.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// Names the line, or frame, counted from 1, of the request that is at fault.
    #[must_use]
    pub fn line(self, number: u64) -> Self {
        self.field("line", number)
    }

    /// Asks the client to wait this long before it repeats the request.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Adds a header to the HTTP answer. A value that no header can hold is left out.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.get_or_insert_default().insert(name, value);
        }
        self
    }

    /// The `error` object itself.
    #[must_use]
    pub fn to_object(&self) -> Value {
        let mut object = self.fields.clone();
        object.insert("code".into(), self.code.as_str().into());
        object.insert("message".into(), self.message.clone().into());
        object.insert("retryable".into(), self.code.retryable().into());
        Value::Object(object)
    }

    /// The JSON of an answer: `{"error":{…}}`, with `line` beside it where one is named. It holds no line break, so it
    /// is also the error line of an NDJSON answer, the value of an error frame and the data of an SSE `error` event.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut outer = Map::new();
        if let Some(line) = self.fields.get("line") {
            outer.insert("line".into(), line.clone());
        }
        outer.insert("error".into(), self.to_object());
        Value::Object(outer).to_string()
    }

    /// The last line of an NDJSON answer, with its line break.
    #[must_use]
    pub fn to_ndjson(&self) -> String {
        let mut line = self.to_json();
        line.push('\n');
        line
    }

    /// The last frame of a frames answer.
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        let mut out = Vec::new();
        crate::wire::frame::encode_json(&mut out, crate::wire::frame::Kind::Error, self.to_json().as_bytes());
        out
    }

    /// The last event of an SSE answer.
    #[must_use]
    pub fn to_sse(&self) -> String {
        format!("event: error\ndata: {}\n\n", self.to_json())
    }

    fn wait_seconds(&self) -> Option<u64> {
        let wait = match self.code {
            ErrorCode::Overloaded => Some(self.retry_after.unwrap_or(DEFAULT_RETRY_AFTER)),
            _ => self.retry_after,
        }?;
        Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for ApiError {}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(axum::body::Body::from(self.to_json()));
        *response.status_mut() = self.code.status();
        let wait = self.wait_seconds();
        let headers = response.headers_mut();
        if let Some(own) = self.headers {
            headers.extend(*own);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = wait {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait));
        }
        if self.code == ErrorCode::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let told = Told { code: self.code, message: self.message };
        response.extensions_mut().insert(std::sync::Arc::new(told));
        response
    }
}

/// What an error answer said; the server's log reads it from the answer's extensions.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_parse_back() {
        for code in ErrorCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }

    #[test]
    fn an_answer_carries_code_message_retryable_fields_and_headers() {
        let error = ApiError::new(ErrorCode::Overloaded, "queue is full")
            .field("limit", 5)
            .line(3)
            .retry_after(Duration::from_millis(1200))
            .header(HeaderName::from_static("isle-leader"), "http://a");
        let json: Value = serde_json::from_str(&error.to_json()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"error": {"code": "overloaded", "message": "queue is full", "retryable": true,
                "limit": 5, "line": 3}, "line": 3})
        );
        let response = error.into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["isle-leader"], "http://a");
        assert_eq!(response.headers()["content-type"], "application/json");
    }

    #[test]
    fn a_message_with_line_breaks_stays_one_line() {
        let error = ApiError::invalid("a\nb\r\nc");
        assert_eq!(error.to_ndjson().matches('\n').count(), 1);
        assert_eq!(error.to_sse().lines().count(), 3);
        assert!(!error.to_json().contains('\r'));
    }
}
