//! The lines of a dump, for people or as JSON, one object a line.

use isle_service::wire::text::write_field;
use isle_service::wire::time::write_rfc3339;
use isle_service::wire::{Encoding, Op, RowJson, write_row_json};
use isle_storage::format::Damage;
use isle_storage::log::text;
use isle_storage::row::{RowRef, ValueRef};
use serde::Serialize;
use serde_json::json;
use std::ops::Range;

use super::Object;
use crate::args::HowToDump;
use crate::output::{self, Failure};

/// Lines are written out when so many bytes have gathered.
const FLUSH_AT: usize = 64 * 1024;

/// Where the lines of one object's dump go.
pub(super) struct Printer<'a> {
    name: &'a str,
    json: bool,
    rows: bool,
    out: Vec<u8>,
    damaged: Vec<Range<u64>>,
}

impl<'a> Printer<'a> {
    pub(super) fn new(object: &'a Object, how: &HowToDump) -> Self {
        Self { name: &object.name, json: how.json, rows: !how.no_rows, out: Vec::new(), damaged: Vec::new() }
    }

    /// Facts of the object: `text` may be several lines, `value` is what they say under `name`.
    pub(super) fn fact(&mut self, name: &str, text: &str, value: &impl Serialize) -> Result<(), Failure> {
        if self.json {
            let line = serde_json::to_vec(&json!({ name: value }))?;
            self.out.extend_from_slice(&line);
        } else {
            self.out.extend_from_slice(text.trim_end().as_bytes());
        }
        self.end_line()
    }

    /// A block's beginning.
    pub(super) fn block(&mut self, at: &Range<u64>, rows: u64) -> Result<(), Failure> {
        let value = json!({ "from": at.start, "to": at.end, "rows": rows });
        self.fact("block", &format!("block at={}..{} rows={rows}", at.start, at.end), &value)
    }

    /// Whether rows are wanted.
    pub(super) fn wants_rows(&self) -> bool {
        self.rows
    }

    pub(super) fn row(&mut self, row: &RowRef<'_>) -> Result<(), Failure> {
        if self.json {
            row_json(&mut self.out, row);
        } else {
            self.out.extend_from_slice(text::row(row).as_bytes());
        }
        self.end_line()
    }

    /// A place that cannot be read.
    pub(super) fn damage(&mut self, damage: &Damage) -> Result<(), Failure> {
        let Damage { range, error } = damage;
        self.damaged.push(range.clone());
        let value = json!({ "from": range.start, "to": range.end, "why": error.to_string() });
        self.fact("damage", &format!("DAMAGE at={}..{} {error}", range.start, range.end), &value)
    }

    fn end_line(&mut self) -> Result<(), Failure> {
        self.out.push(b'\n');
        if self.out.len() < FLUSH_AT {
            return Ok(());
        }
        output::write(&std::mem::take(&mut self.out))
    }

    /// Ends the dump.
    ///
    /// # Errors
    /// Where something was damaged: the dump is not everything.
    pub(super) fn end(self) -> Result<(), Failure> {
        output::write(&self.out)?;
        if self.damaged.is_empty() {
            return Ok(());
        }
        let places: Vec<String> = self.damaged.iter().map(|r| format!("{}..{}", r.start, r.end)).collect();
        Err(Failure::new(format!("{} is damaged at bytes {}", self.name, places.join(", "))))
    }
}

/// A row as the servers' answers show it; of a value in a blob file, where it lies.
fn row_json(out: &mut Vec<u8>, row: &RowRef<'_>) {
    let (op, value) = match row.value {
        ValueRef::Put(value) => (Op::Put, Some(value)),
        ValueRef::Delete => (Op::Delete, None),
        ValueRef::Blob(p) => {
            out.extend_from_slice(b"{\"op\":\"put\",");
            write_field(out, "key", row.key, Encoding::Auto);
            let place = json!({ "file": p.blob, "offset": p.offset, "len": p.len, "crc": p.crc });
            out.extend_from_slice(format!(",\"blob\":{place},\"seq\":{},\"time\":\"", row.seq).as_bytes());
            write_rfc3339(out, row.time.0);
            out.extend_from_slice(b"\",\"expires\":");
            match row.expires {
                None => out.extend_from_slice(b"null}"),
                Some(expires) => {
                    out.push(b'"');
                    write_rfc3339(out, expires.0);
                    out.extend_from_slice(b"\"}");
                }
            }
            return;
        }
    };
    let row = RowJson {
        op: Some(op),
        key: row.key,
        value,
        value_len: None,
        seq: row.seq.0,
        time: row.time.0,
        expires: row.expires.map(|e| e.0),
        cursor: None,
    };
    write_row_json(out, &row, Encoding::Auto);
}
