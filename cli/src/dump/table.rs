//! `isle dump table`.

use isle_storage::names::{self, ObjectPath};
use isle_storage::sst::Salvage;
use serde_json::json;

use super::Object;
use super::print::Printer;
use crate::args::HowToDump;
use crate::output::Failure;

/// A table's path, from its name or the path itself.
pub(super) fn path(reference: &str) -> Result<ObjectPath, String> {
    if names::is_name(reference) { Ok(names::table(reference)) } else { ObjectPath::new(reference) }
}

pub(super) fn dump(object: &Object, how: &HowToDump) -> Result<(), Failure> {
    let salvage = Salvage::of(&object.bytes);
    let mut out = Printer::new(object, how);
    let (len, blocks) = (object.bytes.len(), salvage.blocks.len());
    let filter = if salvage.filter { "sound" } else { "damaged or missing" };
    out.fact(
        "table",
        &format!("table {} len={len} blocks={blocks} filter={}", object.name, filter.replace(' ', "-")),
        &json!({ "name": object.name, "len": len, "blocks": blocks, "filter": filter }),
    )?;
    if let Some(p) = &salvage.properties {
        out.fact("properties", &format!("properties {}", serde_json::to_string(p)?), p)?;
    }
    for i in 0..blocks {
        match salvage.block(i) {
            Ok(block) => {
                out.block(&salvage.blocks[i], block.len() as u64)?;
                let mut cursor = block.cursor();
                cursor.first();
                while let Some(row) = cursor.row().filter(|_| out.wants_rows()) {
                    out.row(&row)?;
                    cursor.next();
                }
            }
            Err(damage) => out.damage(&damage)?,
        }
    }
    salvage.damage.iter().try_for_each(|d| out.damage(d))?;
    out.end()
}
