//! What a provider's error means to a caller.
//!
//! "Someone else was first" is 412 at S3 and GCS, 409 at Azure, and 409 or 404 at S3 while another request on the
//! same name is under way. A missing bucket is 404 too, and must never be read as a missing object: an empty answer
//! to "is there a database here?" is how one gets overwritten.
//!
//! The `object_store` crate keeps the status in a type nobody outside can name, so it is read from the message.

use std::error::Error as _;
use std::time::Duration;

use object_store::Error;
use object_store::client::HttpError;

use crate::object::{StoreError, StoreErrorKind};

/// A longer message is cut: providers answer with pages of XML.
const MAX_MESSAGE: usize = 600;

/// Codes in an answer's body that mean "the bucket, not the object".
const NO_BUCKET: [&str; 4] =
    ["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist", "InvalidBucketName"];

/// Codes of a 400 that are about credentials.
const BAD_CREDENTIALS: [&str; 5] = [
    "ExpiredToken",
    "InvalidToken",
    "InvalidAccessKeyId",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
];

/// Translates an error of the client.
pub(in crate::object) fn explain(op: &'static str, path: &str, error: &Error) -> StoreError {
    let text = whole_text(error);
    let kind = classify(op, error, &text);
    let message = match kind {
        StoreErrorKind::Denied => format!("the store refused the credentials: {}", shortened(&text)),
        _ if speaks_of_bucket(&text) => format!("the bucket does not exist: {}", shortened(&text)),
        _ => shortened(&text),
    };
    StoreError { kind, op, path: path.to_owned(), message }
}

/// A request that stayed without progress.
pub(in crate::object) fn timed_out(op: &'static str, path: &str, limit: Duration) -> StoreError {
    let message = format!("no answer within {:.1} s", limit.as_secs_f32());
    StoreError { kind: StoreErrorKind::Transient, op, path: path.to_owned(), message }
}

/// Whether a create's conflict leaves open if the object exists: 409 or 404 without the word "exists".
pub(in crate::object) fn is_open_conflict(error: &StoreError) -> bool {
    match error.kind {
        StoreErrorKind::NotFound => true,
        StoreErrorKind::AlreadyExists => {
            status(&error.message) == Some(409) && !error.message.contains("AlreadyExists")
        }
        _ => false,
    }
}

fn classify(op: &'static str, error: &Error, text: &str) -> StoreErrorKind {
    use StoreErrorKind as K;
    match error {
        _ if speaks_of_bucket(text) => K::Permanent,
        Error::NotFound { .. } => K::NotFound,
        Error::AlreadyExists { .. } if op == "create" => K::AlreadyExists,
        Error::AlreadyExists { .. } => K::Transient,
        Error::Precondition { .. } | Error::NotModified { .. } if op == "create" => K::AlreadyExists,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => K::Denied,
        Error::NotSupported { .. } | Error::NotImplemented { .. } => K::Unsupported,
        Error::JoinError { .. } => K::Transient,
        Error::Generic { .. } => generic(error, text),
        _ => K::Permanent,
    }
}

fn generic(error: &Error, text: &str) -> StoreErrorKind {
    use StoreErrorKind as K;
    if broken_connection(error) {
        return K::Transient;
    }
    match status(text) {
        Some(401 | 403) => K::Denied,
        Some(400) if BAD_CREDENTIALS.iter().any(|code| text.contains(code)) => K::Denied,
        Some(400) if text.contains("RequestTimeout") => K::Transient,
        Some(501) => K::Unsupported,
        Some(408 | 429 | 500..=599) => K::Transient,
        // An OK whose body says it was none.
        None if text.contains("InternalError") || text.contains("SlowDown") => K::Transient,
        _ => K::Permanent,
    }
}

/// Whether the request died below HTTP: no connection, a reset, an unfinished answer.
fn broken_connection(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<HttpError>() {
            return true;
        }
        cause = inner.source();
    }
    false
}

fn speaks_of_bucket(text: &str) -> bool {
    NO_BUCKET.iter().any(|code| text.contains(code))
}

/// The HTTP status in the client's message.
fn status(text: &str) -> Option<u16> {
    let (_, after) = text.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

/// The error with its innermost cause, which often is the only one that says why ("connection refused").
fn whole_text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text
}

/// On one line, and not longer than a person reads.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_MESSAGE) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: &str, body: &str) -> Box<dyn std::error::Error + Send + Sync> {
        format!(
            "Error performing PUT http://s/b in 1ms - Server returned non-2xx status code: {status}: {body}"
        )
        .into()
    }

    fn generic(status: &str, body: &str) -> Error {
        Error::Generic { store: "S3", source: answered(status, body) }
    }

    fn kind(op: &'static str, error: &Error) -> StoreErrorKind {
        explain(op, "x", error).kind
    }

    /// 409, 412 and 404 mean "someone else won" in different stores.
    #[test]
    fn another_winner_is_told_from_a_conflict_that_leaves_it_open() {
        let exists = |status, body| Error::AlreadyExists { path: "x".into(), source: answered(status, body) };
        let won = explain("create", "x", &exists("412 Precondition Failed", "PreconditionFailed"));
        assert_eq!((won.kind, is_open_conflict(&won)), (StoreErrorKind::AlreadyExists, false));
        let won = explain("create", "x", &exists("409 Conflict", "<Code>BlobAlreadyExists</Code>"));
        assert_eq!((won.kind, is_open_conflict(&won)), (StoreErrorKind::AlreadyExists, false));
        let open = explain("create", "x", &exists("409 Conflict", "ConditionalRequestConflict"));
        assert!(is_open_conflict(&open), "another request on the name may be under way");
        let gone = Error::NotFound { path: "x".into(), source: answered("404 Not Found", "NoSuchKey") };
        assert!(is_open_conflict(&explain("create", "x", &gone)));
        assert_eq!(kind("put", &exists("409 Conflict", "OperationAborted")), StoreErrorKind::Transient);
    }

    #[test]
    fn a_missing_bucket_is_never_a_missing_object() {
        let gone = |body| Error::NotFound { path: "x".into(), source: answered("404 Not Found", body) };
        assert_eq!(kind("get", &gone("<Code>NoSuchKey</Code>")), StoreErrorKind::NotFound);
        for body in ["<Code>NoSuchBucket</Code>", "<Code>ContainerNotFound</Code>"] {
            let error = explain("get", "x", &gone(body));
            assert_eq!(error.kind, StoreErrorKind::Permanent);
            assert!(error.message.contains("the bucket does not exist"), "{error}");
        }
    }

    #[test]
    fn what_passes_and_what_does_not() {
        for passing in ["503 Service Unavailable", "500 Internal Server Error", "429 Too Many Requests"] {
            assert_eq!(kind("get", &generic(passing, "SlowDown")), StoreErrorKind::Transient, "{passing}");
        }
        let reset = HttpError::new(object_store::client::HttpErrorKind::Interrupted, std::fmt::Error);
        assert_eq!(
            kind("get", &Error::Generic { store: "S3", source: reset.into() }),
            StoreErrorKind::Transient
        );
        assert_eq!(kind("get", &generic("400 Bad Request", "ExpiredToken")), StoreErrorKind::Denied);
        assert_eq!(kind("get", &generic("403 Forbidden", "")), StoreErrorKind::Denied);
        assert_eq!(kind("create", &generic("501 Not Implemented", "")), StoreErrorKind::Unsupported);
        assert_eq!(kind("get", &generic("416 Range Not Satisfiable", "")), StoreErrorKind::Permanent);
    }
}
