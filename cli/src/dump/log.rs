//! `isle dump log`.

use isle_storage::ids::SeqNo;
use isle_storage::log::{LogHeader, Salvage, text};
use isle_storage::manifest::LogTail;
use isle_storage::names::{self, LogKind, ObjectPath};
use serde_json::{Value, json};

use super::Object;
use super::print::Printer;
use crate::args::HowToDump;
use crate::output::Failure;

/// A log object's path, from its file name or the path itself.
pub(super) fn path(reference: &str) -> Result<ObjectPath, String> {
    if reference.contains('/') {
        ObjectPath::new(reference)
    } else {
        ObjectPath::new(format!("log/{reference}"))
    }
}

pub(super) fn dump(object: &Object, how: &HowToDump) -> Result<(), Failure> {
    let file = object.name.rsplit('/').next().unwrap_or_default();
    let named = names::parse_log(&format!("log/{file}")).map(|(id, _)| id.first_seq);
    let salvage = Salvage::of(&object.bytes, named.unwrap_or(SeqNo(1)));
    let mut out = Printer::new(object, how);
    let len = object.bytes.len();
    out.fact(
        "log",
        &format!("object {} len={len}", object.name),
        &json!({ "name": object.name, "len": len }),
    )?;
    if let Some(header) = &salvage.header {
        out.fact("header", &text::header(header), &facts(header))?;
    }
    if !salvage.numbered {
        let from = if named.is_some() { "the number in the object's name" } else { "1" };
        let why = format!("numbers are counted from {from}, and times from the beginning of their block");
        out.fact("note", &format!("# without the index, {why}"), &why)?;
    }
    for (range, block) in &salvage.blocks {
        out.block(range, u64::from(block.count))?;
        if out.wants_rows() {
            block.rows().try_for_each(|row| out.row(&row))?;
        }
    }
    salvage.damage.iter().try_for_each(|d| out.damage(d))?;
    out.end()
}

fn facts(h: &LogHeader) -> Value {
    json!({
        "kind": match h.kind { LogKind::Segment => "segment", LogKind::Chunk => "chunk" },
        "database": h.database.to_string(),
        "lineage": h.lineage.to_string(),
        "epoch": h.epoch,
        "incarnation": h.incarnation,
        "first_seq": h.first_seq,
        "last_seq": h.last_seq,
        "previous": h.previous.as_ref().map(link),
        "starts_generation": h.starts_generation,
        "blobs": h.blobs,
        "parts": h.parts.iter().map(link).collect::<Vec<_>>(),
    })
}

fn link(tail: &LogTail) -> String {
    format!("{}..{}", tail.id, tail.last_seq)
}
