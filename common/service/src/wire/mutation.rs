//! Mutations, events and keys as clients send them: one JSON object a line, or one frame each.
//!
//! The writer spends most of its time here when it is fed NDJSON, so strings are borrowed from the line wherever they
//! hold no escape, and nothing else is allocated.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::duration::Ttl;
use super::frame::{Frame, Kind};
use super::key::check_key_len;
use super::row::Op;
use super::text::{Text, text_or_base64};
use crate::error::{ApiError, ErrorCode};

/// One mutation of a batch or of an ingest; the key's length has been checked, the value's has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation<'a> {
    /// Set the key's value.
    Put {
        /// 1 to 65,536 bytes.
        key: Cow<'a, [u8]>,
        /// Any bytes.
        value: Cow<'a, [u8]>,
        /// Time to live, if it expires.
        ttl: Option<Ttl>,
    },
    /// Remove the key.
    Delete {
        /// 1 to 65,536 bytes.
        key: Cow<'a, [u8]>,
    },
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// Any bytes.
    pub value: Cow<'a, [u8]>,
    /// Time to live, if it expires.
    pub ttl: Option<Ttl>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MutationLine<'a> {
    op: Option<OpIn>,
    #[serde(borrow)]
    key: Option<Text<'a>>,
    #[serde(borrow)]
    key_b64: Option<Text<'a>>,
    #[serde(borrow)]
    value: Option<Text<'a>>,
    #[serde(borrow)]
    value_b64: Option<Text<'a>>,
    ttl: Option<TtlIn>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventLine<'a> {
    #[serde(borrow)]
    value: Option<Text<'a>>,
    #[serde(borrow)]
    value_b64: Option<Text<'a>>,
    ttl: Option<TtlIn>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyLine<'a> {
    #[serde(borrow)]
    key: Option<Text<'a>>,
    #[serde(borrow)]
    key_b64: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum OpIn {
    Put,
    Delete,
}

impl<'a> Mutation<'a> {
    /// From `{"op":"put","key","value","ttl"}` or `{"op":"delete","key"}`.
    pub fn from_json(line: &'a [u8]) -> Result<Self, ApiError> {
        let line: MutationLine<'a> = parse_object(line)?;
        let op = line.op.ok_or_else(|| ApiError::invalid("op is missing; it is put or delete"))?;
        let key = required_key(line.key, line.key_b64)?;
        let value = text_or_base64("value", line.value, line.value_b64)?;
        match (op, value, line.ttl) {
            (OpIn::Put, Some(value), ttl) => Ok(Self::Put { key, value, ttl: ttl.map(|t| t.0) }),
            (OpIn::Put, None, _) => Err(ApiError::invalid("a put needs value or value_b64")),
            (OpIn::Delete, None, None) => Ok(Self::Delete { key }),
            (OpIn::Delete, ..) => Err(ApiError::invalid("a delete has no value and no ttl")),
        }
    }

    /// From a put or delete frame.
    pub fn from_frame(frame: &'a Frame) -> Result<Self, ApiError> {
        check_key_len(frame.key.len())?;
        let key = Cow::Borrowed(&frame.key[..]);
        match frame.kind {
            Kind::Put => {
                Ok(Self::Put { key, value: Cow::Borrowed(&frame.value[..]), ttl: frame_ttl(frame)? })
            }
            Kind::Delete if frame.value.is_empty() && frame.expires == 0 => Ok(Self::Delete { key }),
            Kind::Delete => Err(ApiError::invalid("a delete has no value and no ttl")),
            other => Err(unexpected(other, "put or delete")),
        }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    /// Length of key and value.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
        }
    }

    /// What it does.
    #[must_use]
    pub fn op(&self) -> Op {
        match self {
            Self::Put { .. } => Op::Put,
            Self::Delete { .. } => Op::Delete,
        }
    }

    /// 413 `value_too_large` when its value is above `limit` bytes.
    pub fn check_value(&self, limit: usize) -> Result<(), ApiError> {
        match self {
            Self::Put { value, .. } => check_value_len(value.len(), limit),
            Self::Delete { .. } => Ok(()),
        }
    }
}

