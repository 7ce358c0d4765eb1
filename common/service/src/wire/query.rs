//! Query parameters: each known by name, given once, percent-decoded once.
//!
//! A `+` is a plus sign, as in paths: keys travel here (`prefix=`, `start=`), and one rule for both places is worth more
//! than the form rule that would make it a space.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;

use super::base64;
use super::duration::{self, Ttl};
use super::key::{MAX_KEY_BYTES, percent_decode};
use super::position::{MinSeq, check_token};
use super::text::Encoding;
use crate::config::nearest;
use crate::error::{ApiError, ErrorCode};

/// The parameters of one request.
#[derive(Debug, Clone, Default)]
pub struct Query {
    given: Vec<(&'static str, Vec<u8>)>,
}

impl Query {
    /// The parameters of `uri`, all of which must be in `allowed`.
    pub fn parse(uri: &Uri, allowed: &[&'static str]) -> Result<Self, ApiError> {
        let mut given: Vec<(&'static str, Vec<u8>)> = Vec::new();
        for pair in uri.query().unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
            let (raw_name, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
            let name =
                percent_decode(raw_name.as_bytes()).map_err(|e| ApiError::invalid(format!("query: {e}")))?;
            let name = allowed
                .iter()
                .copied()
                .find(|known| known.as_bytes() == name)
                .ok_or_else(|| unknown(&String::from_utf8_lossy(&name), allowed))?;
            if given.iter().any(|(known, _)| *known == name) {
                return Err(ApiError::invalid(format!("{name} is given twice")));
            }
            let value = percent_decode(raw_value.as_bytes())
                .map_err(|e| ApiError::invalid(format!("{name}: {e}")))?;
            given.push((name, value));
        }
        Ok(Self { given })
    }

    /// A parameter's bytes.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.given.iter().find(|(known, _)| *known == name).map(|(_, value)| &value[..])
    }

    /// Whether the parameter is given, with or without a value.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.bytes(name).is_some()
    }

    /// A parameter's text.
    pub fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        self.bytes(name)
            .map(|value| {
                std::str::from_utf8(value).map_err(|_| ApiError::invalid(format!("{name} is not UTF-8")))
            })
            .transpose()
    }

    /// A parameter that `T` parses.
    pub fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|e| ApiError::invalid(format!("{name}={text}: {e}")))
    }

    /// A whole number.
    pub fn u64(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten();
        number.map(Some).ok_or_else(|| ApiError::invalid(format!("{name}={text} is not a whole number")))
    }

    /// `true` or `false`; the bare name means `true`, its absence `false`.
    pub fn bool(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name)? {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => Err(ApiError::invalid(format!("{name}={other} is neither true nor false"))),
        }
    }

    /// `20s`, `500ms` or whole seconds.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, ApiError> {
        let text = self.text(name)?;
        text.map(|t| duration::parse(t).map_err(|e| ApiError::invalid(format!("{name}: {e}")))).transpose()
    }

    /// The `ttl` parameter.
    pub fn ttl(&self) -> Result<Option<Ttl>, ApiError> {
        let text = self.text("ttl")?;
        text.map(|t| Ttl::parse(t).map_err(|e| ApiError::invalid(format!("ttl: {e}")))).transpose()
    }

    /// The `min_seq` parameter: a sequence number or a position.
    pub fn min_seq(&self) -> Result<Option<MinSeq>, ApiError> {
        self.text("min_seq")?.map(str::parse).transpose()
    }

    /// The `encoding` parameter; `b64` is its only value.
    pub fn encoding(&self) -> Result<Encoding, ApiError> {
        match self.text("encoding")? {
            None => Ok(Encoding::Auto),
            Some("b64") => Ok(Encoding::Base64),
            Some(other) => {
                Err(ApiError::invalid(format!("encoding={other}: the one encoding there is, is b64")))
            }
        }
    }

    /// A cursor, page token or position, its alphabet checked.
    pub fn token(&self, name: &str) -> Result<Option<&str>, ApiError> {
        self.text(name)?.map(|token| check_token(name, token)).transpose()
    }

    /// A key or a bound: `name`, or `encoded` (`name_b64`) in base64. It may be empty, as a prefix and a bound may.
    pub fn key(&self, name: &str, encoded: &str) -> Result<Option<Bytes>, ApiError> {
        let key = match (self.bytes(name), self.bytes(encoded)) {
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid(format!("both {name} and {encoded} are given")));
            }
            (Some(text), None) => text.to_vec(),
            (None, Some(text)) => {
                base64::decode(text).map_err(|e| ApiError::invalid(format!("{encoded} is {e}")))?
            }
            (None, None) => return Ok(None),
        };
        if key.len() > MAX_KEY_BYTES {
            return Err(ApiError::invalid_key(format!(
                "{name} has {} bytes; keys have at most {MAX_KEY_BYTES}",
                key.len()
            )));
        }
        Ok(Some(key.into()))
    }
}

