//! Strings inside JSON: written fast with correct escapes, read without copying where they hold none, and the rule that a
//! key or value is either text or base64.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::base64;
use crate::error::ApiError;

/// How binary fields are written in JSON answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// As a string where the bytes are UTF-8, else as base64 under the name with `_b64`.
    #[default]
    Auto,
    /// Always as base64 (`encoding=b64`).
    Base64,
}

/// Appends `"name":"text"` or `"name_b64":"…"`.
pub fn write_field(out: &mut Vec<u8>, name: &str, bytes: &[u8], encoding: Encoding) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    match std::str::from_utf8(bytes) {
        Ok(text) if encoding == Encoding::Auto => {
            out.extend_from_slice(b"\":");
            write_string(out, text);
        }
        _ => {
            out.extend_from_slice(b"_b64\":\"");
            base64::encode_standard(out, bytes);
            out.push(b'"');
        }
    }
}

/// Appends a JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut rest = bytes;
    while let Some(at) = first_escape(rest) {
        out.extend_from_slice(&rest[..at]);
        write_escape(out, rest[at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Where the first byte lies that JSON wants escaped; looks at eight bytes at a time.
fn first_escape(bytes: &[u8]) -> Option<usize> {
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let marks = escapes(u64::from_le_bytes(*word));
        if marks != 0 {
            return Some(index * 8 + marks.trailing_zeros() as usize / 8);
        }
    }
    let in_tail = tail.iter().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\')?;
    Some(words.len() * 8 + in_tail)
}

/// Marks the top bit of bytes that are a control character, a quote or a backslash. A byte is below `n` when subtracting
/// `n` borrows into its top bit while that bit was clear; a byte equals `c` when it is zero, so below 1, after `^ c`. A
/// borrow runs upwards only, so the lowest mark is always right, and there is one whenever there should be.
fn escapes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & TOPS;
    let quote = word ^ (ONES * u64::from(b'"'));
    let backslash = word ^ (ONES * u64::from(b'\\'));
    below(word, 0x20) | below(quote, 1) | below(backslash, 1)
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(DIGITS[usize::from(byte >> 4)]);
            out.push(DIGITS[usize::from(byte & 15)]);
        }
    }
}

/// Appends a number in decimal.
pub fn write_u64(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A JSON string, borrowed from its line where it holds no escape. (A derived `Option<Cow<str>>` would always copy.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text<'a>(pub Cow<'a, str>);

impl<'a> Text<'a> {
    /// The string's bytes.
    #[must_use]
    pub fn into_bytes(self) -> Cow<'a, [u8]> {
        match self.0 {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(Strings)
    }
}

/// The bytes of a field that may come as text (`name`) or as base64 (`name_b64`), but not as both.
pub fn text_or_base64<'a>(
    name: &str,
    text: Option<Text<'a>>,
    encoded: Option<Text<'a>>,
) -> Result<Option<Cow<'a, [u8]>>, ApiError> {
    match (text, encoded) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(encoded)) => base64::decode(encoded.0.as_bytes())
            .map(|bytes| Some(Cow::Owned(bytes)))
            .map_err(|e| ApiError::invalid(format!("{name}_b64 is {e}"))),
        (Some(_), Some(_)) => Err(ApiError::invalid(format!("both {name} and {name}_b64 are given"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_string_is_written_as_json_reads_it(text in any::<String>()) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
            prop_assert!(!out.contains(&b'\n') && !out.contains(&b'\r'));
        }

        #[test]
        fn escapes_are_found_at_every_place(length in 0usize..40, at in 0usize..40, byte in 0u8..128) {
            let mut text = vec![b'x'; length];
            if let Some(slot) = text.get_mut(at) {
                *slot = byte;
            }
            let text = String::from_utf8(text).unwrap();
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn numbers_are_decimal(number in any::<u64>()) {
            let mut out = Vec::new();
            write_u64(&mut out, number);
            prop_assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }

        #[test]
        fn bytes_come_back_from_either_form(bytes in proptest::collection::vec(any::<u8>(), 0..50), force in any::<bool>()) {
            let encoding = if force { Encoding::Base64 } else { Encoding::Auto };
            let mut out = b"{".to_vec();
            write_field(&mut out, "key", &bytes, encoding);
            out.push(b'}');
            let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let text = json.get("key").map(|t| Text(t.as_str().unwrap().into()));
            let encoded = json.get("key_b64").map(|t| Text(t.as_str().unwrap().into()));
            prop_assert_eq!(text.is_some(), !force && std::str::from_utf8(&bytes).is_ok());
            let back = text_or_base64("key", text, encoded).unwrap();
            prop_assert_eq!(back.as_deref(), Some(&bytes[..]));
        }
    }

    #[test]
    fn a_string_without_escapes_is_borrowed() {
        let plain: Text<'_> = serde_json::from_str("\"plain\"").unwrap();
        assert!(matches!(plain.0, Cow::Borrowed("plain")));
        let escaped: Text<'_> = serde_json::from_str("\"a\\nb\"").unwrap();
        assert!(matches!(escaped.0, Cow::Owned(_)));
    }
}
