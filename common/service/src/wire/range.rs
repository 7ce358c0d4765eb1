//! `Range: bytes=…` of a request for one value.
//!
//! One range is served. Several at once, another unit, and what is no range at all are passed over, as RFC 9110 has it
//! for a server that does not support them: the answer is then the whole value.

use std::ops::Range;

use http::{HeaderMap, HeaderValue, header};

use crate::error::{ApiError, ErrorCode};

/// Which bytes of a value of `len` bytes are asked for; `None` where all of them are. `tag` is the value's entity tag:
/// a range that is bound to another one (`If-Range`) is passed over.
///
/// # Errors
/// 416 `range_not_satisfiable` where the range begins beyond the value's end.
pub fn requested(headers: &HeaderMap, len: u64, tag: &HeaderValue) -> Result<Option<Range<u64>>, ApiError> {
    if headers.get(header::IF_RANGE).is_some_and(|bound| bound != tag) {
        return Ok(None);
    }
    let text = headers.get(header::RANGE).and_then(|v| v.to_str().ok());
    let Some((first, last)) = text.and_then(one_range) else { return Ok(None) };
    let range = match (first, last) {
        (Some(first), last) => first..last.map_or(len, |last| len.min(last.saturating_add(1))),
        (None, Some(suffix)) => len.saturating_sub(suffix)..len,
        (None, None) => return Ok(None),
    };
    if range.start < range.end {
        return Ok(Some(range));
    }
    let message = format!("the range begins beyond the value, which has {len} bytes");
    let error = ApiError::new(ErrorCode::RangeNotSatisfiable, message).field("size", len);
    Err(error.header(header::CONTENT_RANGE, &format!("bytes */{len}")))
}

/// Whether the client has this very value already (`If-None-Match`): then 304 without a body is the answer.
#[must_use]
pub fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let texts = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    let mut tags = texts.flat_map(|text| text.split(',')).map(|t| t.trim());
    tags.any(|t| t == "*" || tag.to_str().is_ok_and(|tag| t.strip_prefix("W/").unwrap_or(t) == tag))
}

/// The `Content-Range` of a part of a value of `len` bytes.
#[must_use]
pub fn content_range(part: &Range<u64>, len: u64) -> String {
    format!("bytes {}-{}/{len}", part.start, part.end.saturating_sub(1))
}

/// `bytes=first-last`, either of which may be missing.
fn one_range(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    let number = |text: &str| match text.trim() {
        "" => Some(None),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(Some(digits.parse().unwrap_or(u64::MAX)))
        }
        _ => None,
    };
    let (first, last) = (number(first)?, number(last)?);
    let backwards = matches!((first, last), (Some(a), Some(b)) if b < a);
    (unit.trim().eq_ignore_ascii_case("bytes") && !backwards).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(range: &str, len: u64) -> Result<Option<Range<u64>>, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(range).unwrap());
        requested(&headers, len, &HeaderValue::from_static("\"7\""))
    }

    #[test]
    fn the_forms_of_a_range() {
        for (text, expected) in [
            ("bytes=0-0", Some(0..1)),
            ("bytes=2-4", Some(2..5)),
            ("Bytes=2-", Some(2..10)),
            ("bytes=-3", Some(7..10)),
            ("bytes=-99", Some(0..10)),
            ("bytes=8-99999999999999999999999", Some(8..10)),
            ("bytes=0-1,3-4", None),
            ("bytes=4-2", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("bytes=+1-2", None),
            ("lines=0-1", None),
            ("nonsense", None),
        ] {
            assert_eq!(asked(text, 10).unwrap(), expected, "{text}");
        }
        for (text, len) in [("bytes=10-", 10), ("bytes=10-20", 10), ("bytes=-0", 10), ("bytes=0-", 0)] {
            let error = asked(text, len).unwrap_err();
            assert_eq!(error.code, ErrorCode::RangeNotSatisfiable, "{text}");
        }
    }

    #[test]
    fn a_range_bound_to_another_value_is_passed_over() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"6\""));
        assert_eq!(requested(&headers, 10, &HeaderValue::from_static("\"7\"")).unwrap(), None);
        assert_eq!(requested(&headers, 10, &HeaderValue::from_static("\"6\"")).unwrap(), Some(0..2));
    }

    #[test]
    fn a_value_that_is_known_is_recognised_by_any_of_its_tags() {
        let tag = HeaderValue::from_static("\"7\"");
        for (text, known) in [
            ("\"7\"", true),
            ("\"6\", W/\"7\"", true),
            ("*", true),
            ("\"6\"", false),
            ("7", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(text).unwrap());
            assert_eq!(is_known(&headers, &tag), known, "{text}");
        }
        assert!(!is_known(&HeaderMap::new(), &tag));
    }

    proptest! {
        #[test]
        fn a_range_lies_within_its_value(text in "bytes=[0-9]{0,4}-[0-9]{0,4}", len in 0u64..9999) {
            if let Ok(Some(range)) = asked(&text, len) {
                prop_assert!(range.start < range.end && range.end <= len);
            }
        }
    }
}
