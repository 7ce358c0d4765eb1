//! Checkpoints, edits, and the manifest's text form.

use isle_storage::format::{Compression, Sealer, checksum};
use isle_storage::manifest::{self as forms, Edit, Manifest, check};
use serde_json::Value as Json;

/// The manifest that edits are applied to.
const BASE: &str = include_str!("../../tests/fixtures/v1/manifest.txt");

/// Any bytes as a checkpoint; and, packed and checksummed, as its JSON. What is accepted is whole and comes back.
pub fn checkpoint(data: &[u8]) {
    let _ = forms::checkpoint::decode(data);
    if let Ok(m) = forms::checkpoint::decode(&packed(data)) {
        assert_eq!(check::whole(&m), Ok(()));
        comes_back(&m);
    }
}

fn packed(json: &[u8]) -> Vec<u8> {
    let mut out = b"ISLM\x01\0\0\0".to_vec();
    out.extend_from_slice(&(json.len() as u64).to_le_bytes());
    let mut stored = Vec::new();
    Sealer::new(Compression::None).seal_to(json, &mut stored);
    out.extend_from_slice(&(stored.len() as u32).to_le_bytes());
    out.extend_from_slice(&stored);
    out.extend_from_slice(&checksum::crc32c(&out).to_le_bytes());
    out
}

/// Any bytes as an edit's JSON. What is accepted comes back, and applied to a manifest is refused or leaves it whole.
pub fn edit(data: &[u8]) {
    let Ok(mut edit) = Edit::from_json(data) else { return };
    let Ok(json) = edit.to_json() else { panic!("read and not written") };
    let exact = serde_json::from_slice(&json).is_ok_and(|j: Json| !has_fractions(&j));
    assert!(!exact || Edit::from_json(&json).as_ref() == Ok(&edit));
    let Ok(base) = forms::text::parse(BASE) else { panic!("the base does not parse") };
    let _ = base.apply(&edit);
    (edit.version, edit.lineage) = (base.version.next(), base.lineage);
    for epoch in [base.epoch, edit.epoch] {
        edit.epoch = epoch;
        if let Ok(next) = base.apply(&edit) {
            assert_eq!(check::whole(&next), Ok(()));
            comes_back(&next);
        }
    }
}

/// Any bytes as the manifest's text form. What is accepted prints and parses back, whole or not.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(m) = forms::text::parse(text) else { return };
    if check::whole(&m).is_ok() {
        comes_back(&m);
    } else if !fractions_in(&m) {
        assert_eq!(forms::text::parse(&forms::text::print(&m)).as_ref(), Ok(&m));
    }
}

fn comes_back(m: &Manifest) {
    // A fraction in a field of a newer version may come back as its neighbour.
    if fractions_in(m) {
        return;
    }
    assert_eq!(forms::text::parse(&forms::text::print(m)).as_ref(), Ok(m));
    assert_eq!(forms::checkpoint::decode(&forms::checkpoint::encode(m)).as_ref(), Ok(m));
}

fn fractions_in(m: &Manifest) -> bool {
    serde_json::to_value(m).is_ok_and(|json| has_fractions(&json))
}

fn has_fractions(json: &Json) -> bool {
    match json {
        Json::Number(n) => n.is_f64(),
        Json::Array(items) => items.iter().any(has_fractions),
        Json::Object(fields) => fields.values().any(has_fractions),
        _ => false,
    }
}
