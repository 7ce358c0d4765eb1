//! Keys in request targets.
//!
//! The key of `/v1/kv/{key}` is everything between the prefix and the `?`, exactly as it came over the wire,
//! percent-decoded once, to bytes. Nothing is normalised: `a//b`, `.`, `..`, `a%2Fb` and `+` all mean themselves. Because
//! some clients and proxies do normalise paths, the same resource is also `/v1/kv?key_b64=`.

use bytes::Bytes;
use http::Uri;

use super::base64;
use crate::error::{ApiError, ErrorCode};

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 65_536;

/// Longest request target that hyper and the `http` crate carry, in bytes.
pub const MAX_TARGET_BYTES: usize = 65_534;

/// Percent-decodes once, to bytes; a `%` that is not followed by two hexadecimal digits is an error.
pub fn percent_decode(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        rest = if first == b'%' {
            let digits = tail.get(..2).and_then(|d| Some((hex(d[0])?, hex(d[1])?)));
            let Some((high, low)) = digits else {
                let at = text.len() - rest.len();
                return Err(format!("the % at byte {at} is not followed by two hexadecimal digits"));
            };
            out.push(high << 4 | low);
            &tail[2..]
        } else {
            out.push(first);
            tail
        };
    }
    Ok(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|d| d as u8)
}

/// The key a request names, for a resource under `prefix` (`"/v1/kv/"`): the raw rest of its path, or its `key_b64`
/// parameter when the path is the prefix without its last slash.
pub fn raw_key(uri: &Uri, prefix: &str) -> Result<Bytes, ApiError> {
    raw_key_or(uri, prefix, "key_b64")
}

/// [`raw_key`] with another name for the parameter.
pub fn raw_key_or(uri: &Uri, prefix: &str, parameter: &str) -> Result<Bytes, ApiError> {
    let encoded = parameter_of(uri, parameter)?;
    if uri.path() == prefix.trim_end_matches('/') {
        let encoded = encoded
            .ok_or_else(|| ApiError::invalid_key(format!("no key: give it in the path or as {parameter}")))?;
        let key =
            base64::decode(&encoded).map_err(|e| ApiError::invalid_key(format!("{parameter} is {e}")))?;
        return check_key(key.into());
    }
    if encoded.is_some() {
        return Err(ApiError::invalid_key(format!("the key is given twice, in the path and as {parameter}")));
    }
    let raw = uri.path().strip_prefix(prefix).ok_or_else(|| ApiError::invalid_key("no key in the path"))?;
    let key =
        percent_decode(raw.as_bytes()).map_err(|e| ApiError::invalid_key(format!("in the path, {e}")))?;
    check_key(key.into())
}

fn parameter_of(uri: &Uri, name: &str) -> Result<Option<Vec<u8>>, ApiError> {
    let mut found = None;
    for pair in uri.query().unwrap_or_default().split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key != name {
            continue;
        }
        let value =
            percent_decode(value.as_bytes()).map_err(|e| ApiError::invalid_key(format!("{name}: {e}")))?;
        if found.replace(value).is_some() {
            return Err(ApiError::invalid_key(format!("{name} is given twice")));
        }
    }
    Ok(found)
}

/// A key of allowed length, or 400 `invalid_key`.
pub fn check_key(key: Bytes) -> Result<Bytes, ApiError> {
    check_key_len(key.len())?;
    Ok(key)
}

/// The same by length alone.
pub fn check_key_len(len: usize) -> Result<(), ApiError> {
    if len == 0 {
        return Err(ApiError::invalid_key("the key is empty; keys have 1 to 65,536 bytes"));
    }
    if len > MAX_KEY_BYTES {
        return Err(ApiError::new(
            ErrorCode::InvalidKey,
            format!("the key has {len} bytes; keys have 1 to {MAX_KEY_BYTES}"),
        )
        .field("size", len)
        .field("limit", MAX_KEY_BYTES));
    }
    Ok(())
}

