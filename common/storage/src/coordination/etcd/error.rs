//! What a failed etcd call means: the client library's errors sorted into the few kinds a caller branches on.
//!
//! The kind that matters is [`CallError::Unclear`]: the request was sent and nobody knows whether it was, or will
//! be, applied. Everything not known to be something better is that.

use etcd_client::Error;

use crate::coordination::CoordinationError;

/// gRPC status codes, as numbers: the client library does not hand out their type.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

/// How to give a full etcd room again.
const MEND_FULL: &str = "free it with `etcdctl compact <revision>` (the newest one, as `etcdctl endpoint status` shows \
    it), `etcdctl defrag` and `etcdctl alarm disarm`; keep it free with `--auto-compaction-retention=5m` and, where \
    needed, a larger `--quota-backend-bytes`";

/// Why a call to etcd gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallError {
    /// Nothing reached etcd: repeating at once is safe.
    NotSent(String),
    /// It may have been applied, or may yet be.
    Unclear(String),
    /// etcd's database is over its quota. A write may have been applied all the same: the one that crosses the
    /// quota is, and is still answered like this.
    Full(String),
    /// The lease named by the request does not exist: it was not applied.
    LeaseGone(String),
    /// The credentials are refused: it was not applied.
    Denied(String),
    /// Another definite refusal: it was not applied, and repeating will not help.
    Refused(String),
}

impl CallError {
    /// Sorts a client error.
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::GRpcStatus(status) => {
                Self::of_status(status.code() as i32, status.message(), &root_cause(error))
            }
            Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
                Self::Refused(error.to_string())
            }
            Error::LeaseKeepAliveError(why) if why.contains("lease not found") => {
                Self::LeaseGone(why.clone())
            }
            _ => Self::Unclear(error.to_string()),
        }
    }

    fn of_status(status: i32, message: &str, details: &str) -> Self {
        let message = if message.is_empty() { "no reason given" } else { message };
        let text = || format!("{message}{details}");
        if message.starts_with("tcp connect error") || message.starts_with("dns error") {
            return Self::NotSent(text());
        }
        match status {
            code::RESOURCE_EXHAUSTED if message.contains("space exceeded") => Self::Full(format!(
                "coordination_full: etcd's database is over its quota ({message}): {MEND_FULL}"
            )),
            code::UNAUTHENTICATED | code::PERMISSION_DENIED => {
                Self::Denied(format!("etcd refuses the credentials: {}", text()))
            }
            // The token is older than the last change of users or roles: a new connection authenticates afresh.
            code::INVALID_ARGUMENT if message.contains("auth store is old") => Self::Unclear(text()),
            code::INVALID_ARGUMENT
                if message.contains("authentication failed") || message.contains("user name") =>
            {
                Self::Denied(format!("etcd refuses the credentials: {}", text()))
            }
            code::FAILED_PRECONDITION if message.contains("authentication is not enabled") => {
                Self::Refused("coordination.username is set, but etcd has authentication disabled".to_owned())
            }
            code::INVALID_ARGUMENT | code::UNIMPLEMENTED => {
                Self::Refused(format!("etcd refuses the request: {}", text()))
            }
            _ if message.contains("requested lease not found") => Self::LeaseGone(text()),
            _ => Self::Unclear(text()),
        }
    }

    /// The reason, for people.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::NotSent(why)
            | Self::Unclear(why)
            | Self::Full(why)
            | Self::LeaseGone(why)
            | Self::Denied(why)
            | Self::Refused(why) => why,
        }
    }

    /// The same, saying where.
    pub(super) fn at(self, endpoint: &str) -> Self {
        match self {
            Self::NotSent(why) => Self::NotSent(format!("{endpoint}: {why}")),
            Self::Unclear(why) => Self::Unclear(format!("{endpoint}: {why}")),
            other => other,
        }
    }

    /// Whether another connection may do better.
    pub(super) fn is_connection(&self) -> bool {
        matches!(self, Self::NotSent(_) | Self::Unclear(_))
    }
}

/// What lies at the bottom of an error, in its own words, where it says more than the error itself.
fn root_cause(error: &Error) -> String {
    let mut root = match error {
        Error::GRpcStatus(status) => std::error::Error::source(status),
        _ => None,
    };
    while let Some(deeper) = root.and_then(std::error::Error::source) {
        root = Some(deeper);
    }
    let said = error.to_string();
    root.map(ToString::to_string)
        .filter(|text| !said.contains(text))
        .map(|t| format!(": {t}"))
        .unwrap_or_default()
}

impl From<CallError> for CoordinationError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotSent(why) | CallError::Unclear(why) | CallError::LeaseGone(why) => {
                Self::Unavailable(why)
            }
            CallError::Denied(why) => Self::Denied(why),
            CallError::Full(why) => Self::Full(why),
            CallError::Refused(why) => Self::Refused(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_dial_counts_as_not_sent() {
        let not_sent = CallError::of_status(14, "tcp connect error", ": Connection refused");
        assert_eq!(not_sent, CallError::NotSent("tcp connect error: Connection refused".to_owned()));
        for text in ["transport error", "etcdserver: leader changed", "etcdserver: request timed out", ""] {
            assert!(matches!(CallError::of_status(14, text, ""), CallError::Unclear(_)), "{text}");
        }
    }

    #[test]
    fn a_full_etcd_names_the_commands_that_mend_it() {
        let full = CallError::of_status(8, "etcdserver: mvcc: database space exceeded", "");
        assert!(matches!(full, CallError::Full(_)));
        for part in ["coordination_full", "etcdctl compact", "etcdctl defrag", "etcdctl alarm disarm"] {
            assert!(full.reason().contains(part), "{part}");
        }
        let full = CoordinationError::from(full);
        assert!(
            matches!(full, CoordinationError::Full(_)) && full.is_passing(),
            "it passes once there is room"
        );
        assert!(matches!(
            CallError::of_status(8, "etcdserver: too many requests", ""),
            CallError::Unclear(_)
        ));
    }

    #[test]
    fn refused_credentials_do_not_pass() {
        for (code, text) in [
            (16, "etcdserver: invalid auth token"),
            (7, "etcdserver: permission denied"),
            (3, "etcdserver: authentication failed, invalid user ID or password"),
            (3, "etcdserver: user name is empty"),
        ] {
            assert!(!CoordinationError::from(CallError::of_status(code, text, "")).is_passing(), "{text}");
        }
        let old = CallError::of_status(3, "etcdserver: revision of auth store is old", "");
        assert!(matches!(old, CallError::Unclear(_)));
    }
}