impl<'a> Event<'a> {
    /// From `{"value","ttl"}`.
    pub fn from_json(line: &'a [u8]) -> Result<Self, ApiError> {
        let line: EventLine<'a> = parse_object(line)?;
        let value = text_or_base64("value", line.value, line.value_b64)?
            .ok_or_else(|| ApiError::invalid("an event needs value or value_b64"))?;
        Ok(Self { value, ttl: line.ttl.map(|t| t.0) })
    }

    /// From a put frame without a key.
    pub fn from_frame(frame: &'a Frame) -> Result<Self, ApiError> {
        match frame.kind {
            Kind::Put if frame.key.is_empty() => {
                Ok(Self { value: Cow::Borrowed(&frame.value[..]), ttl: frame_ttl(frame)? })
            }
            Kind::Put => {
                Err(ApiError::invalid("an event's frame has no key: the stream and its number make it"))
            }
            other => Err(unexpected(other, "put")),
        }
    }
}

/// The key of a `{"key"}` or `{"key_b64"}` line.
pub fn key_from_json(line: &[u8]) -> Result<Cow<'_, [u8]>, ApiError> {
    let line: KeyLine<'_> = parse_object(line)?;
    required_key(line.key, line.key_b64)
}

/// The key of a key frame.
pub fn key_from_frame(frame: &Frame) -> Result<Cow<'_, [u8]>, ApiError> {
    match frame.kind {
        Kind::Key => {
            check_key_len(frame.key.len())?;
            Ok(Cow::Borrowed(&frame.key[..]))
        }
        other => Err(unexpected(other, "key")),
    }
}

/// 413 `value_too_large` for a value above `limit` bytes.
pub fn check_value_len(size: usize, limit: usize) -> Result<(), ApiError> {
    if size <= limit {
        return Ok(());
    }
    let message = format!("the value has {size} bytes; the limit is {limit}");
    Err(ApiError::new(ErrorCode::ValueTooLarge, message).field("size", size).field("limit", limit))
}

/// Parses one JSON object, refusing anything else, in particular the arrays that serde takes for structs.
pub fn parse_object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, ApiError> {
    match json.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'{') => serde_json::from_slice(json).map_err(|e| ApiError::invalid(json_message(&e))),
        Some(_) => Err(ApiError::invalid("expected a JSON object")),
        None => Err(ApiError::invalid("expected a JSON object, found nothing")),
    }
}

/// What serde_json says, with the column as a position within the line.
fn json_message(error: &serde_json::Error) -> String {
    let full = error.to_string();
    let tail = format!(" at line {} column {}", error.line(), error.column());
    match full.strip_suffix(&tail) {
        Some(message) if error.line() <= 1 => format!("{message} (column {})", error.column()),
        _ => full,
    }
}

fn required_key<'a>(key: Option<Text<'a>>, encoded: Option<Text<'a>>) -> Result<Cow<'a, [u8]>, ApiError> {
    let key = text_or_base64("key", key, encoded)?
        .ok_or_else(|| ApiError::invalid_key("key or key_b64 is missing"))?;
    check_key_len(key.len())?;
    Ok(key)
}

fn frame_ttl(frame: &Frame) -> Result<Option<Ttl>, ApiError> {
    match frame.expires {
        0 => Ok(None),
        micros => Ttl::from_micros(micros).map(Some).map_err(ApiError::invalid),
    }
}

fn unexpected(kind: Kind, expected: &str) -> ApiError {
    ApiError::invalid(format!("a frame of kind {kind:?} where one of kind {expected} belongs"))
}

/// A `ttl` member: text with a unit, or whole seconds.
#[derive(Debug, Clone, Copy)]
pub struct TtlIn(
    /// The time to live it stands for.
    pub Ttl,
);

