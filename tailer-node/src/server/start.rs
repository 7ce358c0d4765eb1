//! Where a consumer begins.

use http::HeaderMap;
use isle_service::ApiError;
use isle_service::wire::{Query, time};
use isle_storage::ids::{SeqNo, Timestamp};

use crate::cursor::From;
use crate::error::TailError;
use crate::tailer::{Consumer, Tailer};

/// Where a request wants to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    /// At a position that the request names.
    At(From),
    /// Where this consumer group is.
    Group(String),
}

impl Start {
    /// A consumer that begins there.
    pub(super) async fn open(&self, tailer: &Tailer) -> Result<Consumer, TailError> {
        match self {
            Self::At(from) => tailer.consume(*from).await,
            Self::Group(name) => tailer.consume_group(name).await,
        }
    }
}

/// `Last-Event-ID`, which an `EventSource` sends when it reconnects to the URL it began with, beats `from`; without
/// either a consumer begins at the newest change.
pub(super) fn start(query: &Query, headers: &HeaderMap) -> Result<Start, ApiError> {
    if let Some(id) = headers.get("last-event-id").and_then(|v| v.to_str().ok()).filter(|id| !id.is_empty()) {
        return parse("from", id).map(Start::At);
    }
    match query.text("from")? {
        Some(text) => match text.split_once(':') {
            Some(("group", name)) => Ok(Start::Group(name.to_owned())),
            _ => parse("from", text).map(Start::At),
        },
        None => Ok(Start::At(From::Latest)),
    }
}

/// A position, as the parameter or field `name` says it.
pub(super) fn parse(name: &str, text: &str) -> Result<From, ApiError> {
    let bad = |why: String| ApiError::invalid(format!("{name}={text}: {why}"));
    match text.split_once(':') {
        None if text == "earliest" => Ok(From::Earliest),
        None if text == "latest" => Ok(From::Latest),
        None => text.parse().map(From::Cursor).map_err(|e: crate::InvalidCursor| bad(e.to_string())),
        Some(("seq", n)) => {
            let n: u64 = n.parse().map_err(|_| bad("seq: takes a sequence number".to_owned()))?;
            Ok(From::Seq(SeqNo(n)))
        }
        Some(("time", t)) => {
            let micros = time::parse_rfc3339(t).map_err(bad)?;
            Ok(From::Time(Timestamp(micros)))
        }
        Some((other, _)) => {
            Err(bad(format!("{other:?} is none of earliest, latest, a cursor, seq:<n>, time:<RFC 3339>")))
        }
    }
}

#[cfg(test)]
mod tests {
    use isle_service::ErrorCode;

    use super::*;

    #[test]
    fn every_form_is_understood_and_others_are_refused() {
        let parse = |text: &str| parse("from", text);
        assert_eq!(parse("earliest").unwrap(), From::Earliest);
        assert_eq!(parse("seq:7").unwrap(), From::Seq(SeqNo(7)));
        assert_eq!(parse("time:1970-01-01T00:00:01Z").unwrap(), From::Time(Timestamp(1_000_000)));
        for bad in ["", "now", "seq:", "seq:-1", "time:yesterday", "offset:1", "1.2.3", "group:g"] {
            assert_eq!(parse(bad).unwrap_err().code, ErrorCode::InvalidRequest, "{bad}");
        }
    }

    #[test]
    fn the_last_event_id_beats_the_url() {
        let uri: http::Uri = "/v1/tail?from=group:g".parse().unwrap();
        let query = Query::parse(&uri, &["from"]).unwrap();
        assert_eq!(start(&query, &HeaderMap::new()).unwrap(), Start::Group("g".to_owned()));
        let mut headers = HeaderMap::new();
        headers.insert("last-event-id", http::HeaderValue::from_static("latest"));
        assert_eq!(start(&query, &headers).unwrap(), Start::At(From::Latest));
    }
}
