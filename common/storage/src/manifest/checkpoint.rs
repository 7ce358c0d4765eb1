//! Checkpoint objects: a whole manifest, compressed and checksummed.
//!
//! | bytes | field |
//! | --- | --- |
//! | 8 | magic `ISLM` and version |
//! | 8 | length of the manifest's JSON, little-endian |
//! | per block | stored length (4, little-endian), then a sealed block ([`crate::format::block`]) of at most [`BLOCK`] bytes of JSON |
//! | 4 | CRC32C of everything before, little-endian |
//!
//! JSON, because a manifest must outlive the programs that wrote it: an older one keeps the fields it does not know,
//! and a person with `zstd` and patience can read it. A field that must not be ignored is announced in
//! `required_features`, which is looked at before anything else is made of the rest.

use bytes::Bytes;
use serde::Deserialize;

use super::check;
use super::state::{FORMAT, KNOWN_FEATURES, Manifest};
use crate::format::{Compression, Crc, Damage, FormatError, Preamble, Reader, Sealer, open, preamble};

const WHAT: &str = "checkpoint";

pub(crate) const PREAMBLE: Preamble = Preamble { what: WHAT, magic: *b"ISLM", version: 1 };

/// JSON bytes in one block.
const BLOCK: usize = 1024 * 1024;

/// Longest JSON a checkpoint may hold. A manifest of a million tables takes about a third of it; more is refused
/// before memory is taken for it.
pub const MAX_JSON: usize = 1024 * 1024 * 1024;

/// Encodes a manifest as a checkpoint object.
#[must_use]
pub fn encode(manifest: &Manifest) -> Bytes {
    // Serializing fails only for maps whose keys are not texts, and a manifest has none; if one ever did, the empty
    // JSON is refused when the checkpoint is read back, which happens before anything rests on it.
    let json = serde_json::to_vec(manifest).unwrap_or_default();
    let mut sealer = Sealer::new(Compression::Zstd);
    let mut out = PREAMBLE.encode().to_vec();
    out.extend_from_slice(&(json.len() as u64).to_le_bytes());
    for block in json.chunks(BLOCK) {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        let stored = sealer.seal_to(block, &mut out) as u32;
        out[at..at + 4].copy_from_slice(&stored.to_le_bytes());
    }
    let crc = Crc::of(&out).value();
    out.extend_from_slice(&crc.to_le_bytes());
    out.into()
}

/// Decodes and checks a checkpoint object.
///
/// # Errors
/// [`FormatError`] where the bytes are damaged, of a newer version, or break an invariant.
pub fn decode(bytes: &[u8]) -> Result<Manifest, FormatError> {
    let json = unpack(bytes)?;
    let damaged = |e: serde_json::Error| FormatError::damaged(WHAT, format!("its JSON: {e}"));
    refuse_newer(&serde_json::from_slice(&json).map_err(damaged)?)?;
    let manifest: Manifest = serde_json::from_slice(&json).map_err(damaged)?;
    check::whole(&manifest).map_err(|v| FormatError::damaged(WHAT, v.to_string()))?;
    Ok(manifest)
}

/// What must be known before the rest is read: a newer version may have changed everything else.
#[derive(Deserialize)]
struct Announced {
    format: u32,
    #[serde(default)]
    required_features: Vec<String>,
}

fn refuse_newer(a: &Announced) -> Result<(), FormatError> {
    if a.format > FORMAT {
        return Err(FormatError::too_new(
            WHAT,
            format!("manifest format {}, this build reads {FORMAT}", a.format),
        ));
    }
    match a.required_features.iter().find(|f| !KNOWN_FEATURES.contains(&f.as_str())) {
        Some(f) => {
            Err(FormatError::too_new(WHAT, format!("it needs the feature {f:?}, unknown to this build")))
        }
        None => Ok(()),
    }
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
    PREAMBLE.check(bytes)?;
    let Some((body, crc)) = bytes.split_last_chunk::<4>() else {
        return Err(FormatError::damaged(WHAT, format!("{} bytes are too few", bytes.len())));
    };
    if Crc::of(body).value() != u32::from_le_bytes(*crc) {
        return Err(FormatError::damaged(WHAT, "its checksum does not match"));
    }
    let mut r = Reader::new(WHAT, body);
    r.bytes(preamble::LEN)?;
    let len = r.u64()?;
    if len > MAX_JSON as u64 {
        return Err(r.damaged(format!("it declares {len} bytes of JSON, more than {MAX_JSON}")));
    }
    let mut json = Vec::new();
    while r.remaining() > 0 {
        let (content, stored) = read_block(&body[body.len() - r.remaining()..])?;
        r.bytes(stored)?;
        json.extend_from_slice(&content);
        if json.len() as u64 > len {
            return Err(r.damaged(format!("it holds more than the {len} bytes it declares")));
        }
    }
    if json.len() as u64 != len {
        return Err(r.damaged(format!("it holds {} bytes where {len} were declared", json.len())));
    }
    Ok(json)
}

/// As much of the manifest's JSON as can be read of a damaged checkpoint, from its beginning on, and what is wrong.
/// Nothing wrong: the JSON is whole.
#[must_use]
pub fn salvage(bytes: &[u8]) -> (Vec<u8>, Vec<Damage>) {
    let len = bytes.len();
    let body = len.saturating_sub(4);
    let mut damage = Vec::new();
    let mut note = |range: std::ops::Range<usize>, error| {
        damage.push(Damage { range: range.start as u64..range.end as u64, error });
    };
    if let Err(error) = PREAMBLE.check(bytes) {
        note(0..len.min(preamble::LEN), error);
    }
    let mut json = Vec::new();
    let mut at = (preamble::LEN + 8).min(body);
    let declared = bytes.get(preamble::LEN..at).and_then(|b| b.first_chunk()).map(|b| u64::from_le_bytes(*b));
    while at < body {
        match read_block(&bytes[at..body]) {
            Ok((content, stored)) => {
                json.extend_from_slice(&content);
                at += stored;
            }
            Err(error) => {
                note(at..body, error);
                break;
            }
        }
    }
    if at == body && declared != Some(json.len() as u64) {
        let why = format!("it holds {} bytes of JSON, which is not what it declares", json.len());
        note(0..at, FormatError::damaged(WHAT, why));
    }
    let stated = bytes.get(body..).and_then(|b| b.first_chunk()).map(|b| u32::from_le_bytes(*b));
    if stated != Some(Crc::of(&bytes[..body]).value()) {
        note(body..len, FormatError::damaged(WHAT, "its checksum does not match"));
    }
    (json, damage)
}

/// The block at the beginning of `bytes`, opened, and how many bytes it takes with its length.
fn read_block(bytes: &[u8]) -> Result<(Bytes, usize), FormatError> {
    let mut r = Reader::new(WHAT, bytes);
    let stored = r.u32()? as usize;
    let content = open(WHAT, &Bytes::copy_from_slice(r.bytes(stored)?))?;
    Ok((content, 4 + stored))
}
