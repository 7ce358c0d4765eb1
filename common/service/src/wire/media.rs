//! Which media type a request has, and which one its answer should have.

use http::{HeaderMap, header};

use crate::error::{ApiError, ErrorCode};

/// A form that bulk data takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// One JSON document.
    Json,
    /// One JSON document a line.
    Ndjson,
    /// Length-prefixed binary records.
    Frames,
    /// Server-sent events.
    Sse,
}

impl Format {
    /// Its media type, as answers carry it.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Frames => "application/vnd.isle.frames",
            Self::Sse => "text/event-stream",
        }
    }

    /// Its name in `format=`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Frames => "frames",
            Self::Sse => "sse",
        }
    }

    /// The form a media type stands for; parameters such as `charset` are ignored.
    #[must_use]
    pub fn of(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| essence.eq_ignore_ascii_case(name);
        if is("application/x-ndjson") || is("application/ndjson") || is("application/jsonl") {
            Some(Self::Ndjson)
        } else if is("application/vnd.isle.frames") {
            Some(Self::Frames)
        } else if is("application/json") {
            Some(Self::Json)
        } else if is("text/event-stream") {
            Some(Self::Sse)
        } else {
            None
        }
    }
}

/// The form of a bulk request's body. NDJSON where nothing is said, for one JSON document (a line is one), and for the
/// form type that curl sends unasked; 415 for anything else.
pub fn bulk_request(headers: &HeaderMap) -> Result<Format, ApiError> {
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else { return Ok(Format::Ndjson) };
    let text = content_type.to_str().unwrap_or_default();
    match Format::of(text) {
        Some(Format::Ndjson | Format::Json) => Ok(Format::Ndjson),
        Some(Format::Frames) => Ok(Format::Frames),
        None if text.starts_with("application/x-www-form-urlencoded") => Ok(Format::Ndjson),
        _ => Err(ApiError::new(
            ErrorCode::UnsupportedMediaType,
            format!("Content-Type {text:?} is neither application/x-ndjson nor application/vnd.isle.frames"),
        )),
    }
}

/// The form of a request whose body is many records when it says so, and one plain value (`None`) otherwise.
#[must_use]
pub fn many_or_one(headers: &HeaderMap) -> Option<Format> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Format::of(text).filter(|f| matches!(f, Format::Ndjson | Format::Frames))
}

/// The form to answer in: what `format=` names, else the best of `Accept`, else the first of `offered`.
pub fn answer(headers: &HeaderMap, named: Option<&str>, offered: &[Format]) -> Result<Format, ApiError> {
    if let Some(name) = named {
        return offered.iter().copied().find(|f| f.name() == name).ok_or_else(|| {
            ApiError::invalid(format!("format={name} is not one of {}", names(offered, Format::name)))
        });
    }
    let first = offered.first().copied().unwrap_or(Format::Json);
    let mut asked = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).peekable();
    if asked.peek().is_none() {
        return Ok(first);
    }
    let mut best: Option<(Format, f32)> = None;
    for range in asked.flat_map(|value| value.split(',')) {
        let Some(format) = matching(range, offered, first) else { continue };
        let weight = quality(range);
        if weight > 0.0 && best.is_none_or(|(_, b)| weight > b) {
            best = Some((format, weight));
        }
    }
    best.map(|(format, _)| format).ok_or_else(|| {
        let message =
            format!("none of the media types asked for is one of {}", names(offered, Format::media_type));
        ApiError::new(ErrorCode::NotAcceptable, message)
    })
}

/// Whether `Accept` names this form itself, not only by a wildcard.
#[must_use]
pub fn accepts(headers: &HeaderMap, format: Format) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|range| Format::of(range) == Some(format) && quality(range) > 0.0)
}

fn matching(range: &str, offered: &[Format], first: Format) -> Option<Format> {
    let essence = range.split(';').next().unwrap_or_default().trim();
    match essence {
        "*/*" => Some(first),
        "application/*" => offered.iter().copied().find(|f| f.media_type().starts_with("application/")),
        "text/*" => offered.iter().copied().find(|f| f.media_type().starts_with("text/")),
        exact => Format::of(exact).filter(|f| offered.contains(f)),
    }
}

fn quality(range: &str) -> f32 {
    let weight = range.split(';').skip(1).find_map(|p| p.trim().strip_prefix("q="));
    weight.map_or(1.0, |w| w.trim().parse().unwrap_or(0.0))
}

fn names(offered: &[Format], name: fn(Format) -> &'static str) -> String {
    offered.iter().map(|f| name(*f)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: http::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, http::HeaderValue::from_static(value))])
    }

    #[test]
    fn a_bulk_request_is_ndjson_unless_it_says_otherwise() {
        let of = |value| bulk_request(&with(header::CONTENT_TYPE, value)).map_err(|e| e.code);
        assert_eq!(bulk_request(&HeaderMap::new()).unwrap(), Format::Ndjson);
        assert_eq!(of("application/x-ndjson; charset=utf-8"), Ok(Format::Ndjson));
        assert_eq!(of("Application/Json"), Ok(Format::Ndjson));
        assert_eq!(of("application/x-www-form-urlencoded"), Ok(Format::Ndjson));
        assert_eq!(of("application/vnd.isle.frames"), Ok(Format::Frames));
        assert_eq!(of("text/plain"), Err(ErrorCode::UnsupportedMediaType));
        assert_eq!(many_or_one(&with(header::CONTENT_TYPE, "application/json")), None);
        assert_eq!(many_or_one(&with(header::CONTENT_TYPE, "application/x-ndjson")), Some(Format::Ndjson));
    }

    #[test]
    fn an_answer_follows_format_then_accept_then_the_default() {
        let offered = [Format::Ndjson, Format::Frames];
        let of = |value| answer(&with(header::ACCEPT, value), None, &offered).map_err(|e| e.code);
        assert_eq!(answer(&HeaderMap::new(), None, &offered).unwrap(), Format::Ndjson);
        assert_eq!(of("*/*"), Ok(Format::Ndjson));
        assert_eq!(of("application/vnd.isle.frames"), Ok(Format::Frames));
        assert_eq!(of("text/html, application/vnd.isle.frames;q=0.9, */*;q=0.8"), Ok(Format::Frames));
        assert_eq!(of("application/vnd.isle.frames;q=0.1, application/x-ndjson"), Ok(Format::Ndjson));
        assert_eq!(of("text/html"), Err(ErrorCode::NotAcceptable));
        let accept_ndjson = with(header::ACCEPT, "application/x-ndjson");
        assert_eq!(answer(&accept_ndjson, Some("frames"), &offered).unwrap(), Format::Frames);
        assert!(answer(&accept_ndjson, Some("sse"), &offered).is_err());
        assert!(accepts(&accept_ndjson, Format::Ndjson));
        assert!(!accepts(&with(header::ACCEPT, "*/*"), Format::Ndjson));
    }
}
