//! Sealed blocks and sections.

use isle_storage::format::{self, MAX_BLOCK_RAW, REQUIRED, Sections, checksum};

/// Any bytes as a sealed block; and, with their checksum made right, as payload (all but the first five), length and
/// way of storing.
pub fn sealed_block(data: &[u8]) {
    opened(data);
    if let Some((fixed, payload)) = data.split_first_chunk::<5>() {
        let mut stored = [payload, &fixed[..]].concat();
        stored.extend_from_slice(&checksum::crc32c(&stored).to_le_bytes());
        if let Some(len) = opened(&stored) {
            assert_eq!(len, u32::from_le_bytes([fixed[1], fixed[2], fixed[3], fixed[4]]) as usize);
        }
    }
}

fn opened(stored: &[u8]) -> Option<usize> {
    let raw = format::open("block", &stored.to_vec().into()).ok()?;
    assert!(raw.len() <= MAX_BLOCK_RAW);
    Some(raw.len())
}

/// Any bytes as a container of sections.
pub fn sections(data: &[u8]) {
    let known = [1, 2, REQUIRED | 1];
    let Ok(sections) = Sections::parse("container", data, &known) else { return };
    for tag in known {
        assert_eq!(sections.get(tag).is_some(), sections.need(tag).is_ok());
        assert!(sections.get(tag).is_none_or(|content| content.len() + 6 <= data.len()));
    }
}
