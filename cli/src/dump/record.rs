//! `isle dump manifest` of what lies beside the checkpoints: edits, folds, epochs, lineages, and notes without a checksum.

use isle_storage::coordination::sealed;
use isle_storage::format::{Damage, FormatError};
use isle_storage::names;
use serde_json::Value;

use super::Object;
use super::manifest::in_manifest;
use super::print::Printer;
use crate::args::HowToDump;
use crate::output::Failure;

/// Content of a pin or a floor: its name says everything.
const NOTE: &[u8] = b"isle";

pub(super) fn dump(object: &Object, how: &HowToDump) -> Result<(), Failure> {
    let mut out = Printer::new(object, how);
    match kind(object) {
        Some(kind) => sealed(&mut out, kind, &object.bytes)?,
        None => unsealed(&mut out, object)?,
    }
    out.end()
}

/// What the object must be sealed as: by its name, else by its first line.
fn kind(object: &Object) -> Option<&str> {
    let path = in_manifest(object);
    if names::parse_edit(&path).is_some() {
        Some("edit")
    } else if names::parse_fold(&path).is_some() {
        Some("fold")
    } else if names::parse_epoch(&path).is_some() {
        Some("epoch")
    } else if names::parse_lineage(&path).is_some() {
        Some("lineage")
    } else {
        sealed::kind(&object.bytes)
    }
}

fn sealed(out: &mut Printer<'_>, kind: &str, bytes: &[u8]) -> Result<(), Failure> {
    let (json, damage) = sealed::salvage(kind, bytes);
    match serde_json::from_slice::<Value>(json) {
        Ok(value) => out.fact(kind, &printable(bytes), &value)?,
        Err(_) => out.fact("part", &printable(bytes), &printable(json))?,
    }
    damage.iter().try_for_each(|d| out.damage(d))
}

/// Edits too large for the coordination service, whose checksum stands beside the reference to them, and notes.
fn unsealed(out: &mut Printer<'_>, object: &Object) -> Result<(), Failure> {
    let bytes = &object.bytes;
    let text = printable(bytes);
    let path = in_manifest(object);
    let is_note = names::parse_pin(&path).is_some() || names::parse_floor(&path).is_some();
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => out.fact("object", &text, &value),
        Err(_) if is_note && bytes == NOTE => out.fact("note", &text, &text),
        Err(e) => {
            out.fact("part", &text, &text)?;
            let why =
                if is_note { "it is not what every such object holds".to_owned() } else { e.to_string() };
            let error = FormatError::damaged("object", why);
            out.damage(&Damage { range: 0..bytes.len() as u64, error })
        }
    }
}

/// Bytes as text that does no harm to a terminal.
pub(super) fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(bytes).chars() {
        if c.is_control() && c != '\n' {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text.truncate(text.trim_end().len());
    text
}
