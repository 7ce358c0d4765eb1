//! Rows and changes as JSON, written by hand: a scan writes hundreds of thousands of them a second.

use super::text::{Encoding, write_field, write_string, write_u64};
use super::time::write_rfc3339;

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// The key got this value.
    Put,
    /// The key is gone.
    Delete,
}

impl Op {
    /// As it stands in `op` and in SSE's `event:`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Delete => "delete",
        }
    }
}

/// One row or change, borrowed, as an answer shows it.
#[derive(Debug, Clone, Copy)]
pub struct RowJson<'a> {
    /// Present in changes, absent in rows.
    pub op: Option<Op>,
    /// The key.
    pub key: &'a [u8],
    /// The value; absent for deletes and in `keys_only` scans.
    pub value: Option<&'a [u8]>,
    /// Length of a value that is too large for a row, and is fetched by itself.
    pub value_len: Option<u64>,
    /// Sequence number.
    pub seq: u64,
    /// Write time, microseconds since 1970.
    pub time: i64,
    /// Expiry, microseconds since 1970.
    pub expires: Option<i64>,
    /// The cursor after this change, in NDJSON tails.
    pub cursor: Option<&'a str>,
}

/// Appends the row as one JSON object, without a line break.
pub fn write_row_json(out: &mut Vec<u8>, row: &RowJson<'_>, encoding: Encoding) {
    out.reserve(row.key.len() + row.value.map_or(0, <[u8]>::len) + 160);
    out.push(b'{');
    if let Some(op) = row.op {
        out.extend_from_slice(b"\"op\":\"");
        out.extend_from_slice(op.as_str().as_bytes());
        out.extend_from_slice(b"\",");
    }
    write_field(out, "key", row.key, encoding);
    if let Some(value) = row.value {
        out.push(b',');
        write_field(out, "value", value, encoding);
    }
    if let Some(len) = row.value_len {
        out.extend_from_slice(b",\"value_len\":");
        write_u64(out, len);
    }
    out.extend_from_slice(b",\"seq\":");
    write_u64(out, row.seq);
    out.extend_from_slice(b",\"time\":\"");
    write_rfc3339(out, row.time);
    match row.expires {
        None => out.extend_from_slice(b"\",\"expires\":null"),
        Some(expires) => {
            out.extend_from_slice(b"\",\"expires\":\"");
            write_rfc3339(out, expires);
            out.push(b'"');
        }
    }
    if let Some(cursor) = row.cursor {
        out.extend_from_slice(b",\"cursor\":");
        write_string(out, cursor);
    }
    out.push(b'}');
}

/// Appends what a multi-get answers for an absent key: `{"key":…,"found":false}`.
pub fn write_absent_json(out: &mut Vec<u8>, key: &[u8], encoding: Encoding) {
    out.push(b'{');
    write_field(out, "key", key, encoding);
    out.extend_from_slice(b",\"found\":false}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<'a>() -> RowJson<'a> {
        RowJson {
            op: None,
            key: b"k",
            value: Some(b"v"),
            value_len: None,
            seq: 7,
            time: 0,
            expires: None,
            cursor: None,
        }
    }

    fn text(row: &RowJson<'_>, encoding: Encoding) -> String {
        let mut out = Vec::new();
        write_row_json(&mut out, row, encoding);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_row_as_the_contract_shows_it() {
        assert_eq!(
            text(&row(), Encoding::Auto),
            r#"{"key":"k","value":"v","seq":7,"time":"1970-01-01T00:00:00.000000Z","expires":null}"#
        );
    }

    #[test]
    fn a_change_has_op_and_cursor_and_binary_fields_are_base64() {
        let change = RowJson {
            op: Some(Op::Delete),
            key: b"\xff",
            value: None,
            expires: Some(1),
            cursor: Some("c.1"),
            ..row()
        };
        assert_eq!(
            text(&change, Encoding::Auto),
            r#"{"op":"delete","key_b64":"/w==","seq":7,"time":"1970-01-01T00:00:00.000000Z","expires":"1970-01-01T00:00:00.000001Z","cursor":"c.1"}"#
        );
        assert!(text(&row(), Encoding::Base64).starts_with(r#"{"key_b64":"aw==","value_b64":"dg==","#));
    }

    #[test]
    fn a_value_too_large_for_a_row_shows_its_length() {
        let large = RowJson { value: None, value_len: Some(9_000_000), ..row() };
        assert!(text(&large, Encoding::Auto).starts_with(r#"{"key":"k","value_len":9000000,"seq":7,"#));
    }

    #[test]
    fn an_absent_key() {
        let mut out = Vec::new();
        write_absent_json(&mut out, b"a\"", Encoding::Auto);
        assert_eq!(out, br#"{"key":"a\"","found":false}"#);
    }
}