impl<'de> Deserialize<'de> for TtlIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ttls;
        impl Visitor<'_> for Ttls {
            type Value = TtlIn;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a ttl such as \"30s\", or whole seconds above zero")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TtlIn, E> {
                Ttl::parse(text).map(TtlIn).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<TtlIn, E> {
                Ttl::from_seconds(seconds).map(TtlIn).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Ttls)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::text::{Encoding, write_field};
    use super::*;

    fn code(line: &str) -> ErrorCode {
        Mutation::from_json(line.as_bytes()).unwrap_err().code
    }

    #[test]
    fn puts_and_deletes_are_read_from_either_form() {
        let put = Mutation::from_json(br#"{"op":"put","key":"k","value":"v","ttl":"30s"}"#).unwrap();
        let expected = Mutation::Put {
            key: Cow::Borrowed(b"k"),
            value: Cow::Borrowed(b"v"),
            ttl: Some(Ttl::from_seconds(30).unwrap()),
        };
        assert_eq!(put, expected);
        let escaped =
            Mutation::from_json(br#" {"ttl":30,"value_b64":"dg","key_b64":"aw==","op":"put"} "#).unwrap();
        assert_eq!(escaped, expected);
        let delete = Mutation::from_json(br#"{"op":"delete","key":"\u0000"}"#).unwrap();
        assert_eq!(delete.key(), b"\0");
        assert_eq!((delete.op(), delete.size()), (Op::Delete, 1));
    }

    #[test]
    fn strings_without_escapes_are_not_copied() {
        let Mutation::Put { key, value, .. } =
            Mutation::from_json(br#"{"op":"put","key":"k","value":"v"}"#).unwrap()
        else {
            panic!("a put");
        };
        assert!(matches!((key, value), (Cow::Borrowed(_), Cow::Borrowed(_))));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for line in [
            "",
            "{",
            "[]",
            r#"["put","k",null,"v",null,null]"#,
            "null",
            r#"{"key":"k","value":"v"}"#,
            r#"{"op":"append","key":"k","value":"v"}"#,
            r#"{"op":"put","key":"k"}"#,
            r#"{"op":"put","key":"k","value":"v","extra":1}"#,
            r#"{"op":"put","key":"k","key_b64":"aw","value":"v"}"#,
            r#"{"op":"put","key":"k","value":"v","value_b64":"dg"}"#,
            r#"{"op":"put","key":"k","key":"k","value":"v"}"#,
            r#"{"op":"put","key":1,"value":"v"}"#,
            r#"{"op":"put","key":"k","value":{"a":1}}"#,
            r#"{"op":"put","key":"k","value":"v","ttl":0}"#,
            r#"{"op":"put","key":"k","value":"v","ttl":-1}"#,
            r#"{"op":"put","key":"k","value":"v","ttl":1.5}"#,
            r#"{"op":"put","key":"k","value":"v","ttl":"0s"}"#,
            r#"{"op":"put","key":"k","value":"v","ttl":18446744073709551615}"#,
            r#"{"op":"delete","key":"k","value":"v"}"#,
            r#"{"op":"delete","key":"k","ttl":1}"#,
            r#"{"op":"put","key":"k","value":"v"} {}"#,
            r#"{"op":"put","key":"k","value":"\ud800"}"#,
            "{\"op\":\"put\",\"key\":\"k\",\"value\":\"\u{1}\"}",
        ] {
            assert_eq!(code(line), ErrorCode::InvalidRequest, "{line}");
        }
        assert_eq!(code(r#"{"op":"put","key":"","value":"v"}"#), ErrorCode::InvalidKey);
        assert_eq!(code(r#"{"op":"put","value":"v"}"#), ErrorCode::InvalidKey);
        let long = format!(r#"{{"op":"delete","key":"{}"}}"#, "k".repeat(65_537));
        assert_eq!(code(&long), ErrorCode::InvalidKey);
        assert!(Mutation::from_json(b"{\"op\":\"put\",\"key\":\"k\",\"value\":\"\xff\"}").is_err());
    }

    #[test]
    fn a_message_names_the_column() {
        let error = Mutation::from_json(br#"{"op":"put","key":"k","colour":"red"}"#).unwrap_err();
        assert!(error.message.contains("unknown field `colour`"), "{error}");
        assert!(error.message.contains("(column 30)"), "{error}");
    }

    fn frame(kind: Kind, key: &'static [u8], value: &'static [u8], expires: i64) -> Frame {
        Frame {
            kind,
            seq: 0,
            time: 0,
            expires,
            key: Bytes::from_static(key),
            value: Bytes::from_static(value),
        }
    }

    #[test]
    fn frames_mean_the_same() {
        let put = frame(Kind::Put, b"k", b"v", 5);
        assert_eq!(
            Mutation::from_frame(&put).unwrap(),
            Mutation::Put {
                key: Cow::Borrowed(b"k"),
                value: Cow::Borrowed(b"v"),
                ttl: Some(Ttl::from_micros(5).unwrap())
            }
        );
        assert!(Mutation::from_frame(&frame(Kind::Put, b"", b"v", 0)).is_err());
        assert!(Mutation::from_frame(&frame(Kind::Put, b"k", b"v", -5)).is_err());
        assert!(Mutation::from_frame(&frame(Kind::Delete, b"k", b"", 0)).is_ok());
        assert!(Mutation::from_frame(&frame(Kind::Delete, b"k", b"v", 0)).is_err());
        assert!(Mutation::from_frame(&frame(Kind::Key, b"k", b"", 0)).is_err());
        assert_eq!(&*key_from_frame(&frame(Kind::Key, b"k", b"", 0)).unwrap(), b"k");
        assert!(key_from_frame(&put).is_err());
        assert!(Event::from_frame(&frame(Kind::Put, b"", b"v", 0)).is_ok());
        assert!(Event::from_frame(&put).is_err());
    }

    #[test]
    fn events_and_keys() {
        assert_eq!(&*Event::from_json(br#"{"value":""}"#).unwrap().value, b"");
        assert!(Event::from_json(b"{}").is_err());
        assert!(Event::from_json(br#"{"key":"k","value":"v"}"#).is_err());
        assert_eq!(&*key_from_json(br#"{"key_b64":"_w"}"#).unwrap(), b"\xff");
        assert!(key_from_json(br#"{"key":"a","x":1}"#).is_err());
    }

    #[test]
    fn a_value_above_the_limit_names_both_sizes() {
        let error = check_value_len(9, 8).unwrap_err();
        assert_eq!(error.code, ErrorCode::ValueTooLarge);
        assert_eq!((&error.fields["size"], &error.fields["limit"]), (&9.into(), &8.into()));
    }

    fn line(op: &str, key: &[u8], value: Option<&[u8]>, encoding: Encoding) -> Vec<u8> {
        let mut out = format!("{{\"op\":\"{op}\",").into_bytes();
        write_field(&mut out, "key", key, encoding);
        if let Some(value) = value {
            out.push(b',');
            write_field(&mut out, "value", value, encoding);
        }
        out.push(b'}');
        out
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<String>().prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..60)
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(key in bytes(), value in bytes(), force in any::<bool>()) {
            prop_assume!(!key.is_empty());
            let encoding = if force { Encoding::Base64 } else { Encoding::Auto };
            let put = line("put", &key, Some(&value), encoding);
            let expected = Mutation::Put { key: Cow::Borrowed(&key), value: Cow::Borrowed(&value), ttl: None };
            prop_assert_eq!(Mutation::from_json(&put).unwrap(), expected);
            let delete = line("delete", &key, None, encoding);
            prop_assert_eq!(Mutation::from_json(&delete).unwrap(), Mutation::Delete { key: Cow::Borrowed(&key) });
        }

        /// Damage anywhere in a line is an error or another mutation, never a panic.
        #[test]
        fn no_line_makes_it_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
            let mut damaged = br#"{"op":"put","key":"k\u00e9y","value_b64":"dg==","ttl":"1h 30m"}"#.to_vec();
            let at = at.index(damaged.len());
            damaged[at] = byte;
            if cut {
                damaged.truncate(at);
            }
            let _judged = (Mutation::from_json(&damaged), Event::from_json(&damaged), key_from_json(&damaged));
        }
    }
}
