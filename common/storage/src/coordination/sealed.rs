//! The envelope of coordination's small JSON objects (epoch and lineage objects, numbered edits, fold records): one
//! line that names the kind, the envelope's version and a checksum, then the JSON.
//!
//! ```text
//! isle-epoch 1 8a9136aa\n
//! {"database":"…","lineage":"…",…}\n
//! ```
//! `cat` shows what is in it, and a flipped bit is an error instead of an answer.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CoordinationError;
use crate::format::{Damage, FormatError};

/// Version of the envelope.
const VERSION: &str = "1";

/// No first line is longer.
const LONGEST_LINE: usize = 64;

/// Wraps a value.
///
/// # Errors
/// [`CoordinationError::Damaged`] where the value has no JSON form; none of ours is like that.
pub fn seal<T: Serialize>(kind: &str, value: &T) -> Result<Bytes, CoordinationError> {
    let mut json = serde_json::to_vec(value)
        .map_err(|e| CoordinationError::Damaged(format!("the {kind} could not be written as JSON: {e}")))?;
    json.push(b'\n');
    let mut out = format!("isle-{kind} {VERSION} {:08x}\n", crc32c::crc32c(&json)).into_bytes();
    out.append(&mut json);
    Ok(out.into())
}

/// Unwraps a value; `name` is the object's, for messages.
///
/// # Errors
/// [`CoordinationError::Damaged`] where the bytes are not a `kind`, are damaged, or were written by a newer version.
pub fn open<T: DeserializeOwned>(kind: &str, name: &str, bytes: &[u8]) -> Result<T, CoordinationError> {
    let damaged = |why: String| CoordinationError::Damaged(format!("{name} is damaged: {why}"));
    let end =
        bytes.iter().position(|b| *b == b'\n').ok_or_else(|| damaged("it has no first line".to_owned()))?;
    let (line, json) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 1..]);
    let fields: Vec<&str> = line.split(' ').collect();
    let [found, version, crc] = fields[..] else {
        return Err(damaged("its first line is not that of a sealed object".to_owned()));
    };
    if found.strip_prefix("isle-") != Some(kind) {
        return Err(damaged(format!("it is a {found:?}, not an \"isle-{kind}\"")));
    }
    if version != VERSION {
        return Err(CoordinationError::Damaged(format!(
            "{name} was written by a newer version (envelope {version}): upgrade this program"
        )));
    }
    if crc != format!("{:08x}", crc32c::crc32c(json)) {
        return Err(damaged("its checksum does not match".to_owned()));
    }
    serde_json::from_slice(json).map_err(|e| damaged(e.to_string()))
}

/// The kind that the first line names, if it is that of a sealed object.
#[must_use]
pub fn kind(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().take(LONGEST_LINE).position(|b| *b == b'\n')?;
    let line = std::str::from_utf8(&bytes[..end]).ok()?;
    line.strip_prefix("isle-")?.split(' ').next().filter(|kind| !kind.is_empty())
}

/// What comes after the first line (everything, where there is none), and what is wrong with the object as one of `kind`,
/// if anything is.
#[must_use]
pub fn salvage<'a>(kind: &str, bytes: &'a [u8]) -> (&'a [u8], Option<Damage>) {
    let start = bytes.iter().take(LONGEST_LINE).position(|b| *b == b'\n').map_or(0, |end| end + 1);
    let error = match open::<serde_json::Value>(kind, "it", bytes) {
        Ok(_) => return (&bytes[start..], None),
        Err(CoordinationError::Damaged(why)) => why,
        Err(e) => e.to_string(),
    };
    let why = error.strip_prefix("it is damaged: ").unwrap_or(&error);
    let damage = Damage { range: 0..bytes.len() as u64, error: FormatError::damaged("sealed record", why) };
    (&bytes[start..], Some(damage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_and_no_flipped_bit_does() {
        let sealed = seal("thing", &vec![1, 2, 3]).unwrap();
        assert_eq!(open::<Vec<i32>>("thing", "t", &sealed).unwrap(), [1, 2, 3]);
        assert!(open::<Vec<i32>>("other", "t", &sealed).is_err());
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open::<Vec<i32>>("thing", "t", &bad).is_err(), "bit {bit}");
        }
        for cut in 0..sealed.len() {
            assert!(open::<Vec<i32>>("thing", "t", &sealed[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_salvage_shows_what_is_there_and_says_what_is_wrong() {
        let sealed = seal("thing", &vec![1, 2, 3]).unwrap();
        assert_eq!(kind(&sealed), Some("thing"));
        assert_eq!(salvage("thing", &sealed), (b"[1,2,3]\n".as_slice(), None));
        assert!(salvage("other", &sealed).1.is_some());
        let (mut flipped, mut longer) = (sealed.to_vec(), sealed.to_vec());
        *flipped.last_mut().unwrap() ^= 1;
        longer.push(b'x');
        for bad in [flipped.as_slice(), &longer, &sealed[..sealed.len() - 2], b"", b"\xff\xfe"] {
            let (_, damage) = salvage("thing", bad);
            assert_eq!(damage.unwrap().range, 0..bad.len() as u64);
        }
    }
}
