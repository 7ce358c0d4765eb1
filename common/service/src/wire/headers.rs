//! Names of the headers that are Isle's own.

use http::HeaderName;

/// Position of a mutation, `<epoch>.<seq>`, on every mutation's answer.
pub const POSITION: HeaderName = HeaderName::from_static("isle-position");
/// Sequence number of the row that was read.
pub const SEQ: HeaderName = HeaderName::from_static("isle-seq");
/// Sequence number of the view a read was answered from.
pub const VIEW_SEQ: HeaderName = HeaderName::from_static("isle-view-seq");
/// Address of the active writer, where it is known.
pub const LEADER: HeaderName = HeaderName::from_static("isle-leader");
/// Set on a request that a standby sends on to the leader: it is sent on once only.
pub const FORWARDED: HeaderName = HeaderName::from_static("isle-forwarded");
/// The id by which a request is found in every log it touched.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C trace context; accepted and echoed.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