/// The key as it is written into a path: letters, digits and `-._~/` stand for themselves, every other byte is escaped.
#[must_use]
pub fn escape_key(key: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(key.len() + 16);
    for &byte in key {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    out
}

/// Whether the key survives clients and proxies that normalise paths: no empty and no dot segment.
#[must_use]
pub fn path_is_safe(key: &[u8]) -> bool {
    key.split(|b| *b == b'/').all(|segment| !matches!(segment, b"" | b"." | b".."))
}

/// The request target of `key` under `resource` (`"/v1/kv"`), in the path where it is safe there and as `key_b64`
/// otherwise; `None` when it fits no URL and a body form must be used.
#[must_use]
pub fn key_target(resource: &str, key: &[u8]) -> Option<String> {
    let in_path = path_is_safe(key).then(|| format!("{resource}/{}", escape_key(key)));
    in_path
        .filter(|target| target.len() <= MAX_TARGET_BYTES)
        .or_else(|| Some(format!("{resource}?key_b64={}", base64::encode_url(key))))
        .filter(|target| target.len() <= MAX_TARGET_BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(target: &str) -> Result<Bytes, ErrorCode> {
        raw_key(&target.parse().unwrap(), "/v1/kv/").map_err(|e| e.code)
    }

    /// A key means the bytes of its path and nothing else.
    #[test]
    fn paths_are_taken_raw_and_decoded_once() {
        for (target, expected) in [
            ("/v1/kv/a", &b"a"[..]),
            ("/v1/kv/a/b", b"a/b"),
            ("/v1/kv/a%2Fb", b"a/b"),
            ("/v1/kv/a%2fb", b"a/b"),
            ("/v1/kv/a%252Fb", b"a%2Fb"),
            ("/v1/kv/a+b", b"a+b"),
            ("/v1/kv//", b"/"),
            ("/v1/kv/a//b/", b"a//b/"),
            ("/v1/kv/.", b"."),
            ("/v1/kv/..", b".."),
            ("/v1/kv/../v1/kv/x", b"../v1/kv/x"),
            ("/v1/kv/%00%FF", b"\x00\xff"),
            ("/v1/kv/a?x=1", b"a"),
            ("/v1/kv?key_b64=Lw", b"/"),
            ("/v1/kv?a=b&key_b64=-_8%3D", b"\xfb\xff"),
        ] {
            assert_eq!(key(target).as_deref(), Ok(expected), "{target}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for target in [
            "/v1/kv/",
            "/v1/kv",
            "/v1/kv?key_b64=",
            "/v1/kv?key_b64=a",
            "/v1/kv?key_b64=Lw&key_b64=Lw",
            "/v1/kv/a?key_b64=Lw",
            "/v1/kv/?key_b64=Lw",
            "/v1/kv/a%2",
            "/v1/kv/a%zz",
            "/v1/kv/%",
            "/v1/kvx",
        ] {
            assert_eq!(key(target), Err(ErrorCode::InvalidKey), "{target}");
        }
        assert!(check_key(vec![0; MAX_KEY_BYTES].into()).is_ok());
        assert_eq!(check_key(vec![0; MAX_KEY_BYTES + 1].into()).unwrap_err().code, ErrorCode::InvalidKey);
    }

    #[test]
    fn a_target_is_the_path_the_parameter_or_nothing() {
        assert_eq!(key_target("/v1/kv", b"a/b c").as_deref(), Some("/v1/kv/a/b%20c"));
        assert_eq!(key_target("/v1/kv", b"..").as_deref(), Some("/v1/kv?key_b64=Li4"));
        assert_eq!(key_target("/v1/kv", b"a//b").as_deref(), Some("/v1/kv?key_b64=YS8vYg"));
        assert!(key_target("/v1/kv", &[0xff; 30_000]).unwrap().starts_with("/v1/kv?key_b64="));
        assert!(key_target("/v1/kv", &[b'a'; 65_000]).unwrap().starts_with("/v1/kv/a"));
        assert_eq!(key_target("/v1/kv", &[b'a'; 65_536]), None);
    }

    proptest! {
        #[test]
        fn every_target_names_its_key(bytes in proptest::collection::vec(any::<u8>(), 1..100)) {
            let target = key_target("/v1/kv", &bytes).unwrap();
            prop_assert_eq!(key(&target).unwrap(), bytes.clone());
            let path = format!("/v1/kv/{}", escape_key(&bytes));
            prop_assert_eq!(key(&path).unwrap(), bytes);
        }
    }
}