fn unknown(name: &str, allowed: &[&'static str]) -> ApiError {
    let known = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
    let hint =
        nearest(name, allowed.iter().copied()).map(|n| format!("; did you mean {n}?")).unwrap_or_default();
    ApiError::new(
        ErrorCode::UnknownParameter,
        format!("unknown query parameter {name:?}{hint} (known: {known})"),
    )
    .field("parameter", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: &[&str] =
        &["limit", "reverse", "wait", "prefix", "prefix_b64", "ttl", "min_seq", "page", "encoding"];

    fn parse(query: &str) -> Result<Query, ApiError> {
        Query::parse(&format!("/x?{query}").parse().unwrap(), ALLOWED)
    }

    #[test]
    fn parameters_are_typed() {
        let query =
            parse("limit=10&reverse&wait=500ms&prefix=a%2Fb+c&min_seq=2.9&ttl=30&page=aZ.-_&encoding=b64")
                .unwrap();
        assert_eq!(query.u64("limit").unwrap(), Some(10));
        assert!(query.bool("reverse").unwrap());
        assert_eq!(query.duration("wait").unwrap(), Some(Duration::from_millis(500)));
        assert_eq!(query.key("prefix", "prefix_b64").unwrap().unwrap(), "a/b+c");
        assert_eq!(query.min_seq().unwrap().unwrap().seq(), 9);
        assert_eq!(query.ttl().unwrap().unwrap().micros(), 30_000_000);
        assert_eq!(query.token("page").unwrap(), Some("aZ.-_"));
        assert_eq!(query.encoding().unwrap(), Encoding::Base64);
        let query = parse("prefix_b64=_w&reverse=false&&").unwrap();
        assert_eq!(query.key("prefix", "prefix_b64").unwrap().unwrap(), &b"\xff"[..]);
        assert!(!query.bool("reverse").unwrap() && query.u64("limit").unwrap().is_none());
    }

    #[test]
    fn an_unknown_parameter_is_named_with_the_nearest() {
        let error = parse("limt=10").unwrap_err();
        assert_eq!(error.code, ErrorCode::UnknownParameter);
        assert!(error.message.contains("\"limt\"; did you mean limit?"), "{error}");
        let error = Query::parse(&"/x?a".parse().unwrap(), &[]).unwrap_err();
        assert_eq!(error.code, ErrorCode::UnknownParameter);
    }

    #[test]
    fn bad_values_are_refused() {
        for query in ["limit=1&limit=1", "limit=%zz", "prefix=a&prefix_b64=YQ"] {
            let refused = parse(query).and_then(|q| q.key("prefix", "prefix_b64").map(|_| ()));
            assert_eq!(refused.unwrap_err().code, ErrorCode::InvalidRequest, "{query}");
        }
        let query =
            parse("limit=-1&reverse=maybe&wait=soon&prefix_b64=a&ttl=0&min_seq=x&page=a%20b&encoding=hex")
                .unwrap();
        assert!(
            query.u64("limit").is_err() && query.bool("reverse").is_err() && query.duration("wait").is_err()
        );
        assert!(
            query.key("prefix", "prefix_b64").is_err() && query.ttl().is_err() && query.min_seq().is_err()
        );
        assert!(query.token("page").is_err() && query.encoding().is_err());
        assert!(parse("limit=+1").unwrap().u64("limit").is_err());
        assert!(parse("limit=").unwrap().u64("limit").is_err());
        assert!(parse("limit=%FF").unwrap().u64("limit").is_err());
    }
}
