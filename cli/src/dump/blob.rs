//! `isle dump blob`.

use isle_storage::blob::{Salvage, SalvagedValue};
use isle_storage::names::{self, ObjectPath};
use serde_json::json;

use super::Object;
use super::print::Printer;
use crate::args::HowToDump;
use crate::output::Failure;

/// Bytes of a value that are shown.
const SHOWN: usize = 64;

/// A blob file's path, from its name or the path itself.
pub(super) fn path(reference: &str) -> Result<ObjectPath, String> {
    if names::is_name(reference) { Ok(names::blob(reference)) } else { ObjectPath::new(reference) }
}

pub(super) fn dump(object: &Object, how: &HowToDump) -> Result<(), Failure> {
    let salvage = Salvage::of(&object.bytes);
    let mut out = Printer::new(object, how);
    let (len, values) = (object.bytes.len(), salvage.values.len());
    out.fact(
        "blob",
        &format!("blob {} len={len} values={values}", object.name),
        &json!({ "name": object.name, "len": len, "values": values }),
    )?;
    if !salvage.listed {
        let why =
            "without the directory, values are told apart by their last chunks, and empty ones are not seen";
        out.fact("note", &format!("# {why}"), &why)?;
    }
    if out.wants_rows() {
        salvage.values.iter().try_for_each(|v| value(&mut out, v))?;
    }
    salvage.damage.iter().try_for_each(|d| out.damage(d))?;
    out.end()
}

fn value(out: &mut Printer<'_>, v: &SalvagedValue) -> Result<(), Failure> {
    let crc = v.crc.map_or_else(|| "unknown".to_owned(), |crc| format!("{crc:#010x}"));
    let first = v.chunks.first().cloned().flatten().unwrap_or_default();
    let begins = first[..first.len().min(SHOWN)].escape_ascii().to_string();
    let missing = v.chunks.iter().filter(|c| c.is_none()).count();
    let text = format!(
        "value at={} len={} crc={crc} chunks={} missing={missing} begins=\"{begins}\"",
        v.offset,
        v.len,
        v.chunks.len()
    );
    let json = json!({
        "at": v.offset, "len": v.len, "crc": v.crc, "chunks": v.chunks.len(), "missing": missing, "begins": begins,
    });
    out.fact("value", &text, &json)
}
